package api

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	admission "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/cert"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/test/lab/labtest"
)

// podServer is a server of agnhost's behind a Service, with a certificate for the Service's name.
type podServer struct {
	ns, name string
	port     int32
	bundle   []byte
}

// serve starts a Deployment and a Service for one of agnhost's verbs that serve TLS.
func (a *admin) serve(t *testing.T, ns, name string, port int32, args ...string) podServer {
	t.Helper()
	pemCert, pemKey, err := cert.GenerateSelfSignedCertKey(name+"."+ns+".svc", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	must(a.CoreV1().Secrets(ns).Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string][]byte{"tls.crt": pemCert, "tls.key": pemKey}}, metav1.CreateOptions{}))(t)
	manifest := fmt.Sprintf(`
kind: Deployment
apiVersion: apps/v1
metadata: {name: %[1]s}
spec:
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: c, image: "%[2]s", args: ["%[3]s", --tls-cert-file=/certs/tls.crt, --tls-private-key-file=/certs/tls.key], volumeMounts: [{name: certs, mountPath: /certs, readOnly: true}],
        readinessProbe: {periodSeconds: 1, tcpSocket: {port: %[4]d}}}]
      volumes: [{name: certs, secret: {secretName: %[1]s}}]
---
kind: Service
apiVersion: v1
metadata: {name: %[1]s}
spec: {selector: {app: %[1]s}, ports: [{port: 8443, targetPort: %[4]d}]}`, name, agnhost, strings.Join(args, `", "`), port)
	if out, err := a.kubectlIn(ns, manifest, "create", "-f", "-"); err != nil {
		t.Fatal(out)
	}
	a.kubectl(t, ns, "rollout", "status", "deployment/"+name, "--timeout=60s")
	return podServer{ns, name, 8443, pemCert}
}

func (s podServer) client(path string) admission.WebhookClientConfig {
	return admission.WebhookClientConfig{CABundle: s.bundle, Service: &admission.ServiceReference{Namespace: s.ns, Name: s.name, Path: &path, Port: &s.port}}
}

// rule is of some operations on a kind.
func rule(group, version, resource string, operations ...admission.OperationType) []admission.RuleWithOperations {
	return []admission.RuleWithOperations{{Operations: operations, Rule: admission.Rule{APIGroups: []string{group}, APIVersions: []string{version}, Resources: []string{resource}}}}
}

func marked(label string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{label: "true"}}
}

// hooks make webhooks of a test's own namespace.
type hooks struct {
	*admin
	t  *testing.T
	ns string // its objects alone are asked about
	s  podServer
}

func (h hooks) validating(name, path string, rules []admission.RuleWithOperations) admission.ValidatingWebhook {
	return admission.ValidatingWebhook{Name: name + ".k8s.io", ClientConfig: h.s.client(path), Rules: rules, NamespaceSelector: marked(h.ns), TimeoutSeconds: ptr.To[int32](10),
		SideEffects: ptr.To(admission.SideEffectClassNone), AdmissionReviewVersions: []string{"v1", "v1beta1"}}
}

func (h hooks) mutating(name, path string, rules []admission.RuleWithOperations) admission.MutatingWebhook {
	return admission.MutatingWebhook{Name: name + ".k8s.io", ClientConfig: h.s.client(path), Rules: rules, NamespaceSelector: marked(h.ns), TimeoutSeconds: ptr.To[int32](10),
		SideEffects: ptr.To(admission.SideEffectClassNone), AdmissionReviewVersions: []string{"v1", "v1beta1"}}
}

func (h hooks) validate(name string, labels map[string]string, webhooks ...admission.ValidatingWebhook) *admission.ValidatingWebhookConfiguration {
	h.t.Helper()
	api := h.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	c := must(api.Create(ctx, &admission.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: h.ns + "-" + name, Labels: labels}, Webhooks: webhooks}, metav1.CreateOptions{}))(h.t)
	h.t.Cleanup(func() { _ = api.Delete(ctx, c.Name, metav1.DeleteOptions{}) })
	return c
}

