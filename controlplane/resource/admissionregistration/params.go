package admissionregistration

import (
	"context"
	"fmt"
	"slices"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"

	"keelson.dev/keelson/controlplane/resource"
)

// Checks is what the checks of parameters ask. The server reads a policy's parameters with its own rights, and the policy's messages may
// tell what is in them: who sets a policy on objects must therefore be allowed to read these. Both fields are required for the checks
// to run; the functions are called per request, so they may return what is built after the table.
type Checks struct {
	Authorizer func() authorizer.Authorizer
	// Resolve says in which resource objects of a kind are served.
	Resolve func(schema.GroupVersionKind) (string, error)
}

// asks says whether there is something to ask: a malformed object is refused without, and the server itself may read everything.
func (c Checks) asks(ctx context.Context, errs field.ErrorList) bool {
	if len(errs) > 0 || c.Authorizer == nil || c.Resolve == nil {
		return false
	}
	u, ok := request.UserFrom(ctx)
	return !ok || !slices.Contains(u.GetGroups(), user.SystemPrivilegedGroup)
}

// kind appends what is wrong with the kind of parameters that a policy names now; was is what it named before.
func (c Checks) kind(ctx context.Context, errs field.ErrorList, now, was *admissionv1.ParamKind) field.ErrorList {
	if now == nil || was != nil && *was == *now || !c.asks(ctx, errs) {
		return errs
	}
	a := authorizer.AttributesRecord{Verb: "get", Name: "*", Namespace: "*"}
	_ = c.locate(now, &a)
	refuse := func(err error) field.ErrorList {
		return append(errs, field.Forbidden(field.NewPath("spec", "paramKind"), err.Error()))
	}
	u, allowed, err := c.authorized(ctx, a)
	switch {
	case err != nil:
		return refuse(err)
	case !allowed:
		return refuse(fmt.Errorf(`user %v must have "get" permission on all objects of the referenced paramKind (kind=%s, apiVersion=%s)`,
			u, now.Kind, now.APIVersion))
	}
	return errs
}

// bound is what a binding says of its policy's parameters.
type bound struct {
	policy string
	param  *admissionv1.ParamRef
}

// ref appends what is wrong with the parameters that a binding refers to now; was is what it said before.
func (c Checks) ref(ctx context.Context, errs field.ErrorList, kinds *kindOf, now, was bound) field.ErrorList {
	same := now.policy == was.policy && apiequality.Semantic.DeepEqual(now.param, was.param)
	if now.param == nil || same || !c.asks(ctx, errs) {
		return errs
	}
	a := authorizer.AttributesRecord{Verb: "get", Name: now.param.Name, Namespace: now.param.Namespace}
	if a.Name == "" {
		a.Verb = "list"
	}
	kind, unknown := kinds.get(ctx, now.policy)
	if unknown == nil {
		unknown = c.locate(kind, &a)
	} else {
		a.APIGroup, a.APIVersion, a.Resource = "*", "*", "*"
		unknown = fmt.Errorf("get policy %s", now.policy)
	}
	refuse := func(err error) field.ErrorList {
		return append(errs, field.Forbidden(field.NewPath("spec", "paramRef"), err.Error()))
	}
	u, allowed, err := c.authorized(ctx, a)
	switch {
	case err != nil:
		return refuse(fmt.Errorf("failed to authorize request: %w", err))
	case !allowed && unknown != nil:
		return refuse(fmt.Errorf(`unable to %w to determine minimum required permissions and user %v does not have "%v" permission for all groups, versions and resources`,
			unknown, u, a.Verb))
	case !allowed:
		return refuse(fmt.Errorf(`user %v does not have "%v" permission on the object referenced by paramRef`, u, a.Verb))
	}
	return errs
}

// locate fills in where objects of the kind are served. What it does not know it leaves at "everything", and says so.
func (c Checks) locate(kind *admissionv1.ParamKind, a *authorizer.AttributesRecord) error {
	a.APIGroup, a.APIVersion, a.Resource = "*", "*", "*"
	if kind == nil {
		return nil
	}
	gv, err := schema.ParseGroupVersion(kind.APIVersion)
	if err != nil {
		return fmt.Errorf("parse paramKind %v", kind)
	}
	a.APIGroup, a.APIVersion = gv.Group, gv.Version
	r, err := c.Resolve(gv.WithKind(kind.Kind))
	if err != nil {
		return fmt.Errorf("resolve paramKind %v", kind)
	}
	a.Resource = r
	return nil
}

func (c Checks) authorized(ctx context.Context, a authorizer.AttributesRecord) (user.Info, bool, error) {
	u, ok := request.UserFrom(ctx)
	if !ok {
		return nil, false, fmt.Errorf("cannot identify user to authorize read access to parameters")
	}
	a.User, a.ResourceRequest = u, true
	decision, _, err := c.Authorizer().Authorize(ctx, a)
	return u, decision == authorizer.DecisionAllow, err
}

// kindOf reads which parameters a policy has that a binding names.
type kindOf struct {
	plural string
	of     func(runtime.Object) *admissionv1.ParamKind
	fetch  func(ctx context.Context, policy string) (runtime.Object, error) // set by install
}

func (k *kindOf) install(d resource.Deps, _ *genericregistry.Store) (map[string]rest.Storage, error) {
	k.fetch = func(ctx context.Context, policy string) (runtime.Object, error) {
		return d.Store(schema.GroupResource{Group: admissionv1.GroupName, Resource: k.plural}).Get(ctx, policy, &metav1.GetOptions{})
	}
	return nil, nil
}

func (k *kindOf) get(ctx context.Context, policy string) (*admissionv1.ParamKind, error) {
	o, err := k.fetch(ctx, policy)
	if err != nil {
		return nil, err
	}
	return k.of(o), nil
}
