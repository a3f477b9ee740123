package admission

import (
	"context"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/util/compatibility"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/resource/admissionregistration"
)

func onConfigMaps() []admissionv1.RuleWithOperations {
	return []admissionv1.RuleWithOperations{{
		Operations: []admissionv1.OperationType{"*"},
		Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"configmaps"}, Scope: ptr.To(admissionv1.AllScopes)},
	}}
}

// extended is admission with webhooks and policies on, over a cluster with the given configuration.
func extended(t *testing.T, objects ...runtime.Object) admission.Interface {
	t.Helper()
	objects = append(objects, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}})
	d := deps(t, fake.NewClientset(objects...))
	d.Dynamic = dynamicfake.NewSimpleDynamicClient(runtime.NewScheme())
	mapper := meta.NewDefaultRESTMapper([]schema.GroupVersion{{Version: "v1"}})
	mapper.Add(corev1.SchemeGroupVersion.WithKind("ConfigMap"), meta.RESTScopeNamespace)
	d.RESTMapper, d.Features, d.Version = mapper, utilfeature.DefaultFeatureGate, compatibility.DefaultBuildEffectiveVersion()
	c, err := New(d)
	if err != nil {
		t.Fatal(err)
	}
	d.Informers.Start(d.Stop)
	return c
}

func writeConfigMap(t *testing.T, c admission.Interface) error {
	t.Helper()
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "m", Namespace: "ns"}}
	a := admission.NewAttributesRecord(m, nil, corev1.SchemeGroupVersion.WithKind("ConfigMap"), "ns", "m",
		corev1.SchemeGroupVersion.WithResource("configmaps"), "", admission.Create, nil, false, alice)
	o := admission.NewObjectInterfacesFromScheme(scheme.Scheme)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := c.(admission.MutationInterface).Admit(ctx, a, o); err != nil {
		return err
	}
	return c.(admission.ValidationInterface).Validate(ctx, a, o)
}

func TestWebhooksAndPoliciesExistOnceConfigured(t *testing.T) {
	hook := &admissionv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "w"}, Webhooks: []admissionv1.ValidatingWebhook{{
		Name: "w.example.com", ClientConfig: admissionv1.WebhookClientConfig{URL: ptr.To("https://127.0.0.1:1/")}, Rules: onConfigMaps(),
		FailurePolicy: ptr.To(admissionv1.Fail), MatchPolicy: ptr.To(admissionv1.Exact), SideEffects: ptr.To(admissionv1.SideEffectClassNone),
		NamespaceSelector: &metav1.LabelSelector{}, ObjectSelector: &metav1.LabelSelector{}, AdmissionReviewVersions: []string{"v1"}, TimeoutSeconds: ptr.To[int32](1),
	}}}
	policy := &admissionv1.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: admissionv1.ValidatingAdmissionPolicySpec{
		FailurePolicy: ptr.To(admissionv1.Fail),
		MatchConstraints: &admissionv1.MatchResources{MatchPolicy: ptr.To(admissionv1.Exact), NamespaceSelector: &metav1.LabelSelector{}, ObjectSelector: &metav1.LabelSelector{},
			ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: onConfigMaps()[0]}}},
		Validations: []admissionv1.Validation{{Expression: "object.metadata.name != 'm'", Message: "not this name"}},
	}}
	binding := &admissionv1.ValidatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
		PolicyName: "p", ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny}}}
	for name, tc := range map[string]struct {
		objects []runtime.Object
		want    string
	}{
		"nothing":                {nil, ""},
		"a webhook that is down": {[]runtime.Object{hook}, `failed calling webhook "w.example.com"`},
		"a policy":               {[]runtime.Object{policy, binding}, "not this name"},
	} {
		t.Run(name, func(t *testing.T) { refused(t, writeConfigMap(t, extended(t, tc.objects...)), tc.want) })
	}
}

// What guards every request must not be guarded by what a user configures: he could shut out everybody.
func TestReviewsAreNotIntercepted(t *testing.T) {
	everything := onConfigMaps()
	everything[0].APIGroups, everything[0].Resources = []string{"*"}, []string{"*"}
	hook := &admissionv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "w"}, Webhooks: []admissionv1.ValidatingWebhook{{
		Name: "w.example.com", ClientConfig: admissionv1.WebhookClientConfig{URL: ptr.To("https://127.0.0.1:1/")}, Rules: everything,
		FailurePolicy: ptr.To(admissionv1.Fail), MatchPolicy: ptr.To(admissionv1.Exact), SideEffects: ptr.To(admissionv1.SideEffectClassNone),
		NamespaceSelector: &metav1.LabelSelector{}, ObjectSelector: &metav1.LabelSelector{}, AdmissionReviewVersions: []string{"v1"}, TimeoutSeconds: ptr.To[int32](1),
	}}}
	c := extended(t, hook)
	refused(t, writeConfigMap(t, c), `failed calling webhook "w.example.com"`)
	for _, r := range admissionregistration.Excluded() {
		gv := schema.GroupVersion{Group: r.Group, Version: "v1"}
		a := admission.NewAttributesRecord(&authorizationv1.SubjectAccessReview{}, nil, gv.WithKind("Review"), "", "",
			gv.WithResource(r.Resource), "", admission.Create, nil, false, alice)
		refused(t, c.(admission.ValidationInterface).Validate(t.Context(), a, admission.NewObjectInterfacesFromScheme(scheme.Scheme)), "")
	}
}
