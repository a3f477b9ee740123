package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
)

func ptr[T any](v T) *T { return &v }

func meta(ns, name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: ns, Name: name} }

func slice4(ns, svc string, endpoints ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{ObjectMeta: meta(ns, svc+"-x"), Endpoints: endpoints,
		Ports: []discoveryv1.EndpointPort{{Name: ptr("http"), Port: ptr(int32(8080)), Protocol: ptr(corev1.ProtocolTCP)}}}
	s.Labels = map[string]string{discoveryv1.LabelServiceName: svc}
	return s
}

func cluster() *Zone {
	z := NewZone()
	z.SetService(&corev1.Service{ObjectMeta: meta("default", "web"), Spec: corev1.ServiceSpec{ClusterIP: "10.96.1.1", ClusterIPs: []string{"10.96.1.1", "fd00::1"},
		Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: "TCP"}, {Name: "dns", Port: 53, Protocol: "UDP"}}}})
	z.SetService(&corev1.Service{ObjectMeta: meta("default", "db"), Spec: corev1.ServiceSpec{ClusterIP: "None"}})
	z.SetSlice(slice4("default", "db",
		discoveryv1.Endpoint{Addresses: []string{"10.244.0.5"}, Hostname: ptr("db-0")},
		discoveryv1.Endpoint{Addresses: []string{"10.244.0.6"}},
		discoveryv1.Endpoint{Addresses: []string{"10.244.0.7"}, Hostname: ptr("db-2"), Conditions: discoveryv1.EndpointConditions{Ready: ptr(false)}}))
	z.SetSlice(slice4("default", "web", discoveryv1.Endpoint{Addresses: []string{"10.244.0.9"}}))
	z.SetService(&corev1.Service{ObjectMeta: meta("default", "ext"), Spec: corev1.ServiceSpec{Type: "ExternalName", ExternalName: "www.example.org"}})
	z.SetService(&corev1.Service{ObjectMeta: meta("default", "alias"), Spec: corev1.ServiceSpec{Type: "ExternalName", ExternalName: "web.default.svc.cluster.local."}})
	z.SetService(&corev1.Service{ObjectMeta: meta("default", "empty"), Spec: corev1.ServiceSpec{ClusterIP: "None"}})
	return z
}

// upstream is a DNS server on loopback, on a port of its own.
type upstream struct {
	addr  string
	asked atomic.Int64
}

func newUpstream(t *testing.T, h dns.HandlerFunc) *upstream {
	t.Helper()
	u := &upstream{}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u.addr = l.Addr().String()
	pc, err := net.ListenPacket("udp4", u.addr)
	if err != nil {
		t.Fatal(err)
	}
	count := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) { u.asked.Add(1); h(w, q) })
	for _, s := range []*dns.Server{{Listener: l, Handler: count}, {PacketConn: pc, Handler: count}} {
		up := make(chan struct{})
		s.NotifyStartedFunc = func() { close(up) }
		go s.ActivateAndServe() // ends with Shutdown
		<-up
		t.Cleanup(func() { s.Shutdown() })
	}
	return u
}

// a answers every question with one address.
func a(ttl int) dns.HandlerFunc {
	return func(w dns.ResponseWriter, q *dns.Msg) {
		m := (&dns.Msg{}).SetReply(q)
		rr, _ := dns.NewRR(fmt.Sprintf("%s %d IN A 93.184.216.34", q.Question[0].Name, ttl))
		m.Answer = append(m.Answer, rr)
		w.WriteMsg(m)
	}
}

func server(t *testing.T, change func(*Config), upstreams ...string) *Server {
	t.Helper()
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	var b strings.Builder
	for _, u := range upstreams {
		fmt.Fprintf(&b, "nameserver %s\n", u)
	}
	if err := os.WriteFile(conf, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := Config{Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, ResolvConf: conf,
		Ranges: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("10.96.0.0/12")}}
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg, cluster())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var client = netip.MustParseAddr("10.244.0.20")

