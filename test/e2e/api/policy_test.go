package api

import (
	"fmt"
	"strings"
	"testing"

	registration "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/test/lab/labtest"
)

// matching is what a policy is about: the ConfigMaps of a namespace.
func matching(ns string) *registration.MatchResources {
	rule := on("", "v1", "configmaps")[0]
	rule.Operations = []registration.OperationType{registration.Create, registration.Update}
	return &registration.MatchResources{NamespaceSelector: in(ns), ResourceRules: []registration.NamedRuleWithOperations{{RuleWithOperations: rule}}}
}

// validatingPolicy makes a policy and its binding, named as the namespace, which go with the test.
func (a *admin) validatingPolicy(t *testing.T, ns string, spec registration.ValidatingAdmissionPolicySpec, bindings ...registration.ValidatingAdmissionPolicyBindingSpec) {
	t.Helper()
	spec.MatchConstraints = matching(ns)
	api := a.AdmissionregistrationV1()
	p := &registration.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: ns}, Spec: spec}
	if _, err := api.ValidatingAdmissionPolicies().Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = api.ValidatingAdmissionPolicies().Delete(background, ns, metav1.DeleteOptions{}) })
	for i, b := range bindings {
		b.PolicyName = ns
		name := fmt.Sprint(ns, "-", i)
		binding := &registration.ValidatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: b}
		if _, err := api.ValidatingAdmissionPolicyBindings().Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = api.ValidatingAdmissionPolicyBindings().Delete(background, name, metav1.DeleteOptions{})
		})
	}
}

// A policy in CEL with parameters, variables, conditions, messages that it computes, and what it writes to the audit log. The second
// round is of a policy that comes when the last one with such parameters has gone.
func TestValidatingAdmissionPolicy(t *testing.T) {
	a := newAdmin(t)
	for _, round := range []string{"first", "again"} {
		ns := a.namespace(t, "policy-"+round)
		t.Run(round, func(t *testing.T) { policyWithParameters(t, a, ns) })
		labtest.Eventually(t, "the policy is gone", func() string {
			_, err := a.create(t, ns, named("m", nil), metav1.DryRunAll)
			if err != nil && strings.Contains(err.Error(), "ValidatingAdmissionPolicy") {
				return err.Error()
			}
			return ""
		})
	}
}

