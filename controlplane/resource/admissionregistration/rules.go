package admissionregistration

import (
	"fmt"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/validation/path"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource/check"
)

func validateRule(r *admissionv1.RuleWithOperations, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	operations := at.Child("operations")
	if len(r.Operations) == 0 {
		errs = append(errs, field.Required(operations, ""))
	}
	if len(r.Operations) > 1 && slices.Contains(r.Operations, admissionv1.OperationAll) {
		errs = append(errs, field.Invalid(operations, r.Operations, "if '*' is present, must not specify other operations"))
	}
	for i, o := range r.Operations {
		errs = append(errs, check.OneOf(o, operations.Index(i),
			admissionv1.OperationAll, admissionv1.Connect, admissionv1.Create, admissionv1.Delete, admissionv1.Update)...)
	}
	errs = append(errs, validateList(r.APIGroups, at.Child("apiGroups"), "API groups", true)...)
	errs = append(errs, validateList(r.APIVersions, at.Child("apiVersions"), "API versions", false)...)
	errs = append(errs, validateResources(r.Resources, at.Child("resources"))...)
	if r.Scope != nil {
		errs = append(errs, check.OneOf(*r.Scope, at.Child("scope"), admissionv1.AllScopes, admissionv1.ClusterScope, admissionv1.NamespacedScope)...)
	}
	return errs
}

// validateList checks groups or versions; the core group's name is empty.
func validateList(list []string, at *field.Path, what string, mayBeEmpty bool) field.ErrorList {
	var errs field.ErrorList
	if len(list) == 0 {
		errs = append(errs, field.Required(at, ""))
	}
	if len(list) > 1 && slices.Contains(list, "*") {
		errs = append(errs, field.Invalid(at, list, "if '*' is present, must not specify other "+what))
	}
	for i, v := range list {
		if v == "" && !mayBeEmpty {
			errs = append(errs, field.Required(at.Index(i), ""))
		}
	}
	return errs
}

// validateResources refuses entries that another entry includes: whoever reads the rule should not have to guess.
func validateResources(list []string, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(list) == 0 {
		errs = append(errs, field.Required(at, ""))
	}
	allSubs, everySub := map[string]bool{}, map[string]bool{} // "pods/*" and "*/status"
	plain := false
	for i, r := range list {
		if r == "" {
			errs = append(errs, field.Required(at.Index(i), ""))
			continue
		}
		res, sub, ok := strings.Cut(r, "/")
		if !ok {
			// As upstream: the last entry without a subresource decides, so "pods" before "*" is accepted, after it not.
			plain = r != "*"
			continue
		}
		if allSubs[res] {
			errs = append(errs, field.Invalid(at.Index(i), r, fmt.Sprintf("if '%s/*' is present, must not specify %s", res, r)))
		}
		if everySub[sub] {
			errs = append(errs, field.Invalid(at.Index(i), r, fmt.Sprintf("if '*/%s' is present, must not specify %s", sub, r)))
		}
		if sub == "*" {
			allSubs[res] = true
		}
		if res == "*" {
			everySub[sub] = true
		}
	}
	if len(list) > 1 && slices.Contains(list, "*/*") {
		errs = append(errs, field.Invalid(at, list, "if '*/*' is present, must not specify other resources"))
	}
	if plain && slices.Contains(list, "*") {
		errs = append(errs, field.Invalid(at, list, "if '*' is present, must not specify other resources without subresources"))
	}
	return errs
}

func validateNamedRules(rules []admissionv1.NamedRuleWithOperations, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := range rules {
		seen := map[string]bool{}
		for j, n := range rules[i].ResourceNames {
			p := at.Index(i).Child("resourceNames").Index(j)
			errs = append(errs, check.Strings(path.IsValidPathSegmentName(n), p, n)...)
			if seen[n] {
				errs = append(errs, field.Duplicate(p, n))
			}
			seen[n] = true
		}
		errs = append(errs, validateRule(&rules[i].RuleWithOperations, at.Index(i))...)
	}
	return errs
}

func validateMatch(m *admissionv1.MatchResources, at *field.Path) field.ErrorList {
	if m == nil {
		return nil
	}
	var errs field.ErrorList
	for _, s := range []struct {
		name     string
		selector *metav1.LabelSelector
	}{{"namespaceSelector", m.NamespaceSelector}, {"objectSelector", m.ObjectSelector}} {
		if s.selector == nil {
			errs = append(errs, field.Required(at.Child(s.name), ""))
		} else {
			errs = append(errs, check.Selector(s.selector, at.Child(s.name))...)
		}
	}
	errs = append(errs, validateNamedRules(m.ResourceRules, at.Child("resourceRules"))...)
	errs = append(errs, validateNamedRules(m.ExcludeResourceRules, at.Child("excludeResourceRules"))...)
	if m.MatchPolicy == nil {
		return append(errs, field.Required(at.Child("matchPolicy"), ""))
	}
	return append(errs, check.OneOf(*m.MatchPolicy, at.Child("matchPolicy"), admissionv1.Equivalent, admissionv1.Exact)...)
}
