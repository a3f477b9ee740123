package core

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/net"

	"keelson.dev/keelson/controlplane/resource/resourcename"
)

const (
	podCIDRsFixed   = "node updates may not change podCIDR except from \"\" to valid"
	taintsKey       = "scheduler.alpha.kubernetes.io/taints"
	featureNameRule = "must start with an UpperCamelCase segment, with subsequent segments separated by '/' " +
		"(e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters and slashes"
)

var featureName = regexp.MustCompile(`^[A-Z][a-zA-Z0-9]*(/[a-zA-Z][a-zA-Z0-9]*)*$`)

func validateNode(n *corev1.Node) field.ErrorList {
	// Upstream reports taints below metadata, not spec; tools match on it.
	meta := field.NewPath("metadata")
	errs := validateNodeAnnotations(n.Annotations, meta.Child("annotations"))
	errs = append(errs, validateTaints(n.Spec.Taints, meta.Child("taints"))...)
	errs = append(errs, validateNodeResources(n)...)
	if swap := n.Status.NodeInfo.Swap; swap != nil && swap.Capacity != nil && *swap.Capacity <= 0 {
		errs = append(errs, field.Invalid(meta.Child("nodeSwapStatus", "capacity"), *swap.Capacity, "must be greater than zero"))
	}
	errs = append(errs, validateFeatureNames(n.Status.DeclaredFeatures, field.NewPath("status", "declaredFeatures"))...)
	return append(errs, validatePodCIDRs(n.Spec.PodCIDRs, field.NewPath("spec", "podCIDRs"))...)
}

func validateNodeAnnotations(annotations map[string]string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if text := annotations[taintsKey]; text != "" {
		var taints []corev1.Taint
		if err := json.Unmarshal([]byte(text), &taints); err != nil {
			errs = append(errs, field.Invalid(path, taintsKey, err.Error()))
		} else {
			errs = append(errs, validateTaints(taints, path.Child(taintsKey))...)
		}
	}
	if text := annotations[corev1.PreferAvoidPodsAnnotationKey]; text != "" {
		errs = append(errs, validateAvoidPods(text, path)...)
	}
	return errs
}

func validateTaints(taints []corev1.Taint, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	type identity struct {
		key    string
		effect corev1.TaintEffect
	}
	seen := map[identity]bool{}
	for i, t := range taints {
		at := path.Index(i)
		errs = append(errs, metav1validation.ValidateLabelName(t.Key, at.Child("key"))...)
		if msgs := validation.IsValidLabelValue(t.Value); len(msgs) > 0 {
			errs = append(errs, field.Invalid(at.Child("value"), t.Value, strings.Join(msgs, ";")))
		}
		errs = append(errs, validateTaintEffect(t.Effect, at.Child("effect"))...)
		id := identity{t.Key, t.Effect}
		if seen[id] {
			twice := field.Duplicate(at, t)
			twice.Detail = "taints must be unique by key and effect pair"
			errs = append(errs, twice)
		}
		seen[id] = true
	}
	return errs
}

func validateTaintEffect(effect corev1.TaintEffect, path *field.Path) field.ErrorList {
	known := []corev1.TaintEffect{corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute}
	switch {
	case effect == "":
		return field.ErrorList{field.Required(path, "")}
	case !slices.Contains(known, effect):
		return field.ErrorList{field.NotSupported(path, effect, known)}
	}
	return nil
}

func validateNodeResources(n *corev1.Node) field.ErrorList {
	errs := validateQuantities(n.Status.Capacity, "capacity")
	return append(errs, validateQuantities(n.Status.Allocatable, "allocatable")...)
}

func validateQuantities(list corev1.ResourceList, name string) field.ErrorList {
	var errs field.ErrorList
	for key, quantity := range list {
		errs = append(errs, resourcename.ValidateQuantity(key, quantity, field.NewPath("status", name, string(key)))...)
	}
	return errs
}

func validateFeatureNames(names []string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, name := range names {
		at := path.Index(i)
		if len(name) > validation.DNS1123SubdomainMaxLength {
			errs = append(errs, field.Invalid(at, name, fmt.Sprintf("invalid feature name %q: must be no more than %d characters",
				name, validation.DNS1123SubdomainMaxLength)))
		} else if !featureName.MatchString(name) {
			errs = append(errs, field.Invalid(at, name, fmt.Sprintf("invalid feature name %q: %s", name, featureNameRule)))
		}
		switch {
		case i == 0:
		case names[i-1] == name:
			errs = append(errs, field.Duplicate(at, name))
		case names[i-1] > name:
			errs = append(errs, field.Invalid(at, name, "list must be sorted alphabetically"))
		}
	}
	return errs
}

func validatePodCIDRs(cidrs []string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, cidr := range cidrs {
		errs = append(errs, validation.IsValidCIDRForLegacyField(path.Index(i), cidr, true, nil)...)
	}
	if len(cidrs) < 2 {
		return errs
	}
	dual, err := net.IsDualStackCIDRStrings(cidrs)
	if err != nil {
		errs = append(errs, field.InternalError(path, fmt.Errorf("invalid PodCIDRs. failed to check with dual stack with error:%w", err)))
	}
	if !dual || len(cidrs) > 2 {
		errs = append(errs, field.Invalid(path, cidrs, "may specify no more than one CIDR for each IP family"))
	}
	return errs
}

func validateNodeUpdate(n, old *corev1.Node) field.ErrorList {
	meta := field.NewPath("metadata")
	errs := validateNodeAnnotations(n.Annotations, meta.Child("annotations"))
	errs = append(errs, validateNodeResources(n)...)
	errs = append(errs, validateFeatureNames(n.Status.DeclaredFeatures, field.NewPath("status", "declaredFeatures"))...)
	seen := map[corev1.NodeAddress]bool{}
	for i, a := range n.Status.Addresses {
		if seen[a] {
			errs = append(errs, field.Duplicate(field.NewPath("status", "addresses").Index(i), a))
		}
		seen[a] = true
	}
	// A controller may give a node its ranges and its provider ID once.
	if len(old.Spec.PodCIDRs) > 0 && !slices.Equal(n.Spec.PodCIDRs, old.Spec.PodCIDRs) {
		errs = append(errs, field.Forbidden(field.NewPath("spec", "podCIDRs"), podCIDRsFixed))
	}
	provider := field.NewPath("spec", "providerID")
	switch {
	case old.Spec.ProviderID == "" || n.Spec.ProviderID == old.Spec.ProviderID:
	case n.Spec.ProviderID == "":
		errs = append(errs, field.Invalid(provider, nil, "field cannot be cleared once set"))
	default:
		errs = append(errs, field.Invalid(provider, nil, "field cannot be modified once set"))
	}
	errs = append(errs, validateTaints(n.Spec.Taints, meta.Child("taints"))...)
	if n.Spec.DoNotUseExternalID != old.Spec.DoNotUseExternalID {
		errs = append(errs, field.Forbidden(field.NewPath("spec", "externalID"), "may not be updated"))
	}
	return errs
}
