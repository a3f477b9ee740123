package admissionregistration

import (
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/resource/resourcetest"
)

func TestNames(t *testing.T) {
	var rows []resourcetest.Row
	for plural, kind := range map[string]string{
		"mutatingadmissionpolicies":         "MutatingAdmissionPolicy",
		"mutatingadmissionpolicybindings":   "MutatingAdmissionPolicyBinding",
		"mutatingwebhookconfigurations":     "MutatingWebhookConfiguration",
		"validatingadmissionpolicies":       "ValidatingAdmissionPolicy",
		"validatingadmissionpolicybindings": "ValidatingAdmissionPolicyBinding",
		"validatingwebhookconfigurations":   "ValidatingWebhookConfiguration",
	} {
		rows = append(rows, resourcetest.Row{Plural: plural, Kind: kind, Categories: "api-extensions"})
	}
	resourcetest.CheckNames(t, Group(), rows...)
}

func pods() admissionv1.RuleWithOperations {
	return admissionv1.RuleWithOperations{
		Operations: []admissionv1.OperationType{"CREATE"},
		Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
	}
}

func hooks(t *testing.T, edit func(*admissionv1.ValidatingWebhook)) *admissionv1.ValidatingWebhookConfiguration {
	c := &admissionv1.ValidatingWebhookConfiguration{Webhooks: []admissionv1.ValidatingWebhook{{
		Name: "a.example.com", Rules: []admissionv1.RuleWithOperations{pods()}, SideEffects: ptr.To(admissionv1.SideEffectClassNone),
		AdmissionReviewVersions: []string{"v1"},
		ClientConfig:            admissionv1.WebhookClientConfig{Service: &admissionv1.ServiceReference{Namespace: "n", Name: "s"}},
	}}}
	if edit != nil {
		edit(&c.Webhooks[0])
	}
	resourcetest.Kind(t, Group(), "ValidatingWebhookConfiguration").Default(c)
	return c
}

func TestWebhookDefaults(t *testing.T) {
	w := hooks(t, nil).Webhooks[0]
	if *w.FailurePolicy != "Fail" || *w.MatchPolicy != "Equivalent" || *w.TimeoutSeconds != 10 || *w.ClientConfig.Service.Port != 443 ||
		*w.Rules[0].Scope != "*" || w.NamespaceSelector == nil || w.ObjectSelector == nil {
		t.Errorf("%+v", w)
	}
	resourcetest.CheckDefaults(t, resourcetest.Kind(t, Group(), "ValidatingWebhookConfiguration"), hooks(t, nil), hooks(t, nil))
	m := &admissionv1.MutatingWebhookConfiguration{Webhooks: []admissionv1.MutatingWebhook{{}}}
	resourcetest.Kind(t, Group(), "MutatingWebhookConfiguration").Default(m)
	if *m.Webhooks[0].ReinvocationPolicy != "Never" {
		t.Errorf("%+v", m.Webhooks[0])
	}
}

