package rbac

import (
	"context"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/validation/path"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"

	"keelson.dev/keelson/controlplane/resource"
)

// RuleResolver tells which rules a user holds and which a role reference grants.
type RuleResolver interface {
	// RulesFor returns the user's rules in the namespace ("" for the cluster's). An error may come with a part of them.
	RulesFor(ctx context.Context, u user.Info, namespace string) ([]rbacv1.PolicyRule, error)
	// RoleRules returns the present rules of a role referred to from the namespace.
	RoleRules(ctx context.Context, ref rbacv1.RoleRef, namespace string) ([]rbacv1.PolicyRule, error)
}

// Checks is what the escalation checks ask. Both fields are required for the checks to run;
// the functions are called per request, so they may return what is built after the table.
type Checks struct {
	Authorizer func() authorizer.Authorizer
	Rules      func() RuleResolver
}

// Group is rbac.authorization.k8s.io without escalation checks: for tests, and for a server that authorizes otherwise.
func Group() resource.Group { return GroupWith(Checks{}) }

// GroupWith is rbac.authorization.k8s.io with escalation checks.
func GroupWith(c Checks) resource.Group {
	kinds := []resource.Kind{role(), clusterRole(), roleBinding(), clusterRoleBinding()}
	if c.Authorizer != nil && c.Rules != nil {
		for i := range kinds {
			kinds[i].Install = c.install
		}
	}
	return resource.Group{
		Name:        rbacv1.GroupName,
		Versions:    []string{"v1"},
		AddToScheme: []func(*runtime.Scheme) error{rbacv1.AddToScheme},
		Kinds:       kinds,
	}
}

func (c Checks) install(_ resource.Deps, store *genericregistry.Store) (map[string]rest.Storage, error) {
	return map[string]rest.Storage{"": guarded{store, c}}, nil
}

// validName is the rule for names in this group: anything that can be a part of a URL path, since
// bootstrap roles are named "system:node".
func validName(name string, prefix bool) []string { return path.IsValidPathSegmentName(name) }
