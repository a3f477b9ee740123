package admissionregistration

import (
	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func set[T any](p **T, v T) {
	if *p == nil {
		*p = &v
	}
}

// hook is what the two kinds of webhook have in common, by reference.
type hook struct {
	name              *string
	client            *admissionv1.WebhookClientConfig
	rules             []admissionv1.RuleWithOperations
	failurePolicy     **admissionv1.FailurePolicyType
	matchPolicy       **admissionv1.MatchPolicyType
	namespaceSelector **metav1.LabelSelector
	objectSelector    **metav1.LabelSelector
	sideEffects       *admissionv1.SideEffectClass
	timeout           **int32
	versions          []string
	conditions        []admissionv1.MatchCondition
}

func ofMutating(w *admissionv1.MutatingWebhook) hook {
	return hook{&w.Name, &w.ClientConfig, w.Rules, &w.FailurePolicy, &w.MatchPolicy, &w.NamespaceSelector, &w.ObjectSelector,
		w.SideEffects, &w.TimeoutSeconds, w.AdmissionReviewVersions, w.MatchConditions}
}

func ofValidating(w *admissionv1.ValidatingWebhook) hook {
	return hook{&w.Name, &w.ClientConfig, w.Rules, &w.FailurePolicy, &w.MatchPolicy, &w.NamespaceSelector, &w.ObjectSelector,
		w.SideEffects, &w.TimeoutSeconds, w.AdmissionReviewVersions, w.MatchConditions}
}

func defaultHook(h hook) {
	set(h.failurePolicy, admissionv1.Fail)
	set(h.matchPolicy, admissionv1.Equivalent)
	set(h.namespaceSelector, metav1.LabelSelector{})
	set(h.objectSelector, metav1.LabelSelector{})
	set(h.timeout, 10)
	if h.client.Service != nil {
		set(&h.client.Service.Port, 443)
	}
	for i := range h.rules {
		set(&h.rules[i].Scope, admissionv1.AllScopes)
	}
}

// defaultMatch: without these defaults the library takes a policy without selectors for broken and refuses everything.
func defaultMatch(m *admissionv1.MatchResources) {
	if m == nil {
		return
	}
	set(&m.MatchPolicy, admissionv1.Equivalent)
	set(&m.NamespaceSelector, metav1.LabelSelector{})
	set(&m.ObjectSelector, metav1.LabelSelector{})
	for i := range m.ResourceRules {
		set(&m.ResourceRules[i].Scope, admissionv1.AllScopes)
	}
	for i := range m.ExcludeResourceRules {
		set(&m.ExcludeResourceRules[i].Scope, admissionv1.AllScopes)
	}
}