// ask returns the answer as words: the rcode if not NOERROR, then each record as "type data", sorted.
func ask(t *testing.T, s *Server, name string, typ uint16) string {
	t.Helper()
	m := s.Answer(t.Context(), client, (&dns.Msg{}).SetQuestion(name, typ))
	var out []string
	for _, rr := range m.Answer {
		f := strings.Fields(rr.String())
		out = append(out, strings.Join(f[3:], " "))
	}
	slices.Sort(out)
	if m.Rcode != dns.RcodeSuccess {
		out = append([]string{dns.RcodeToString[m.Rcode]}, out...)
	}
	if len(out) == 0 {
		out = []string{"-"}
	}
	if len(m.Answer) == 0 && m.Authoritative && len(m.Ns) != 1 {
		t.Errorf("%s: a negative answer without SOA", name)
	}
	return strings.Join(out, "; ")
}

func TestClusterNames(t *testing.T) {
	s := server(t, nil, newUpstream(t, a(60)).addr)
	for _, c := range []struct {
		name string
		typ  uint16
		want string
	}{
		{"web.default.svc.cluster.local.", dns.TypeA, "A 10.96.1.1"},
		{"WeB.Default.svc.CLUSTER.local.", dns.TypeA, "A 10.96.1.1"},
		{"web.default.svc.cluster.local.", dns.TypeAAAA, "AAAA fd00::1"},
		{"web.default.svc.cluster.local.", dns.TypeTXT, "-"},
		{"web.default.svc.cluster.local.", dns.TypeSRV, "SRV 0 25 53 web.default.svc.cluster.local.; SRV 0 25 80 web.default.svc.cluster.local."},
		{"_http._tcp.web.default.svc.cluster.local.", dns.TypeSRV, "SRV 0 50 80 web.default.svc.cluster.local."},
		{"_http._udp.web.default.svc.cluster.local.", dns.TypeSRV, "NXDOMAIN"},
		{"_tcp.web.default.svc.cluster.local.", dns.TypeSRV, "-"},
		{"10-244-0-9.web.default.svc.cluster.local.", dns.TypeA, "NXDOMAIN"},
		{"db.default.svc.cluster.local.", dns.TypeA, "A 10.244.0.5; A 10.244.0.6"},
		{"db-0.db.default.svc.cluster.local.", dns.TypeA, "A 10.244.0.5"},
		{"10-244-0-6.db.default.svc.cluster.local.", dns.TypeA, "A 10.244.0.6"},
		{"db-2.db.default.svc.cluster.local.", dns.TypeA, "NXDOMAIN"},
		{"_http._tcp.db.default.svc.cluster.local.", dns.TypeSRV, "SRV 0 50 8080 10-244-0-6.db.default.svc.cluster.local.; SRV 0 50 8080 db-0.db.default.svc.cluster.local."},
		{"empty.default.svc.cluster.local.", dns.TypeA, "NXDOMAIN"},
		{"ext.default.svc.cluster.local.", dns.TypeCNAME, "CNAME www.example.org."},
		{"ext.default.svc.cluster.local.", dns.TypeA, "A 93.184.216.34; CNAME www.example.org."},
		{"alias.default.svc.cluster.local.", dns.TypeA, "A 10.96.1.1; CNAME web.default.svc.cluster.local."},
		{"none.default.svc.cluster.local.", dns.TypeA, "NXDOMAIN"},
		{"default.svc.cluster.local.", dns.TypeA, "-"},
		{"other.svc.cluster.local.", dns.TypeA, "NXDOMAIN"},
		{"svc.cluster.local.", dns.TypeA, "-"},
		{"cluster.local.", dns.TypeNS, "NS ns.dns.cluster.local."},
		{"dns-version.cluster.local.", dns.TypeTXT, `TXT "1.1.0"`},
		{"10-244-0-77.default.pod.cluster.local.", dns.TypeA, "A 10.244.0.77"},
		{"x.default.pod.cluster.local.", dns.TypeA, "NXDOMAIN"},
		{"1.1.96.10.in-addr.arpa.", dns.TypePTR, "PTR web.default.svc.cluster.local."},
		{"5.0.244.10.in-addr.arpa.", dns.TypePTR, "PTR db-0.db.default.svc.cluster.local."},
		{"9.0.244.10.in-addr.arpa.", dns.TypePTR, "PTR 10-244-0-9.web.default.svc.cluster.local."},
		{"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.", dns.TypePTR, "PTR web.default.svc.cluster.local."},
		{"99.0.244.10.in-addr.arpa.", dns.TypePTR, "NXDOMAIN"},
		{"example.org.", dns.TypeA, "A 93.184.216.34"},
		{"cluster.local.example.org.", dns.TypeA, "A 93.184.216.34"},
		{"xcluster.local.", dns.TypeA, "A 93.184.216.34"},
	} {
		if got := ask(t, s, c.name, c.typ); got != c.want {
			t.Errorf("%s %s:\n got %s\nwant %s", c.name, dns.TypeToString[c.typ], got, c.want)
		}
	}
}