func (h hooks) mutate(name string, labels map[string]string, webhooks ...admission.MutatingWebhook) *admission.MutatingWebhookConfiguration {
	h.t.Helper()
	api := h.AdmissionregistrationV1().MutatingWebhookConfigurations()
	c := must(api.Create(ctx, &admission.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: h.ns + "-" + name, Labels: labels}, Webhooks: webhooks}, metav1.CreateOptions{}))(h.t)
	h.t.Cleanup(func() { _ = api.Delete(ctx, c.Name, metav1.DeleteOptions{}) })
	return c
}

// config makes a ConfigMap that goes at once if it came to be.
func (h hooks) config(ns, name string, data map[string]string) (*corev1.ConfigMap, error) {
	m, err := h.CoreV1().ConfigMaps(ns).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: data}, metav1.CreateOptions{})
	if err == nil {
		_ = h.CoreV1().ConfigMaps(ns).Delete(ctx, name, metav1.DeleteOptions{})
	}
	return m, err
}

// soon waits for a registration to count.
func soon(t *testing.T, what string, f func() error) {
	t.Helper()
	labtest.Eventually(t, what, func() string { return complaint(f()) })
}

var unwanted, start = map[string]string{"webhook-e2e-test": "webhook-disallow"}, map[string]string{"mutation-start": "yes"}

// refused wants an error that says something.
func refused(err error, says string) error {
	if err == nil || !strings.Contains(err.Error(), says) {
		return fmt.Errorf("%v, want %s", err, says)
	}
	return nil
}

// mutated wants the keys of two stages, or of none.
func mutated(m *corev1.ConfigMap, err error, want bool) error {
	if err != nil {
		return err
	}
	if (len(m.Data) == 3) != want || want && (m.Data["mutation-stage-1"] != "yes" || m.Data["mutation-stage-2"] != "yes") {
		return fmt.Errorf("data %v, want stages: %t", m.Data, want)
	}
	return nil
}

// Webhooks in a pod behind a Service validate and mutate what their configurations say, as long as those say it.
//
// Upstream's titles: AdmissionWebhook should include webhook resources in discovery documents; should be able to deny pod and configmap
// creation; should be able to deny attaching pod; should be able to deny custom resource creation, update and deletion; should
// unconditionally reject operations on fail closed webhook; should mutate configmap; should mutate pod and apply defaults after mutation;
// should not be able to mutate or prevent deletion of webhook configuration objects; should mutate custom resource; should deny crd
// creation; should mutate custom resource with different stored version; ... with pruning; should honor timeout; patching/updating a
// validating webhook should work; ... mutating ...; listing validating webhooks should work; ... mutating ...; match conditions (six).
func TestWebhooks(t *testing.T) {
	a := cluster(t)
	home := a.namespace(t, "webhook")
	s := a.serve(t, home, "e2e-test-webhook", 8444, "webhook")
	for name, f := range map[string]func(hooks){
		"deny": hooks.denies, "attach": hooks.deniesAttach, "custom": hooks.deniesCustom, "closed": hooks.failsClosed, "stages": hooks.mutatesInStages, "pod": hooks.mutatesPods,
		"themselves": hooks.leaveThemselvesAlone, "mutate-custom": hooks.mutatesCustom, "crd": hooks.deniesDefinitions, "timeout": hooks.honourTimeouts,
		"change": hooks.areChanged, "list": hooks.areListed, "conditions": hooks.haveConditions,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(hooks{a, t, a.namespace(t, "hooked"), s})
		})
	}
}

