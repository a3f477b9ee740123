package api

import (
	"fmt"
	"strings"
	"testing"

	admission "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/openapi3"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/test/lab/labtest"
)

func deploymentsOf(ns, group, resource string) *admission.MatchResources {
	return &admission.MatchResources{NamespaceSelector: marked(ns), ResourceRules: []admission.NamedRuleWithOperations{{RuleWithOperations: rule(group, "v1", resource, admission.Create, admission.Update)[0]}}}
}

// policy makes a policy for a namespace, which goes with the test.
func (a *admin) policy(t *testing.T, name string, match *admission.MatchResources, variables []admission.Variable, validations ...admission.Validation) {
	t.Helper()
	api := a.AdmissionregistrationV1().ValidatingAdmissionPolicies()
	must(api.Create(ctx, &admission.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: admission.ValidatingAdmissionPolicySpec{
		MatchConstraints: match, Variables: variables, Validations: validations}}, metav1.CreateOptions{}))(t)
	t.Cleanup(func() { _ = api.Delete(ctx, name, metav1.DeleteOptions{}) })
}

func (a *admin) bind(t *testing.T, ns, policy string) {
	t.Helper()
	api := a.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings()
	must(api.Create(ctx, &admission.ValidatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: policy}, Spec: admission.ValidatingAdmissionPolicyBindingSpec{
		PolicyName: policy, MatchResources: &admission.MatchResources{NamespaceSelector: marked(ns)}, ValidationActions: []admission.ValidationAction{admission.Deny}}}, metav1.CreateOptions{}))(t)
	t.Cleanup(func() { _ = api.Delete(ctx, policy, metav1.DeleteOptions{}) })
}

// deploy makes a Deployment that goes at once.
func (a *admin) deploy(ns, name string, replicas int32) (*appsv1.Deployment, error) {
	labels := map[string]string{"app": name}
	d, err := a.AppsV1().Deployments(ns).Create(ctx, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: appsv1.DeploymentSpec{
		Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: idle(labels)}}, metav1.CreateOptions{})
	if err == nil {
		_ = a.AppsV1().Deployments(ns).Delete(ctx, name, metav1.DeleteOptions{})
	}
	return d, err
}

// A policy refuses Deployments by their replicas and leaves ReplicaSets alone, with variables and without; one that mutates adds an annotation.
//
// Upstream's titles: ValidatingAdmissionPolicy should validate against a Deployment; should allow expressions to refer variables;
// MutatingAdmissionPolicy should mutate a Deployment.
func TestPolicies(t *testing.T) {
	a := cluster(t)
	for name, c := range map[string]struct {
		variables   []admission.Variable
		validations []admission.Validation
		good        int32
		says        string
	}{
		"plain": {nil, []admission.Validation{{Expression: "object.spec.replicas > 1", MessageExpression: "'wants replicas > 1, got ' + string(object.spec.replicas)"}, {Expression: "namespaceObject.metadata.name.startsWith('policy')", Message: "another namespace"}}, 2, "wants replicas > 1, got 1"},
		"variables": {[]admission.Variable{{Name: "replicas", Expression: "object.spec.replicas"}, {Name: "oddReplicas", Expression: "variables.replicas % 2 == 1"}},
			[]admission.Validation{{Expression: "variables.replicas > 1"}, {Expression: "variables.oddReplicas"}}, 3, "failed expression: variables.replicas > 1"},
	} {
		t.Run(name, func(t *testing.T) {
			ns := a.namespace(t, "policy")
			a.policy(t, ns+".policy.example.com", deploymentsOf(ns, "apps", "deployments"), c.variables, c.validations...)
			a.bind(t, ns, ns+".policy.example.com")
			soon(t, "in force", func() error {
				_, err := a.deploy(ns, "marker-deployment", 1)
				if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), c.says) {
					return fmt.Errorf("%v, want %s", err, c.says)
				}
				return nil
			})
			if _, err := a.deploy(ns, "replicated", c.good); err != nil {
				t.Error(err)
			}
			labels := map[string]string{"app": "x"}
			must(a.AppsV1().ReplicaSets(ns).Create(ctx, &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Name: "x"}, Spec: appsv1.ReplicaSetSpec{
				Replicas: ptr.To[int32](1), Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: idle(labels)}}, metav1.CreateOptions{}))(t)
		})
	}
	t.Run("mutating", func(t *testing.T) {
		ns := a.namespace(t, "policy")
		policies, bindings := a.AdmissionregistrationV1().MutatingAdmissionPolicies(), a.AdmissionregistrationV1().MutatingAdmissionPolicyBindings()
		must(policies.Create(ctx, &admission.MutatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: ns}, Spec: admission.MutatingAdmissionPolicySpec{
			MatchConstraints: deploymentsOf(ns, "apps", "deployments"), ReinvocationPolicy: admission.NeverReinvocationPolicy,
			Mutations: []admission.Mutation{{PatchType: admission.PatchTypeApplyConfiguration, ApplyConfiguration: &admission.ApplyConfiguration{
				Expression: `Object{metadata: Object.metadata{annotations: {"mutated-by": "admission-policy"}}}`}}}}}, metav1.CreateOptions{}))(t)
		t.Cleanup(func() { _ = policies.Delete(ctx, ns, metav1.DeleteOptions{}) })
		must(bindings.Create(ctx, &admission.MutatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: ns}, Spec: admission.MutatingAdmissionPolicyBindingSpec{
			PolicyName: ns, MatchResources: &admission.MatchResources{NamespaceSelector: marked(ns)}}}, metav1.CreateOptions{}))(t)
		t.Cleanup(func() { _ = bindings.Delete(ctx, ns, metav1.DeleteOptions{}) })
		soon(t, "mutated", func() error {
			d, err := a.deploy(ns, "test-deployment", 2)
			if err == nil && d.Annotations["mutated-by"] != "admission-policy" {
				err = fmt.Errorf("annotations %v", d.Annotations)
			}
			return err
		})
	})
}

