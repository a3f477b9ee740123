package apps

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/check"
	"keelson.dev/keelson/controlplane/resource/podspec"
)

// workload is what the four controllers of this group have in common.
type workload struct {
	kind     string // as errors name it
	selector *metav1.LabelSelector
	template *corev1.PodTemplateSpec
	old      *corev1.PodTemplateSpec // nil on create
}

// validateReplicated checks the selector and template of a Deployment or ReplicaSet.
func (w workload) validateReplicated(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if w.selector == nil {
		errs = append(errs, field.Required(path.Child("selector"), ""))
	} else {
		errs = append(errs, check.Selector(w.selector, path.Child("selector"))...)
		if check.EmptySelector(w.selector) {
			// Upstream's words, for both kinds.
			errs = append(errs, field.Invalid(path.Child("selector"), w.selector, "empty selector is invalid for deployment"))
		}
	}
	s, err := metav1.LabelSelectorAsSelector(w.selector)
	if err != nil {
		return append(errs, field.Invalid(path.Child("selector"), w.selector, "invalid label selector"))
	}
	path = path.Child("template")
	errs = append(errs, w.matches(s, path)...)
	errs = append(errs, podspec.ValidateTemplateUpdate(w.template, w.old, path)...)
	return append(errs, w.alwaysRestarts(path)...)
}

// matches is the rule that keeps a controller from making pods that it does not count.
func (w workload) matches(s labels.Selector, path *field.Path) field.ErrorList {
	if s.Empty() || s.Matches(labels.Set(w.template.Labels)) {
		return nil
	}
	return field.ErrorList{field.Invalid(path.Child("metadata", "labels"), w.template.Labels, "`selector` does not match template `labels`")}
}

func (w workload) alwaysRestarts(path *field.Path) field.ErrorList {
	errs := check.OneOf(w.template.Spec.RestartPolicy, path.Child("spec", "restartPolicy"), corev1.RestartPolicyAlways)
	if w.template.Spec.ActiveDeadlineSeconds != nil {
		errs = append(errs, field.Forbidden(path.Child("spec", "activeDeadlineSeconds"),
			"activeDeadlineSeconds in "+w.kind+" is not Supported"))
	}
	return errs
}

// nameWarnings are for kinds whose name becomes a part of pods' host names.
func nameWarnings(name string) []string {
	msgs := validation.IsDNS1123Label(name)
	if len(msgs) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: %v", msgs)}
}

func templateWarnings(template *corev1.PodTemplateSpec) []string {
	return podspec.WarningsForTemplate(template, field.NewPath("spec", "template"))
}

// updateWarnings are about the template of an object that asks for something else than before.
func updateWarnings(obj, old metav1.Object, template *corev1.PodTemplateSpec) []string {
	if obj.GetGeneration() == old.GetGeneration() {
		return nil
	}
	return templateWarnings(template)
}

// counts checks that none of the named status counters is negative.
func counts(path *field.Path, named ...count) field.ErrorList {
	var errs field.ErrorList
	for _, c := range named {
		errs = append(errs, check.NonNegative(c.n, path.Child(c.name))...)
	}
	return errs
}

type count struct {
	name string
	n    int64
}

// within checks that the named counters do not exceed the total.
func within(path *field.Path, total int32, message string, named ...count) field.ErrorList {
	var errs field.ErrorList
	for _, c := range named {
		if c.n > int64(total) {
			errs = append(errs, field.Invalid(path.Child(c.name), c.n, message))
		}
	}
	return errs
}

const beyondReplicas = "cannot be greater than status.replicas"

// collisions checks a collision count: not negative, and never counted down or taken away.
func collisions(n, old *int32, path *field.Path) field.ErrorList {
	errs := check.NonNegativePtr(n, path)
	if old != nil && (n == nil || *n < *old) {
		errs = append(errs, field.Invalid(path, ptr.Deref(n, 0), "cannot be decremented"))
	}
	return errs
}

func terminating(n *int32) count {
	if n == nil {
		return count{name: "terminatingReplicas"}
	}
	return count{"terminatingReplicas", int64(*n)}
}

func selectorColumn[T runtime.Object](description string, selector func(T) *metav1.LabelSelector) resource.Column {
	return resource.Col("Selector", "string", description, 1, func(o T) any { return metav1.FormatLabelSelector(selector(o)) })
}
