package core

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/check"
	"keelson.dev/keelson/controlplane/resource/column"
	"keelson.dev/keelson/controlplane/resource/resourcename"
)

func limitRangeKind() resource.Kind {
	return resource.Of(resource.Kind{
		Kind: "LimitRange", Plural: "limitranges", ShortNames: []string{"limits"}, Namespaced: true,
		New:                 func() runtime.Object { return &corev1.LimitRange{} },
		NewList:             func() runtime.Object { return &corev1.LimitRangeList{} },
		AllowCreateOnUpdate: true,
		NoAge:               true,
		Columns: []resource.Column{column.Name(0), {
			Name: "Created At", Type: "date", Description: column.Doc(corev1.LimitRange{}.ObjectMeta, "creationTimestamp"),
			Value: func(obj runtime.Object) any {
				l, ok := obj.(*corev1.LimitRange)
				if !ok {
					return "<unknown>"
				}
				return l.CreationTimestamp.UTC().Format("2006-01-02T15:04:05Z07:00")
			},
		}},
	}, resource.Rules[*corev1.LimitRange]{
		Default: func(l *corev1.LimitRange) {
			for i := range l.Spec.Limits {
				defaultLimits(&l.Spec.Limits[i])
			}
		},
		PrepareForCreate: func(_ context.Context, l *corev1.LimitRange) {
			if l.Name == "" {
				l.Name = string(uuid.NewUUID())
			}
		},
		Validate: func(_ context.Context, l *corev1.LimitRange) field.ErrorList { return validateLimitRange(l) },
	})
}

// defaultLimits: what is not said follows from what is: the default limit from the maximum, the default request from
// the default limit, else from the minimum.
func defaultLimits(l *corev1.LimitRangeItem) {
	if l.Type == corev1.LimitTypeContainer {
		if l.Default == nil {
			l.Default = corev1.ResourceList{}
		}
		if l.DefaultRequest == nil {
			l.DefaultRequest = corev1.ResourceList{}
		}
		fill := func(list, from corev1.ResourceList) {
			for name, quantity := range from {
				if _, set := list[name]; !set {
					list[name] = quantity.DeepCopy()
				}
			}
		}
		fill(l.Default, l.Max)
		fill(l.DefaultRequest, l.Default)
		fill(l.DefaultRequest, l.Min)
	}
	for _, list := range []corev1.ResourceList{l.Max, l.Min, l.Default, l.DefaultRequest, l.MaxLimitRequestRatio} {
		resourcename.RoundUp(list)
	}
}

func validateLimitRange(l *corev1.LimitRange) field.ErrorList {
	var errs field.ErrorList
	seen := map[corev1.LimitType]bool{}
	for i := range l.Spec.Limits {
		item, path := &l.Spec.Limits[i], field.NewPath("spec", "limits").Index(i)
		errs = append(errs, validateLimitType(item.Type, path.Child("type"))...)
		if seen[item.Type] {
			errs = append(errs, field.Duplicate(path.Child("type"), item.Type))
		}
		seen[item.Type] = true
		errs = append(errs, validateLimitNames(item, path)...)
		errs = append(errs, validateLimitValues(item, path)...)
	}
	return errs
}

func validateLimitType(t corev1.LimitType, path *field.Path) field.ErrorList {
	if errs := check.Strings(validation.IsQualifiedName(string(t)), path, t); len(errs) > 0 {
		return errs
	}
	switch t {
	case corev1.LimitTypePod, corev1.LimitTypeContainer, corev1.LimitTypePersistentVolumeClaim:
		return nil
	}
	if strings.Contains(string(t), "/") {
		return nil
	}
	return field.ErrorList{field.Invalid(path, t, "must be a standard limit type or fully qualified")}
}