func policyWithParameters(t *testing.T, a *admin, ns string) {
	for _, limit := range []string{"2", "3"} {
		m := named("limit-"+limit, map[string]string{"limits": "yes"})
		m.Data = map[string]string{"keys": limit}
		if _, err := a.create(t, ns, m); err != nil {
			t.Fatal(err)
		}
	}
	spec := registration.ValidatingAdmissionPolicySpec{
		ParamKind:       &registration.ParamKind{APIVersion: "v1", Kind: "ConfigMap"},
		MatchConditions: []registration.MatchCondition{{Name: "not-a-limit", Expression: "!has(object.metadata.labels) || !('limits' in object.metadata.labels)"}, {Name: "people", Expression: "!request.userInfo.username.startsWith('system:')"}},
		Variables: []registration.Variable{
			{Name: "keys", Expression: "has(object.data) ? object.data.size() : 0"},
			{Name: "most", Expression: "int(params.data.keys)"},
			{Name: "mayMore", Expression: "authorizer.group('').resource('nodes').namespace(request.namespace).check('create').allowed() && namespaceObject.metadata.name != request.namespace"},
		},
		Validations: []registration.Validation{
			{Expression: "variables.keys <= variables.most || variables.mayMore", Reason: ptr.To(metav1.StatusReasonForbidden),
				MessageExpression: "'has ' + string(variables.keys) + ' keys, may have ' + params.data.keys"},
			{Expression: "oldObject == null || oldObject.metadata.uid == object.metadata.uid", Message: "never"},
		},
		AuditAnnotations: []registration.AuditAnnotation{{Key: "keys", ValueExpression: "string(variables.keys) + ' of ' + params.data.keys"}},
	}
	refs := func(r registration.ParamRef, actions ...registration.ValidationAction) registration.ValidatingAdmissionPolicyBindingSpec {
		r.ParameterNotFoundAction = ptr.To(registration.DenyAction)
		return registration.ValidatingAdmissionPolicyBindingSpec{ParamRef: &r, ValidationActions: actions}
	}
	a.validatingPolicy(t, ns, spec,
		refs(registration.ParamRef{Name: "limit-3"}, registration.Deny, registration.Audit),
		refs(registration.ParamRef{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"limits": "yes"}}}, registration.Warn, registration.Audit))

	with := func(name string, keys int) *corev1.ConfigMap {
		m := named(name, nil)
		m.Data = map[string]string{}
		for i := range keys {
			m.Data[fmt.Sprint("k", i)] = ""
		}
		return m
	}
	labtest.Eventually(t, "the policy is in force", func() string {
		_, err := a.create(t, ns, with("four", 4), metav1.DryRunAll)
		if apierrors.IsForbidden(err) && strings.Contains(err.Error(), "ValidatingAdmissionPolicy '"+ns+"' with binding '"+ns+"-0' denied request: has 4 keys, may have 3") &&
			a.Warned("Validation failed for ValidatingAdmissionPolicy '"+ns+"' with binding '"+ns+"-1': has 4 keys, may have 2") {
			return ""
		}
		return fmt.Sprint(err, a.Warnings())
	})
	if _, err := a.create(t, ns, with("three", 3)); err != nil {
		t.Fatal(err)
	}
	if !a.Warned("has 3 keys, may have 2") {
		t.Errorf("warnings %q", a.Warnings())
	}
	wantAudit(t, "three", ns, ns+"/keys", "3 of 2")
	wantAudit(t, "three", ns, "validation.policy.admission.k8s.io/validation_failure", "has 3 keys, may have 2")

	if err := a.CoreV1().ConfigMaps(ns).Delete(t.Context(), "limit-3", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	labtest.Eventually(t, "a parameter that is gone denies", func() string {
		_, err := a.create(t, ns, with("one", 1), metav1.DryRunAll)
		if err != nil && strings.Contains(err.Error(), "no params found for policy binding with `Deny` parameterNotFoundAction") {
			return ""
		}
		return fmt.Sprint(err)
	})
}

