package admissionregistration

import (
	"context"
	"errors"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/resource/resourcetest"
)

// reader may do what its lines say: verb, group, resource, namespace, name.
type reader [][5]string

func (r reader) Authorize(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	for _, may := range r {
		if may == [5]string{a.GetVerb(), a.GetAPIGroup(), a.GetResource(), a.GetNamespace(), a.GetName()} {
			return authorizer.DecisionAllow, "", nil
		}
	}
	return authorizer.DecisionNoOpinion, "", nil
}

func checks(may reader) Checks {
	return Checks{
		Authorizer: func() authorizer.Authorizer { return authorizer.AuthorizerFunc(may.Authorize) },
		Resolve: func(k schema.GroupVersionKind) (string, error) {
			if k == (schema.GroupVersionKind{Version: "v1", Kind: "Secret"}) {
				return "secrets", nil
			}
			return "", errors.New("no such kind")
		},
	}
}

func as(t *testing.T, name string, groups ...string) context.Context {
	return request.WithUser(t.Context(), &user.DefaultInfo{Name: name, Groups: groups})
}

func TestParamKindNeedsRead(t *testing.T) {
	secrets := func(s *admissionv1.ValidatingAdmissionPolicySpec) {
		s.ParamKind = &admissionv1.ParamKind{APIVersion: "v1", Kind: "Secret"}
	}
	unknown := func(s *admissionv1.ValidatingAdmissionPolicySpec) {
		s.ParamKind = &admissionv1.ParamKind{APIVersion: "g/v1", Kind: "K"}
	}
	const refused = `spec.paramKind: Forbidden: user &{jane  [] map[]} must have "get" permission on all objects of the referenced paramKind (kind=`
	for _, c := range []struct {
		may  reader
		edit func(*admissionv1.ValidatingAdmissionPolicySpec)
		want []string
	}{
		{nil, nil, nil},
		{nil, secrets, []string{refused + "Secret, apiVersion=v1)"}},
		{reader{{"get", "", "secrets", "*", "*"}}, secrets, nil},
		{reader{{"get", "", "secrets", "*", "*"}}, unknown, []string{refused + "K, apiVersion=g/v1)"}},
		{reader{{"get", "g", "*", "*", "*"}}, unknown, nil},
	} {
		k := resourcetest.Kind(t, GroupWith(checks(c.may)), "ValidatingAdmissionPolicy")
		resourcetest.CheckErrors(t, k.Validate(as(t, "jane"), policy(t, c.edit)), c.want...)
		resourcetest.CheckErrors(t, k.Validate(as(t, "root", user.SystemPrivilegedGroup), policy(t, c.edit)))
		resourcetest.CheckErrors(t, k.ValidateUpdate(as(t, "jane"), policy(t, c.edit), policy(t, nil)), c.want...)
		resourcetest.CheckErrors(t, k.ValidateUpdate(as(t, "jane"), policy(t, c.edit), policy(t, c.edit)))
	}
}

func TestParamRefNeedsRead(t *testing.T) {
	of := func(name string) bound {
		r := &admissionv1.ParamRef{Name: name, Namespace: "n", ParameterNotFoundAction: ptr.To(admissionv1.DenyAction)}
		if name == "" {
			r.Selector = &metav1.LabelSelector{}
		}
		return bound{"p", r}
	}
	const user = "user &{jane  [] map[]}"
	for _, c := range []struct {
		may  reader
		kind *admissionv1.ParamKind
		ref  bound
		want []string
	}{
		{nil, nil, bound{"p", nil}, nil},
		{nil, &admissionv1.ParamKind{APIVersion: "v1", Kind: "Secret"}, of("s"),
			[]string{"spec.paramRef: Forbidden: " + user + ` does not have "get" permission on the object referenced by paramRef`}},
		{reader{{"get", "", "secrets", "n", "s"}}, &admissionv1.ParamKind{APIVersion: "v1", Kind: "Secret"}, of("s"), nil},
		{reader{{"get", "", "secrets", "n", "s"}}, &admissionv1.ParamKind{APIVersion: "v1", Kind: "Secret"}, of(""),
			[]string{"spec.paramRef: Forbidden: " + user + ` does not have "list" permission on the object referenced by paramRef`}},
		{reader{{"list", "", "secrets", "n", ""}}, &admissionv1.ParamKind{APIVersion: "v1", Kind: "Secret"}, of(""), nil},
		{nil, &admissionv1.ParamKind{APIVersion: "g/v1", Kind: "K"}, of("s"), []string{"unable to resolve paramKind"}},
		{nil, nil, of("s"), []string{"unable to get policy p to determine minimum required permissions and " + user}},
		{reader{{"get", "*", "*", "n", "s"}}, nil, of("s"), nil},
	} {
		kinds := &kindOf{
			of: func(runtime.Object) *admissionv1.ParamKind { return c.kind },
			fetch: func(context.Context, string) (runtime.Object, error) {
				if c.kind == nil {
					return nil, errors.New("not found")
				}
				return nil, nil
			},
		}
		resourcetest.CheckErrors(t, checks(c.may).ref(as(t, "jane"), nil, kinds, c.ref, bound{}), c.want...)
		resourcetest.CheckErrors(t, checks(c.may).ref(as(t, "jane"), nil, kinds, c.ref, c.ref))
	}
}
