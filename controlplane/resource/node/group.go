package node

import (
	"context"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
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
		Kind: "RuntimeClass", Plural: "runtimeclasses", ForbidUnconditionalUpdate: true,
		New:     func() runtime.Object { return &nodev1.RuntimeClass{} },
		NewList: func() runtime.Object { return &nodev1.RuntimeClassList{} },
		Columns: []resource.Column{
			resource.Col("Handler", "string", nodev1.RuntimeClass{}.SwaggerDoc()["handler"], 0,
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
	})
}

func validate(_ context.Context, r *nodev1.RuntimeClass) field.ErrorList {
	errs := check.Strings(apivalidation.NameIsDNSLabel(r.Handler, false), field.NewPath("handler"), r.Handler)
	if r.Overhead != nil {
		errs = append(errs, validateOverhead(r.Overhead.PodFixed, field.NewPath("overhead", "podFixed", "limits"))...)
	}
	if r.Scheduling != nil {
		errs = append(errs, validateScheduling(r.Scheduling, field.NewPath("scheduling"))...)
	}
	return errs
}

func validateOverhead(fixed corev1.ResourceList, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, name := range slices.Sorted(maps.Keys(fixed)) {
		p, q := path.Key(string(name)), fixed[name]
		errs = append(errs, check.Strings(validation.IsQualifiedName(string(name)), p, name)...)
		switch {
		case resourcename.IsNative(name) && !resourcename.IsContainer(name):
			errs = append(errs, field.Invalid(p, name, "must be a standard resource for containers"))
		case !resourcename.IsNative(name) && !resourcename.IsExtended(name):
			errs = append(errs, field.Invalid(p, name, "doesn't follow extended resource name standard"))
		}
		if q.Sign() < 0 {
			errs = append(errs, field.Invalid(p, q.String(), apivalidation.IsNegativeErrorMsg))
		}
	}
	return errs
}

func validateScheduling(s *nodev1.Scheduling, path *field.Path) field.ErrorList {
	errs := metavalidation.ValidateLabels(s.NodeSelector, path.Child("nodeSelector"))
	errs = append(errs, podspec.ValidateTolerations(s.Tolerations, path.Child("tolerations"))...)
	for i, t := range s.Tolerations {
		for j := range i {
			if check.Same(t, s.Tolerations[j]) {
				errs = append(errs, field.Duplicate(path.Child("tolerations").Index(i), t))
				break
			}
		}
	}
	return errs
}

func validateUpdate(_ context.Context, obj, old *nodev1.RuntimeClass) field.ErrorList {
	return check.Immutable(obj.Handler, old.Handler, field.NewPath("handler"))
}
