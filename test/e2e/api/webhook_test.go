package api

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	registration "k8s.io/api/admissionregistration/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/cert"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/test/lab/labtest"
)

// background is for what a test's end takes away.
var background = context.Background()

// create makes a ConfigMap.
func (a *admin) create(t *testing.T, ns string, m *corev1.ConfigMap, dry ...string) (*corev1.ConfigMap, error) {
	t.Helper()
	return a.CoreV1().ConfigMaps(ns).Create(t.Context(), m, metav1.CreateOptions{DryRun: dry})
}

// inForce waits until what was just registered is asked: the server learns of it by a watch.
func (a *admin) inForce(t *testing.T, ns string, seen func(m *corev1.ConfigMap, err error) bool) {
	t.Helper()
	labtest.Eventually(t, "what was registered is in force", func() string {
		m, err := a.create(t, ns, named("probe", nil), metav1.DryRunAll)
		if seen(m, err) {
			return ""
		}
		return fmt.Sprint(m, err)
	})
}

// Mutating webhooks run in the order of their names, those that want it again after a later one changed the object, and what each
// did is in the audit log.
func TestMutatingWebhooks(t *testing.T) {
	a := newAdmin(t)
	ns := a.namespace(t, "mutating")
	label := func(r *admissionv1.AdmissionRequest, key string) *admissionv1.AdmissionResponse {
		var m corev1.ConfigMap
		if err := json.Unmarshal(r.Object.Raw, &m); err != nil {
			t.Error(err)
		}
		if len(m.Labels) == 0 {
			return patched(`[{"op":"add","path":"/metadata/labels","value":{"` + key + `":"0"}}]`)
		}
		return patched(fmt.Sprintf(`[{"op":"add","path":"/metadata/labels/%s","value":"%d"}]`, key, len(m.Labels)))
	}
	again := newHook(t, func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse { return label(r, "again") })
	once := newHook(t, func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse { return label(r, "once") })
	last := newHook(t, func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		answer := label(r, "last")
		answer.Warnings, answer.AuditAnnotations = []string{"the last one warns"}, map[string]string{"note": "of the last"}
		return answer
	})
	first := mutating(ns, "a", again.client("/again"))
	first.ReinvocationPolicy = ptr.To(registration.IfNeededReinvocationPolicy)
	a.mutate(t, ns, first, mutating(ns, "b", once.client("/once")), mutating(ns, "c", last.client("/last")))
	a.inForce(t, ns, func(m *corev1.ConfigMap, err error) bool { return err == nil && len(m.Labels) == 3 })

	m, err := a.create(t, ns, named("m", nil))
	if err != nil {
		t.Fatal(err)
	}
	if m.Labels["again"] != "3" || m.Labels["once"] != "1" || m.Labels["last"] != "2" {
		t.Errorf("labels %v; want once and last in their order, and again after both", m.Labels)
	}
	for name, h := range map[string]struct {
		*hook
		want int
	}{"again": {again, 2}, "once": {once, 1}, "last": {last, 1}} {
		if got := len(h.about("m")); got != h.want {
			t.Errorf("%s was asked %d times, want %d", name, got, h.want)
		}
	}
	if !a.Warned("the last one warns") {
		t.Errorf("warnings %q", a.Warnings())
	}
	wantAudit(t, m.Name, ns, "c.keelson.test/note", "of the last")
	wantAudit(t, m.Name, ns, "mutation.webhook.admission.k8s.io/round_1_index_0", `"mutated":true`)
}

// wantAudit waits for a record about an object that has an annotation with the text.
func wantAudit(t *testing.T, name, ns, annotation, text string) {
	t.Helper()
	path := filepath.Join(labtest.Cluster(t).Dir, "data", "server", "audit", "audit.log")
	labtest.Eventually(t, "the audit log", func() string {
		f, err := os.Open(path)
		if err != nil {
			return err.Error()
		}
		defer f.Close()
		last := "no record of it"
		sc := bufio.NewScanner(f)
		for sc.Buffer(nil, 8<<20); sc.Scan(); {
			var e struct {
				ObjectRef   *struct{ Name, Namespace string }
				Annotations map[string]string
			}
			if json.Unmarshal(sc.Bytes(), &e) != nil || e.ObjectRef == nil || e.ObjectRef.Name != name || e.ObjectRef.Namespace != ns {
				continue
			}
			if strings.Contains(e.Annotations[annotation], text) {
				return ""
			}
			last = fmt.Sprint(e.Annotations)
		}
		return fmt.Sprintf("%s of %s/%s: want %s with %s", last, ns, name, annotation, text)
	})
}

