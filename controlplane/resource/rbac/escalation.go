package rbac

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/component-helpers/auth/rbac/validation"

	"keelson.dev/keelson/controlplane/resource/check"
)

// guarded is a kind's storage behind the checks. They come before everything else that the storage looks at: who may not grant
// what a role has is told so, and not that the object is invalid or has changed meanwhile.
type guarded struct {
	*genericregistry.Store
	checks Checks
}

// Create implements rest.Creater.
func (g guarded) Create(ctx context.Context, obj runtime.Object, validate rest.ValidateObjectFunc, o *metav1.CreateOptions) (runtime.Object, error) {
	if err := g.checks.allowed(ctx, obj, nil); err != nil {
		return nil, err
	}
	return g.Store.Create(ctx, obj, validate, o)
}

// Update implements rest.Updater.
func (g guarded) Update(ctx context.Context, name string, info rest.UpdatedObjectInfo, create rest.ValidateObjectFunc, update rest.ValidateObjectUpdateFunc,
	forceCreate bool, o *metav1.UpdateOptions) (runtime.Object, bool, error) {
	info = rest.WrapUpdatedObjectInfo(info, func(ctx context.Context, obj, old runtime.Object) (runtime.Object, error) {
		return obj, g.checks.mayUpdate(ctx, obj, old)
	})
	return g.Store.Update(ctx, name, info, create, update, forceCreate, o)
}

func (c Checks) mayUpdate(ctx context.Context, obj, old runtime.Object) error {
	if onlyCollection(obj, old) {
		return nil
	}
	return c.allowed(ctx, obj, old)
}

// onlyCollection says that an update changes nothing but what the garbage collector changes:
// whoever may delete dependents may do so without holding the role's rights.
func onlyCollection(obj, old runtime.Object) bool {
	if old == nil {
		return false
	}
	was, err := meta.Accessor(old)
	if err != nil {
		return false
	}
	o := obj.DeepCopyObject()
	now, err := meta.Accessor(o)
	if err != nil {
		return false
	}
	now.SetOwnerReferences(was.GetOwnerReferences())
	now.SetFinalizers(was.GetFinalizers())
	now.SetManagedFields(was.GetManagedFields())
	o.GetObjectKind().SetGroupVersionKind(old.GetObjectKind().GroupVersionKind()) // which a client that applies writes
	return check.Same(o, old)
}

func (c Checks) allowed(ctx context.Context, obj, old runtime.Object) error {
	u, ok := request.UserFrom(ctx)
	if ok && slices.Contains(u.GetGroups(), user.SystemPrivilegedGroup) {
		return nil
	}
	switch o := obj.(type) {
	case *rbacv1.Role:
		return c.mayGrant(ctx, "roles", o.Name, o.Rules, false)
	case *rbacv1.ClusterRole:
		was, _ := old.(*rbacv1.ClusterRole)
		return c.mayGrant(ctx, "clusterroles", o.Name, o.Rules, aggregates(o) || aggregates(was))
	case *rbacv1.RoleBinding:
		namespace, ok := request.NamespaceFrom(ctx)
		if !ok {
			return apierrors.NewBadRequest("namespace is required")
		}
		return c.mayBind(ctx, "rolebindings", o.Name, o.RoleRef, namespace)
	case *rbacv1.ClusterRoleBinding:
		return c.mayBind(ctx, "clusterrolebindings", o.Name, o.RoleRef, "")
	}
	return fmt.Errorf("rbac escalation check of %T: not a kind of this group", obj)
}

func aggregates(r *rbacv1.ClusterRole) bool {
	return r != nil && r.AggregationRule != nil && len(r.AggregationRule.ClusterRoleSelectors) > 0
}

// everything is what an aggregated role can grow to, hence what its author must hold.
var everything = []rbacv1.PolicyRule{
	{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}},
	{Verbs: []string{"*"}, NonResourceURLs: []string{"*"}},
}

func (c Checks) mayGrant(ctx context.Context, plural, name string, rules []rbacv1.PolicyRule, aggregated bool) error {
	if info, ok := request.RequestInfoFrom(ctx); ok && info.IsResourceRequest && info.APIGroup == rbacv1.GroupName && info.Resource == plural &&
		c.authorized(ctx, "escalate", rbacv1.GroupName, plural, info.Name, info.Namespace) {
		return nil
	}
	if err := c.covers(ctx, plural, rules); err != nil {
		return forbidden(plural, name, err)
	}
	if aggregated && c.covers(ctx, plural, everything) != nil {
		return forbidden(plural, name, errors.New("must have cluster-admin privileges to use the aggregationRule"))
	}
	return nil
}

