package rbac

import (
	"context"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/cell"
	"keelson.dev/keelson/controlplane/resource/check"
)

func role() resource.Kind {
	return resource.Of(resource.Kind{
		Kind: "Role", Plural: "roles", Namespaced: true, AllowCreateOnUpdate: true, ValidateName: validName,
		NoAge: true, Columns: []resource.Column{cell.Name(), cell.Created()},
		New:     func() runtime.Object { return &rbacv1.Role{} },
		NewList: func() runtime.Object { return &rbacv1.RoleList{} },
	}, resource.Rules[*rbacv1.Role]{
		Validate: func(_ context.Context, r *rbacv1.Role) field.ErrorList { return validateRules(r.Rules, true) },
		ValidateUpdate: func(_ context.Context, r, _ *rbacv1.Role) field.ErrorList {
			return validateRules(r.Rules, true)
		},
	})
}

func clusterRole() resource.Kind {
	return resource.Of(resource.Kind{
		Kind: "ClusterRole", Plural: "clusterroles", AllowCreateOnUpdate: true, ValidateName: validName,
		NoAge: true, Columns: []resource.Column{cell.Name(), cell.Created()},
		New:     func() runtime.Object { return &rbacv1.ClusterRole{} },
		NewList: func() runtime.Object { return &rbacv1.ClusterRoleList{} },
	}, resource.Rules[*rbacv1.ClusterRole]{
		Validate: func(_ context.Context, r *rbacv1.ClusterRole) field.ErrorList {
			return append(validateRules(r.Rules, false), validateAggregation(r.AggregationRule, nil)...)
		},
		ValidateUpdate: func(_ context.Context, r, old *rbacv1.ClusterRole) field.ErrorList {
			return append(validateRules(r.Rules, false), validateAggregation(r.AggregationRule, old.AggregationRule)...)
		},
	})
}

func validateRules(rules []rbacv1.PolicyRule, namespaced bool) field.ErrorList {
	var errs field.ErrorList
	for i, r := range rules {
		errs = append(errs, validateRule(r, namespaced, field.NewPath("rules").Index(i))...)
	}
	return errs
}

func validateRule(r rbacv1.PolicyRule, namespaced bool, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(r.Verbs) == 0 {
		errs = append(errs, field.Required(path.Child("verbs"), ""))
	}
	if len(r.NonResourceURLs) > 0 {
		urls := path.Child("nonResourceURLs")
		if namespaced {
			errs = append(errs, field.Invalid(urls, r.NonResourceURLs, "namespaced rules cannot apply to non-resource URLs"))
		}
		if len(r.APIGroups)+len(r.Resources)+len(r.ResourceNames) > 0 {
			errs = append(errs, field.Invalid(urls, r.NonResourceURLs, "rules cannot apply to both regular resources and non-resource URLs"))
		}
		return errs
	}
	if len(r.APIGroups) == 0 {
		errs = append(errs, field.Required(path.Child("apiGroups"), "resource rules must supply at least one api group"))
	}
	if len(r.Resources) == 0 {
		errs = append(errs, field.Required(path.Child("resources"), "resource rules must supply at least one resource"))
	}
	return errs
}

func validateAggregation(a, old *rbacv1.AggregationRule) field.ErrorList {
	if a == nil {
		return nil
	}
	path := field.NewPath("aggregationRule", "clusterRoleSelectors")
	if len(a.ClusterRoleSelectors) == 0 {
		return field.ErrorList{field.Required(path, "at least one clusterRoleSelector required if aggregationRule is non-nil")}
	}
	var errs field.ErrorList
	// A label value that an old object already carries may stay.
	var weak *metav1.LabelSelector
	if old != nil {
		for i := range old.ClusterRoleSelectors {
			if len(check.Selector(&old.ClusterRoleSelectors[i], nil)) > 0 {
				weak = &old.ClusterRoleSelectors[i]
			}
		}
	}
	for i := range a.ClusterRoleSelectors {
		s := &a.ClusterRoleSelectors[i]
		errs = append(errs, check.SelectorUpdate(s, weak, path.Index(i))...)
		if _, err := metav1.LabelSelectorAsSelector(s); err != nil {
			errs = append(errs, field.Invalid(path.Index(i), nil, "invalid label selector."))
		}
	}
	return errs
}

func roleRefCell(ref rbacv1.RoleRef) any { return ref.Kind + "/" + ref.Name }

func bindingColumns[T runtime.Object](description, owner string, ref func(T) rbacv1.RoleRef, subjects func(T) []rbacv1.Subject) []resource.Column {
	wide := func(name, kind string) resource.Column {
		return resource.Col(name, "string", name+" in the "+owner, 1, func(o T) any { return subjectNames(subjects(o), kind) })
	}
	return []resource.Column{
		resource.Col("Role", "string", description, 0, func(o T) any { return roleRefCell(ref(o)) }),
		wide("Users", rbacv1.UserKind), wide("Groups", rbacv1.GroupKind), wide("ServiceAccounts", rbacv1.ServiceAccountKind),
	}
}