// A validating webhook refuses with its own code and words, and sees what it has to: operation, objects old and new, who asks, dry
// runs, subresources, and the version that its rules name.
func TestValidatingWebhooks(t *testing.T) {
	a := newAdmin(t)
	ns := a.namespace(t, "validating")
	h := newHook(t, func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		if r.Name == "refused" || r.Name == "probe" {
			return &admissionv1.AdmissionResponse{Result: &metav1.Status{Code: http.StatusTeapot, Reason: "Teapot", Message: "short and stout"}}
		}
		return allow(r)
	})
	plain := validating(ns, "plain", h.client("/"))
	plain.ObjectSelector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "free", Operator: metav1.LabelSelectorOpDoesNotExist}}}
	plain.MatchConditions = []registration.MatchCondition{{Name: "not-exempt", Expression: "request.name != 'exempt'"}, {Name: "not-kubelet", Expression: "!('system:nodes' in request.userInfo.groups)"}}
	scalers := validating(ns, "scalers", h.client("/"))
	scalers.Rules = on("autoscaling", "v1", "horizontalpodautoscalers")
	parts := validating(ns, "parts", h.client("/"))
	parts.Rules = append(on("", "v1", "pods/exec"), on("apps", "v1", "deployments/scale")...)
	a.validate(t, ns, plain, scalers, parts)
	a.inForce(t, ns, func(_ *corev1.ConfigMap, err error) bool { return err != nil })

	_, err := a.create(t, ns, named("refused", nil))
	status, ok := err.(apierrors.APIStatus)
	if !ok || status.Status().Code != http.StatusTeapot || !strings.Contains(err.Error(), `admission webhook "plain.keelson.test" denied the request: short and stout`) {
		t.Errorf("refusal: %v", err)
	}
	if _, err := a.create(t, ns, named("refused", map[string]string{"free": ""})); err != nil {
		t.Errorf("not selected by its label: %v", err)
	}
	if _, err := a.create(t, ns, named("exempt", nil)); err != nil || len(h.about("exempt")) > 0 {
		t.Errorf("not matched by a condition: %v, asked %d times", err, len(h.about("exempt")))
	}
	t.Run("requests", func(t *testing.T) { validatingRequests(t, a, ns, h) })
	t.Run("versions", func(t *testing.T) { validatingVersions(t, a, ns, h) })
}

