package resourcename

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource/check"
)

// Validate checks a name: one of the system's, or qualified by a domain.
func Validate(name corev1.ResourceName, path *field.Path) field.ErrorList {
	if errs := check.Strings(validation.IsQualifiedName(string(name)), path, name); len(errs) > 0 {
		return errs
	}
	if !strings.Contains(string(name), "/") && !IsStandard(name) {
		return field.ErrorList{field.Invalid(path, name, "must be a standard resource type or fully qualified")}
	}
	return nil
}

// ValidateContainer checks a name in a container's requests or limits.
func ValidateContainer(name corev1.ResourceName, path *field.Path) field.ErrorList {
	errs := Validate(name, path)
	switch {
	case !strings.Contains(string(name), "/"):
		if !IsContainer(name) {
			errs = append(errs, field.Invalid(path, name, "must be a standard resource for containers"))
		}
	case !IsNative(name) && !IsExtended(name):
		errs = append(errs, field.Invalid(path, name, "doesn't follow extended resource name standard"))
	}
	return errs
}

// ValidateQuota checks a name in a quota.
func ValidateQuota(name corev1.ResourceName, path *field.Path) field.ErrorList {
	errs := Validate(name, path)
	if !strings.Contains(string(name), "/") && !IsQuota(name) {
		errs = append(errs, field.Invalid(path, name, "must be a standard resource for quota"))
	}
	return errs
}

// ValidateQuantity checks an amount: not negative, and whole where the resource is counted.
func ValidateQuantity(name corev1.ResourceName, quantity resource.Quantity, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if quantity.Sign() < 0 {
		errs = append(errs, field.Invalid(path, quantity.String(), apivalidation.IsNegativeErrorMsg))
	}
	if IsInteger(name) && quantity.MilliValue()%1000 != 0 {
		errs = append(errs, field.Invalid(path, quantity, "must be an integer"))
	}
	return errs
}
