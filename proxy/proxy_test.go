package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"

	"keelson.dev/keelson/network/netfilter"
	"keelson.dev/keelson/network/netfilter/netfiltertest"
	"keelson.dev/keelson/proxy/conntrack"
)

func TestMain(m *testing.M) { netfiltertest.Main(m) }

func ptr[T any](v T) *T { return &v }

// rig is a proxy over a fake API and, with root, the kernel's filter of the test's own network.
type rig struct {
	t      *testing.T
	api    *fake.Clientset
	filter *counting
	clean  *cleaning
	stop   func()
}

// cleaning lets the test count on conntrack being clean when a transaction is: Clean runs after Apply, and the next Take after it.
type cleaning struct{ done chan struct{} }

func (c *cleaning) Clean(e conntrack.Expect) (uint, error) {
	if os.Geteuid() != 0 {
		c.done <- struct{}{}
		return 0, nil
	}
	n, err := conntrack.Table{}.Clean(e)
	c.done <- struct{}{}
	return n, err
}

// counting tells the test when a transaction is through.
type counting struct {
	Filter
	done chan error
	fail chan error // what the next Apply answers, if something is in it
}

func (c *counting) Apply(ctx context.Context, o netfilter.Owner, s netfilter.Set) error {
	var err error
	select {
	case err = <-c.fail:
	default:
		err = c.Filter.Apply(ctx, o, s)
	}
	c.done <- err
	return err
}

func start(t *testing.T, f Filter, change func(*Config)) *rig {
	t.Helper()
	r := &rig{t: t, api: fake.NewClientset(), filter: &counting{Filter: f, done: make(chan error, 1000), fail: make(chan error, 10)}, clean: &cleaning{make(chan struct{}, 1000)}}
	r.run(change)
	return r
}

func (r *rig) run(change func(*Config)) {
	r.t.Helper()
	cfg := Config{NodeName: "n1", PodCIDR: netip.MustParsePrefix("10.244.0.0/16"), ServiceCIDR: netip.MustParsePrefix("10.96.0.0/12"), Retry: 10 * time.Millisecond}
	if change != nil {
		change(&cfg)
	}
	fac := informers.NewSharedInformerFactory(r.api, 0)
	p, err := New(cfg, Deps{Services: fac.Core().V1().Services().Informer(), EndpointSlices: fac.Discovery().V1().EndpointSlices().Informer(), Filter: r.filter, Conntrack: r.clean})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	fac.Start(ctx.Done())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	r.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			r.t.Error("run:", err)
		}
		fac.Shutdown()
	}
	r.wait()
}

// wait returns after the next transaction.
func (r *rig) wait() {
	r.t.Helper()
	select {
	case <-r.filter.done:
	case <-time.After(30 * time.Second):
		r.t.Fatal("no transaction in 30 s")
	}
}

func (r *rig) service(name, ip string, change func(*corev1.Service)) *corev1.Service {
	r.t.Helper()
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Spec: corev1.ServiceSpec{ClusterIP: ip,
		Ports: []corev1.ServicePort{{Name: "t", Port: 80, Protocol: "TCP"}, {Name: "u", Port: 80, Protocol: "UDP"}}}}
	if change != nil {
		change(s)
	}
	if _, err := r.api.CoreV1().Services("ns").Create(r.t.Context(), s, metav1.CreateOptions{}); err != nil {
		r.t.Fatal(err)
	}
	r.wait()
	return s
}

// endpoints makes addresses on this node the service's; "10.0.0.1 ending" for one that terminates.
func (r *rig) endpoints(name string, addrs ...string) {
	r.t.Helper()
	s := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: name}},
		AddressType: "IPv4", Ports: []discoveryv1.EndpointPort{{Name: ptr("t"), Port: ptr(int32(8080)), Protocol: ptr(corev1.ProtocolTCP)},
			{Name: ptr("u"), Port: ptr(int32(8080)), Protocol: ptr(corev1.ProtocolUDP)}}}
	for _, a := range addrs {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{a}, NodeName: ptr("n1")})
	}
	api := r.api.DiscoveryV1().EndpointSlices("ns")
	_, err := api.Update(r.t.Context(), s, metav1.UpdateOptions{})
	if err != nil {
		_, err = api.Create(r.t.Context(), s, metav1.CreateOptions{})
	}
	if err != nil {
		r.t.Fatal(err)
	}
	r.wait()
}