func TestValidateWebhook(t *testing.T) {
	k := resourcetest.Kind(t, Group(), "ValidatingWebhookConfiguration")
	for _, c := range []struct {
		edit func(*admissionv1.ValidatingWebhook)
		want []string
	}{
		{nil, nil},
		{func(w *admissionv1.ValidatingWebhook) { w.Name = "short" }, []string{`webhooks[0].name: Invalid value: "short": should be a domain with at least three segments separated by dots`}},
		{func(w *admissionv1.ValidatingWebhook) { w.SideEffects = nil }, []string{"webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun"}},
		{func(w *admissionv1.ValidatingWebhook) { w.SideEffects = ptr.To(admissionv1.SideEffectClassSome) }, []string{`webhooks[0].sideEffects: Unsupported value: "Some": supported values: "None", "NoneOnDryRun"`}},
		{func(w *admissionv1.ValidatingWebhook) { w.TimeoutSeconds = ptr.To[int32](31) }, []string{"webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds"}},
		{func(w *admissionv1.ValidatingWebhook) { w.ClientConfig.URL = ptr.To("https://x") }, []string{"webhooks[0].clientConfig: Required value: exactly one of url or service is required"}},
		{func(w *admissionv1.ValidatingWebhook) {
			w.ClientConfig = admissionv1.WebhookClientConfig{URL: ptr.To("http://x")}
		}, []string{`webhooks[0].clientConfig.url: Invalid value: "http": 'https' is the only allowed URL scheme`}},
		{func(w *admissionv1.ValidatingWebhook) { w.AdmissionReviewVersions = []string{"v9"} }, []string{"webhooks[0].admissionReviewVersions: Invalid value: [\"v9\"]: must include at least one of v1, v1beta1"}},
		{func(w *admissionv1.ValidatingWebhook) {
			w.Rules[0].Operations = []admissionv1.OperationType{"*", "CREATE"}
		}, []string{"if '*' is present, must not specify other operations"}},
		{func(w *admissionv1.ValidatingWebhook) { w.Rules[0].Resources = []string{"pods/*", "pods/status"} }, []string{`webhooks[0].rules[0].resources[1]: Invalid value: "pods/status": if 'pods/*' is present, must not specify pods/status`}},
		{func(w *admissionv1.ValidatingWebhook) { w.Rules[0].Resources = []string{"*", "pods"} }, []string{"if '*' is present, must not specify other resources without subresources"}},
		{func(w *admissionv1.ValidatingWebhook) {
			w.MatchConditions = []admissionv1.MatchCondition{{Name: "c", Expression: "object.x +"}, {Name: "c", Expression: "1"}}
		}, []string{"webhooks[0].matchConditions[0].expression: Invalid value: \"object.x +\": compilation failed",
			`webhooks[0].matchConditions[1].expression: Invalid value: "1": must evaluate to bool`,
			`webhooks[0].matchConditions[1].name: Duplicate value: "c"`}},
	} {
		resourcetest.CheckErrors(t, k.Validate(t.Context(), hooks(t, c.edit)), c.want...)
	}
}

func policy(t *testing.T, edit func(*admissionv1.ValidatingAdmissionPolicySpec)) *admissionv1.ValidatingAdmissionPolicy {
	p := &admissionv1.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: admissionv1.ValidatingAdmissionPolicySpec{
		MatchConstraints: &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: pods()}}},
		Variables:        []admissionv1.Variable{{Name: "n", Expression: "size(object.spec.containers)"}},
		Validations:      []admissionv1.Validation{{Expression: "variables.n < 3", MessageExpression: "'at most two, not ' + string(variables.n)"}},
	}}
	if edit != nil {
		edit(&p.Spec)
	}
	resourcetest.Kind(t, Group(), "ValidatingAdmissionPolicy").Default(p)
	return p
}

