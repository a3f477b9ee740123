package core

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/resourcename"
)

func resourceQuotaKind() resource.Kind {
	return resource.Of(resource.Kind{
		Kind: "ResourceQuota", Plural: "resourcequotas", ShortNames: []string{"quota"}, Namespaced: true,
		New:       func() runtime.Object { return &corev1.ResourceQuota{} },
		NewList:   func() runtime.Object { return &corev1.ResourceQuotaList{} },
		HasStatus: true,
		Columns: []resource.Column{
			resource.Col("Request", "string", "Request represents a minimum amount of cpu/memory that a container may consume.", 0,
				func(q *corev1.ResourceQuota) any { return usage(q, false) }),
			resource.Col("Limit", "string", "Limits control the maximum amount of cpu/memory that a container may use independent of "+
				"contention on the node.", 0, func(q *corev1.ResourceQuota) any { return usage(q, true) }),
		},
	}, resource.Rules[*corev1.ResourceQuota]{
		Default: func(q *corev1.ResourceQuota) {
			resourcename.RoundUp(q.Spec.Hard)
			resourcename.RoundUp(q.Status.Hard)
			resourcename.RoundUp(q.Status.Used)
		},
		Validate: func(_ context.Context, q *corev1.ResourceQuota) field.ErrorList { return validateQuota(q) },
		ValidateUpdate: func(_ context.Context, q, old *corev1.ResourceQuota) field.ErrorList {
			return validateQuotaUpdate(q, old)
		},
		ValidateStatusUpdate: func(_ context.Context, q, _ *corev1.ResourceQuota) field.ErrorList {
			var errs field.ErrorList
			if q.ResourceVersion == "" {
				errs = append(errs, field.Required(field.NewPath("resourceVersion"), ""))
			}
			return append(errs, validateQuotaStatus(q)...)
		},
		Warnings: func(_ context.Context, q, old *corev1.ResourceQuota) []string {
			if old != nil {
				return nil
			}
			return quotaWarnings(q)
		},
	})
}

// usage prints "name: used/hard" of all limits, or of everything else.
func usage(q *corev1.ResourceQuota, limits bool) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(q.Status.Hard)) {
		if strings.HasPrefix(string(name), "limits.") != limits {
			continue
		}
		used, hard := q.Status.Used[name], q.Status.Hard[name]
		parts = append(parts, fmt.Sprintf("%s: %s/%s", name, used.String(), hard.String()))
	}
	return strings.Join(parts, ", ")
}

func validateQuota(q *corev1.ResourceQuota) field.ErrorList {
	spec := field.NewPath("spec")
	errs := validateQuotaList(q.Spec.Hard, spec.Child("hard"))
	errs = append(errs, validateScopes(&q.Spec, spec.Child("scopes"))...)
	if q.Spec.ScopeSelector != nil {
		errs = append(errs, validateScopeSelector(&q.Spec, spec.Child("scopeSelector", "matchExpressions"))...)
	}
	return errs
}

func validateQuotaStatus(q *corev1.ResourceQuota) field.ErrorList {
	status := field.NewPath("status")
	return append(validateQuotaList(q.Status.Hard, status.Child("hard")), validateQuotaList(q.Status.Used, status.Child("used"))...)
}

func validateQuotaUpdate(q, old *corev1.ResourceQuota) field.ErrorList {
	errs := validateQuota(q)
	if !sets.New(q.Spec.Scopes...).Equal(sets.New(old.Spec.Scopes...)) {
		errs = append(errs, field.Invalid(field.NewPath("spec", "scopes"), q.Spec.Scopes, apivalidation.FieldImmutableErrorMsg))
	}
	return errs
}

func validateQuotaList(list corev1.ResourceList, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for name, quantity := range list {
		at := path.Key(string(name))
		errs = append(errs, resourcename.ValidateQuota(name, at)...)
		errs = append(errs, resourcename.ValidateQuantity(name, quantity, at)...)
	}
	return errs
}

func isScope(s corev1.ResourceQuotaScope) bool {
	switch s {
	case corev1.ResourceQuotaScopeTerminating, corev1.ResourceQuotaScopeNotTerminating, corev1.ResourceQuotaScopeBestEffort,
		corev1.ResourceQuotaScopeNotBestEffort, corev1.ResourceQuotaScopePriorityClass,
		corev1.ResourceQuotaScopeCrossNamespacePodAffinity, corev1.ResourceQuotaScopeVolumeAttributesClass:
		return true
	}
	return false
}

