package admission

import (
	"context"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/admission"
)

// newSelectableFields refuses a definition whose selectable fields lie in a schema that is none, in the words of its validation.
// The library's validation looks for such fields without a schema to look in, and panics (as upstream's server does).
//
// It comes after what changes objects.
func newSelectableFields() admission.Interface {
	return admitter{admission.NewHandler(admission.Create, admission.Update), func(ctx context.Context, a admission.Attributes) error {
		crd, ok := object[*apiextensions.CustomResourceDefinition](a, apiextensions.Resource("customresourcedefinitions"))
		if !ok {
			return nil
		}
		bare := *crd
		blind := bareOf(&bare.Spec)
		if len(blind) == 0 {
			return nil
		}
		var errs field.ErrorList
		if old, ok := a.GetOldObject().(*apiextensions.CustomResourceDefinition); ok {
			errs = validation.ValidateCustomResourceDefinitionUpdate(ctx, &bare, old)
		} else {
			errs = validation.ValidateCustomResourceDefinition(ctx, &bare)
		}
		return apierrors.NewInvalid(apiextensions.Kind("CustomResourceDefinition"), crd.Name, append(errs, blind...))
	}}
}

// bareOf takes the selectable fields away from where there is no schema to look for them in, and says so. The lists of the
// object that s was copied from stay as they are.
func bareOf(s *apiextensions.CustomResourceDefinitionSpec) field.ErrorList {
	var blind field.ErrorList
	const needs = "needs a structural schema"
	if len(s.SelectableFields) > 0 && s.Validation != nil && !structural(s.Validation) {
		blind = append(blind, field.Invalid(field.NewPath("spec", "selectableFields"), "", needs))
		s.SelectableFields = nil
	}
	versions := append([]apiextensions.CustomResourceDefinitionVersion(nil), s.Versions...)
	for i := range versions {
		v := &versions[i]
		if len(v.SelectableFields) == 0 || v.Schema == nil || v.Schema.OpenAPIV3Schema == nil || structural(v.Schema) {
			continue // without a schema at all, validation says so
		}
		blind = append(blind, field.Invalid(field.NewPath("spec", "versions").Index(i).Child("selectableFields"), "", needs))
		v.SelectableFields = nil
	}
	s.Versions = versions
	return blind
}

func structural(v *apiextensions.CustomResourceValidation) bool {
	s, err := structuralschema.NewStructural(v.OpenAPIV3Schema)
	return err == nil && s != nil
}