func validatingRequests(t *testing.T, a *admin, ns string, h *hook) {
	if _, err := a.create(t, ns, named("life", nil), metav1.DryRunAll); err != nil {
		t.Fatal(err)
	}
	if _, err := a.create(t, ns, named("life", nil)); err != nil {
		t.Fatal(err)
	}
	maps := a.CoreV1().ConfigMaps(ns)
	if _, err := maps.Patch(t.Context(), "life", types.MergePatchType, []byte(`{"data":{"a":"b"}}`), metav1.PatchOptions{FieldManager: "test"}); err != nil {
		t.Fatal(err)
	}
	if err := maps.Delete(t.Context(), "life", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range h.about("life") {
		got = append(got, fmt.Sprint(r.Operation, " dry=", *r.DryRun, " old=", r.OldObject.Raw != nil, " new=", r.Object.Raw != nil, " ", r.UserInfo.Username, " ", r.Namespace))
	}
	want := []string{
		"CREATE dry=true old=false new=true kubernetes-admin " + ns, "CREATE dry=false old=false new=true kubernetes-admin " + ns,
		"UPDATE dry=false old=true new=true kubernetes-admin " + ns, "DELETE dry=false old=true new=false kubernetes-admin " + ns,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("asked\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if !strings.Contains(string(h.about("life")[2].Options.Raw), `"fieldManager":"test"`) {
		t.Errorf("options %s", h.about("life")[2].Options.Raw)
	}
	deployment := labtest.Lesson(t, "02-deployment.yaml")
	_, errs, err := labtest.Cluster(t).KubectlIn(t.Context(), strings.NewReader(deployment), "create", "-n", ns, "-f", "-")
	if err != nil {
		t.Fatal(errs)
	}
	list, err := a.AppsV1().Deployments(ns).List(t.Context(), metav1.ListOptions{})
	if err != nil || len(list.Items) == 0 {
		t.Fatal(list, err)
	}
	name := list.Items[0].Name
	scale := &autoscalingv1.Scale{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: autoscalingv1.ScaleSpec{Replicas: 0}}
	if _, err := a.AppsV1().Deployments(ns).UpdateScale(t.Context(), name, scale, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	asked := h.about(name) // more than once if the Deployment's controller wrote meanwhile
	if len(asked) == 0 || asked[0].SubResource != "scale" || asked[0].Kind.Kind != "Scale" {
		t.Errorf("scale: asked %d times", len(asked))
	}
}

// validatingVersions: what is written in v2 is shown to a webhook for v1 as v1.
func validatingVersions(t *testing.T, a *admin, ns string, h *hook) {
	_, err := a.AutoscalingV2().HorizontalPodAutoscalers(ns).Create(t.Context(), &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Name: "scaler"}, Spec: autoscalingv2.HorizontalPodAutoscalerSpec{MaxReplicas: 3,
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{Kind: "Deployment", Name: "none", APIVersion: "apps/v1"},
			Metrics: []autoscalingv2.MetricSpec{{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{
				Name: corev1.ResourceCPU, Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: ptr.To[int32](70)}}}},
		}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	asked := h.about("scaler")
	if len(asked) != 1 || asked[0].Kind.Version != "v1" || asked[0].RequestKind.Version != "v2" {
		t.Fatalf("asked %+v", asked)
	}
	var v1 autoscalingv1.HorizontalPodAutoscaler
	if err := json.Unmarshal(asked[0].Object.Raw, &v1); err != nil || v1.Spec.TargetCPUUtilizationPercentage == nil || *v1.Spec.TargetCPUUtilizationPercentage != 70 {
		t.Errorf("as v1: %s %v", asked[0].Object.Raw, err)
	}
}

// TestHostile_AP17: a webhook that is slow, away, elsewhere or lies decides nothing but what its policy allows.
func TestHostile_AP17(t *testing.T) {
	a := newAdmin(t)
	var reached atomic.Int32
	inner := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	defer inner.Close()
	away := newHook(t, allow)
	elsewhere := httptest.NewTLSServer(http.RedirectHandler(inner.URL, http.StatusTemporaryRedirect))
	defer elsewhere.Close()
	huge := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, "secret-of-another-server %s", strings.Repeat("x", 8<<20))
	}))
	defer huge.Close()
	asHook := func(s *httptest.Server) *hook { return &hook{Server: s} }
	slow := newHook(t, nil)
	release := make(chan struct{})
	slow.answer = func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse { <-release; return allow(r) }
	defer close(release)
	liar := newHook(t, func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		return &admissionv1.AdmissionResponse{UID: types.UID("another"), Allowed: true}
	})
	client := away.client("/")
	away.Close()
	self := registration.WebhookClientConfig{URL: ptr.To(a.Config.Host + "/api/v1/namespaces/default/configmaps"), CABundle: a.Config.CAData}
	cases := map[string]struct {
		client registration.WebhookClientConfig
		says   string
	}{
		"away":      {client, "connection refused"},
		"slow":      {slow.client("/"), "deadline exceeded"},
		"elsewhere": {asHook(elsewhere).client("/"), "redirect"},
		"huge":      {asHook(huge).client("/"), "failed calling webhook"},
		"liar":      {liar.client("/"), "expected response.uid"},
		"itself":    {self, "failed calling webhook"},
	}
	t.Run("each", func(t *testing.T) { // returns when all of them have ended
		for name, c := range cases {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				failsAsItSays(t, a, name, c.client, c.says)
			})
		}
	})
	if reached.Load() > 0 {
		t.Error("a redirect was followed")
	}
}