func TestValidatePolicy(t *testing.T) {
	k := resourcetest.Kind(t, Group(), "ValidatingAdmissionPolicy")
	for _, c := range []struct {
		edit func(*admissionv1.ValidatingAdmissionPolicySpec)
		want []string
	}{
		{nil, nil},
		{func(s *admissionv1.ValidatingAdmissionPolicySpec) { s.MatchConstraints = nil }, []string{"spec.matchConstraints: Required value"}},
		{func(s *admissionv1.ValidatingAdmissionPolicySpec) { s.Validations = nil }, []string{
			"spec.validations: Required value: validations or auditAnnotations must contain at least one item",
			"spec.auditAnnotations: Required value: validations or auditAnnotations must contain at least one item"}},
		{func(s *admissionv1.ValidatingAdmissionPolicySpec) { s.Validations[0].Expression = "object.spec." }, []string{"spec.validations[0].expression: Invalid value: \"object.spec.\": compilation failed"}},
		{func(s *admissionv1.ValidatingAdmissionPolicySpec) { s.Validations[0].Expression = "variables.missing" }, []string{"undefined field 'missing'"}},
		{func(s *admissionv1.ValidatingAdmissionPolicySpec) { s.Validations[0].Expression = "params.x" }, []string{"undeclared reference to 'params'"}},
		{func(s *admissionv1.ValidatingAdmissionPolicySpec) { s.Validations[0].Expression = "'text'" }, []string{"must evaluate to bool"}},
		{func(s *admissionv1.ValidatingAdmissionPolicySpec) { s.Validations[0].Message = "a\nb" }, []string{"spec.validations[0].message: Invalid value: \"a\\nb\": must not contain line breaks"}},
		{func(s *admissionv1.ValidatingAdmissionPolicySpec) { s.ParamKind = &admissionv1.ParamKind{Kind: "K"} }, []string{"spec.paramKind.apiVersion: Required value"}},
		{func(s *admissionv1.ValidatingAdmissionPolicySpec) {
			s.ParamKind = &admissionv1.ParamKind{APIVersion: "g/", Kind: "K"}
		}, []string{`spec.paramKind.apiVersion: Invalid value: "g/": version must be specified`}},
		{func(s *admissionv1.ValidatingAdmissionPolicySpec) { s.Validations[0].Expression = "true &&\n\ttrue" }, nil},
		{func(s *admissionv1.ValidatingAdmissionPolicySpec) {
			s.Validations[0].Reason = ptr.To(metav1.StatusReasonUnauthorized)
		}, []string{`spec.validations[0].reason: Unsupported value: "Unauthorized": supported values: "Forbidden", "Invalid", "RequestEntityTooLarge"`}},
		{func(s *admissionv1.ValidatingAdmissionPolicySpec) {
			s.Variables[0].Name = "namespace"
			s.Validations[0] = admissionv1.Validation{Expression: "true"}
		}, []string{`spec.variables[0].name: Invalid value: "namespace": must be a valid CEL identifier`}},
		{func(s *admissionv1.ValidatingAdmissionPolicySpec) {
			s.AuditAnnotations = []admissionv1.AuditAnnotation{{Key: "a/b", ValueExpression: "'x'"}}
		}, []string{`spec.auditAnnotations[0].key: Invalid value: "p/a/b": a valid label key must consist of`}},
		{func(s *admissionv1.ValidatingAdmissionPolicySpec) {
			s.AuditAnnotations = []admissionv1.AuditAnnotation{{Key: "k", ValueExpression: "'" + strings.Repeat("x", 5<<10) + "'"}}
		}, []string{"spec.auditAnnotations[0].valueExpression: Required value: must not exceed 5120 bytes in length"}},
		{func(s *admissionv1.ValidatingAdmissionPolicySpec) {
			s.MatchConstraints.ObjectSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"a b": ""}}
		}, []string{"spec.matchConstraints.objectSelector.matchLabels: Invalid value"}},
		{func(s *admissionv1.ValidatingAdmissionPolicySpec) {
			s.MatchConstraints.ResourceRules[0].Resources = []string{"pods", "*"}
		}, nil},
	} {
		resourcetest.CheckErrors(t, k.Validate(t.Context(), policy(t, c.edit)), c.want...)
	}
}

func TestValidateMutatingPolicy(t *testing.T) {
	k := resourcetest.Kind(t, Group(), "MutatingAdmissionPolicy")
	of := func(m admissionv1.Mutation) *admissionv1.MutatingAdmissionPolicy {
		p := &admissionv1.MutatingAdmissionPolicy{Spec: admissionv1.MutatingAdmissionPolicySpec{
			MatchConstraints:   &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: pods()}}},
			Mutations:          []admissionv1.Mutation{m},
			ReinvocationPolicy: "Never",
		}}
		k.Default(p)
		return p
	}
	apply := func(text string) admissionv1.Mutation {
		return admissionv1.Mutation{PatchType: "ApplyConfiguration", ApplyConfiguration: &admissionv1.ApplyConfiguration{Expression: text}}
	}
	resourcetest.CheckErrors(t, k.Validate(t.Context(), of(apply(`Object{metadata: Object.metadata{labels: {"a": "b"}}}`))))
	resourcetest.CheckErrors(t, k.Validate(t.Context(), of(apply(`1`))), "spec.mutations[0].applyConfiguration.expression: Invalid value: \"1\": must evaluate to Object but got int")
	resourcetest.CheckErrors(t, k.Validate(t.Context(), of(admissionv1.Mutation{PatchType: "JSONPatch"})), "spec.mutations[0].jsonPatch: Required value")
	both := apply(`Object{}`)
	both.JSONPatch = &admissionv1.JSONPatch{}
	resourcetest.CheckErrors(t, k.Validate(t.Context(), of(both)), "spec.mutations[0].jsonPatch: Invalid value: \"{jsonPatch}\": must not be specified when patchType is ApplyConfiguration")
	gone := of(apply(`Object{}`))
	gone.Spec.MatchConstraints.ResourceRules[0].Operations = []admissionv1.OperationType{"DELETE"}
	resourcetest.CheckErrors(t, k.Validate(t.Context(), gone), `spec.matchConstraints.resourceRules.operations: Unsupported value: "DELETE": supported values: "*", "CONNECT", "CREATE", "UPDATE"`)
}