func (h hooks) denies() {
	t := h.t
	open := h.validating("fail-open", "/configmaps", rule("", "v1", "configmaps", admission.Create))
	open.FailurePolicy, open.ClientConfig.CABundle = ptr.To(admission.Ignore), nil
	maps := h.validating("deny-configmaps", "/configmaps", rule("", "v1", "configmaps", admission.Create, admission.Update, admission.Delete))
	maps.NamespaceSelector = &metav1.LabelSelector{MatchLabels: marked(h.ns).MatchLabels, MatchExpressions: []metav1.LabelSelectorRequirement{{Key: h.ns + "-skip", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"yes"}}}}
	h.validate("deny", nil, h.validating("deny-pods", "/pods", rule("", "v1", "pods", admission.Create)), maps, open)
	soon(t, "in force", func() error {
		_, err := h.config(h.ns, "marker", unwanted)
		return refused(err, "the configmap contains unwanted key and value")
	})
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "disallowed-pod", Labels: unwanted}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "webhook-disallow", Image: agnhost}}}}
	_, err := h.CoreV1().Pods(h.ns).Create(ctx, pod, metav1.CreateOptions{})
	for _, says := range []string{"the pod contains unwanted container name", "the pod contains unwanted label"} {
		if err := refused(err, says); err != nil {
			t.Error(err)
		}
	}
	hanging := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "hanging-pod"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "wait-forever", Image: agnhost}}}}
	_, err = h.CoreV1().Pods(h.ns).Create(ctx, hanging, metav1.CreateOptions{})
	if err == nil || !strings.Contains(err.Error(), "webhook") || !strings.Contains(err.Error(), "deadline") {
		t.Errorf("a webhook that hangs: %v", err)
	}
	if _, err := h.CoreV1().Pods(h.ns).Get(ctx, "hanging-pod", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Error(err)
	}
	api := h.CoreV1().ConfigMaps(h.ns)
	m := must(api.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "allowed"}, Data: map[string]string{"admit": "this"}}, metav1.CreateOptions{}))(t)
	m.Data = unwanted
	_, err = api.Update(ctx, m, metav1.UpdateOptions{})
	if err := refused(err, "the configmap contains unwanted key and value"); err != nil {
		t.Error(err)
	}
	_, err = api.Patch(ctx, "allowed", types.StrategicMergePatchType, []byte(`{"data":{"webhook-e2e-test":"webhook-disallow"}}`), metav1.PatchOptions{})
	if err := refused(err, "the configmap contains unwanted key and value"); err != nil {
		t.Error(err)
	}
	must(h.CoreV1().Namespaces().Patch(ctx, h.ns, types.MergePatchType, []byte(`{"metadata":{"labels":{"`+h.ns+`-skip":"yes"}}}`), metav1.PatchOptions{}))(t)
	soon(t, "a namespace that is exempt", func() error { _, err := h.config(h.ns, "free", unwanted); return err })
}

func (h hooks) deniesAttach() {
	t := h.t
	if out, err := h.kubectlIn(h.ns, "{kind: Pod, apiVersion: v1, metadata: {name: to-be-attached-pod}, spec: {terminationGracePeriodSeconds: 0, containers: [{name: container1, image: "+agnhost+"}]}}", "create", "-f", "-"); err != nil {
		t.Fatal(out)
	}
	h.kubectl(t, h.ns, "wait", "--for=condition=Ready", "pod/to-be-attached-pod", "--timeout=60s")
	h.validate("attach", nil, h.validating("deny-attaching-pod", "/pods/attach", rule("", "v1", "pods/attach", admission.Connect)))
	soon(t, "attach", func() error {
		short, cancel := context.WithTimeout(ctx, labtest.Patience/20) // an attach that is let in lasts
		defer cancel()
		out, errs, err := shared.Kubectl(short, "attach", "--namespace="+h.ns, "to-be-attached-pod", "-i", "-c=container1")
		if err == nil || !strings.Contains(out+errs, "attaching to pod 'to-be-attached-pod' is not allowed") {
			return fmt.Errorf("%s%s %v", out, errs, err)
		}
		return nil
	})
}

const dataSchema = `{type: object, properties: {data: {type: object, properties: {mutation-start: {type: string}, mutation-stage-1: {type: string}, KEEP webhook-e2e-test: {type: string}}}}}`

