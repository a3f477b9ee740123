package core

import (
	"fmt"
	"math"
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource/podspec"
)

var specPath = field.NewPath("spec")

// validatePod checks a new pod.
func validatePod(p *corev1.Pod) field.ErrorList {
	errs := validatePodAlways(p)
	if len(p.Spec.EphemeralContainers) > 0 {
		errs = append(errs, field.Forbidden(specPath.Child("ephemeralContainers"), "cannot be set on create"))
	}
	if p.Spec.NodeName != "" && len(p.Spec.SchedulingGates) > 0 {
		errs = append(errs, field.Forbidden(specPath.Child("nodeName"), "cannot be set until all schedulingGates have been cleared"))
	}
	return append(errs, podspec.ValidateProfileAnnotations(p.Annotations, &p.Spec, specPath)...)
}

// validatePodAlways holds on create and on every update.
func validatePodAlways(p *corev1.Pod) field.ErrorList {
	errs := podspec.ValidateAnnotations(p.Annotations, &p.Spec, field.NewPath("metadata", "annotations"))
	errs = append(errs, podspec.Validate(&p.Spec, &p.ObjectMeta, specPath)...)
	if p.Spec.ServiceAccountName == "" {
		errs = append(errs, validateNoTokens(p)...)
	}
	if grace := p.Spec.TerminationGracePeriodSeconds; grace != nil {
		errs = append(errs, apivalidation.ValidateNonnegativeField(*grace, specPath.Child("terminationGracePeriodSeconds"))...)
	}
	for _, list := range []struct {
		name       string
		containers []corev1.Container
	}{{"containers", p.Spec.Containers}, {"initContainers", p.Spec.InitContainers}} {
		for i, c := range list.containers {
			errs = append(errs, podspec.ValidateImageText(c.Image, specPath.Child(list.name).Index(i).Child("image"))...)
		}
	}
	return errs
}

// validateNoTokens: without a service account there is nobody for whom a token could be issued.
func validateNoTokens(p *corev1.Pod) field.ErrorList {
	var errs field.ErrorList
	for i, v := range p.Spec.Volumes {
		if v.Projected == nil {
			continue
		}
		for j, s := range v.Projected.Sources {
			if s.ServiceAccountToken != nil {
				at := specPath.Child("volumes").Index(i).Child("projected", "sources").Index(j).Child("serviceAccountToken")
				errs = append(errs, field.Forbidden(at, "must not be specified when serviceAccountName is not set"))
			}
		}
	}
	return errs
}

var updatable = strings.Join([]string{
	"`spec.containers[*].image`", "`spec.initContainers[*].image`", "`spec.activeDeadlineSeconds`",
	"`spec.tolerations` (only additions to existing tolerations)",
	"`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
}, ",")

// validatePodUpdate lets through what may change of a running pod, and of a gated one a narrower choice of nodes.
func validatePodUpdate(p, old *corev1.Pod) field.ErrorList {
	errs := validatePodAlways(p)
	errs = append(errs, validateAnnotationUpdate(p, old)...)
	for _, list := range []struct {
		name     string
		now, was []corev1.Container
	}{
		{"containers", p.Spec.Containers, old.Spec.Containers},
		{"initContainers", p.Spec.InitContainers, old.Spec.InitContainers},
	} {
		path := specPath.Child(list.name)
		if len(list.now) != len(list.was) {
			return append(errs, field.Forbidden(path, "pod updates may not add or remove containers"))
		}
		for i, c := range list.now {
			if c.Image == "" {
				errs = append(errs, field.Required(path.Index(i).Child("image"), ""))
			}
			errs = append(errs, podspec.ValidateImageText(c.Image, path.Index(i).Child("image"))...)
		}
	}
	deadline, stop := validateDeadline(p.Spec.ActiveDeadlineSeconds, old.Spec.ActiveDeadlineSeconds)
	if errs = append(errs, deadline...); stop {
		return errs
	}
	errs = append(errs, validateAddedTolerations(p.Spec.Tolerations, old.Spec.Tolerations)...)
	errs = append(errs, validateRemovedGates(p.Spec.SchedulingGates, old.Spec.SchedulingGates)...)
	if equality.Semantic.DeepEqual(p.Spec, old.Spec) {
		return errs
	}
	// With everything that may change set back, nothing else may differ.
	spec := p.Spec.DeepCopy()
	for i := range spec.Containers {
		spec.Containers[i].Image = old.Spec.Containers[i].Image
	}
	for i := range spec.InitContainers {
		spec.InitContainers[i].Image = old.Spec.InitContainers[i].Image
	}
	spec.ActiveDeadlineSeconds = old.Spec.ActiveDeadlineSeconds
	spec.SchedulingGates = old.Spec.SchedulingGates
	spec.Tolerations = old.Spec.Tolerations
	if grace, was := spec.TerminationGracePeriodSeconds, old.Spec.TerminationGracePeriodSeconds; was != nil && *was < 0 && grace != nil && *grace == 1 {
		spec.TerminationGracePeriodSeconds = was
	}
	if len(old.Spec.SchedulingGates) > 0 {
		errs = append(errs, narrowNodes(spec, &old.Spec)...)
	}
	if !equality.Semantic.DeepEqual(*spec, old.Spec) {
		errs = append(errs, field.Forbidden(specPath, fmt.Sprintf("pod updates may not change fields other than %s\n%v", updatable, diff.Diff(old.Spec, *spec))))
	}
	return errs
}