// An expression that cannot be evaluated fails as the policy says; one that does not compile is refused when it is written.
func TestPolicyThatFails(t *testing.T) {
	a := newAdmin(t)
	ns := a.namespace(t, "failing")
	spec := registration.ValidatingAdmissionPolicySpec{Validations: []registration.Validation{{Expression: "object.data.nosuch == 'x'"}}, FailurePolicy: ptr.To(registration.Fail)}
	deny := registration.ValidatingAdmissionPolicyBindingSpec{ValidationActions: []registration.ValidationAction{registration.Deny}}
	a.validatingPolicy(t, ns, spec, deny)
	labtest.Eventually(t, "the policy is in force", func() string {
		_, err := a.create(t, ns, named("m", nil), metav1.DryRunAll)
		if err != nil && strings.Contains(err.Error(), "no such key") {
			return ""
		}
		return fmt.Sprint(err)
	})
	policies := a.AdmissionregistrationV1().ValidatingAdmissionPolicies()
	p, err := policies.Get(t.Context(), ns, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	p.Spec.FailurePolicy = ptr.To(registration.Ignore)
	if _, err := policies.Update(t.Context(), p, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	a.inForce(t, ns, func(_ *corev1.ConfigMap, err error) bool { return err == nil })
	for name, expression := range map[string]string{
		"syntax": "object.", "type": "1 + 'a'", "undeclared": "nosuch.x", "not a bool": "'a'",
	} {
		bad := &registration.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: "bad"}, Spec: registration.ValidatingAdmissionPolicySpec{
			MatchConstraints: matching(ns), Validations: []registration.Validation{{Expression: expression}}}}
		_, err := policies.Create(t.Context(), bad, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "spec.validations[0].expression") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The server says what it thinks of a policy's expressions before anybody is refused by them.
func TestPolicyTypeChecking(t *testing.T) {
	a := newAdmin(t)
	ns := a.namespace(t, "checked")
	a.validatingPolicy(t, ns, registration.ValidatingAdmissionPolicySpec{Validations: []registration.Validation{{Expression: "object.nosuch == 1"}}})
	labtest.Eventually(t, "the policy is checked", func() string {
		p, err := a.AdmissionregistrationV1().ValidatingAdmissionPolicies().Get(t.Context(), ns, metav1.GetOptions{})
		if err != nil || p.Status.ObservedGeneration != p.Generation || p.Status.TypeChecking == nil || len(p.Status.TypeChecking.ExpressionWarnings) != 1 {
			return fmt.Sprint(p.Status, err)
		}
		if w := p.Status.TypeChecking.ExpressionWarnings[0]; w.FieldRef != "spec.validations[0].expression" || !strings.Contains(w.Warning, "undefined field 'nosuch'") {
			t.Errorf("warning %+v", w)
		}
		return ""
	})
}

// Mutating policies apply configurations and JSON patches, with parameters, and are asked again when a later one changed the object.
func TestMutatingAdmissionPolicy(t *testing.T) {
	a := newAdmin(t)
	ns := a.namespace(t, "mutating-policy")
	params := named("params", map[string]string{"policy": "params"})
	params.Data = map[string]string{"team": "blue"}
	if _, err := a.create(t, ns, params); err != nil {
		t.Fatal(err)
	}
	api := a.AdmissionregistrationV1()
	policy := func(name string, again registration.ReinvocationPolicyType, mutations ...registration.Mutation) {
		name += "." + ns
		spec := registration.MutatingAdmissionPolicySpec{MatchConstraints: matching(ns), Mutations: mutations, ReinvocationPolicy: again,
			ParamKind:       &registration.ParamKind{APIVersion: "v1", Kind: "ConfigMap"},
			MatchConditions: []registration.MatchCondition{{Name: "not-the-parameters", Expression: "request.name != 'params'"}, {Name: "people", Expression: "!request.userInfo.username.startsWith('system:')"}}}
		p := &registration.MutatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}
		if _, err := api.MutatingAdmissionPolicies().Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = api.MutatingAdmissionPolicies().Delete(background, name, metav1.DeleteOptions{}) })
		b := &registration.MutatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: registration.MutatingAdmissionPolicyBindingSpec{PolicyName: name,
			ParamRef: &registration.ParamRef{Name: "params", Namespace: ns, ParameterNotFoundAction: ptr.To(registration.DenyAction)}}}
		if _, err := api.MutatingAdmissionPolicyBindings().Create(t.Context(), b, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = api.MutatingAdmissionPolicyBindings().Delete(background, name, metav1.DeleteOptions{}) })
	}
	apply := func(expression string) registration.Mutation {
		return registration.Mutation{PatchType: registration.PatchTypeApplyConfiguration, ApplyConfiguration: &registration.ApplyConfiguration{Expression: expression}}
	}
	patch := func(expression string) registration.Mutation {
		return registration.Mutation{PatchType: registration.PatchTypeJSONPatch, JSONPatch: &registration.JSONPatch{Expression: expression}}
	}
	policy("a", registration.IfNeededReinvocationPolicy,
		apply(`has(object.data) && 'late' in object.data ? Object{data: {"saw": "late"}} : Object{}`))
	policy("b", registration.NeverReinvocationPolicy,
		apply(`Object{metadata: Object.metadata{labels: {"team": params.data.team}}}`),
		patch(`[JSONPatch{op: "add", path: "/metadata/annotations", value: {"escaped": jsonpatch.escapeKey("a/b~c")}},
			JSONPatch{op: "add", path: "/data", value: {"late": object.metadata.labels["team"]}}]`))
	a.inForce(t, ns, func(m *corev1.ConfigMap, err error) bool {
		return err == nil && m.Data["late"] != "" && m.Data["saw"] != ""
	})

	m, err := a.create(t, ns, named("m", nil))
	if err != nil {
		t.Fatal(err)
	}
	if m.Labels["team"] != "blue" || m.Annotations["escaped"] != "a~1b~0c" || m.Data["late"] != "blue" || m.Data["saw"] != "late" {
		t.Errorf("%v %v %v", m.Labels, m.Annotations, m.Data)
	}
}
