package apps

import (
	"context"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/check"
)

func controllerRevision() resource.Kind {
	return resource.Of(resource.Kind{
		Kind: "ControllerRevision", Plural: "controllerrevisions", Namespaced: true,
		New:     func() runtime.Object { return &appsv1.ControllerRevision{} },
		NewList: func() runtime.Object { return &appsv1.ControllerRevisionList{} },
		Columns: []resource.Column{
			resource.Col("Controller", "string", "Controller of the object", 0, func(r *appsv1.ControllerRevision) any { return controllerOf(r) }),
			resource.Col("Revision", "string", appsv1.ControllerRevision{}.SwaggerDoc()["revision"], 0,
				func(r *appsv1.ControllerRevision) any { return r.Revision }),
		},
	}, resource.Rules[*appsv1.ControllerRevision]{
		Validate: func(_ context.Context, r *appsv1.ControllerRevision) field.ErrorList { return validateRevision(r) },
		ValidateUpdate: func(_ context.Context, r, old *appsv1.ControllerRevision) field.ErrorList {
			return append(validateRevision(r), check.Immutable(r.Data, old.Data, field.NewPath("data"))...)
		},
	})
}

func validateRevision(r *appsv1.ControllerRevision) field.ErrorList {
	var errs field.ErrorList
	if r.Data.Raw == nil && r.Data.Object == nil {
		errs = append(errs, field.Required(field.NewPath("data"), "data is mandatory"))
	}
	return append(errs, check.NonNegative(r.Revision, field.NewPath("revision"))...)
}

func controllerOf(o metav1.Object) string {
	ref := metav1.GetControllerOf(o)
	if ref == nil {
		return "<none>"
	}
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return "<none>"
	}
	kind := gv.WithKind(ref.Kind).GroupKind()
	return strings.ToLower(kind.String()) + "/" + ref.Name
}