func (h hooks) deniesCustom() {
	t := h.t
	d, clients := h.crd(t, h.ns+".example.com", "Hooked", []apiextensionsv1.CustomResourceDefinitionVersion{version(t, "v1", anything)})
	client := clients[0].Namespace(h.ns)
	h.validate("custom", nil, h.validating("deny-unwanted-data", "/custom-resource", rule(d.Spec.Group, "v1", d.Spec.Names.Plural, admission.Create, admission.Update, admission.Delete)))
	with := func(v string) map[string]any { return map[string]any{"data": map[string]any{"webhook-e2e-test": v}} }
	const says = "the custom resource contains unwanted data"
	soon(t, "create", func() error {
		o, err := client.Create(ctx, object(d, "v1", "denied", with("webhook-disallow")), metav1.CreateOptions{})
		if err == nil {
			_ = client.Delete(ctx, o.GetName(), metav1.DeleteOptions{})
		}
		return refused(err, says)
	})
	o := must(client.Create(ctx, object(d, "v1", "kept", with("webhook-nondeletable")), metav1.CreateOptions{}))(t)
	o.Object["data"] = with("webhook-disallow")["data"]
	if _, err := client.Update(ctx, o, metav1.UpdateOptions{}); refused(err, says) != nil {
		t.Errorf("update: %v", err)
	}
	if err := client.Delete(ctx, "kept", metav1.DeleteOptions{}); refused(err, says) != nil {
		t.Errorf("delete: %v", err)
	}
	must(client.Patch(ctx, "kept", types.MergePatchType, []byte(`{"data":{"webhook-e2e-test":"webhook-allow"}}`), metav1.PatchOptions{}))(t)
	if err := client.Delete(ctx, "kept", metav1.DeleteOptions{}); err != nil {
		t.Errorf("delete: %v", err)
	}
}

func (h hooks) failsClosed() {
	w := h.validating("fail-closed", "/configmaps", rule("", "v1", "configmaps", admission.Create))
	w.ClientConfig.CABundle = nil
	h.validate("closed", nil, w)
	soon(h.t, "refused", func() error {
		if _, err := h.config(h.ns, "foo", nil); !apierrors.IsInternalError(err) {
			return fmt.Errorf("%v, want an internal error", err)
		}
		return nil
	})
}

func (h hooks) stages(operations ...admission.OperationType) []admission.MutatingWebhook {
	return []admission.MutatingWebhook{h.mutating("stage-1", "/mutating-configmaps", rule("", "v1", "configmaps", operations...)), h.mutating("stage-2", "/mutating-configmaps", rule("", "v1", "configmaps", operations...))}
}

func (h hooks) mutatesInStages() {
	h.mutate("stages", nil, h.stages(admission.Create)...)
	soon(h.t, "both stages", func() error { m, err := h.config(h.ns, "to-be-mutated", start); return mutated(m, err, true) })
}

func (h hooks) mutatesPods() {
	h.mutate("pods", nil, h.mutating("adding-init-container", "/mutating-pods", rule("", "v1", "pods", admission.Create)))
	soon(h.t, "an init container", func() error {
		pod, err := h.CoreV1().Pods(h.ns).Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "to-be-mutated"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "example", Image: agnhost}}}}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err != nil || len(pod.Spec.InitContainers) != 1 {
			return fmt.Errorf("%v %v", pod, err)
		}
		if c := pod.Spec.InitContainers[0]; c.Name != "webhook-added-init-container" || c.TerminationMessagePolicy != corev1.TerminationMessageReadFile {
			h.t.Errorf("%+v", c)
		}
		return nil
	})
}

