package podspec

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource/volumesource"
)

// Annotations that were fields' forerunners and are still checked.
const (
	tolerationsKey       = "scheduler.alpha.kubernetes.io/tolerations"
	seccompPodKey        = corev1.SeccompPodAnnotationKey
	seccompContainerKey  = corev1.SeccompContainerAnnotationKeyPrefix
	apparmorContainerKey = corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix
)

// ValidateAnnotations checks the annotations that mean something to pods.
func ValidateAnnotations(annotations map[string]string, spec *corev1.PodSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if value, mirror := annotations[corev1.MirrorPodAnnotationKey]; mirror && spec.NodeName == "" {
		errs = append(errs, field.Invalid(path.Key(corev1.MirrorPodAnnotationKey), value, "must set spec.nodeName if mirror pod annotation is set"))
	}
	if text := annotations[tolerationsKey]; text != "" {
		var tolerations []corev1.Toleration
		if err := json.Unmarshal([]byte(text), &tolerations); err != nil {
			errs = append(errs, field.Invalid(path, tolerationsKey, err.Error()))
		} else {
			errs = append(errs, ValidateTolerations(tolerations, path.Child(tolerationsKey))...)
		}
	}
	if cost, ok := annotations[corev1.PodDeletionCost]; ok && !isDeletionCost(cost) {
		errs = append(errs, field.Invalid(path.Key(corev1.PodDeletionCost), cost, "must be a 32bit integer"))
	}
	for key, value := range annotations {
		switch {
		case key == seccompPodKey, strings.HasPrefix(key, seccompContainerKey):
			errs = append(errs, validateSeccompName(value, path.Child(key))...)
		case strings.HasPrefix(key, apparmorContainerKey):
			errs = append(errs, validateAppArmorName(key, value, spec, path.Key(key))...)
		}
	}
	return errs
}

// isDeletionCost: a number as Go writes it, without a plus sign or leading zeros.
func isDeletionCost(text string) bool {
	n, err := strconv.ParseInt(text, 10, 32)
	return err == nil && strconv.FormatInt(n, 10) == text
}

func validateSeccompName(name string, path *field.Path) field.ErrorList {
	switch name {
	case corev1.SeccompProfileRuntimeDefault, corev1.DeprecatedSeccompProfileDockerDefault, corev1.SeccompProfileNameUnconfined:
		return nil
	}
	if local, ok := strings.CutPrefix(name, corev1.SeccompLocalhostProfileNamePrefix); ok {
		return volumesource.Below(local, path)
	}
	return field.ErrorList{field.Invalid(path, name, "must be a valid seccomp profile")}
}

func validateAppArmorName(key, profile string, spec *corev1.PodSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	name := strings.TrimPrefix(key, apparmorContainerKey)
	found := false
	for c := range Containers(spec, nil) {
		found = found || c.Name == name
	}
	if !found {
		errs = append(errs, field.Invalid(path, name, "container not found"))
	}
	switch profile {
	case "", corev1.DeprecatedAppArmorBetaProfileRuntimeDefault, corev1.DeprecatedAppArmorBetaProfileNameUnconfined:
		return errs
	}
	if !strings.HasPrefix(profile, corev1.DeprecatedAppArmorBetaProfileNamePrefix) {
		errs = append(errs, field.Invalid(path, profile, fmt.Sprintf("invalid AppArmor profile name: %q", profile)))
	}
	return errs
}

// ValidateProfileAnnotations: an annotation and the field that came after it may not say different things.
// Path is that of the specification.
func ValidateProfileAnnotations(annotations map[string]string, spec *corev1.PodSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	var podArmor *corev1.AppArmorProfile
	if sc := spec.SecurityContext; sc != nil {
		podArmor = sc.AppArmorProfile
		if text, ok := annotations[seccompPodKey]; ok && sc.SeccompProfile != nil {
			errs = append(errs, sameSeccomp(text, sc.SeccompProfile, path.Child("securityContext", "seccompProfile"))...)
		}
	}
	for c, at := range Containers(spec, path) {
		armor := podArmor
		if sc := c.SecurityContext; sc != nil {
			if text, ok := annotations[seccompContainerKey+c.Name]; ok && sc.SeccompProfile != nil {
				errs = append(errs, sameSeccomp(text, sc.SeccompProfile, at.Child("securityContext", "seccompProfile"))...)
			}
			if sc.AppArmorProfile != nil {
				armor = sc.AppArmorProfile
			}
		}
		if text, ok := annotations[apparmorContainerKey+c.Name]; ok && armor != nil && (spec.OS == nil || spec.OS.Name != corev1.Windows) {
			errs = append(errs, sameArmor(text, armor, at.Child("securityContext", "appArmorProfile"))...)
		}
	}
	return errs
}

func sameSeccomp(text string, p *corev1.SeccompProfile, path *field.Path) field.ErrorList {
	const differ = "seccomp type in annotation and field must match"
	switch p.Type {
	case corev1.SeccompProfileTypeUnconfined:
		if text != corev1.SeccompProfileNameUnconfined {
			return field.ErrorList{field.Forbidden(path.Child("type"), differ)}
		}
	case corev1.SeccompProfileTypeRuntimeDefault:
		if text != corev1.SeccompProfileRuntimeDefault && text != corev1.DeprecatedSeccompProfileDockerDefault {
			return field.ErrorList{field.Forbidden(path.Child("type"), differ)}
		}
	case corev1.SeccompProfileTypeLocalhost:
		local, ok := strings.CutPrefix(text, corev1.SeccompLocalhostProfileNamePrefix)
		if !ok {
			return field.ErrorList{field.Forbidden(path.Child("type"), differ)}
		}
		if p.LocalhostProfile == nil || local != *p.LocalhostProfile {
			return field.ErrorList{field.Forbidden(path.Child("localhostProfile"), "seccomp profile in annotation and field must match")}
		}
	}
	return nil
}

func sameArmor(text string, p *corev1.AppArmorProfile, path *field.Path) field.ErrorList {
	const differ = "apparmor type in annotation and field must match"
	switch p.Type {
	case corev1.AppArmorProfileTypeUnconfined:
		if text != corev1.DeprecatedAppArmorBetaProfileNameUnconfined {
			return field.ErrorList{field.Forbidden(path.Child("type"), differ)}
		}
	case corev1.AppArmorProfileTypeRuntimeDefault:
		if text != corev1.DeprecatedAppArmorBetaProfileRuntimeDefault {
			return field.ErrorList{field.Forbidden(path.Child("type"), differ)}
		}
	case corev1.AppArmorProfileTypeLocalhost:
		local, ok := strings.CutPrefix(text, corev1.DeprecatedAppArmorBetaProfileNamePrefix)
		if !ok {
			return field.ErrorList{field.Forbidden(path.Child("type"), differ)}
		}
		if p.LocalhostProfile == nil || local != *p.LocalhostProfile {
			return field.ErrorList{field.Forbidden(path.Child("localhostProfile"), "apparmor profile in annotation and field must match")}
		}
	}
	return nil
}