// What a policy's expressions confuse is told in its status, of built-in kinds and of custom ones.
//
// Upstream's titles: ValidatingAdmissionPolicy should type check validation expressions; should type check a CRD.
func TestPoliciesAreTypeChecked(t *testing.T) {
	a := cluster(t)
	ns := a.namespace(t, "typecheck")
	d, _ := a.crd(t, "stable."+ns, "CronTab", []apiextensionsv1.CustomResourceDefinitionVersion{version(t, "v1", `{type: object, properties: {spec: {type: object, properties: {cronSpec: {type: string}, image: {type: string}, replicas: {type: integer}}}}}`)})
	labtest.Eventually(t, "the kind is in OpenAPI", func() string {
		_, err := openapi3.NewRoot(a.Discovery().OpenAPIV3()).GVSpec(schema.GroupVersion{Group: d.Spec.Group, Version: "v1"})
		return complaint(err)
	})
	for name, c := range map[string]struct {
		group, resource string
		validations     []admission.Validation
		fields, says    []string
	}{
		"right": {"apps", "deployments", []admission.Validation{{Expression: "object.spec.replicas > 1"}}, nil, nil},
		"confused": {"apps", "deployments", []admission.Validation{{Expression: "object.spec.replicas > '1'", MessageExpression: "'wants replicas > 1, got ' + object.spec.replicas"}},
			[]string{"spec.validations[0].expression", "spec.validations[0].messageExpression"}, []string{"found no matching overload for '_>_' applied to '(int, string)'", "found no matching overload for '_+_' applied to '(string, int)'"}},
		"right-crd": {d.Spec.Group, "crontabs", []admission.Validation{{Expression: "object.spec.replicas > 1"}}, nil, nil},
		"confused-crd": {d.Spec.Group, "crontabs", []admission.Validation{{Expression: "object.spec.replicas > '1'"}, {Expression: "object.spec.maxRetries < 10"}},
			[]string{"spec.validations[0].expression", "spec.validations[1].expression"}, []string{"found no matching overload for '_>_' applied to '(int, string)'", "undefined field 'maxRetries'"}},
	} {
		t.Run(name, func(t *testing.T) {
			policy := ns + "." + name + ".example.com"
			a.policy(t, policy, deploymentsOf(ns, c.group, c.resource), nil, c.validations...)
			labtest.Eventually(t, "the check", func() string {
				p := must(a.AdmissionregistrationV1().ValidatingAdmissionPolicies().Get(ctx, policy, metav1.GetOptions{}))(t)
				if p.Status.TypeChecking == nil {
					return "not done"
				}
				warnings := p.Status.TypeChecking.ExpressionWarnings
				if len(warnings) != len(c.says) {
					t.Fatalf("warnings %v", warnings)
				}
				for i, w := range warnings {
					if w.FieldRef != c.fields[i] || !strings.Contains(w.Warning, c.says[i]) {
						t.Errorf("%s: %s, want %s: %s", w.FieldRef, w.Warning, c.fields[i], c.says[i])
					}
				}
				return ""
			})
		})
	}
}
