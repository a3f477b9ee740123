package apiserver

import (
	"context"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// holder is an admission webhook that answers a review only when it is told to.
type holder struct {
	reviews atomic.Int64  // that have come
	release chan struct{} // one for each answer; closed: all
}

func (h *holder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	h.reviews.Add(1)
	select {
	case <-h.release:
	case <-r.Context().Done(): // the server gave up on us
	}
	http.Error(w, "no opinion", http.StatusInternalServerError) // which is ignored
}

// hold has every new ConfigMap of the namespace wait for h.
func (r *running) hold(t *testing.T, namespace string) *holder {
	t.Helper()
	h := &holder{release: make(chan struct{})}
	hook := httptest.NewTLSServer(h)
	t.Cleanup(hook.Close)
	must(t)(r.client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Create(t.Context(), &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "hold"},
		Webhooks: []admissionregistrationv1.ValidatingWebhook{{
			Name: "hold.example.com", AdmissionReviewVersions: []string{"v1"}, TimeoutSeconds: ptr(int32(30)),
			SideEffects: ptr(admissionregistrationv1.SideEffectClassNone), FailurePolicy: ptr(admissionregistrationv1.Ignore),
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: namespace}},
			ClientConfig: admissionregistrationv1.WebhookClientConfig{URL: ptr(hook.URL),
				CABundle: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: hook.Certificate().Raw})},
			Rules: []admissionregistrationv1.RuleWithOperations{{Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
				Rule: admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"configmaps"}}}},
		}},
	}, createOptions))
	return h
}

// refusals counts the answers that say "too many requests".
type refusals struct {
	next  http.RoundTripper
	count *atomic.Int64
}

func (c refusals) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := c.next.RoundTrip(r)
	if err == nil && resp.StatusCode == http.StatusTooManyRequests {
		c.count.Add(1)
	}
	return resp, err
}

// crowd has many do the same again and again, until the returned function is called.
func crowd(t *testing.T, n int, do func(context.Context)) (end func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			for ctx.Err() == nil {
				do(ctx)
			}
		})
	}
	end = func() {
		cancel()
		wg.Wait()
	}
	t.Cleanup(end)
	return end
}

// TestOneGreedyClient: who asks too much waits for itself. What keeps the cluster alive goes on as if it were not there, and another
// user of the same level is answered, and not refused, while the greedy one is refused.
func TestOneGreedyClient(t *testing.T) {
	r := start(t, "")
	for _, name := range []string{"greedy", "modest"} {
		must(t)(r.client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, createOptions))
		grant(t, r, name, rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"*"}})
	}
	must(t)(r.client.CoreV1().ConfigMaps("modest").Create(t.Context(), configMap("m"), createOptions))
	h := r.hold(t, "greedy")
	modest := r.as(t, r.with(t, "modest"))
	must(t)(modest.CoreV1().ConfigMaps("modest").Get(t.Context(), "m", getOptions)) // its connection is there

	// Creations that are held, until the greedy one has what is its share, what it may have waiting waits, and the rest is refused;
	// then lists.
	refused := &atomic.Int64{}
	c := r.with(t, "greedy")
	c.Wrap(func(next http.RoundTripper) http.RoundTripper { return refusals{next, refused} })
	greedy := r.as(t, c)
	crowd(t, 600, func(ctx context.Context) {
		_, _ = greedy.CoreV1().ConfigMaps("greedy").Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "m-"}}, createOptions)
	})
	eventually(t, "the greedy one is refused", func() bool { return refused.Load() > 0 && h.reviews.Load() > 0 })
	endLists := crowd(t, 200, func(ctx context.Context) { _, _ = greedy.CoreV1().ConfigMaps("").List(ctx, metav1.ListOptions{}) })

	for _, path := range []string{"/livez", "/readyz", "/healthz"} {
		if code := get(t, rest.AnonymousClientConfig(r.admin), path); code != http.StatusOK {
			t.Errorf("%s beside a greedy client: %d", path, code)
		}
	}
	leases := r.as(t, r.with(t, "system:node:n1", "system:nodes")).CoordinationV1().Leases("kube-node-lease")
	lease, err := leases.Create(t.Context(), &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}, createOptions)
	for i := 0; i < 5 && err == nil; i++ {
		now := metav1.NowMicro()
		lease.Spec.RenewTime = &now
		lease, err = leases.Update(t.Context(), lease, updateOptions)
	}
	if err != nil {
		t.Errorf("a lease beside a greedy client: %v", err)
	}
	must(t)(r.client.CoreV1().ConfigMaps("modest").Get(t.Context(), "m", getOptions))
	must(t)(r.as(t, r.with(t, "system:kube-scheduler")).CoreV1().Pods("").List(t.Context(), metav1.ListOptions{}))

	endLists()
	for i := range 5 {
		t.Logf("request %d of another client was answered after %d of the greedy one's", i, answeredAfter(t, modest, h))
	}
}

// answeredAfter says how many of the greedy client's requests were let go before the modest one's was answered.
func answeredAfter(t *testing.T, modest kubernetes.Interface, h *holder) (released int) {
	t.Helper()
	answered := make(chan error, 1)
	go func() {
		_, err := modest.CoreV1().RESTClient().Get().Namespace("modest").Resource("configmaps").Name("m").MaxRetries(0).Do(t.Context()).Get()
		answered <- err
	}()
	for {
		before := h.reviews.Load()
		select {
		case h.release <- struct{}{}:
			released++
		case err := <-answered:
			answered <- err
		}
		done := false
		eventually(t, "another client is answered, or another of the greedy one takes the place", func() bool {
			select {
			case err := <-answered:
				if err != nil {
					t.Errorf("another client: %v", err)
				}
				done = true
			default:
			}
			return done || h.reviews.Load() > before
		})
		if done {
			return released
		}
	}
}
