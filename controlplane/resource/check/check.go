package check

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Integer is the set of integer types that fields have.
type Integer interface{ ~int32 | ~int64 | ~int }

// NonNegative checks that v is not below zero.
func NonNegative[N Integer](v N, path *field.Path) field.ErrorList {
	return apivalidation.ValidateNonnegativeField(int64(v), path)
}

// NonNegativePtr checks that v, if set, is not below zero.
func NonNegativePtr[N Integer](v *N, path *field.Path) field.ErrorList {
	if v == nil {
		return nil
	}
	return NonNegative(*v, path)
}

// Quantity checks the value of an amount of something.
func Quantity(value int64, path *field.Path) field.ErrorList {
	if value < 0 {
		return field.ErrorList{field.Invalid(path, value, "must be a valid resource quantity")}
	}
	return nil
}

// Immutable checks that an update left a field as it was.
func Immutable(obj, old any, path *field.Path) field.ErrorList {
	return apivalidation.ValidateImmutableField(obj, old, path)
}

// Selector checks a label selector; nil is accepted.
func Selector(s *metav1.LabelSelector, path *field.Path) field.ErrorList {
	return metavalidation.ValidateLabelSelector(s, metavalidation.LabelSelectorValidationOptions{}, path)
}

// SelectorUpdate checks a label selector that replaces old: what is unchanged may stay as it is.
func SelectorUpdate(s, old *metav1.LabelSelector, path *field.Path) field.ErrorList {
	opts := metavalidation.LabelSelectorValidationOptions{
		AllowInvalidLabelValueInSelector: old != nil && metavalidation.LabelSelectorHasInvalidLabelValue(old),
	}
	return metavalidation.ValidateLabelSelector(s, opts, path)
}

// EmptySelector says whether s selects by nothing at all.
func EmptySelector(s *metav1.LabelSelector) bool {
	return s != nil && len(s.MatchLabels)+len(s.MatchExpressions) == 0
}

// Strings turns messages about one value into errors of its field.
func Strings(messages []string, path *field.Path, value any) field.ErrorList {
	var errs field.ErrorList
	for _, m := range messages {
		errs = append(errs, field.Invalid(path, value, m))
	}
	return errs
}

// IntOrPercent checks that v is a non-negative integer or a percentage.
func IntOrPercent(v intstr.IntOrString, path *field.Path) field.ErrorList {
	switch v.Type {
	case intstr.String:
		return Strings(validation.IsValidPercent(v.StrVal), path, v)
	case intstr.Int:
		return NonNegative(v.IntVal, path)
	}
	return field.ErrorList{field.Invalid(path, v, "must be an integer or percentage (e.g '5%%')")}
}

// Percent is the percentage that v is, if it is one.
func Percent(v intstr.IntOrString) (int, bool) {
	if v.Type != intstr.String || len(validation.IsValidPercent(v.StrVal)) != 0 {
		return 0, false
	}
	n := 0
	if _, err := fmt.Sscanf(v.StrVal, "%d%%", &n); err != nil {
		return 0, false
	}
	return n, true
}

// Whole is v's integer value: that of an integer, or the number in a percentage.
func Whole(v *intstr.IntOrString) int {
	if v == nil {
		return 0
	}
	if n, ok := Percent(*v); ok {
		return n
	}
	return v.IntValue()
}

// AtMostHundredPercent checks a percentage's upper bound.
func AtMostHundredPercent(v intstr.IntOrString, path *field.Path) field.ErrorList {
	if n, ok := Percent(v); ok && n > 100 {
		return field.ErrorList{field.Invalid(path, v, "must not be greater than 100%")}
	}
	return nil
}

// Finalizers checks that finalizers name whom they are of, but for the system's own.
func Finalizers(obj runtime.Object) field.ErrorList {
	m, err := meta.Accessor(obj)
	if err != nil {
		return nil
	}
	var errs field.ErrorList
	for i, name := range m.GetFinalizers() {
		switch {
		case strings.Contains(name, "/"), name == string(corev1.FinalizerKubernetes), name == metav1.FinalizerOrphanDependents,
			name == metav1.FinalizerDeleteDependents:
		default:
			errs = append(errs, field.Invalid(field.NewPath("metadata", "finalizers").Index(i), name,
				"name is neither a standard finalizer name nor is it fully qualified"))
		}
	}
	return errs
}

// HasLabel checks that metadata (at path) carries a label with the expected value.
func HasLabel(m metav1.ObjectMeta, path *field.Path, key, want string) field.ErrorList {
	got, ok := m.Labels[key]
	if !ok {
		return field.ErrorList{field.Required(path.Child("labels").Key(key), fmt.Sprintf("must be '%s'", want))}
	}
	if got != want {
		return field.ErrorList{field.Invalid(path.Child("labels").Key(key), m.Labels, fmt.Sprintf("must be '%s'", want))}
	}
	return nil
}

// OneOf checks that v is among the supported values, which the error names in the order given.
func OneOf[S ~string](v S, path *field.Path, supported ...S) field.ErrorList {
	for _, s := range supported {
		if v == s {
			return nil
		}
	}
	return field.ErrorList{field.NotSupported(path, v, supported)}
}

// Same says whether two values are semantically equal (quantities by amount, times by instant, nil as empty).
func Same(a, b any) bool { return apiequality.Semantic.DeepEqual(a, b) }

// Protocols are the transport protocols of ports, in the order in which errors name them.
var Protocols = []corev1.Protocol{corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP}
