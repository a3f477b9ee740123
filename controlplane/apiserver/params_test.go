package apiserver

import (
	"strings"
	"testing"

	registration "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// judge writes a policy on ConfigMaps that reads parameters of a kind, and its binding to one of them.
func judge(t *testing.T, client kubernetes.Interface, name string, kind registration.ParamKind, expression, param string) (policy, binding error) {
	t.Helper()
	api := client.AdmissionregistrationV1()
	rule := registration.NamedRuleWithOperations{RuleWithOperations: registration.RuleWithOperations{Operations: []registration.OperationType{registration.Create},
		Rule: registration.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"configmaps"}}}}
	_, policy = api.ValidatingAdmissionPolicies().Create(t.Context(), &registration.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: registration.ValidatingAdmissionPolicySpec{
		ParamKind: &kind, MatchConstraints: &registration.MatchResources{ResourceRules: []registration.NamedRuleWithOperations{rule}},
		Validations: []registration.Validation{{Expression: expression, Message: "refused by " + name}}}}, createOptions)
	_, binding = api.ValidatingAdmissionPolicyBindings().Create(t.Context(), &registration.ValidatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: registration.ValidatingAdmissionPolicyBindingSpec{PolicyName: name, ValidationActions: []registration.ValidationAction{registration.Deny},
			ParamRef: &registration.ParamRef{Name: param, Namespace: "default", ParameterNotFoundAction: ptr(registration.DenyAction)}}}, createOptions)
	return policy, binding
}

// TestPolicyParameters: a kind that is defined after the first policy may have parameters of the next; and nobody reads by a policy
// what he may not read.
func TestPolicyParameters(t *testing.T) {
	r := start(t, "")
	refused := func(by string) func() bool {
		return func() bool {
			_, err := r.client.CoreV1().ConfigMaps("default").Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "c-"}}, createOptions)
			return err != nil && strings.Contains(err.Error(), "refused by "+by)
		}
	}
	must(t)(r.client.CoreV1().Secrets("default").Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "limits"}}, createOptions))
	secrets := registration.ParamKind{APIVersion: "v1", Kind: "Secret"}
	if policy, binding := judge(t, r.client, "by-secret", secrets, "params.metadata.name == 'other'", "limits"); policy != nil || binding != nil {
		t.Fatal(policy, binding)
	}
	eventually(t, "the first policy is in force", refused("by-secret"))
	if err := r.client.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings().Delete(t.Context(), "by-secret", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	api := define(t, r, apiextensionsv1.NamespaceScoped).Namespace("default")
	must(t)(api.Create(t.Context(), ship("galleon", 3), createOptions))
	if policy, binding := judge(t, r.client, "by-ship", registration.ParamKind{APIVersion: "keelson.test/v1", Kind: "Ship"}, "params.spec.masts > 3", "galleon"); policy != nil || binding != nil {
		t.Fatal(policy, binding)
	}
	eventually(t, "the policy of a kind that came later is in force", refused("by-ship"))
	// One who may write policies and nothing else.
	grant(t, r, "jane", rbacv1.PolicyRule{Verbs: []string{"*"}, APIGroups: []string{registration.GroupName}, Resources: []string{"*"}})
	config := rest.CopyConfig(r.admin)
	config.Impersonate.UserName = "jane"
	policy, binding := judge(t, r.as(t, config), "of-jane", secrets, "true", "limits")
	if !apierrors.IsInvalid(policy) || !strings.Contains(policy.Error(), `spec.paramKind: Forbidden`) {
		t.Errorf("jane's policy reads Secrets: %v", policy)
	}
	if !apierrors.IsInvalid(binding) || !strings.Contains(binding.Error(), "spec.paramRef: Forbidden") {
		t.Errorf("jane's binding reads a Secret: %v", binding)
	}
}