func kernel(t *testing.T, change func(*Config)) *rig {
	t.Helper()
	netfiltertest.Need(t, "iptables-restore", "ip", "conntrack")
	f := netfilter.NewIPTables(netfilter.Config{})
	r := start(t, f, change)
	netfiltertest.Run(t, "ip", "link", "add", "up0", "type", "bridge") // a way out, so that Service addresses have a route
	netfiltertest.Run(t, "ip", "addr", "add", "192.0.2.1/24", "dev", "up0")
	netfiltertest.Run(t, "ip", "link", "set", "up0", "up")
	netfiltertest.Run(t, "ip", "route", "add", "default", "dev", "up0")
	t.Cleanup(func() {
		r.stop()
		if err := f.Clear(context.Background()); err != nil {
			t.Error(err)
		}
		netfiltertest.Run(t, "ip", "link", "del", "up0")
		netfiltertest.Run(t, "conntrack", "-F")
	})
	return r
}

// expect asks and compares who answered and what source it saw; "" stands for anything, server "refused" for an error.
func expect(t *testing.T, from *netfiltertest.Pod, proto, addr, server, seen string) {
	t.Helper()
	s, w, err := netfiltertest.Ask(from, proto, addr)
	if server == "refused" {
		var silence net.Error
		if err == nil || errors.As(err, &silence) && silence.Timeout() {
			t.Errorf("%s %s: answered by %q, %v; want a refusal at once", proto, addr, s, err)
		}
		return
	}
	if err != nil || (server != "" && s != server) || (seen != "" && w != seen) {
		t.Errorf("%s %s: answered by %q, which saw %q, %v; want %q and %q", proto, addr, s, w, err, server, seen)
	}
}

func TestServicesWork(t *testing.T) {
	r := kernel(t, nil)
	a, b := netfiltertest.NewPod(t, "k-a", "10.244.0.5"), netfiltertest.NewPod(t, "k-b", "10.244.0.6")
	a.Serve(t, 8080)
	web := r.service("web", "10.96.1.1", func(s *corev1.Service) {
		s.Spec.Type = "NodePort"
		s.Spec.Ports[0].NodePort, s.Spec.Ports[1].NodePort = 30080, 30080
		s.Spec.ExternalIPs = []string{"203.0.113.7"}
	})
	for _, proto := range []string{"tcp", "udp"} {
		expect(t, &b, proto, "10.96.1.1:80", "refused", "")
		expect(t, nil, proto, "10.96.1.1:80", "refused", "")
		expect(t, nil, proto, "127.0.0.1:30080", "refused", "")
	}
	r.endpoints("web", "10.244.0.5")
	for _, proto := range []string{"tcp", "udp"} {
		expect(t, &b, proto, "10.96.1.1:80", "10.244.0.5", "10.244.0.6")
		expect(t, nil, proto, "10.96.1.1:80", "10.244.0.5", "")
		expect(t, nil, proto, "127.0.0.1:30080", "10.244.0.5", "")
		expect(t, nil, proto, "192.0.2.1:30080", "10.244.0.5", "")
		expect(t, &b, proto, "192.0.2.1:30080", "10.244.0.5", "")
		expect(t, &b, proto, "203.0.113.7:80", "10.244.0.5", "")
	}
	expect(t, &b, "tcp", "10.96.1.1:81", "refused", "")
	expect(t, nil, "tcp", "10.97.0.1:80", "refused", "") // no Service has it
	for _, row := range []struct{ label, server string }{
		{"service.kubernetes.io/service-proxy-name", "refused"}, {corev1.IsHeadlessService, "10.244.0.5"}, // another proxy's; the second is for slices
	} {
		web.Labels = map[string]string{row.label: ""}
		if _, err := r.api.CoreV1().Services("ns").Update(t.Context(), web, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		r.wait()
		expect(t, &b, "tcp", "10.96.1.1:80", row.server, "")
	}
	slices := r.api.DiscoveryV1().EndpointSlices("ns")
	slice, err := slices.Get(t.Context(), "web", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ label, server string }{
		{corev1.IsHeadlessService, "refused"}, {"service.kubernetes.io/service-proxy-name", "10.244.0.5"}, // nobody's; the second is for Services
	} {
		slice.Labels = map[string]string{discoveryv1.LabelServiceName: "web", row.label: ""}
		if _, err := slices.Update(t.Context(), slice, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		r.wait()
		expect(t, &b, "tcp", "10.96.1.1:80", row.server, "")
	}
	if err := r.api.CoreV1().Services("ns").Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r.wait()
	expect(t, &b, "tcp", "10.96.1.1:80", "refused", "")
	expect(t, nil, "tcp", "127.0.0.1:30080", "refused", "")
}

func TestHostile_NW16(t *testing.T) {
	r := kernel(t, nil)
	a, w := netfiltertest.NewPod(t, "k-a", "10.244.0.5"), netfiltertest.NewPod(t, "w-w", "192.0.2.50")
	a.Serve(t, 8080)
	r.service("web", "10.96.1.1", func(s *corev1.Service) {
		s.Spec.Type, s.Spec.ExternalTrafficPolicy, s.Spec.HealthCheckNodePort = "LoadBalancer", "Local", 32123
		s.Spec.Ports[0].NodePort = 30080
		s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "198.51.100.9"}}
	})
	health := func() (int, float64) {
		t.Helper()
		resp, err := http.Get("http://127.0.0.1:32123/")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var body map[string]any
		json.NewDecoder(resp.Body).Decode(&body)
		n, _ := body["localEndpoints"].(float64)
		return resp.StatusCode, n
	}
	if code, _ := health(); code != 503 {
		t.Errorf("health without endpoints: %d, want 503", code)
	}
	r.endpoints("web", "10.244.0.5")
	if code, n := health(); code != 200 || n != 1 {
		t.Errorf("health with one endpoint: %d, %v", code, n)
	}
	expect(t, &a, "tcp", "10.96.1.1:80", "10.244.0.5", "")              // hairpin
	expect(t, &a, "tcp", "192.0.2.1:30080", "10.244.0.5", "")           // hairpin by the node port
	expect(t, &w, "tcp", "192.0.2.1:30080", "10.244.0.5", "192.0.2.50") // the client's address is kept
	expect(t, &w, "tcp", "198.51.100.9:80", "10.244.0.5", "192.0.2.50")
}

