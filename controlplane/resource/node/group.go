package node

import (
	"context"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/check"
	"keelson.dev/keelson/controlplane/resource/podspec"
	"keelson.dev/keelson/controlplane/resource/resourcename"
)

// Group is node.k8s.io.
func Group() resource.Group {
	return resource.Group{
		Name:        nodev1.GroupName,
		Versions:    []string{"v1"},
		AddToScheme: []func(*runtime.Scheme) error{nodev1.AddToScheme},
		Kinds:       []resource.Kind{runtimeClass()},
	}
}

func runtimeClass() resource.Kind {
	return resource.Of(resource.Kind{
		Kind: "RuntimeClass", Plural: "runtimeclasses", AllowCreateOnUpdate: true, ForbidUnconditionalUpdate: true,
		New:     func() runtime.Object { return &nodev1.RuntimeClass{} },
		NewList: func() runtime.Object { return &nodev1.RuntimeClassList{} },
		Columns: []resource.Column{
			resource.Col("Handler", "string", "", 0,
				func(r *nodev1.RuntimeClass) any { return r.Handler }),
		},
	}, resource.Rules[*nodev1.RuntimeClass]{
		Default: func(r *nodev1.RuntimeClass) {
			if r.Overhead != nil {
				resourcename.RoundUp(r.Overhead.PodFixed)
			}
		},
		Validate:       validate,
		ValidateUpdate: validateUpdate,
		Warnings: func(_ context.Context, r, _ *nodev1.RuntimeClass) []string {
			var out []string
			if r.Scheduling != nil {
				for _, key := range slices.Sorted(maps.Keys(r.Scheduling.NodeSelector)) {
					if msg := podspec.OldNodeLabel(key); msg != "" {
						out = append(out, "scheduling.nodeSelector: "+msg)
					}
				}
			}
			return out
		},
	})
}

func validate(_ context.Context, r *nodev1.RuntimeClass) field.ErrorList {
	return validateClass(r, content.IsDNS1123Label)
}

func validateClass(r *nodev1.RuntimeClass, handler func(string) []string) field.ErrorList {
	var errs field.ErrorList
	if r.Handler == "" {
		errs = append(errs, field.Required(field.NewPath("handler"), ""))
	} else {
		errs = append(errs, check.Strings(handler(r.Handler), field.NewPath("handler"), r.Handler)...)
	}
	if r.Overhead != nil {
		errs = append(errs, validateOverhead(r.Overhead.PodFixed, field.NewPath("overhead"))...)
	}
	if r.Scheduling != nil {
		errs = append(errs, validateScheduling(r.Scheduling, field.NewPath("scheduling"))...)
	}
	return errs
}

// validateOverhead checks what a sandbox costs as the limits of a container, in upstream's words and places.
func validateOverhead(fixed corev1.ResourceList, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	pages, compute := false, false
	for _, name := range slices.Sorted(maps.Keys(fixed)) {
		p, q := path.Child("limits").Key(string(name)), fixed[name]
		errs = append(errs, resourcename.ValidateContainer(name, p)...)
		errs = append(errs, resourcename.ValidateQuantity(name, q, p)...)
		if resourcename.IsHugePage(name) {
			pages = true
			if !resourcename.IsHugePageMultiple(name, q) {
				errs = append(errs, field.Invalid(p, q.String(), resourcename.HugePageError(name, q)))
			}
		}
		compute = compute || name == corev1.ResourceCPU || name == corev1.ResourceMemory
	}
	if pages && !compute {
		errs = append(errs, field.Forbidden(path, "HugePages require cpu or memory"))
	}
	return errs
}

func validateScheduling(s *nodev1.Scheduling, path *field.Path) field.ErrorList {
	errs := metavalidation.ValidateLabels(s.NodeSelector, path.Child("nodeSelector"))
	errs = append(errs, podspec.ValidateTolerations(s.Tolerations, path.Child("tolerations"))...)
	for i, t := range s.Tolerations {
		for j := range i {
			if was := s.Tolerations[j]; t.Key == was.Key && t.Operator == was.Operator && t.Value == was.Value && t.Effect == was.Effect {
				errs = append(errs, field.Duplicate(path.Child("tolerations").Index(i), t))
				break
			}
		}
	}
	return errs
}

func validateUpdate(_ context.Context, obj, old *nodev1.RuntimeClass) field.ErrorList {
	// On update upstream has other words for a handler that is too long.
	errs := validateClass(obj, func(s string) []string { return apivalidation.NameIsDNSLabel(s, false) })
	if obj.Handler != old.Handler {
		errs = append(errs, field.Invalid(field.NewPath("handler"), nil, apivalidation.FieldImmutableErrorMsg))
	}
	return errs
}
