package apiserver

import (
	"context"
	"fmt"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	"k8s.io/apiserver/pkg/authorization/metrics"
	"k8s.io/apiserver/pkg/authorization/union"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/kubernetes"
	"k8s.io/component-helpers/auth/rbac/reconciliation"

	"keelson.dev/keelson/controlplane/auth"
)

// authorizers decide in this order; the first that allows is enough.
type authorizers struct {
	node *auth.Node
	rbac *auth.RBAC
	all  authorizer.Authorizer
}

func newAuthorizers() (authorizers, error) {
	a := authorizers{rbac: auth.NewRBAC()}
	var err error
	if a.node, err = auth.NewNode(); err != nil {
		return a, err
	}
	a.all, err = union.New(
		union.NamedAuthorizer{AuthorizerName: "masters", Authorizer: authorizerfactory.NewPrivilegedGroups(user.SystemPrivilegedGroup)},
		union.NamedAuthorizer{AuthorizerName: "node", Authorizer: metrics.InstrumentedAuthorizer("Node", "node", a.node)},
		union.NamedAuthorizer{AuthorizerName: "rbac", Authorizer: metrics.InstrumentedAuthorizer("RBAC", "rbac", a.rbac)},
	)
	return a, err
}

// authorize sets what requests may do.
func (s *Server) authorize(c *genericapiserver.Config) {
	c.Authorization.Authorizer = s.authz.all
	c.RuleResolver = s.authz.rbac.Resolver()
}

// roleObjects reads the rules of roles where they are kept: who makes a role may bind it at once.
type roleObjects struct {
	*auth.RBAC
	stores map[schema.GroupResource]*genericregistry.Store
}

// RoleRules implements rbac.RuleResolver.
func (r roleObjects) RoleRules(ctx context.Context, ref rbacv1.RoleRef, namespace string) ([]rbacv1.PolicyRule, error) {
	plural := map[string]string{"Role": "roles", "ClusterRole": "clusterroles"}[ref.Kind]
	if plural == "" {
		return nil, fmt.Errorf("unsupported role reference kind: %q", ref.Kind)
	}
	obj, err := r.stores[rbacv1.Resource(plural)].Get(apirequest.WithNamespace(ctx, namespace), ref.Name, &metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	switch role := obj.(type) {
	case *rbacv1.Role:
		return role.Rules, nil
	case *rbacv1.ClusterRole:
		return role.Rules, nil
	}
	return nil, fmt.Errorf("read %s %q: got a %T", ref.Kind, ref.Name, obj)
}

// synced waits until the authorizers know what was there when the server started.
func (a authorizers) synced(ctx context.Context) error {
	if err := a.rbac.Synced(ctx); err != nil {
		return err
	}
	return a.node.Synced(ctx)
}

// bootstrapRBAC makes the roles and bindings that every cluster has be at least what they should be. Roles whose
// owner opted out (autoupdate: "false") are left alone, and permissions that were added stay. It returns when authorizer knows them.
func bootstrapRBAC(ctx context.Context, client kubernetes.Interface, authorizer *auth.RBAC) error {
	p, err := auth.BootstrapPolicy()
	if err != nil {
		return err
	}
	var jobs []func() error
	api := client.RbacV1()
	role := func(r reconciliation.RuleOwner, m reconciliation.RuleOwnerModifier) {
		jobs = append(jobs, func() error {
			_, err := (&reconciliation.ReconcileRoleOptions{Role: r, Client: m, Confirm: true}).Run()
			return err
		})
	}
	bind := func(b reconciliation.RoleBinding, m reconciliation.RoleBindingModifier) {
		jobs = append(jobs, func() error {
			_, err := (&reconciliation.ReconcileRoleBindingOptions{RoleBinding: b, Client: m, Confirm: true}).Run()
			return err
		})
	}
	for i := range p.ClusterRoles {
		role(reconciliation.ClusterRoleRuleOwner{ClusterRole: &p.ClusterRoles[i]}, reconciliation.ClusterRoleModifier{Client: api.ClusterRoles()})
	}
	for i := range p.ClusterRoleBindings {
		bind(reconciliation.ClusterRoleBindingAdapter{ClusterRoleBinding: &p.ClusterRoleBindings[i]}, reconciliation.ClusterRoleBindingClientAdapter{Client: api.ClusterRoleBindings()})
	}
	for i := range p.Roles {
		role(reconciliation.RoleRuleOwner{Role: &p.Roles[i]}, reconciliation.RoleModifier{Client: api, NamespaceClient: client.CoreV1().Namespaces()})
	}
	for i := range p.RoleBindings {
		bind(reconciliation.RoleBindingAdapter{RoleBinding: &p.RoleBindings[i]}, reconciliation.RoleBindingClientAdapter{Client: api, NamespaceClient: client.CoreV1().Namespaces()})
	}
	if err := parallel(ctx, jobs); err != nil {
		return fmt.Errorf("built-in roles: %w", err)
	}
	return authorizer.Holds(ctx, p)
}
