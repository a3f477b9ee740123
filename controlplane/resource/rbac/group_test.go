package rbac

import (
	"context"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"

	"keelson.dev/keelson/controlplane/resource/resourcetest"
)

func TestNames(t *testing.T) {
	resourcetest.CheckNames(t, Group(),
		resourcetest.Row{Plural: "clusterrolebindings", Kind: "ClusterRoleBinding"},
		resourcetest.Row{Plural: "clusterroles", Kind: "ClusterRole"},
		resourcetest.Row{Plural: "rolebindings", Kind: "RoleBinding", Namespaced: true},
		resourcetest.Row{Plural: "roles", Kind: "Role", Namespaced: true})
}

func TestDefaultBinding(t *testing.T) {
	k := resourcetest.Kind(t, Group(), "RoleBinding")
	subjects := func(group string) []rbacv1.Subject {
		return []rbacv1.Subject{{Kind: "User", Name: "u", APIGroup: group}, {Kind: "Group", Name: "g", APIGroup: group}, {Kind: "ServiceAccount", Name: "s"}}
	}
	resourcetest.CheckDefaults(t, k, &rbacv1.RoleBinding{Subjects: subjects("")},
		&rbacv1.RoleBinding{RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName}, Subjects: subjects(rbacv1.GroupName)})
}

func TestValidate(t *testing.T) {
	g := Group()
	for _, c := range []struct {
		kind string
		obj  runtime.Object
		want []string
	}{
		{"Role", &rbacv1.Role{Rules: []rbacv1.PolicyRule{{}}}, []string{
			"rules[0].verbs: Required value",
			"rules[0].apiGroups: Required value: resource rules must supply at least one api group",
			"rules[0].resources: Required value: resource rules must supply at least one resource"}},
		{"Role", &rbacv1.Role{Rules: []rbacv1.PolicyRule{{Verbs: []string{"get"}, NonResourceURLs: []string{"/x"}, Resources: []string{"pods"}}}}, []string{
			`rules[0].nonResourceURLs: Invalid value: ["/x"]: namespaced rules cannot apply to non-resource URLs`,
			`rules[0].nonResourceURLs: Invalid value: ["/x"]: rules cannot apply to both regular resources and non-resource URLs`}},
		{"ClusterRole", &rbacv1.ClusterRole{AggregationRule: &rbacv1.AggregationRule{}}, []string{
			"aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if aggregationRule is non-nil"}},
		{"ClusterRoleBinding", &rbacv1.ClusterRoleBinding{
			RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role"},
			Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: "a"}, {Kind: "Robot"}}}, []string{
			`roleRef.kind: Unsupported value: "Role": supported values: "ClusterRole"`,
			"roleRef.name: Required value",
			"subjects[0].namespace: Required value",
			"subjects[1].name: Required value",
			`subjects[1].kind: Unsupported value: "Robot": supported values: "ServiceAccount", "User", "Group"`}},
	} {
		resourcetest.CheckErrors(t, resourcetest.Kind(t, g, c.kind).Validate(t.Context(), c.obj), c.want...)
	}
	ref := func(name string) *rbacv1.RoleBinding {
		return &rbacv1.RoleBinding{RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name}}
	}
	resourcetest.CheckErrors(t, resourcetest.Kind(t, g, "RoleBinding").ValidateUpdate(t.Context(), ref("a"), ref("b")),
		"field is immutable")
}

type rights struct {
	held, role []rbacv1.PolicyRule
	verb       string // granted by the authorizer
}

func (r rights) RulesFor(context.Context, user.Info, string) ([]rbacv1.PolicyRule, error) {
	return r.held, nil
}
func (r rights) RoleRules(context.Context, rbacv1.RoleRef, string) ([]rbacv1.PolicyRule, error) {
	return r.role, nil
}
func (r rights) Authorize(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	if a.GetVerb() == r.verb {
		return authorizer.DecisionAllow, "", nil
	}
	return authorizer.DecisionNoOpinion, "", nil
}
func (r rights) ConditionsAwareAuthorize(ctx context.Context, a authorizer.Attributes) authorizer.ConditionsAwareDecision {
	return authorizer.ConditionsAwareDecisionFromParts(r.Authorize(ctx, a))
}
func (r rights) EvaluateConditions(ctx context.Context, d authorizer.ConditionsAwareDecision, data authorizer.ConditionsData) (authorizer.Decision, string, error) {
	return authorizer.DecisionNoOpinion, "", nil
}

