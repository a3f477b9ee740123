package auth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/tools/cache"
)

// RBAC authorizes by roles and bindings. Bindings are indexed by subject, so a decision costs what the user has, not
// what the cluster has.
type RBAC struct {
	mu sync.RWMutex // guards the mirrors and the index

	roles               *mirror[*rbacv1.Role, []rbacv1.PolicyRule]
	clusterRoles        *mirror[*rbacv1.ClusterRole, []rbacv1.PolicyRule]
	roleBindings        *mirror[*rbacv1.RoleBinding, binding]
	clusterRoleBindings *mirror[*rbacv1.ClusterRoleBinding, binding]
	// index is namespace ("" for the cluster) and subject to the bindings that name it.
	index map[string]map[string][]*binding
}

// binding is what is kept of a RoleBinding or ClusterRoleBinding.
type binding struct {
	namespace, name string
	role            rbacv1.RoleRef
	subjects        []rbacv1.Subject
}

// NewRBAC returns an authorizer without rules; Run fills it.
func NewRBAC() *RBAC {
	r := &RBAC{index: map[string]map[string][]*binding{}}
	none := func(string, *[]rbacv1.PolicyRule, *[]rbacv1.PolicyRule) {}
	r.roles = newMirror(&r.mu, func(o *rbacv1.Role) []rbacv1.PolicyRule { return o.Rules }, none)
	r.clusterRoles = newMirror(&r.mu, func(o *rbacv1.ClusterRole) []rbacv1.PolicyRule { return o.Rules }, none)
	r.roleBindings = newMirror(&r.mu, func(o *rbacv1.RoleBinding) binding {
		return binding{o.Namespace, o.Name, o.RoleRef, o.Subjects}
	}, r.reindex)
	r.clusterRoleBindings = newMirror(&r.mu, func(o *rbacv1.ClusterRoleBinding) binding {
		return binding{"", o.Name, o.RoleRef, o.Subjects}
	}, r.reindex)
	return r
}

// Run follows the rules until ctx ends.
func (r *RBAC) Run(ctx context.Context, source Source) {
	get := func(resource string) cache.ListerWatcher {
		return source(schema.GroupResource{Group: rbacv1.GroupName, Resource: resource})
	}
	var wg sync.WaitGroup
	wg.Go(func() { r.roles.run(ctx, get("roles"), &rbacv1.Role{}) })
	wg.Go(func() { r.clusterRoles.run(ctx, get("clusterroles"), &rbacv1.ClusterRole{}) })
	wg.Go(func() { r.roleBindings.run(ctx, get("rolebindings"), &rbacv1.RoleBinding{}) })
	wg.Go(func() { r.clusterRoleBindings.run(ctx, get("clusterrolebindings"), &rbacv1.ClusterRoleBinding{}) })
	wg.Wait()
}