// scopeCovers says whether a scope, which selects among pods or claims, makes sense for a resource.
func scopeCovers(s corev1.ResourceQuotaScope, name corev1.ResourceName) bool {
	isPods := name == corev1.ResourcePods
	switch s {
	case corev1.ResourceQuotaScopeBestEffort:
		return isPods
	case corev1.ResourceQuotaScopeTerminating, corev1.ResourceQuotaScopeNotTerminating, corev1.ResourceQuotaScopeNotBestEffort,
		corev1.ResourceQuotaScopePriorityClass, corev1.ResourceQuotaScopeCrossNamespacePodAffinity:
		switch name {
		case corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory,
			corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory:
			return true
		}
		return isPods
	case corev1.ResourceQuotaScopeVolumeAttributesClass:
		return name == corev1.ResourcePersistentVolumeClaims || name == corev1.ResourceRequestsStorage
	}
	return true
}

func validateScopes(spec *corev1.ResourceQuotaSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	invalid := func(why string) { errs = append(errs, field.Invalid(path, spec.Scopes, why)) }
	for _, s := range spec.Scopes {
		if !isScope(s) {
			invalid("unsupported scope")
		}
		for range uncovered(spec, s) {
			invalid("unsupported scope applied to resource")
		}
	}
	for range conflicts(spec.Scopes) {
		invalid("conflicting scopes")
	}
	return errs
}

// uncovered counts the quota's resources that the scope makes no sense for.
func uncovered(spec *corev1.ResourceQuotaSpec, s corev1.ResourceQuotaScope) int {
	n := 0
	for name := range spec.Hard {
		if resourcename.IsQuota(name) && !scopeCovers(s, name) {
			n++
		}
	}
	return n
}

// conflicts counts pairs of scopes that together select nothing.
func conflicts(scopes []corev1.ResourceQuotaScope) int {
	n := 0
	for _, pair := range [][2]corev1.ResourceQuotaScope{
		{corev1.ResourceQuotaScopeBestEffort, corev1.ResourceQuotaScopeNotBestEffort},
		{corev1.ResourceQuotaScopeTerminating, corev1.ResourceQuotaScopeNotTerminating},
	} {
		if slices.Contains(scopes, pair[0]) && slices.Contains(scopes, pair[1]) {
			n++
		}
	}
	return n
}

func validateScopeSelector(spec *corev1.ResourceQuotaSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	var scopes []corev1.ResourceQuotaScope
	for _, r := range spec.ScopeSelector.MatchExpressions {
		scopes = append(scopes, r.ScopeName)
		if !isScope(r.ScopeName) {
			errs = append(errs, field.Invalid(path.Child("scopeName"), r.ScopeName, "unsupported scope"))
		}
		for range uncovered(spec, r.ScopeName) {
			errs = append(errs, field.Invalid(path, spec.ScopeSelector, "unsupported scope applied to resource"))
		}
		hasNoValue := isScope(r.ScopeName) && r.ScopeName != corev1.ResourceQuotaScopePriorityClass && r.ScopeName != corev1.ResourceQuotaScopeVolumeAttributesClass
		if hasNoValue && r.Operator != corev1.ScopeSelectorOpExists {
			errs = append(errs, field.Invalid(path.Child("operator"), r.Operator, "must be 'Exists' when scope is any of "+
				"ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, "+
				"ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity"))
		}
		switch r.Operator {
		case corev1.ScopeSelectorOpIn, corev1.ScopeSelectorOpNotIn:
			if len(r.Values) == 0 {
				errs = append(errs, field.Required(path.Child("values"), "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"))
			}
		case corev1.ScopeSelectorOpExists, corev1.ScopeSelectorOpDoesNotExist:
			if len(r.Values) > 0 {
				errs = append(errs, field.Invalid(path.Child("values"), r.Values, "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"))
			}
		default:
			errs = append(errs, field.Invalid(path.Child("operator"), r.Operator, "not a valid selector operator"))
		}
	}
	for range conflicts(scopes) {
		errs = append(errs, field.Invalid(path, spec.Scopes, "conflicting scopes"))
	}
	return errs
}

func quotaWarnings(q *corev1.ResourceQuota) []string {
	var warnings []string
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceStorage, corev1.ResourceEphemeralStorage} {
		requestName, limitName := "requests."+name, "limits."+name
		request, hasRequest := q.Spec.Hard[requestName]
		if !hasRequest && (name == corev1.ResourceCPU || name == corev1.ResourceMemory) {
			if request, hasRequest = q.Spec.Hard[name]; hasRequest {
				requestName = name
			}
		}
		limit, hasLimit := q.Spec.Hard[limitName]
		if hasRequest && hasLimit && request.Cmp(limit) > 0 {
			warnings = append(warnings, fmt.Sprintf("ResourceQuota %s (%s) should be less than %s (%s)", requestName, request.String(), limitName, limit.String()))
		}
	}
	return warnings
}