// leaveThemselvesAlone: no webhook is asked about webhooks' configurations.
func (h hooks) leaveThemselvesAlone() {
	t := h.t
	t.Helper()
	only := marked(h.ns)
	deny := h.validating("deny-configurations", "/always-deny", slices.Concat(
		rule("admissionregistration.k8s.io", "*", "validatingwebhookconfigurations", admission.OperationAll), rule("admissionregistration.k8s.io", "*", "mutatingwebhookconfigurations", admission.OperationAll)))
	deny.NamespaceSelector, deny.ObjectSelector = nil, only
	label := h.mutating("label-configurations", "/add-label", deny.Rules)
	label.NamespaceSelector, label.ObjectSelector = nil, only
	h.validate("self", nil, deny)
	h.mutate("self", nil, label)
	marker := h.validating("marker", "/configmaps", rule("", "v1", "configmaps", admission.Create))
	h.validate("marker", nil, marker)
	soon(t, "in force", func() error {
		_, err := h.config(h.ns, "marker", unwanted)
		return refused(err, "unwanted")
	})
	v := h.validate("dummy", only.MatchLabels, h.validating("dummy", "/always-deny", rule("", "v1", "invalid", admission.Create)))
	m := h.mutate("dummy", only.MatchLabels, h.mutating("dummy", "/always-deny", rule("", "v1", "invalid", admission.Create)))
	if len(v.Labels) != 1 || len(m.Labels) != 1 {
		t.Errorf("labels %v %v", v.Labels, m.Labels)
	}
	if err := h.AdmissionregistrationV1().ValidatingWebhookConfigurations().Delete(ctx, v.Name, metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
	if err := h.AdmissionregistrationV1().MutatingWebhookConfigurations().Delete(ctx, m.Name, metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
}

// mutatesCustom mutates custom objects, whose schema may prune what is added, and whose stored version may change under them.
func (h hooks) mutatesCustom() {
	t := h.t
	for name, c := range map[string]struct {
		keep string
		want int
	}{"whole": {"mutation-stage-2: {type: string},", 3}, "pruned": {"", 2}} {
		schema := strings.Replace(dataSchema, "KEEP", c.keep, 1)
		d, clients := h.crd(t, name+"."+h.ns+".example.com", "Mutated", []apiextensionsv1.CustomResourceDefinitionVersion{version(t, "v1", schema), version(t, "v2", schema)})
		rules := rule(d.Spec.Group, "v1", d.Spec.Names.Plural, admission.Create, admission.Update)
		h.mutate(name, nil, h.mutating("stage-1", "/mutating-custom-resource", rules), h.mutating("stage-2", "/mutating-custom-resource", rules))
		client := clients[0].Namespace(h.ns)
		soon(t, name, func() error {
			o, err := client.Create(ctx, object(d, "v1", "cr", map[string]any{"data": map[string]any{"mutation-start": "yes"}}), metav1.CreateOptions{})
			if err != nil {
				return err
			}
			if data := o.Object["data"].(map[string]any); len(data) != c.want {
				_ = client.Delete(ctx, "cr", metav1.DeleteOptions{})
				return fmt.Errorf("data %v", data)
			}
			return nil
		})
		patch := []byte(`[{"op":"replace","path":"/spec/versions/0/storage","value":false},{"op":"replace","path":"/spec/versions/1/storage","value":true}]`)
		must(h.crds.ApiextensionsV1().CustomResourceDefinitions().Patch(ctx, d.Name, types.JSONPatchType, patch, metav1.PatchOptions{}))(t)
		soon(t, "patched where another version is stored", func() error {
			o, err := client.Patch(ctx, "cr", types.MergePatchType, []byte(`{"data":{"mutation-start":"yes","webhook-e2e-test":"x"}}`), metav1.PatchOptions{})
			if err != nil {
				return err
			}
			if data := o.Object["data"].(map[string]any); len(data) != c.want+1 {
				return fmt.Errorf("data %v", data)
			}
			return nil
		})
	}
}

func (h hooks) deniesDefinitions() {
	t := h.t
	w := h.validating("deny-crd", "/crd", rule("apiextensions.k8s.io", "*", "customresourcedefinitions", admission.Create))
	w.NamespaceSelector, w.ObjectSelector = nil, &metav1.LabelSelector{MatchLabels: unwanted}
	h.validate("crd", nil, w)
	soon(t, "refused", func() error {
		d := &apiextensionsv1.CustomResourceDefinition{ObjectMeta: metav1.ObjectMeta{Name: "denieds." + h.ns + ".example.com", Labels: unwanted}, Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: h.ns + ".example.com", Scope: apiextensionsv1.NamespaceScoped, Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: "denieds", Singular: "denied", Kind: "Denied", ListKind: "DeniedList"},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{version(t, "v1", anything)}}}
		d.Spec.Versions[0].Served, d.Spec.Versions[0].Storage = true, true
		_, err := h.crds.ApiextensionsV1().CustomResourceDefinitions().Create(ctx, d, metav1.CreateOptions{})
		if err == nil {
			_ = h.crds.ApiextensionsV1().CustomResourceDefinitions().Delete(ctx, d.Name, metav1.DeleteOptions{})
		}
		return refused(err, "the crd contains unwanted label")
	})
}