func validateLimitNames(l *corev1.LimitRangeItem, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	valid := resourcename.Validate
	if l.Type == corev1.LimitTypePod || l.Type == corev1.LimitTypeContainer {
		valid = resourcename.ValidateContainer
	}
	names := func(list corev1.ResourceList, name string) {
		for key := range list {
			errs = append(errs, valid(key, path.Child(name).Key(string(key)))...)
		}
	}
	names(l.Max, "max")
	names(l.Min, "min")
	if l.Type == corev1.LimitTypePod {
		const noPod = "may not be specified when `type` is 'Pod'"
		if len(l.Default) > 0 {
			errs = append(errs, field.Forbidden(path.Child("default"), noPod))
		}
		if len(l.DefaultRequest) > 0 {
			errs = append(errs, field.Forbidden(path.Child("defaultRequest"), noPod))
		}
	} else {
		names(l.Default, "default")
		names(l.DefaultRequest, "defaultRequest")
	}
	if l.Type == corev1.LimitTypePersistentVolumeClaim {
		_, hasMin := l.Min[corev1.ResourceStorage]
		_, hasMax := l.Max[corev1.ResourceStorage]
		if !hasMin && !hasMax {
			errs = append(errs, field.Required(path.Child("limits"), "either minimum or maximum storage value is required, but neither was provided"))
		}
	}
	names(l.MaxLimitRequestRatio, "maxLimitRequestRatio")
	return errs
}

// validateLimitValues: min <= default request <= default <= max, of each resource that is named.
func validateLimitValues(l *corev1.LimitRangeItem, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	defaults, requests := l.Default, l.DefaultRequest
	if l.Type == corev1.LimitTypePod {
		defaults, requests = nil, nil // refused as a whole
	}
	names := map[corev1.ResourceName]bool{}
	for _, list := range []corev1.ResourceList{l.Max, l.Min, defaults, requests, l.MaxLimitRequestRatio} {
		for name := range list {
			names[name] = true
		}
	}
	for name := range names {
		ordered := func(low, high corev1.ResourceList, lowText, highText, at string, shown corev1.ResourceList) {
			a, hasA := low[name]
			b, hasB := high[name]
			if hasA && hasB && a.Cmp(b) > 0 {
				errs = append(errs, field.Invalid(path.Child(at).Key(string(name)), shown[name],
					fmt.Sprintf("%s value %s is greater than %s value %s", lowText, a.String(), highText, b.String())))
			}
		}
		ordered(l.Min, l.Max, "min", "max", "min", l.Min)
		ordered(l.Min, requests, "min", "default request", "defaultRequest", requests)
		ordered(requests, l.Max, "default request", "max", "defaultRequest", requests)
		ordered(requests, defaults, "default request", "default limit", "defaultRequest", requests)
		ordered(l.Min, defaults, "min", "default", "default", l.Min)
		ordered(defaults, l.Max, "default", "max", "default", l.Max)
		errs = append(errs, validateRatio(l, name, path.Child("maxLimitRequestRatio").Key(string(name)))...)
		limit, hasLimit := defaults[name]
		request, hasRequest := requests[name]
		if hasLimit && hasRequest && !resourcename.IsOvercommitAllowed(name) && limit.Cmp(request) != 0 {
			errs = append(errs, field.Invalid(path.Child("defaultRequest").Key(string(name)), request,
				fmt.Sprintf("default value %s must equal to defaultRequest value %s in %s", limit.String(), request.String(), name)))
		}
	}
	return errs
}

// validateRatio: a ratio of at least one, and not one that min and max rule out.
func validateRatio(l *corev1.LimitRangeItem, name corev1.ResourceName, path *field.Path) field.ErrorList {
	ratio, ok := l.MaxLimitRequestRatio[name]
	if !ok {
		return nil
	}
	var errs field.ErrorList
	if ratio.Cmp(*apiresource.NewQuantity(1, apiresource.DecimalSI)) < 0 {
		errs = append(errs, field.Invalid(path, ratio, fmt.Sprintf("ratio %s is less than 1", ratio.String())))
	}
	low, hasMin := l.Min[name]
	high, hasMax := l.Max[name]
	if !hasMin || !hasMax {
		return errs
	}
	value, most := float64(ratio.Value()), float64(high.Value())/float64(low.Value())
	if max(ratio.Value(), low.Value(), high.Value()) < apiresource.MaxMilliValue {
		value, most = float64(ratio.MilliValue())/1000, float64(high.MilliValue())/float64(low.MilliValue())
	}
	if value > most {
		errs = append(errs, field.Invalid(path, ratio, fmt.Sprintf("ratio %s is greater than max/min = %f", ratio.String(), most)))
	}
	return errs
}