func TestObjectsComeAndGo(t *testing.T) {
	s := server(t, nil)
	z := s.zone
	z.DeleteService("default", "web")
	if got := ask(t, s, "web.default.svc.cluster.local.", dns.TypeA); got != "NXDOMAIN" {
		t.Errorf("a deleted service: %s", got)
	}
	z.SetSlice(slice4("default", "db", discoveryv1.Endpoint{Addresses: []string{"10.244.0.6"}, Hostname: ptr("db-1")}))
	if got := ask(t, s, "db.default.svc.cluster.local.", dns.TypeA); got != "A 10.244.0.6" {
		t.Errorf("after a change: %s", got)
	}
	if got := ask(t, s, "5.0.244.10.in-addr.arpa.", dns.TypePTR); got != "NXDOMAIN" {
		t.Errorf("an address that is gone: %s", got)
	}
	z.DeleteSlice("default", "db-x")
	z.DeleteSlice("default", "web-x")
	for _, n := range []string{"db", "ext", "alias", "empty", "web"} {
		z.DeleteService("default", n)
	}
	if len(z.byAddr)+len(z.services)+len(z.slices)+len(z.members)+len(z.spaces) != 0 {
		t.Errorf("left over: %+v", z)
	}
}

func TestFollow(t *testing.T) {
	api := fake.NewClientset(&corev1.Service{ObjectMeta: meta("default", "late"), Spec: corev1.ServiceSpec{ClusterIP: "10.96.7.7"}})
	fac := informers.NewSharedInformerFactory(api, 0)
	s := server(t, nil)
	if err := s.zone.Follow(fac.Core().V1().Services().Informer(), fac.Discovery().V1().EndpointSlices().Informer()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer func() { cancel(); fac.Shutdown() }()
	fac.Start(ctx.Done())
	until := func(want string) {
		t.Helper()
		for start := time.Now(); ask(t, s, "late.default.svc.cluster.local.", dns.TypeA) != want; time.Sleep(time.Millisecond) {
			if time.Since(start) > 30*time.Second {
				t.Fatal("waited for", want)
			}
		}
	}
	until("A 10.96.7.7")
	if err := api.CoreV1().Services("default").Delete(ctx, "late", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	until("NXDOMAIN")
}

func TestServesUDPAndTCP(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0") // a port that is free for both
	if err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort(l.Addr().String())
	l.Close()
	many := newUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		m := (&dns.Msg{}).SetReply(q)
		for i := range 200 {
			rr, _ := dns.NewRR(fmt.Sprintf("%s 60 IN A 10.9.%d.%d", q.Question[0].Name, i/250, i%250))
			m.Answer = append(m.Answer, rr)
		}
		if w.RemoteAddr().Network() == "udp" {
			m.Truncate(512)
		}
		w.WriteMsg(m)
	})
	s := server(t, func(c *Config) { c.Listen = []netip.AddrPort{at} }, many.addr)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	exchange := func(network string, q *dns.Msg) *dns.Msg {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) { // until it listens
			m, _, err := (&dns.Client{Net: network}).Exchange(q, at.String())
			if err == nil {
				m.Compress = true // as it came, for Len
				return m
			}
			if time.Now().After(deadline) {
				t.Fatal(err)
			}
		}
	}
	q := (&dns.Msg{}).SetQuestion("big.example.", dns.TypeA)
	if m := exchange("udp", q); !m.Truncated || m.Len() > 512 {
		t.Errorf("udp without EDNS: truncated %v, %d bytes", m.Truncated, m.Len())
	}
	if m := exchange("udp", q.Copy().SetEdns0(4096, false)); !m.Truncated || m.Len() > 1232 || m.IsEdns0() == nil {
		t.Errorf("udp with EDNS: truncated %v, %d bytes", m.Truncated, m.Len())
	}
	if m := exchange("tcp", q); m.Truncated || len(m.Answer) != 200 {
		t.Errorf("tcp: truncated %v, %d records", m.Truncated, len(m.Answer))
	}
	if m := exchange("udp", (&dns.Msg{}).SetQuestion("wEb.default.svc.cluster.local.", dns.TypeA)); m.Question[0].Name != "wEb.default.svc.cluster.local." || m.Answer[0].Header().Name != "wEb.default.svc.cluster.local." {
		t.Errorf("0x20: %v", m)
	}
	checkMetrics(t, s, "coredns_dns_requests_total", "coredns_dns_responses_total", "coredns_dns_request_duration_seconds", "coredns_cache_hits_total", "coredns_cache_misses_total", "coredns_cache_entries")
	second := server(t, func(c *Config) { c.Listen = []netip.AddrPort{at} })
	if err := second.Run(ctx); err == nil || !strings.Contains(err.Error(), at.String()) {
		t.Errorf("a second server on the address: %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestCache(t *testing.T) {
	u := newUpstream(t, a(100))
	var mu sync.Mutex
	now := time.Unix(1e9, 0)
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	s := server(t, func(c *Config) { c.Now = clock; c.CacheSize = 2 }, u.addr)
	ttl := func(name string) uint32 {
		t.Helper()
		m := s.Answer(t.Context(), client, (&dns.Msg{}).SetQuestion(name, dns.TypeA))
		if len(m.Answer) != 1 {
			t.Fatalf("%s: %v", name, m)
		}
		return m.Answer[0].Header().Ttl
	}
	ttl("a.example.")
	now = now.Add(40 * time.Second)
	if got := ttl("A.example."); got != 60 || u.asked.Load() != 1 {
		t.Errorf("after 40 s of 100: TTL %d, asked %d times", got, u.asked.Load())
	}
	now = now.Add(61 * time.Second)
	if ttl("a.example."); u.asked.Load() != 2 {
		t.Errorf("after it expired: asked %d times", u.asked.Load())
	}
	ttl("b.example.")
	ttl("c.example.") // the third of two places
	if ttl("a.example."); u.asked.Load() != 5 {
		t.Errorf("after it was pushed out: asked %d times", u.asked.Load())
	}
}

func TestHostile_NW14(t *testing.T) {
	dead, err := net.ListenPacket("udp4", "127.0.0.1:0") // takes questions, never answers
	if err != nil {
		t.Fatal(err)
	}
	defer dead.Close()
	if answerWithin > 2*time.Second {
		t.Errorf("clients wait %v; their own patience is 5 s, of which a slow machine needs a part", answerWithin)
	}
	within := func(t *testing.T, s *Server, name, want string) { // the time of a hang, not answerWithin: that is the timer's affair
		t.Helper()
		start := time.Now()
		if got := ask(t, s, name, dns.TypeA); got != want || time.Since(start) > 20*time.Second {
			t.Errorf("%s: %s after %v; want %s", name, got, time.Since(start), want)
		}
	}
	t.Run("dead", func(t *testing.T) { within(t, server(t, nil, dead.LocalAddr().String()), "x.example.", "SERVFAIL") })
	t.Run("none", func(t *testing.T) { within(t, server(t, nil), "x.example.", "SERVFAIL") })
	t.Run("dead first, living second", func(t *testing.T) {
		s := server(t, nil, dead.LocalAddr().String(), newUpstream(t, a(1)).addr)
		asked := func() (n int) {
			for buf := make([]byte, 512); ; n++ {
				dead.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
				if _, _, err := dead.ReadFrom(buf); err != nil {
					return n
				}
			}
		}
		asked()
		within(t, s, "x.example.", "A 93.184.216.34")
		if asked() == 0 {
			t.Error("the dead one was not asked at all")
		}
		within(t, s, "y.example.", "A 93.184.216.34")
		if n := asked(); n > 0 {
			t.Errorf("the dead one was asked first again, %d times", n)
		}
	})
	t.Run("stale rather than nothing", func(t *testing.T) {
		var off atomic.Bool
		u := newUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
			if !off.Load() {
				a(1)(w, q)
			}
		})
		now := time.Unix(1e9, 0)
		s := server(t, func(c *Config) { c.Now = func() time.Time { return now } }, u.addr)
		within(t, s, "x.example.", "A 93.184.216.34")
		now = now.Add(time.Hour)
		off.Store(true)
		within(t, s, "x.example.", "A 93.184.216.34")
	})
	t.Run("loop", func(t *testing.T) {
		var s *Server
		u := newUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) { // an upstream that asks us
			m := s.Answer(context.Background(), netip.MustParseAddr("127.0.0.1"), q)
			w.WriteMsg(m)
		})
		s = server(t, nil, u.addr)
		within(t, s, "x.example.", "SERVFAIL")
		if n := u.asked.Load(); n > 10 {
			t.Errorf("the loop grew to %d questions", n)
		}
	})
	t.Run("ourselves", func(t *testing.T) {
		s := server(t, func(c *Config) { c.Listen = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")} }, "127.0.0.1")
		if got := s.resolver.upstreams(); len(got) != 0 {
			t.Errorf("upstreams: %v", got)
		}
	})
	t.Run("answer to another question", func(t *testing.T) {
		u := newUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
			m := (&dns.Msg{}).SetReply(q)
			m.Question[0].Name = "evil.example."
			w.WriteMsg(m)
		})
		within(t, server(t, nil, u.addr), "x.example.", "SERVFAIL")
	})
	t.Run("flood of names that do not exist", func(t *testing.T) {
		u := newUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) { w.WriteMsg((&dns.Msg{}).SetRcode(q, dns.RcodeNameError)) })
		s := server(t, func(c *Config) { c.CacheSize = 50 }, u.addr)
		for i := range 500 {
			within(t, s, fmt.Sprintf("n%d.example.", i), "NXDOMAIN")
		}
		if n := len(s.resolver.cache.m); n > 50 {
			t.Errorf("the cache holds %d answers of 50", n)
		}
	})
}

