package apps

import (
	"context"
	"encoding/json"
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
		Validate: func(_ context.Context, r *appsv1.ControllerRevision) field.ErrorList {
			return append(check.NonNegative(r.Revision, field.NewPath("revision")), validateRevisionData(r.Data, field.NewPath("data"))...)
		},
		ValidateUpdate: func(_ context.Context, r, old *appsv1.ControllerRevision) field.ErrorList {
			return append(check.NonNegative(r.Revision, field.NewPath("revision")), check.Immutable(r.Data, old.Data, field.NewPath("data"))...)
		},
	})
}

func validateRevisionData(data runtime.RawExtension, path *field.Path) field.ErrorList {
	var v any
	switch err := json.Unmarshal(data.Raw, &v); {
	case data.Raw == nil && data.Object == nil, err == nil && v == nil:
		return field.ErrorList{field.Required(path, "data is mandatory")}
	case data.Raw == nil:
		return nil
	case err != nil:
		return field.ErrorList{field.Invalid(path, "<value omitted>", "error parsing data: "+err.Error())}
	}
	if _, ok := v.(map[string]any); !ok {
		return field.ErrorList{field.Required(path, "data must be a valid JSON object")}
	}
	return nil
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