func TestValidateBinding(t *testing.T) {
	k := resourcetest.Kind(t, Group(), "ValidatingAdmissionPolicyBinding")
	bad := &admissionv1.ValidatingAdmissionPolicyBinding{Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
		ParamRef:          &admissionv1.ParamRef{Name: "p", Selector: &metav1.LabelSelector{}},
		ValidationActions: []admissionv1.ValidationAction{"Deny", "Warn"},
	}}
	resourcetest.CheckErrors(t, k.Validate(t.Context(), bad),
		"spec.policyName: Required value",
		"spec.paramRef.name: Forbidden: name and selector are mutually exclusive",
		"spec.paramRef.selector: Forbidden: name and selector are mutually exclusive",
		"spec.paramRef.parameterNotFoundAction: Required value",
		"must not contain both Deny and Warn")
	names, cells := resourcetest.Cells(k, runtime.Object(bad))
	if names != "PolicyName|ParamRef|Age" || cells[1] != "*/p" {
		t.Errorf("columns %s, cells %v", names, cells)
	}
}

func TestValidateStatus(t *testing.T) {
	k := resourcetest.Kind(t, Group(), "ValidatingAdmissionPolicy")
	p := policy(t, nil)
	p.Status.TypeChecking = &admissionv1.TypeChecking{ExpressionWarnings: []admissionv1.ExpressionWarning{
		{FieldRef: "spec.validations[0].expression", Warning: "w"}, {FieldRef: "spec.x[", Warning: "w"}, {},
	}}
	resourcetest.CheckErrors(t, k.ValidateStatusUpdate(t.Context(), p, p),
		`status.typeChecking.expressionWarnings[1].fieldRef: Invalid value: "spec.x[": invalid JSONPath`,
		"status.typeChecking.expressionWarnings[2].warning: Required value",
		"status.typeChecking.expressionWarnings[2].fieldRef: Required value")
}

func TestReserved(t *testing.T) {
	k := resourcetest.Kind(t, Group(), "ValidatingWebhookConfiguration")
	h := hooks(t, func(w *admissionv1.ValidatingWebhook) {
		w.Rules[0].APIGroups, w.Rules[0].Resources = []string{"authorization.k8s.io", ""}, []string{"subjectaccessreviews", "pods"}
	})
	h.Name = "a.static.k8s.io"
	resourcetest.CheckErrors(t, k.Validate(t.Context(), h), `metadata.name: Invalid value: "a.static.k8s.io": names ending with ".static.k8s.io" are reserved`)
	resourcetest.CheckErrors(t, k.ValidateUpdate(t.Context(), h, h))
	const excluded = "webhooks[0].rules[0]: subjectaccessreviews.authorization.k8s.io is excluded from admission webhooks; this rule will have no effect"
	if w := k.Warnings(t.Context(), h, nil); len(w) != 1 || w[0] != excluded {
		t.Errorf("warnings on create: %q", w)
	}
	if w := k.Warnings(t.Context(), h, h); len(w) != 2 || w[1] != excluded {
		t.Errorf("warnings on update: %q", w)
	}
}