func TestHostile_NW15(t *testing.T) {
	hold := make(chan struct{})
	u := newUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		if strings.HasPrefix(q.Question[0].Name, "slow") {
			<-hold
		}
		a(60)(w, q)
	})
	defer close(hold)
	s := server(t, func(c *Config) { c.PerClient = 20 }, u.addr)
	var wg sync.WaitGroup
	var asked atomic.Int64
	for range 200 { // many ask the same: one question goes out
		wg.Go(func() {
			if m := s.Answer(t.Context(), netip.MustParseAddr("10.244.0.30"), (&dns.Msg{}).SetQuestion("web.default.svc.cluster.local.", dns.TypeA)); len(m.Answer) == 1 {
				asked.Add(1)
			}
		})
	}
	wg.Wait()
	if asked.Load() != 200 || u.asked.Load() != 0 {
		t.Errorf("%d of 200 answered, %d left the node", asked.Load(), u.asked.Load())
	}
	share := func(n int) { s.mu.Lock(); s.clients[client] += n; s.mu.Unlock() }
	share(20) // one pod fills its share
	if got := ask(t, s, "more.example.", dns.TypeA); got != "SERVFAIL" {
		t.Errorf("beyond its share: %s", got)
	}
	m := s.Answer(t.Context(), netip.MustParseAddr("10.244.0.21"), (&dns.Msg{}).SetQuestion("other.example.", dns.TypeA))
	if len(m.Answer) != 1 {
		t.Errorf("another pod meanwhile: %v", m)
	}
	share(-20)
	if got := ask(t, s, "more.example.", dns.TypeA); got != "A 93.184.216.34" {
		t.Errorf("within its share again: %s", got)
	}
	for i := range 5 { // what nobody answers is counted off as well
		wg.Go(func() {
			s.Answer(t.Context(), client, (&dns.Msg{}).SetQuestion(fmt.Sprintf("slow%d.example.", i), dns.TypeA))
		})
	}
	wg.Wait()
	if n := s.under(client); n != 0 {
		t.Errorf("%d questions are still counted", n)
	}
}