// honourTimeouts: a webhook that takes five seconds is given one, one and is ignored, ten, or the default.
func (h hooks) honourTimeouts() {
	t := h.t
	for name, c := range map[string]struct {
		seconds *int32
		policy  admission.FailurePolicyType
		fails   bool
	}{"short": {ptr.To[int32](1), admission.Fail, true}, "ignored": {ptr.To[int32](1), admission.Ignore, false}, "long": {ptr.To[int32](10), admission.Fail, false}, "default": {nil, admission.Fail, false}} {
		w := h.validating("slow-"+name, "/always-allow-delay-5s", rule("", "v1", "configmaps", admission.Create))
		w.TimeoutSeconds, w.FailurePolicy = c.seconds, &c.policy
		w.MatchConditions = []admission.MatchCondition{{Name: "one", Expression: "object.metadata.name == 'slow'"}}
		marker := h.validating("marker", "/configmaps", rule("", "v1", "configmaps", admission.Create))
		made := h.validate(name, nil, w, marker)
		soon(t, "in force", func() error {
			_, err := h.config(h.ns, "marker", unwanted)
			return refused(err, "unwanted")
		})
		_, err := h.config(h.ns, "slow", nil)
		if c.fails && (err == nil || !strings.Contains(err.Error(), "context deadline exceeded") && !strings.Contains(err.Error(), "Client.Timeout")) || !c.fails && err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := h.AdmissionregistrationV1().ValidatingWebhookConfigurations().Delete(ctx, made.Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		soon(t, "out of force", func() error { _, err := h.config(h.ns, "marker", unwanted); return err })
	}
}

// areChanged: what a configuration says counts as soon as it is updated or patched.
func (h hooks) areChanged() {
	t := h.t
	validating, mutating := h.AdmissionregistrationV1().ValidatingWebhookConfigurations(), h.AdmissionregistrationV1().MutatingWebhookConfigurations()
	v := h.validate("v", nil, h.validating("deny", "/configmaps", rule("", "v1", "configmaps", admission.Create)))
	m := h.mutate("m", nil, h.stages(admission.Create)...)
	denied := func(want bool) func() error {
		return func() error {
			_, err := h.config(h.ns, "denied", unwanted)
			if want {
				return refused(err, "the configmap contains unwanted key and value")
			}
			return err
		}
	}
	staged := func(want bool) func() error {
		return func() error { o, err := h.config(h.ns, "mutated", start); return mutated(o, err, want) }
	}
	soon(t, "denied", denied(true))
	soon(t, "mutated", staged(true))
	labtest.Eventually(t, "updated", func() string {
		v = must(validating.Get(ctx, v.Name, metav1.GetOptions{}))(t)
		v.Webhooks[0].Rules[0].Operations = []admission.OperationType{admission.Update}
		_, err := validating.Update(ctx, v, metav1.UpdateOptions{})
		return complaint(err)
	})
	soon(t, "no longer denied", denied(false))
	labtest.Eventually(t, "updated", func() string {
		m = must(mutating.Get(ctx, m.Name, metav1.GetOptions{}))(t)
		for i := range m.Webhooks {
			m.Webhooks[i].Rules[0].Operations = []admission.OperationType{admission.Update}
		}
		_, err := mutating.Update(ctx, m, metav1.UpdateOptions{})
		return complaint(err)
	})
	soon(t, "no longer mutated", staged(false))
	must(validating.Patch(ctx, v.Name, types.JSONPatchType, []byte(`[{"op":"replace","path":"/webhooks/0/rules/0/operations/0","value":"CREATE"}]`), metav1.PatchOptions{}))(t)
	soon(t, "denied again", denied(true))
	must(mutating.Patch(ctx, m.Name, types.JSONPatchType, []byte(`[{"op":"replace","path":"/webhooks/0/rules/0/operations/0","value":"CREATE"},{"op":"replace","path":"/webhooks/1/rules/0/operations/0","value":"CREATE"}]`), metav1.PatchOptions{}))(t)
	if err := validating.Delete(ctx, v.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	soon(t, "mutated again", staged(true))
}

// areListed: ten configurations are listed by their label, and deleted by it.
func (h hooks) areListed() {
	t := h.t
	labels := map[string]string{"e2e-list-test-uuid": h.ns}
	selected := metav1.ListOptions{LabelSelector: "e2e-list-test-uuid=" + h.ns}
	for i := range 10 {
		h.validate(fmt.Sprint("v", i), labels, h.validating(fmt.Sprint("deny", i), "/configmaps", rule("", "v1", "configmaps", admission.Create)))
		h.mutate(fmt.Sprint("m", i), labels, h.mutating(fmt.Sprint("stage", i), "/mutating-configmaps", rule("", "v1", "configmaps", admission.Create)))
	}
	validating, mutating := h.AdmissionregistrationV1().ValidatingWebhookConfigurations(), h.AdmissionregistrationV1().MutatingWebhookConfigurations()
	if n, m := len(must(validating.List(ctx, selected))(t).Items), len(must(mutating.List(ctx, selected))(t).Items); n != 10 || m != 10 {
		t.Errorf("%d and %d, want 10 of each", n, m)
	}
	soon(t, "denied", func() error { _, err := h.config(h.ns, "d", unwanted); return refused(err, "unwanted") })
	soon(t, "mutated", func() error { m, err := h.config(h.ns, "m", start); return mutated(m, err, true) })
	if err := validating.DeleteCollection(ctx, metav1.DeleteOptions{}, selected); err != nil {
		t.Fatal(err)
	}
	if err := mutating.DeleteCollection(ctx, metav1.DeleteOptions{}, selected); err != nil {
		t.Fatal(err)
	}
	soon(t, "not denied", func() error { _, err := h.config(h.ns, "d", unwanted); return err })
	soon(t, "not mutated", func() error { m, err := h.config(h.ns, "m", start); return mutated(m, err, false) })
}

// haveConditions: match conditions are kept, changed, compiled when they come, and asked before the webhook is.
func (h hooks) haveConditions() {
	t := h.t
	first := []admission.MatchCondition{{Name: "expression-1", Expression: "object.metadata.namespace == 'production'"}}
	second := append(slices.Clone(first), admission.MatchCondition{Name: "expression-2", Expression: "object.metadata.name != 'skip-me'"})
	w, mw := h.validating("conditions", "/configmaps", rule("", "v1", "configmaps", admission.Create)), h.mutating("conditions", "/mutating-configmaps", rule("", "v1", "configmaps", admission.Create))
	w.MatchConditions, mw.MatchConditions = first, first
	v, m := h.validate("kept", nil, w), h.mutate("kept", nil, mw)
	v.Webhooks[0].MatchConditions, m.Webhooks[0].MatchConditions = second, second
	v = must(h.AdmissionregistrationV1().ValidatingWebhookConfigurations().Update(ctx, v, metav1.UpdateOptions{}))(t)
	m = must(h.AdmissionregistrationV1().MutatingWebhookConfigurations().Update(ctx, m, metav1.UpdateOptions{}))(t)
	if !slices.Equal(v.Webhooks[0].MatchConditions, second) || !slices.Equal(m.Webhooks[0].MatchConditions, second) {
		t.Errorf("kept %v %v", v.Webhooks, m.Webhooks)
	}
	bad := []admission.MatchCondition{{Name: "invalid-expression-1", Expression: "... [] bad expression"}}
	w.MatchConditions, mw.MatchConditions = bad, bad
	_, err := h.AdmissionregistrationV1().ValidatingWebhookConfigurations().Create(ctx, &admission.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: h.ns + "-bad"}, Webhooks: []admission.ValidatingWebhook{w}}, metav1.CreateOptions{})
	if err := refused(err, "compilation failed"); err != nil {
		t.Error(err)
	}
	_, err = h.AdmissionregistrationV1().MutatingWebhookConfigurations().Create(ctx, &admission.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: h.ns + "-bad"}, Webhooks: []admission.MutatingWebhook{mw}}, metav1.CreateOptions{})
	if err := refused(err, "compilation failed"); err != nil {
		t.Error(err)
	}
	stages := h.stages(admission.Create)
	for i := range stages {
		stages[i].MatchConditions = second[1:]
	}
	h.mutate("skip", nil, stages...)
	soon(t, "mutated", func() error { o, err := h.config(h.ns, "other", start); return mutated(o, err, true) })
	o, err := h.config(h.ns, "skip-me", start)
	if err := mutated(o, err, false); err != nil {
		t.Error(err)
	}
}
