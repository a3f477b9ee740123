package podspec

import (
	"fmt"
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// MoveAppArmor copies AppArmor profiles from the annotations that were the fields' forerunners into the containers that
// have none of their own, and returns a warning for each annotation that still did something or could not be read.
func MoveAppArmor(spec *corev1.PodSpec, annotations map[string]string) []string {
	if spec.OS != nil && spec.OS.Name == corev1.Windows {
		return nil
	}
	var warnings []string
	for c := range Containers(spec, nil) {
		text, set := annotations[apparmorContainerKey+c.Name]
		if !set || c.SecurityContext != nil && c.SecurityContext.AppArmorProfile != nil {
			continue
		}
		profile := armorProfile(text)
		if profile != nil && reflect.DeepEqual(profile, podArmor(spec)) {
			continue
		}
		if profile != nil {
			if c.SecurityContext == nil {
				c.SecurityContext = &corev1.SecurityContext{}
			}
			c.SecurityContext.AppArmorProfile = profile
		}
		warnings = append(warnings, armorWarning(nil, c.Name))
	}
	return warnings
}

func podArmor(spec *corev1.PodSpec) *corev1.AppArmorProfile {
	if spec.SecurityContext == nil {
		return nil
	}
	return spec.SecurityContext.AppArmorProfile
}

func armorWarning(path *field.Path, container string) string {
	return fmt.Sprintf(`%s: deprecated since v1.30; use the "appArmorProfile" field instead`,
		path.Child("metadata", "annotations").Key(apparmorContainerKey+container))
}

// armorProfile is what an annotation says, or nil if that is not a valid profile.
func armorProfile(text string) *corev1.AppArmorProfile {
	switch text {
	case corev1.DeprecatedAppArmorBetaProfileNameUnconfined:
		return &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeUnconfined}
	case corev1.DeprecatedAppArmorBetaProfileRuntimeDefault:
		return &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeRuntimeDefault}
	}
	local, ok := strings.CutPrefix(text, corev1.DeprecatedAppArmorBetaProfileNamePrefix)
	if !ok || local == "" {
		return nil
	}
	profile := &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeLocalhost, LocalhostProfile: &local}
	if len(ValidateAppArmor(profile, nil)) > 0 {
		return nil
	}
	return profile
}