// failsAsItSays registers a webhook that does not answer as it should, once to fail and once to be ignored.
func failsAsItSays(t *testing.T, a *admin, name string, client registration.WebhookClientConfig, says string) {
	ns := a.namespace(t, "hostile-"+name)
	fail, ignore := validating(ns, name, client), validating(ns, name+"-ignored", client)
	fail.TimeoutSeconds, ignore.TimeoutSeconds = ptr.To[int32](1), ptr.To[int32](1)
	fail.ObjectSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"policy": "fail"}}
	ignore.FailurePolicy, ignore.ObjectSelector = ptr.To(registration.Ignore), &metav1.LabelSelector{MatchLabels: map[string]string{"policy": "ignore"}}
	a.validate(t, ns, fail, ignore)
	labtest.Eventually(t, "fails closed", func() string {
		_, err := a.create(t, ns, named("closed", map[string]string{"policy": "fail"}), metav1.DryRunAll)
		if !apierrors.IsInternalError(err) || !strings.Contains(err.Error(), says) {
			return fmt.Sprint(err)
		}
		if strings.Contains(err.Error(), "secret-of-another-server") {
			t.Error("the answer of another server is told")
		}
		return ""
	})
	if _, err := a.create(t, ns, named("open", map[string]string{"policy": "ignore"})); err != nil {
		t.Errorf("not ignored: %v", err)
	}
}

// A webhook behind a Service is found; its bundle of authorities counts as soon as it is changed.
func TestWebhookService(t *testing.T) {
	a := newAdmin(t)
	ns := a.namespace(t, "service")
	pemCert, pemKey, err := cert.GenerateSelfSignedCertKey("hook."+ns+".svc", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(pemCert, pemKey)
	if err != nil {
		t.Fatal(err)
	}
	h := newHookAt(t, labtest.Cluster(t).NodeIP, []tls.Certificate{pair}, func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		return patched(`[{"op":"add","path":"/data","value":{"seen":"yes"}}]`)
	})
	addr := netip.MustParseAddrPort(h.Listener.Addr().String())
	_, err = a.CoreV1().Services(ns).Create(t.Context(), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "hook"}, Spec: corev1.ServiceSpec{
		Ports: []corev1.ServicePort{{Name: "https", Port: 8443, Protocol: corev1.ProtocolTCP}}}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = a.DiscoveryV1().EndpointSlices(ns).Create(t.Context(), &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Name: "hook", Labels: map[string]string{discoveryv1.LabelServiceName: "hook"}}, AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{addr.Addr().String()}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)}}},
		Ports:     []discoveryv1.EndpointPort{{Name: ptr.To("https"), Port: ptr.To(int32(addr.Port())), Protocol: ptr.To(corev1.ProtocolTCP)}}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	stranger, _, err := cert.GenerateSelfSignedCertKey("stranger", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	w := mutating(ns, "service", registration.WebhookClientConfig{CABundle: stranger, Service: &registration.ServiceReference{
		Namespace: ns, Name: "hook", Path: ptr.To("/mutate"), Port: ptr.To[int32](8443)}})
	a.mutate(t, ns, w)
	a.inForce(t, ns, func(_ *corev1.ConfigMap, err error) bool {
		return apierrors.IsInternalError(err) && strings.Contains(err.Error(), "unknown authority")
	})
	patch, _ := json.Marshal([]map[string]any{{"op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": pemCert}})
	_, err = a.AdmissionregistrationV1().MutatingWebhookConfigurations().Patch(t.Context(), w.Name+"."+ns, types.JSONPatchType, patch, metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	a.inForce(t, ns, func(m *corev1.ConfigMap, err error) bool { return err == nil && m.Data["seen"] == "yes" })
}