func (s *Server) under(a netip.Addr) int { s.mu.Lock(); defer s.mu.Unlock(); return s.clients[a] }

func TestSameQuestionGoesOutOnce(t *testing.T) {
	hold := make(chan struct{})
	u := newUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) { <-hold; a(60)(w, q) })
	s := server(t, nil, u.addr)
	var wg sync.WaitGroup
	var ok atomic.Int64
	for range 50 {
		wg.Go(func() {
			if m := s.Answer(t.Context(), client, (&dns.Msg{}).SetQuestion("x.example.", dns.TypeA)); len(m.Answer) == 1 {
				ok.Add(1)
			}
		})
	}
	for u.asked.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	close(hold)
	wg.Wait()
	if ok.Load() != 50 || u.asked.Load() != 1 {
		t.Errorf("%d of 50 answered by %d questions", ok.Load(), u.asked.Load())
	}
}

func TestOddMessages(t *testing.T) {
	s := server(t, nil)
	for name, c := range map[string]struct {
		q    *dns.Msg
		want int
	}{
		"no question": {&dns.Msg{}, dns.RcodeFormatError},
		"two":         {&dns.Msg{Question: []dns.Question{{Name: "a.", Qtype: 1, Qclass: 1}, {Name: "b.", Qtype: 1, Qclass: 1}}}, dns.RcodeFormatError},
		"update":      {(&dns.Msg{}).SetUpdate("cluster.local."), dns.RcodeNotImplemented},
		"transfer":    {(&dns.Msg{}).SetAxfr("cluster.local."), dns.RcodeRefused},
		"chaos":       {&dns.Msg{Question: []dns.Question{{Name: "version.bind.", Qtype: dns.TypeTXT, Qclass: dns.ClassCHAOS}}}, dns.RcodeRefused},
	} {
		if m := s.Answer(t.Context(), client, c.q); m.Rcode != c.want {
			t.Errorf("%s: %s", name, dns.RcodeToString[m.Rcode])
		}
	}
}