// validateAnnotationUpdate keeps annotations that the node has acted upon.
func validateAnnotationUpdate(p, old *corev1.Pod) field.ErrorList {
	path := field.NewPath("metadata", "annotations")
	const armor = corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix
	var errs field.ErrorList
	refuse := func(key, what string) {
		if strings.HasPrefix(key, armor) {
			errs = append(errs, field.Forbidden(path.Key(key), fmt.Sprintf("may not %s AppArmor annotations", what)))
		}
		if key == corev1.MirrorPodAnnotationKey {
			errs = append(errs, field.Forbidden(path.Key(key), fmt.Sprintf("may not %s mirror pod annotation", what)))
		}
	}
	for key, was := range old.Annotations {
		if now, kept := p.Annotations[key]; !kept || now != was {
			refuse(key, "remove or update")
		}
	}
	for key := range p.Annotations {
		if _, had := old.Annotations[key]; !had {
			refuse(key, "add")
		}
	}
	// Upstream checks them once more here; its double errors are left out.
	return errs
}

// validateDeadline: a pod's life may be set, then only shortened. Stop means that nothing else need be checked.
func validateDeadline(now, was *int64) (errs field.ErrorList, stop bool) {
	path := specPath.Child("activeDeadlineSeconds")
	switch {
	case now == nil && was == nil:
		return nil, false
	case now == nil:
		return field.ErrorList{field.Invalid(path, now, "must not update from a positive integer to nil value")}, false
	case *now < 0 || *now > math.MaxInt32:
		return field.ErrorList{field.Invalid(path, *now, validation.InclusiveRangeError(0, math.MaxInt32))}, true
	case was != nil && *was < *now:
		return field.ErrorList{field.Invalid(path, *now, "must be less than or equal to previous value")}, true
	}
	return nil, false
}

func validateAddedTolerations(now, was []corev1.Toleration) field.ErrorList {
	path := specPath.Child("tolerations")
	for _, old := range was {
		found := false
		for _, t := range now {
			old.TolerationSeconds = t.TolerationSeconds
			found = found || reflect.DeepEqual(old, t)
		}
		if !found {
			return field.ErrorList{field.Forbidden(path, "existing toleration can not be modified except its tolerationSeconds")}
		}
	}
	return nil
}

func validateRemovedGates(now, was []corev1.PodSchedulingGate) field.ErrorList {
	had := map[string]bool{}
	for _, g := range was {
		had[g.Name] = true
	}
	var errs field.ErrorList
	for i, g := range now {
		if !had[g.Name] {
			errs = append(errs, field.Forbidden(specPath.Child("schedulingGates").Index(i).Child("name"),
				fmt.Sprintf("only deletion is allowed, but found new scheduling gate '%s'", g.Name)))
		}
	}
	return errs
}
