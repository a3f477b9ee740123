package resourcek8s

import (
	"encoding/json"
	"fmt"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/validate"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource/check"
)

// validateClass checks a class; old is nil at its creation.
func validateClass(s, old *resourcev1.DeviceClassSpec, path *field.Path) field.ErrorList {
	selectors := old != nil && check.Same(s.Selectors, old.Selectors)
	config := old != nil && check.Same(s.Config, old.Config)
	errs := validateSelectors(s.Selectors, selectors, path.Child("selectors"))
	errs = append(errs, list(s.Config, resourcev1.DeviceConfigMaxSize, path.Child("config"), func(c *resourcev1.DeviceClassConfiguration, at *field.Path) field.ErrorList {
		return validateOpaque(c.Opaque, config, at.Child("opaque"))
	})...)
	return append(errs, declared(s.ExtendedResourceName, path.Child("extendedResourceName"), validate.ExtendedResourceName)...)
}

// validateSelectors checks a list, whose expressions stay as they were accepted if it is stored already.
func validateSelectors(selectors []resourcev1.DeviceSelector, stored bool, path *field.Path) field.ErrorList {
	return list(selectors, resourcev1.DeviceSelectorsMaxSize, path, func(s *resourcev1.DeviceSelector, at *field.Path) field.ErrorList {
		at = at.Child("cel")
		switch expression := at.Child("expression"); {
		case s.CEL == nil:
			return field.ErrorList{field.Required(at, "")}
		case stored:
			return nil
		case len(s.CEL.Expression) > resourcev1.CELSelectorExpressionMaxLength:
			return field.ErrorList{field.TooLong(expression, "", resourcev1.CELSelectorExpressionMaxLength)}
		default:
			return validateExpression(s.CEL.Expression, expression)
		}
	})
}

// validateOpaque checks what a driver is told. What is stored already may be longer than what is new.
func validateOpaque(o *resourcev1.OpaqueDeviceConfiguration, stored bool, path *field.Path) field.ErrorList {
	if o == nil {
		return field.ErrorList{field.Required(path, "")}
	}
	limit := resourcev1.OpaqueParametersMaxLength
	if stored {
		limit = len(o.Parameters.Raw)
	}
	return append(validateDeclaredDriver(o.Driver, path.Child("driver")), validateRaw(o.Parameters, limit, path.Child("parameters"))...)
}

func validateRaw(raw runtime.RawExtension, limit int, path *field.Path) field.ErrorList {
	if len(raw.Raw) > limit {
		return field.ErrorList{field.TooLong(path, "", limit)}
	}
	var v any
	if err := json.Unmarshal(raw.Raw, &v); len(raw.Raw) > 0 && err != nil {
		return field.ErrorList{field.Invalid(path, "<value omitted>", fmt.Sprintf("error parsing data as JSON: %v", err))}
	}
	switch v.(type) {
	case nil:
		return field.ErrorList{field.Required(path, "")}
	case map[string]any:
		return nil
	}
	return field.ErrorList{field.Invalid(path, "<value omitted>", "must be a valid JSON object")}
}
