package api

import (
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	registration "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	corev1 "k8s.io/api/core/v1"

	"keelson.dev/keelson/test/lab/labtest"
)

type admin struct{ *labtest.Admin }

func newAdmin(t *testing.T) *admin {
	t.Helper()
	a, err := labtest.NewAdmin(labtest.Cluster(t))
	if err != nil {
		t.Fatal(err)
	}
	return &admin{a}
}

func adminOf(t *testing.T, config *rest.Config) *admin {
	t.Helper()
	a, err := labtest.AdminOf(config)
	if err != nil {
		t.Fatal(err)
	}
	return &admin{a}
}

// namespace makes a namespace that goes with the test.
func (a *admin) namespace(t *testing.T, prefix string) string {
	t.Helper()
	name := prefix + "-" + rand.String(5)
	_, err := a.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.CoreV1().Namespaces().Delete(background, name, metav1.DeleteOptions{}) })
	return name
}

func named(name string, labels map[string]string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
}

// hook is an admission webhook over TLS that remembers what it was asked.
type hook struct {
	*httptest.Server
	mu     sync.Mutex
	asked  []*admissionv1.AdmissionRequest // guarded by mu
	answer answers
}

// answers is what a hook says to a request.
type answers func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse

// newHook serves at the loopback address until the test ends.
func newHook(t *testing.T, answer answers) *hook { return newHookAt(t, "127.0.0.1", nil, answer) }

// newHookAt serves at an address with certificates of the caller's own; without, with the library's one for tests.
func newHookAt(t *testing.T, ip string, certs []tls.Certificate, answer answers) *hook {
	t.Helper()
	h := &hook{answer: answer}
	l, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		t.Fatal(err)
	}
	h.Server = &httptest.Server{Listener: l, Config: &http.Server{Handler: h}, TLS: &tls.Config{Certificates: certs}}
	h.StartTLS()
	t.Cleanup(func() {
		h.CloseClientConnections() // of handlers that hang on purpose
		h.Close()
	})
	return h
}

func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var review admissionv1.AdmissionReview
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(body, &review)
	}
	if err != nil || review.Request == nil {
		http.Error(w, "not a review", http.StatusBadRequest)
		return
	}
	h.mu.Lock()
	h.asked = append(h.asked, review.Request)
	h.mu.Unlock()
	review.Response = h.answer(review.Request)
	if review.Response.UID == "" {
		review.Response.UID = review.Request.UID
	}
	review.Request = nil
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(review)
}

// about are the requests about an object, in order.
func (h *hook) about(name string) []*admissionv1.AdmissionRequest {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []*admissionv1.AdmissionRequest
	for _, r := range h.asked {
		if r.Name == name {
			out = append(out, r)
		}
	}
	return out
}

// bundle is the certificate that the hook answers with.
func (h *hook) bundle() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.Certificate().Raw})
}

// client is how the server reaches the hook, at a path.
func (h *hook) client(path string) registration.WebhookClientConfig {
	return registration.WebhookClientConfig{URL: ptr.To(h.URL + path), CABundle: h.bundle()}
}

// on is a rule for all operations on a resource.
func on(group, version, resource string) []registration.RuleWithOperations {
	return []registration.RuleWithOperations{{
		Operations: []registration.OperationType{registration.OperationAll},
		Rule:       registration.Rule{APIGroups: []string{group}, APIVersions: []string{version}, Resources: []string{resource}},
	}}
}

// in selects one namespace.
func in(ns string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: ns}}
}

// validating is a webhook for ConfigMaps of a namespace.
func validating(ns, name string, client registration.WebhookClientConfig) registration.ValidatingWebhook {
	return registration.ValidatingWebhook{
		Name: name + ".keelson.test", ClientConfig: client, Rules: on("", "v1", "configmaps"), NamespaceSelector: in(ns),
		SideEffects: ptr.To(registration.SideEffectClassNone), AdmissionReviewVersions: []string{"v1"},
	}
}

// mutating is the same for a mutating one.
func mutating(ns, name string, client registration.WebhookClientConfig) registration.MutatingWebhook {
	return registration.MutatingWebhook{
		Name: name + ".keelson.test", ClientConfig: client, Rules: on("", "v1", "configmaps"), NamespaceSelector: in(ns),
		SideEffects: ptr.To(registration.SideEffectClassNone), AdmissionReviewVersions: []string{"v1"},
	}
}

// validate registers validating webhooks in one configuration.
func (a *admin) validate(t *testing.T, ns string, hooks ...registration.ValidatingWebhook) {
	t.Helper()
	api := a.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	c, err := api.Create(t.Context(), &registration.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: ns}, Webhooks: hooks}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = api.Delete(background, c.Name, metav1.DeleteOptions{}) })
}

// mutate registers mutating webhooks, each in a configuration of its own: the order is that of their names.
func (a *admin) mutate(t *testing.T, ns string, hooks ...registration.MutatingWebhook) {
	t.Helper()
	api := a.AdmissionregistrationV1().MutatingWebhookConfigurations()
	for _, h := range hooks {
		c, err := api.Create(t.Context(), &registration.MutatingWebhookConfiguration{
			ObjectMeta: metav1.ObjectMeta{Name: h.Name + "." + ns}, Webhooks: []registration.MutatingWebhook{h}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = api.Delete(background, c.Name, metav1.DeleteOptions{}) })
	}
}

func allow(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	return &admissionv1.AdmissionResponse{Allowed: true}
}

// patched is an answer with a JSON patch.
func patched(patch string) *admissionv1.AdmissionResponse {
	return &admissionv1.AdmissionResponse{Allowed: true, Patch: []byte(patch), PatchType: ptr.To(admissionv1.PatchTypeJSONPatch)}
}
