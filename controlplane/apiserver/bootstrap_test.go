package apiserver

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestEndpointOfTheAPI(t *testing.T) {
	one := newEndpointSlice(discoveryv1.AddressTypeIPv4, "10.0.0.1", 6443)
	addresses := func(s *discoveryv1.EndpointSlice) string {
		var out []string
		for _, e := range s.Endpoints {
			out = append(out, e.Addresses...)
		}
		return strings.Join(out, " ")
	}
	for _, alone := range []bool{true, false} {
		if got := withEndpoint(one, "10.0.0.1", 6443, alone); got != nil {
			t.Errorf("alone %v: nothing changed and %v is written", alone, got)
		}
		if got := withEndpoint(one, "10.0.0.1", 7443, alone); got == nil || *got.Ports[0].Port != 7443 {
			t.Errorf("alone %v: another port: %v", alone, got)
		}
	}
	if got := withEndpoint(one, "10.0.0.2", 6443, true); addresses(got) != "10.0.0.2" {
		t.Errorf("alone and moved: %s; want only the new address", addresses(got))
	}
	if got := withEndpoint(one, "10.0.0.2", 6443, false); addresses(got) != "10.0.0.1 10.0.0.2" {
		t.Errorf("second server: %s; want both", addresses(got))
	}
	if addresses(one) != "10.0.0.1" {
		t.Error("the object that was read is changed")
	}
}

// A new cluster has what upstream's has, and a second start changes nothing.
func TestBootstrapObjects(t *testing.T) {
	cfg := testConfig(t.TempDir())
	cfg.AdvertiseAddress = netip.MustParseAddr("192.0.2.1") // of one that only its own host reaches nobody is told
	r := startWith(t, cfg)
	ctx := t.Context()
	for _, ns := range namespaces {
		must(t)(r.client.CoreV1().Namespaces().Get(ctx, ns, getOptions))
	}
	svc, err := r.client.CoreV1().Services("default").Get(ctx, "kubernetes", getOptions)
	if err != nil || svc.Spec.ClusterIP != "10.96.0.1" {
		t.Errorf("service: %v, %v", svc, err)
	}
	must(t)(r.client.NetworkingV1().IPAddresses().Get(ctx, "10.96.0.1", getOptions))
	must(t)(r.client.NetworkingV1().ServiceCIDRs().Get(ctx, "kubernetes", getOptions))
	must(t)(r.client.SchedulingV1().PriorityClasses().Get(ctx, "system-node-critical", getOptions))
	must(t)(r.client.CoreV1().ConfigMaps("kube-system").Get(ctx, "extension-apiserver-authentication", getOptions))
	must(t)(r.client.CoreV1().ConfigMaps("kube-public").Get(ctx, "cluster-info", getOptions))
	var api metav1.APIVersions
	err = r.client.Discovery().RESTClient().Get().AbsPath("/api").Do(ctx).Into(&api)
	if want := fmt.Sprintf("192.0.2.1:%d", r.Port()); err != nil || len(api.ServerAddressByClientCIDRs) != 1 || api.ServerAddressByClientCIDRs[0].ServerAddress != want {
		t.Errorf("discovery tells clients %v, %v; want %s", api.ServerAddressByClientCIDRs, err, want)
	}
	versions := func(r *running) string {
		roles, err := r.client.RbacV1().ClusterRoles().List(t.Context(), metav1.ListOptions{})
		if err != nil || len(roles.Items) < 70 {
			t.Fatalf("%d cluster roles, %v", len(roles.Items), err)
		}
		var b strings.Builder
		for _, o := range roles.Items {
			b.WriteString(o.Name + " " + o.ResourceVersion + "\n")
		}
		return b.String()
	}
	before := versions(r)
	r.stop()
	if after := versions(start(t, r.dir)); after != before {
		t.Error("a restart wrote roles that were as they should be")
	}
}

// ND6: a store that is too slow for the first requests of a new cluster delays it; the server does not end.
func TestHostile_ND6_slowStore(t *testing.T) {
	s, err := New(testConfig(t.TempDir()), Deps{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	handler := *s.loopback.handler.Load()
	var mu sync.Mutex
	refused := map[string]int{}
	slow := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		first := r.Method == http.MethodPost && refused[r.URL.Path] < 2
		if first {
			refused[r.URL.Path]++
		}
		mu.Unlock()
		status := metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure,
			Code: http.StatusGatewayTimeout, Reason: metav1.StatusReasonTimeout, Message: "request did not complete within requested timeout"}
		switch {
		case !first:
			handler.ServeHTTP(w, r)
			return
		case strings.Contains(r.URL.Path, "/rbac"):
			status.Code, status.Reason, status.Message = http.StatusInternalServerError, "", "etcdserver: request timed out"
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(int(status.Code))
		_ = json.NewEncoder(w).Encode(status)
	})
	s.loopback.handler.Store(ptr[http.Handler](slow))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	select {
	case <-s.Ready():
		cancel()
		err = <-done
	case err = <-done:
		t.Error("the server ended")
	}
	cancel()
	if err != nil {
		t.Error(err)
	}
	for _, path := range []string{"/api/v1/namespaces", "/apis/rbac.authorization.k8s.io/v1/clusterroles"} {
		if refused[path] != 2 {
			t.Errorf("%s was refused %d times: nothing is shown", path, refused[path])
		}
	}
	if forbidden := apierrors.NewForbidden(corev1.Resource("namespaces"), "x", nil); passing(fmt.Errorf("create: %w", forbidden)) {
		t.Error("what is refused for ever is tried for ever")
	}
}