func TestHostile_NW2(t *testing.T) {
	r := kernel(t, nil)
	change := func(addrs ...string) {
		t.Helper()
		for len(r.clean.done) > 0 {
			<-r.clean.done
		}
		r.endpoints("dns", addrs...)
		<-r.clean.done
	}
	a, b, c := netfiltertest.NewPod(t, "k-a", "10.244.0.5"), netfiltertest.NewPod(t, "k-b", "10.244.0.6"), netfiltertest.NewPod(t, "k-c", "10.244.0.7")
	a.Serve(t, 8080)
	b.Serve(t, 8080)
	r.service("dns", "10.96.1.1", func(s *corev1.Service) { s.Spec.Type = "NodePort"; s.Spec.Ports[1].NodePort = 30053 })
	// One socket each for the whole test: the kernel knows these connections.
	var conns []net.Conn
	for _, addr := range []string{"10.96.1.1:80", "192.0.2.1:30053"} {
		if err := c.Do(func() error {
			conn, err := net.Dial("udp4", addr)
			conns = append(conns, conn)
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	ask := func(want string) {
		t.Helper()
		for _, conn := range conns {
			var got string
			var err error
			for range 3 { // an ICMP error of an earlier packet is reported once
				if got, _, err = netfiltertest.AskOn(conn); err == nil || want == "" {
					break
				}
			}
			if got != want {
				t.Errorf("%s: answered by %q, %v; want %q", conn.RemoteAddr(), got, err, want)
			}
		}
	}
	ask("")
	change("10.244.0.5")
	ask("10.244.0.5")
	change("10.244.0.6")
	ask("10.244.0.6")
	change("10.244.0.5", "10.244.0.6")
	ask("10.244.0.6") // a session survives what does not concern it
	r.stop()
	r.run(nil)
	<-r.clean.done
	ask("10.244.0.6") // and a restart of the proxy
	change()
	ask("")
	change("10.244.0.5")
	ask("10.244.0.5")
}

func TestHostile_NW18(t *testing.T) {
	r := kernel(t, nil)
	c := netfiltertest.NewPod(t, "k-c", "10.244.0.9")
	var addrs []string
	for i := range 4 {
		addr := fmt.Sprintf("10.244.0.%d", 20+i)
		p := netfiltertest.NewPod(t, fmt.Sprintf("k-%d", i), addr)
		p.Serve(t, 8080)
		addrs = append(addrs, addr)
	}
	r.service("web", "10.96.1.1", func(s *corev1.Service) { s.Spec.SessionAffinity = "ClientIP" })
	r.endpoints("web", addrs[:3]...)
	first, _, err := netfiltertest.Ask(&c, "tcp", "10.96.1.1:80")
	if err != nil {
		t.Fatal(err)
	}
	for range 12 {
		expect(t, &c, "tcp", "10.96.1.1:80", first, "")
	}
	r.endpoints("web", addrs...) // churn elsewhere does not move the client
	for range 12 {
		expect(t, &c, "tcp", "10.96.1.1:80", first, "")
	}
	var rest []string
	for _, a := range addrs {
		if a != first {
			rest = append(rest, a)
		}
	}
	r.endpoints("web", rest...)
	second, _, err := netfiltertest.Ask(&c, "tcp", "10.96.1.1:80")
	if err != nil || second == first {
		t.Fatalf("after its endpoint went: %q, %v", second, err)
	}
	for range 12 {
		expect(t, &c, "tcp", "10.96.1.1:80", second, "")
	}
}

func TestFailedTransactionIsTriedAgain(t *testing.T) {
	f := netfilter.NewFake()
	r := start(t, f, nil)
	defer r.stop()
	r.filter.fail <- errors.New("no")
	r.service("web", "10.96.1.1", nil) // waits for the failure
	r.wait()                           // and this for the success
	got, err := f.Tracer(netfilter.Host{Local: func(netip.Addr) bool { return false }, Out: func(netip.Addr) string { return "x" }}).
		Trace(netfilter.Packet{In: "k-1", Src: netip.MustParseAddrPort("10.244.0.9:1"), Dst: netip.MustParseAddrPort("10.96.1.1:80"), Proto: "tcp"})
	if err != nil || len(got) != 1 || got[0].String() != "reject" {
		t.Errorf("%v, %v", got, err)
	}
}

// TestPages: what load balancers and monitoring ask.
func TestPages(t *testing.T) {
	netfiltertest.Need(t)
	eligible := atomic.Bool{}
	eligible.Store(true)
	r := start(t, netfilter.NewFake(), func(c *Config) {
		c.Healthz, c.Metrics, c.Eligible = "127.0.0.1:10256", "127.0.0.1:10249", eligible.Load
	})
	defer r.stop()
	page := func(url string) string {
		t.Helper()
		answer, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(answer.StatusCode, " ", string(body))
	}
	if got := page("http://127.0.0.1:10256/healthz"); !strings.HasPrefix(got, "200") || !strings.Contains(got, `"nodeEligible": true`) {
		t.Errorf("healthz: %s", got)
	}
	eligible.Store(false)
	if got := page("http://127.0.0.1:10256/healthz"); !strings.HasPrefix(got, "503") || !strings.Contains(got, `"nodeEligible": false`) {
		t.Errorf("healthz of a node that goes: %s", got)
	}
	if got := page("http://127.0.0.1:10256/livez"); !strings.HasPrefix(got, "200") {
		t.Errorf("livez of a node that goes: %s", got)
	}
	if got := page("http://127.0.0.1:10249/proxyMode"); got != "200 iptables" {
		t.Errorf("proxyMode: %s", got)
	}
	for _, name := range []string{"kubeproxy_sync_proxy_rules_duration_seconds_bucket", "kubeproxy_sync_proxy_rules_last_timestamp_seconds", "process_start_time_seconds"} {
		if !strings.Contains(page("http://127.0.0.1:10249/metrics"), name) {
			t.Errorf("no %s", name)
		}
	}
}

func TestOwnAddressesGetNoRules(t *testing.T) {
	f := netfilter.NewFake()
	r := start(t, f, func(c *Config) { c.Own = []netip.Addr{netip.MustParseAddr("10.96.0.10")} })
	defer r.stop()
	if _, err := r.api.CoreV1().Services("kube-system").Create(t.Context(), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "kube-dns"},
		Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.10", Ports: []corev1.ServicePort{{Port: 53, Protocol: "UDP"}}}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	r.service("web", "10.96.1.1", nil)
	h := netfilter.Host{Local: func(a netip.Addr) bool { return a.String() == "10.96.0.10" }, Out: func(netip.Addr) string { return "x" }}
	got, err := f.Tracer(h).Trace(netfilter.Packet{In: "k-1", Src: netip.MustParseAddrPort("10.244.0.9:1"), Dst: netip.MustParseAddrPort("10.96.0.10:53"), Proto: "udp"})
	if err != nil || len(got) != 1 || got[0].String() != "local 10.96.0.10:53" {
		t.Errorf("%v, %v", got, err)
	}
}