func FuzzAnswer(f *testing.F) {
	for _, n := range []string{"web.default.svc.cluster.local.", "_http._tcp.db.default.svc.cluster.local.", "5.0.244.10.in-addr.arpa.", "1-2-3-4.x.pod.cluster.local."} {
		b, _ := (&dns.Msg{}).SetQuestion(n, dns.TypeSRV).Pack()
		f.Add(b)
	}
	s, err := New(Config{Listen: []netip.AddrPort{{}}, ResolvConf: "/dev/null"}, cluster())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		q := &dns.Msg{}
		if q.Unpack(b) != nil {
			return
		}
		m := s.Answer(context.Background(), client, q)
		fit(m, q, "udp")
		if m.Id != q.Id || !m.Response {
			t.Errorf("no reply to %v: %v", q, m)
		}
		if _, err := m.Pack(); err != nil && !errors.Is(err, dns.ErrBuf) && len(q.Question) == 1 {
			if _, err2 := q.Pack(); err2 == nil {
				t.Errorf("answer to %v cannot be packed: %v", q, err)
			}
		}
	})
}

func BenchmarkClusterName(b *testing.B) {
	s, err := New(Config{Listen: []netip.AddrPort{{}}, ResolvConf: "/dev/null"}, cluster())
	if err != nil {
		b.Fatal(err)
	}
	q := (&dns.Msg{}).SetQuestion("web.default.svc.cluster.local.", dns.TypeA)
	for b.Loop() {
		s.Answer(b.Context(), client, q)
	}
}

// checkMetrics checks that the server counts what it does, under CoreDNS' names.
func checkMetrics(t *testing.T, s *Server, names ...string) {
	t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(s.Collectors()...)
	have := map[string]bool{}
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			n := m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			have[f.GetName()] = have[f.GetName()] || n > 0
		}
	}
	for _, n := range names {
		if !have[n] {
			t.Errorf("%s counts nothing; there are %v", n, have)
		}
	}
}