// Synced waits until the rules that existed when Run began are known.
func (r *RBAC) Synced(ctx context.Context) error {
	for _, c := range []<-chan struct{}{r.roles.synced, r.clusterRoles.synced, r.roleBindings.synced, r.clusterRoleBindings.synced} {
		select {
		case <-c:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Holds waits until the rules of p, which have been written, are known: a write is answered before its watch tells of it.
func (r *RBAC) Holds(ctx context.Context, p Policy) error {
	return errors.Join(
		r.roles.wait(ctx, objectKeys(p.Roles, func(o *rbacv1.Role) metav1.Object { return o })),
		r.clusterRoles.wait(ctx, objectKeys(p.ClusterRoles, func(o *rbacv1.ClusterRole) metav1.Object { return o })),
		r.roleBindings.wait(ctx, objectKeys(p.RoleBindings, func(o *rbacv1.RoleBinding) metav1.Object { return o })),
		r.clusterRoleBindings.wait(ctx, objectKeys(p.ClusterRoleBindings, func(o *rbacv1.ClusterRoleBinding) metav1.Object { return o })))
}

func objectKeys[T any](list []T, meta func(*T) metav1.Object) []string {
	out := make([]string, len(list))
	for i := range list {
		o := meta(&list[i])
		out[i] = keyOf(o.GetNamespace(), o.GetName())
	}
	return out
}

// reindex. Precondition: r.mu is held.
func (r *RBAC) reindex(_ string, old, new *binding) {
	if old != nil {
		subjects := r.index[old.namespace]
		for _, s := range old.subjectKeys() {
			subjects[s] = slices.DeleteFunc(subjects[s], func(b *binding) bool { return b.name == old.name })
			if len(subjects[s]) == 0 {
				delete(subjects, s)
			}
		}
		if len(subjects) == 0 {
			delete(r.index, old.namespace)
		}
	}
	if new == nil {
		return
	}
	for _, s := range new.subjectKeys() {
		subjects := r.index[new.namespace]
		if subjects == nil {
			subjects = map[string][]*binding{}
			r.index[new.namespace] = subjects
		}
		subjects[s] = append(subjects[s], new)
	}
}

// subjectKeys are the binding's subjects as the index names them, each once.
func (b *binding) subjectKeys() []string {
	var keys []string
	for _, s := range b.subjects {
		if key := b.keyOf(s); key != "" && !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	return keys
}

// keyOf is what the index names a subject; "" is nobody. A service account is the user it acts as.
func (b *binding) keyOf(s rbacv1.Subject) string {
	if s.Kind != rbacv1.ServiceAccountKind {
		return s.Kind + " " + s.Name
	}
	ns := cmp.Or(s.Namespace, b.namespace)
	if ns == "" {
		return ""
	}
	return rbacv1.UserKind + " " + serviceaccount.MakeUsername(ns, s.Name)
}

// visit calls f with each binding that a user has in a namespace, until it returns false; those of the cluster come first. One that
// names the user and a group of theirs comes twice. Precondition: r.mu is held.
func (r *RBAC) visit(u user.Info, namespace string, f func(b *binding) bool) {
	keys := keysOf(u)
	scopes := []string{""}
	if namespace != "" {
		scopes = append(scopes, namespace)
	}
	for _, scope := range scopes {
		subjects := r.index[scope]
		for _, k := range keys {
			for _, b := range subjects[k] {
				if !f(b) {
					return
				}
			}
		}
	}
}

// keysOf are the names under which the index has a user.
func keysOf(u user.Info) []string {
	keys := make([]string, 0, len(u.GetGroups())+1)
	keys = append(keys, rbacv1.UserKind+" "+u.GetName())
	for _, g := range u.GetGroups() {
		keys = append(keys, rbacv1.GroupKind+" "+g)
	}
	return keys
}

// rulesOf is a role's rules, none with an error. The error names the role's resource in the singular, as upstream's does.
// Precondition: r.mu is held.
func (r *RBAC) rulesOf(ref rbacv1.RoleRef, namespace string) ([]rbacv1.PolicyRule, error) {
	switch ref.Kind {
	case "Role":
		if rules, ok := r.roles.objs[keyOf(namespace, ref.Name)]; ok {
			return rules, nil
		}
		return nil, apierrors.NewNotFound(schema.GroupResource{Group: rbacv1.GroupName, Resource: "role"}, ref.Name)
	case "ClusterRole":
		if rules, ok := r.clusterRoles.objs[keyOf("", ref.Name)]; ok {
			return rules, nil
		}
		return nil, apierrors.NewNotFound(schema.GroupResource{Group: rbacv1.GroupName, Resource: "clusterrole"}, ref.Name)
	}
	return nil, fmt.Errorf("unsupported role reference kind: %q", ref.Kind)
}

// Authorize implements authorizer.Authorizer; it allows or has no opinion.
func (r *RBAC) Authorize(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var by *binding
	var errs []error
	r.visit(a.GetUser(), a.GetNamespace(), func(b *binding) bool {
		rules, err := r.rulesOf(b.role, b.namespace)
		if err != nil {
			errs = append(errs, err)
		}
		for i := range rules { // by index: rules are large, and there are many
			if allows(&rules[i], a) {
				by = b
				break
			}
		}
		return by == nil
	})
	if by != nil {
		return authorizer.DecisionAllow, by.reason(a.GetUser()), nil
	}
	reason := ""
	if len(errs) > 0 {
		reason = fmt.Sprintf("RBAC: %v", utilerrors.NewAggregate(errs))
	}
	return authorizer.DecisionNoOpinion, reason, nil
}

// reason says by which binding a user may do what they may, and as which of its subjects.
func (b *binding) reason(u user.Info) string {
	kind, name := "ClusterRoleBinding", b.name
	if b.namespace != "" {
		kind, name = "RoleBinding", b.name+"/"+b.namespace
	}
	keys := keysOf(u)
	for _, s := range b.subjects {
		if !slices.Contains(keys, b.keyOf(s)) {
			continue
		}
		as := s.Name
		if s.Kind == rbacv1.ServiceAccountKind {
			as += "/" + cmp.Or(s.Namespace, b.namespace)
		}
		return fmt.Sprintf("RBAC: allowed by %s %q of %s %q to %s %q", kind, name, b.role.Kind, b.role.Name, s.Kind, as)
	}
	return fmt.Sprintf("RBAC: allowed by %s %q of %s %q", kind, name, b.role.Kind, b.role.Name)
}

// ConditionsAwareAuthorize implements authorizer.Authorizer: there are no conditions in RBAC.
func (r *RBAC) ConditionsAwareAuthorize(ctx context.Context, a authorizer.Attributes) authorizer.ConditionsAwareDecision {
	return authorizer.ConditionsAwareDecisionFromParts(r.Authorize(ctx, a))
}

// EvaluateConditions implements authorizer.Authorizer.
func (r *RBAC) EvaluateConditions(context.Context, authorizer.ConditionsAwareDecision, authorizer.ConditionsData) (authorizer.Decision, string, error) {
	return authorizer.DecisionDeny, "", authorizer.ErrorConditionEvaluationNotSupported
}

// RulesFor returns the user's rules in a namespace ("" for the cluster's only). The error, which may come with a part
// of the rules, tells of bound roles that do not exist.
func (r *RBAC) RulesFor(_ context.Context, u user.Info, namespace string) ([]rbacv1.PolicyRule, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var bindings []*binding
	r.visit(u, namespace, func(b *binding) bool {
		bindings = append(bindings, b)
		return true
	})
	slices.SortFunc(bindings, func(a, b *binding) int {
		return cmp.Or(cmp.Compare(a.namespace, b.namespace), cmp.Compare(a.name, b.name))
	})
	var rules []rbacv1.PolicyRule
	var errs []error
	for _, b := range slices.Compact(bindings) {
		some, err := r.rulesOf(b.role, b.namespace)
		if err != nil {
			errs = append(errs, err)
		}
		rules = append(rules, some...)
	}
	return rules, utilerrors.NewAggregate(errs)
}

// Resolver returns r in the form that a review of a user's own rules asks for.
func (r *RBAC) Resolver() authorizer.RuleResolver { return resolver{r} }

type resolver struct{ rbac *RBAC }

func (r resolver) RulesFor(ctx context.Context, u user.Info, namespace string) ([]authorizer.ResourceRuleInfo, []authorizer.NonResourceRuleInfo, bool, error) {
	rules, err := r.rbac.RulesFor(ctx, u, namespace)
	var resources []authorizer.ResourceRuleInfo
	var urls []authorizer.NonResourceRuleInfo
	for _, p := range rules {
		if len(p.Resources) > 0 {
			resources = append(resources, &authorizer.DefaultResourceRuleInfo{
				Verbs: p.Verbs, APIGroups: p.APIGroups, Resources: p.Resources, ResourceNames: p.ResourceNames})
		}
		if len(p.NonResourceURLs) > 0 {
			urls = append(urls, &authorizer.DefaultNonResourceRuleInfo{Verbs: p.Verbs, NonResourceURLs: p.NonResourceURLs})
		}
	}
	if _, node := NodeName(u); node { // what it may do depends on what runs on it, which is not told in rules
		return resources, urls, true, errors.Join(err, errors.New("node authorizer does not support user rule resolution"))
	}
	return resources, urls, false, err
}