func TestEscalation(t *testing.T) {
	pods := []rbacv1.PolicyRule{{Verbs: []string{"get", "list"}, APIGroups: []string{""}, Resources: []string{"pods"}}}
	getPods := []rbacv1.PolicyRule{{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"pods"}}}
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "r"}, Rules: pods}
	binding := &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "b"}, RoleRef: rbacv1.RoleRef{Kind: "Role", Name: "r"}}
	aggregated := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "c"}, AggregationRule: &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{{}}}}
	for _, c := range []struct {
		name   string
		obj    runtime.Object
		plural string
		have   rights
		groups []string
		deny   string
	}{
		{"holds the rules", role, "roles", rights{held: pods}, nil, ""},
		{"master", role, "roles", rights{}, []string{"system:masters"}, ""},
		{"may escalate", role, "roles", rights{verb: "escalate"}, nil, ""},
		{"lacks a verb", role, "roles", rights{held: getPods}, nil, `{APIGroups:[""], Resources:["pods"], Verbs:["list"]}`},
		{"binds what is held", binding, "rolebindings", rights{held: pods, role: pods}, nil, ""},
		{"may bind", binding, "rolebindings", rights{role: pods, verb: "bind"}, nil, ""},
		{"binds more", binding, "rolebindings", rights{role: pods}, nil, `user "u" (groups=[]) is attempting to grant RBAC permissions not currently held`},
		{"aggregates", aggregated, "clusterroles", rights{held: pods}, nil, "must have cluster-admin privileges to use the aggregationRule"},
	} {
		t.Run(c.name, func(t *testing.T) {
			checks := Checks{Authorizer: func() authorizer.Authorizer { return c.have }, Rules: func() RuleResolver { return c.have }}
			ctx := request.WithUser(request.WithNamespace(t.Context(), "ns"), &user.DefaultInfo{Name: "u", Groups: c.groups})
			ctx = request.WithRequestInfo(ctx, &request.RequestInfo{IsResourceRequest: true, APIGroup: rbacv1.GroupName, Resource: c.plural, Name: "r", Namespace: "ns"})
			err := checks.allowed(ctx, c.obj, nil)
			switch {
			case c.deny == "" && err != nil:
				t.Errorf("refused: %v", err)
			case c.deny != "" && (!apierrors.IsForbidden(err) || !strings.Contains(err.Error(), c.deny)):
				t.Errorf("got %v, want a refusal with %q", err, c.deny)
			}
		})
	}
	collected := role.DeepCopy()
	collected.Finalizers = []string{"x/y"}
	checks := Checks{Authorizer: func() authorizer.Authorizer { return rights{} }, Rules: func() RuleResolver { return rights{} }}
	ctx := request.WithUser(t.Context(), &user.DefaultInfo{Name: "gc"})
	collected.SetGroupVersionKind(rbacv1.SchemeGroupVersion.WithKind("Role")) // as one who applies has it
	if err := checks.mayUpdate(ctx, collected, role); err != nil {
		t.Errorf("a change of finalizers alone was refused: %v", err)
	}
}

func TestColumns(t *testing.T) {
	b := &rbacv1.ClusterRoleBinding{
		RoleRef:  rbacv1.RoleRef{Kind: "ClusterRole", Name: "admin"},
		Subjects: []rbacv1.Subject{{Kind: "User", Name: "u"}, {Kind: "User", Name: "v"}, {Kind: "ServiceAccount", Namespace: "n", Name: "s"}},
	}
	names, cells := resourcetest.Cells(resourcetest.Kind(t, Group(), "ClusterRoleBinding"), b)
	if names != "Role|Age|+Users|+Groups|+ServiceAccounts" || cells[0] != "ClusterRole/admin" || cells[1] != "u, v" || cells[3] != "n/s" {
		t.Errorf("columns %s, cells %q", names, cells)
	}
}
