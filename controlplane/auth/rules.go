package auth

import (
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// allows tells whether a rule permits a request.
func allows(r *rbacv1.PolicyRule, a authorizer.Attributes) bool {
	if !has(r.Verbs, a.GetVerb(), rbacv1.VerbAll) {
		return false
	}
	if !a.IsResourceRequest() {
		return slices.ContainsFunc(r.NonResourceURLs, func(u string) bool { return matchURL(u, a.GetPath()) })
	}
	return has(r.APIGroups, a.GetAPIGroup(), rbacv1.APIGroupAll) && matchResource(r.Resources, a.GetResource(), a.GetSubresource()) &&
		(len(r.ResourceNames) == 0 || slices.Contains(r.ResourceNames, a.GetName()))
}

func has(list []string, want, all string) bool {
	return slices.Contains(list, want) || slices.Contains(list, all)
}

// matchResource: "pods", "pods/log", "*/scale" (a subresource of anything), "*".
func matchResource(list []string, resource, sub string) bool {
	whole := resource
	if sub != "" {
		whole += "/" + sub
	}
	for _, r := range list {
		if r == rbacv1.ResourceAll || r == whole || sub != "" && strings.HasPrefix(r, "*/") && r[2:] == sub {
			return true
		}
	}
	return false
}

// matchURL: a path, or a prefix that ends in "*".
func matchURL(rule, path string) bool {
	if rule == rbacv1.NonResourceAll || rule == path {
		return true
	}
	prefix, ok := strings.CutSuffix(rule, "*")
	return ok && strings.HasPrefix(path, prefix)
}