func (c Checks) mayBind(ctx context.Context, plural, name string, ref rbacv1.RoleRef, namespace string) error {
	// A reference that validation will refuse grants nothing: let validation say what is wrong with it.
	var target string
	switch ref.Kind {
	case "ClusterRole":
		target = "clusterroles"
	case "Role":
		target = "roles"
	}
	if target != "" && c.authorized(ctx, "bind", ref.APIGroup, target, ref.Name, namespace) {
		return nil
	}
	rules, err := c.Rules().RoleRules(ctx, ref, namespace)
	if err != nil {
		return err
	}
	if err := c.covers(ctx, plural, rules); err != nil {
		return forbidden(plural, name, err)
	}
	return nil
}

func (c Checks) authorized(ctx context.Context, verb, group, plural, name, namespace string) bool {
	u, ok := request.UserFrom(ctx)
	if !ok {
		return false
	}
	// An error counts as no: the check by rules follows, and tells the user what is missing.
	decision, _, _ := c.Authorizer().Authorize(ctx, authorizer.AttributesRecord{
		User: u, Verb: verb, APIGroup: group, APIVersion: "*",
		Resource: plural, Name: name, Namespace: namespace, ResourceRequest: true,
	})
	return decision == authorizer.DecisionAllow
}

// covers says which of the rules the requesting user does not hold.
func (c Checks) covers(ctx context.Context, plural string, rules []rbacv1.PolicyRule) error {
	u, ok := request.UserFrom(ctx)
	if !ok {
		return errors.New("no user on context")
	}
	namespace, _ := request.NamespaceFrom(ctx)
	held, resolveErr := c.Rules().RulesFor(ctx, u, namespace)
	ok, missing := validation.Covers(held, rules)
	if ok {
		return nil
	}
	var lines []string
	for _, r := range compact(missing) {
		lines = append(lines, describe(r))
	}
	slices.Sort(lines)
	msg := fmt.Sprintf("user %q (groups=%q) is attempting to grant RBAC permissions not currently held:\n%s",
		u.GetName(), u.GetGroups(), strings.Join(slices.Compact(lines), "\n"))
	if resolveErr != nil {
		msg += fmt.Sprintf("; resolution errors: [%v]", inRequest(resolveErr, plural))
	}
	return errors.New(msg)
}

// inRequest writes errors about roles that do not exist as upstream does, which names the resource of the request instead of theirs.
func inRequest(err error, plural string) error {
	var all utilerrors.Aggregate
	if !errors.As(err, &all) {
		all = utilerrors.NewAggregate([]error{err})
	}
	var out []error
	for _, e := range all.Errors() {
		var status apierrors.APIStatus
		if apierrors.IsNotFound(e) && errors.As(e, &status) && status.Status().Details != nil {
			e = apierrors.NewNotFound(rbacv1.Resource(plural), status.Status().Details.Name)
		}
		out = append(out, e)
	}
	return utilerrors.NewAggregate(out)
}

// compact joins rules that differ in their verb only.
func compact(rules []rbacv1.PolicyRule) []rbacv1.PolicyRule {
	var out []rbacv1.PolicyRule
next:
	for _, r := range rules {
		for i := range out {
			a, b := out[i], r
			a.Verbs, b.Verbs = nil, nil
			if len(r.Resources) == 1 && check.Same(a, b) {
				out[i].Verbs = append(out[i].Verbs, r.Verbs...)
				continue next
			}
		}
		r.Verbs = slices.Clone(r.Verbs)
		out = append(out, r)
	}
	return out
}

// describe writes a rule on one line, leaving out what is empty.
func describe(r rbacv1.PolicyRule) string {
	var parts []string
	for _, p := range []struct {
		name   string
		values []string
	}{
		{"APIGroups", r.APIGroups}, {"Resources", r.Resources}, {"NonResourceURLs", r.NonResourceURLs},
		{"ResourceNames", r.ResourceNames}, {"Verbs", r.Verbs},
	} {
		if len(p.values) > 0 {
			parts = append(parts, fmt.Sprintf("%s:%q", p.name, p.values))
		}
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

func forbidden(plural, name string, err error) error {
	return apierrors.NewForbidden(schema.GroupResource{Group: rbacv1.GroupName, Resource: plural}, name, err)
}
