package policy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"sigs.k8s.io/yaml"

	"keelson.dev/keelson/network/netfilter"
)

// The pods of every test: a, b, c in namespace x; d in y; r is on another node; the cluster DNS. 10.0.0.x is x, 10.0.1.x is y.
func pods() []Pod {
	p := func(ns, name, addr, lab string, local bool) Pod {
		set, _ := labels.ConvertSelectorToLabelsMap(lab)
		return Pod{Namespace: ns, Name: name, Addr: netip.MustParseAddr(addr), Labels: set, Local: local}
	}
	b := p("x", "b", "10.0.0.2", "app=b", true)
	b.Ports = []NamedPort{{"http", "tcp", 8080}, {"dns", "udp", 53}}
	r := p("x", "r", "10.0.0.9", "app=r", false)
	r.Ports = []NamedPort{{"http", "tcp", 9090}}
	return []Pod{p("x", "a", "10.0.0.1", "app=a", true), b, p("x", "c", "10.0.0.3", "app=c,tier=front", true), p("y", "d", "10.0.1.1", "app=a", true), r,
		p("kube-system", "dns", "10.96.0.10", "k8s-app=kube-dns", false)}
}

var spaces = map[string]labels.Set{"x": {"team": "red", "kubernetes.io/metadata.name": "x"}, "y": {"team": "blue", "kubernetes.io/metadata.name": "y"},
	"kube-system": {"kubernetes.io/metadata.name": "kube-system"}}

func parse(t *testing.T, docs string) []*networkingv1.NetworkPolicy {
	t.Helper()
	var out []*networkingv1.NetworkPolicy
	for i, doc := range strings.Split(docs, "---") {
		np := &networkingv1.NetworkPolicy{}
		if err := yaml.UnmarshalStrict([]byte(doc), &np.Spec); err != nil {
			t.Fatal(err)
		}
		np.Namespace, np.Name = "x", fmt.Sprint(i)
		out = append(out, np)
	}
	return out
}

// verdict sends one packet "proto from > to:port" and says "yes" or "no".
func verdict(t *testing.T, s netfilter.Set, line string) string {
	t.Helper()
	f := strings.Fields(line)
	names := map[string]string{"a": "10.0.0.1", "b": "10.0.0.2", "c": "10.0.0.3", "d": "10.0.1.1", "r": "10.0.0.9", "world": "8.8.8.8", "evil": "8.8.4.4", "node": "192.0.2.1", "dns": "10.96.0.10"}
	to, port, _ := strings.Cut(f[3], ":")
	if port == "" {
		port = "0"
	}
	fake := netfilter.NewFake()
	if err := fake.Apply(context.Background(), netfilter.Policy, s); err != nil {
		t.Fatal(err)
	}
	local := func(a netip.Addr) bool { return a.String() == "192.0.2.1" || a.String() == "10.96.0.10" }
	in := "k-" + f[1]
	if f[1] == "node" {
		in = ""
	}
	p := netfilter.Packet{In: in, Src: netip.MustParseAddrPort(names[f[1]] + ":40000"), Dst: netip.MustParseAddrPort(names[to] + ":" + port), Proto: f[0]}
	if len(f) > 4 && f[4] == "established" {
		p.State = netfilter.Established
	}
	got, err := fake.Tracer(netfilter.Host{Local: local, Out: func(netip.Addr) string { return "any" }}).Trace(p)
	if err != nil || len(got) != 1 {
		t.Fatalf("%s: %v %v", line, got, err)
	}
	if got[0].Verdict == "drop" {
		return "no"
	}
	return "yes"
}

func TestPolicies(t *testing.T) {
	for _, c := range []struct{ name, policy, yes, no string }{
		{"deny all ingress", `{podSelector: {matchLabels: {app: b}}, policyTypes: [Ingress]}`,
			"tcp b > a:80|tcp b > world:80|tcp node > b:80|tcp a > b:80 established|tcp a > c:80|tcp b > b:80", "tcp a > b:80|udp d > b:53|tcp world > b:80|icmp a > b"},
		{"ingress is the default type", `{podSelector: {matchLabels: {app: b}}}`, "tcp b > a:80", "tcp a > b:80"},
		{"deny all egress", `{podSelector: {matchLabels: {app: a}}, policyTypes: [Egress]}`,
			"tcp b > a:80|tcp a > b:80 established|tcp d > a:80", "tcp a > b:80|tcp a > world:80|udp a > dns:53|tcp a > node:22"},
		{"egress rules make the type", `{podSelector: {matchLabels: {app: a}}, egress: [{to: [{podSelector: {matchLabels: {app: b}}}]}]}`,
			"tcp a > b:80|tcp a > a:1", "tcp a > c:80|tcp c > a:80"},
		{"empty selector is the namespace", `{podSelector: {}, policyTypes: [Ingress]}`, "tcp a > d:80", "tcp d > a:80|tcp a > b:80|tcp a > c:1"},
		{"allow all", `{podSelector: {}, ingress: [{}]}`, "tcp a > b:80|icmp world > b", ""},
		{"pods of the namespace", `{podSelector: {matchLabels: {app: b}}, ingress: [{from: [{podSelector: {matchLabels: {app: a}}}]}]}`,
			"tcp a > b:80|udp a > b:1|icmp a > b", "tcp c > b:80|tcp d > b:80|tcp world > b:80"},
		{"namespaces", `{podSelector: {matchLabels: {app: b}}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}}]}]}`, "tcp d > b:80", "tcp a > b:80"},
		{"every namespace", `{podSelector: {matchLabels: {app: b}}, ingress: [{from: [{namespaceSelector: {}}]}]}`, "tcp d > b:80|tcp a > b:80", "tcp world > b:80"},
		{"pods in namespaces", `{podSelector: {matchLabels: {app: b}}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: red}}, podSelector: {matchLabels: {app: a}}}]}]}`,
			"tcp a > b:80", "tcp d > b:80|tcp c > b:80"},
		{"either peer", `{podSelector: {matchLabels: {app: b}}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}}, {podSelector: {matchLabels: {app: a}}}]}]}`,
			"tcp a > b:80|tcp d > b:80", "tcp c > b:80"},
		{"expressions", `{podSelector: {matchExpressions: [{key: app, operator: In, values: [b, c]}]}, ingress: [{from: [{podSelector: {matchExpressions: [{key: tier, operator: Exists}]}}]}]}`,
			"tcp c > b:80|tcp b > a:1", "tcp a > b:80|tcp a > c:80|tcp b > c:1"},
		{"ports", `{podSelector: {matchLabels: {app: b}}, ingress: [{ports: [{port: 80}, {protocol: UDP, port: 53}, {protocol: SCTP, port: 7, endPort: 9}, {protocol: SCTP, port: 20}]}]}`,
			"tcp a > b:80|udp a > b:53|sctp a > b:7|sctp a > b:9|sctp a > b:20|tcp world > b:80", "tcp a > b:81|udp a > b:80|sctp a > b:10|icmp a > b"},
		{"a protocol", `{podSelector: {matchLabels: {app: b}}, ingress: [{ports: [{protocol: UDP}]}]}`, "udp a > b:9", "tcp a > b:9"},
		{"ports and peers", `{podSelector: {matchLabels: {app: b}}, ingress: [{from: [{podSelector: {matchLabels: {app: a}}}], ports: [{port: 80}]}]}`,
			"tcp a > b:80", "tcp a > b:81|tcp c > b:80"},
		{"named port", `{podSelector: {}, ingress: [{ports: [{port: http}]}]}`, "tcp a > b:8080", "tcp a > b:9090|tcp a > c:8080|udp a > b:8080"},
		{"named port of the peer", `{podSelector: {matchLabels: {app: a}}, policyTypes: [Egress], egress: [{ports: [{port: http}]}]}`,
			"tcp a > b:8080|tcp a > r:9090", "tcp a > r:8080|tcp a > b:9090|tcp a > world:8080"},
		{"blocks", `{podSelector: {matchLabels: {app: a}}, policyTypes: [Egress, Ingress], egress: [{to: [{ipBlock: {cidr: 8.0.0.0/8, except: [8.8.4.0/24]}}]}], ingress: [{from: [{ipBlock: {cidr: 8.8.8.8/32}}]}]}`,
			"tcp a > world:80|tcp world > a:80", "tcp a > evil:80|tcp evil > a:80|tcp a > b:80"},
		{"an exception in one block is no veto for another", `{podSelector: {matchLabels: {app: a}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 8.0.0.0/8, except: [8.8.4.0/24]}}, {ipBlock: {cidr: 8.8.4.4/32}}]}]}`,
			"tcp a > evil:80|tcp a > world:80", ""},
		{"DNS is a pod of kube-system", `{podSelector: {matchLabels: {app: a}}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}, podSelector: {matchLabels: {k8s-app: kube-dns}}}], ports: [{protocol: UDP, port: 53}]}]}`,
			"udp a > dns:53", "tcp a > dns:53|udp a > world:53"},
		{"policies add up", `{podSelector: {matchLabels: {app: b}}, ingress: [{from: [{podSelector: {matchLabels: {app: a}}}]}]}
---
{podSelector: {}, policyTypes: [Ingress]}
---
{podSelector: {matchLabels: {app: b}}, ingress: [{ports: [{port: 443}]}]}`, "tcp a > b:80|tcp c > b:443|tcp world > b:443", "tcp c > b:80|tcp b > a:1"},
		{"both ends must allow", `{podSelector: {matchLabels: {app: a}}, policyTypes: [Egress], egress: [{}]}
---
{podSelector: {matchLabels: {app: b}}, policyTypes: [Ingress]}
---
{podSelector: {matchLabels: {app: c}}, policyTypes: [Egress]}
---
{podSelector: {matchLabels: {app: a}}, ingress: [{}]}`, "tcp a > c:1|tcp a > world:1|tcp d > a:1", "tcp a > b:80|tcp c > a:1"},
		{"another node's pod is its own node's affair", `{podSelector: {matchLabels: {app: r}}, policyTypes: [Ingress, Egress]}`, "tcp a > r:80|tcp r > a:80", ""},
	} {
		s := Compile(State{Policies: parse(t, c.policy), Namespaces: spaces, Pods: pods()})
		for _, want := range []struct{ what, lines string }{{"yes", c.yes}, {"no", c.no}} {
			for _, l := range strings.Split(want.lines, "|") {
				if l == "" {
					continue
				}
				if got := verdict(t, s, l); got != want.what {
					t.Errorf("%s: %s: %s, want %s", c.name, l, got, want.what)
				}
			}
		}
	}
}

func TestNoPolicyNoRules(t *testing.T) {
	if s := Compile(State{Namespaces: spaces, Pods: pods()}); len(s.Chains)+len(s.Hooks) != 0 {
		t.Errorf("%+v", s)
	}
}

func TestUnknownPodIsShut(t *testing.T) {
	ps := pods()
	ps[0].Unknown, ps[0].Labels = true, nil
	s := Compile(State{Policies: parse(t, `{podSelector: {matchLabels: {app: whatever}}, policyTypes: [Egress], egress: [{}]}`), Namespaces: spaces, Pods: ps})
	if verdict(t, s, "tcp a > world:80") != "no" || verdict(t, s, "tcp b > world:80") != "yes" || verdict(t, s, "tcp b > a:80") != "yes" {
		t.Error("want the unknown pod shut in the policy's direction, and nobody else")
	}
}

func engine(t *testing.T) (*Engine, *netfilter.Fake) {
	t.Helper()
	f := netfilter.NewFake()
	e := New(Config{PodCIDR: netip.MustParsePrefix("10.0.0.0/24"), Ready: 100 * time.Millisecond, Retry: time.Millisecond}, f)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); e.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return e, f
}

func apiPod(name, ip string, lab map[string]string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: name, UID: types.UID("uid-" + name), Labels: lab}}
	if ip != "" {
		p.Status.PodIPs = []corev1.PodIP{{IP: ip}}
	}
	return p
}

func trace(t *testing.T, f *netfilter.Fake, src, dst string) string {
	t.Helper()
	got, err := f.Tracer(netfilter.Host{Local: func(netip.Addr) bool { return false }, Out: func(netip.Addr) string { return "x" }}).
		Trace(netfilter.Packet{In: "k", Src: netip.MustParseAddrPort(src + ":1"), Dst: netip.MustParseAddrPort(dst), Proto: "tcp"})
	if err != nil || len(got) != 1 {
		t.Fatal(got, err)
	}
	return got[0].Verdict
}

func TestAdmitWaitsForTheRules(t *testing.T) {
	e, f := engine(t)
	a := netip.MustParseAddr("10.0.0.1")
	if err := e.Admit(t.Context(), "x", "a", "uid-a", a); err == nil || !strings.Contains(err.Error(), "not known or not applied in time") {
		t.Errorf("before anything was fed: %v", err)
	}
	e.Synced()
	if err := e.Admit(t.Context(), "x", "a", "uid-a", a); err != nil || f.Changes() != 0 {
		t.Errorf("without policies: %v, %d transactions", err, f.Changes())
	}
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "deny"}, Spec: networkingv1.NetworkPolicySpec{
		PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "b"}}, PolicyTypes: []networkingv1.PolicyType{"Egress"}}}
	e.SetPolicy(np)
	b := netip.MustParseAddr("10.0.0.2")
	if err := e.Admit(t.Context(), "x", "b", "uid-b", b); err != nil {
		t.Fatal(err)
	}
	if got := trace(t, f, "10.0.0.2", "8.8.8.8:80"); got != "drop" {
		t.Errorf("a pod whose labels are unknown: %s", got)
	}
	e.SetPod(apiPod("b", "", map[string]string{"app": "other"})) // no address in its status yet
	if err := e.Admit(t.Context(), "x", "b", "uid-b", b); err != nil || trace(t, f, "10.0.0.2", "8.8.8.8:80") != "forward" {
		t.Errorf("once its labels are known: %v", err)
	}
	f.Fail(errors.New("no"))
	if err := e.Admit(t.Context(), "x", "c", "uid-c", netip.MustParseAddr("10.0.0.3")); err == nil {
		t.Error("admitted though the rules could not be applied")
	}
	f.Fail(nil)
	np2 := np.DeepCopy()
	np2.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{{Ports: []networkingv1.NetworkPolicyPort{{Port: &intstr.IntOrString{IntVal: 80}}}}}
	e.SetPolicy(np2)
	mirror := apiPod("s", "", map[string]string{"app": "b"})
	mirror.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "hash-of-s"}
	e.SetPod(mirror)
	if err := e.Admit(t.Context(), "x", "s", "hash-of-s", netip.MustParseAddr("10.0.0.4")); err != nil || trace(t, f, "10.0.0.4", "8.8.8.8:80") != "forward" || trace(t, f, "10.0.0.4", "8.8.8.8:81") != "drop" {
		t.Errorf("a static pod: %v", err)
	}
}

func TestFollow(t *testing.T) {
	api := fake.NewClientset(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "x"}}, apiPod("a", "10.0.0.1", map[string]string{"app": "a"}),
		&networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "deny"}, Spec: networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{"Egress"}}})
	f := netfilter.NewFake()
	e := New(Config{PodCIDR: netip.MustParsePrefix("10.0.0.0/24")}, f)
	fac := informers.NewSharedInformerFactory(api, 0)
	if err := e.Follow(fac.Networking().V1().NetworkPolicies().Informer(), fac.Core().V1().Namespaces().Informer(), fac.Core().V1().Pods().Informer()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	fac.Start(ctx.Done())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	defer func() { cancel(); <-done; fac.Shutdown() }()
	if err := e.Admit(t.Context(), "x", "a", "uid-a", netip.MustParseAddr("10.0.0.1")); err != nil {
		t.Fatal(err)
	}
	if got := trace(t, f, "10.0.0.1", "8.8.8.8:80"); got != "drop" {
		t.Errorf("a policy of the API: %s", got)
	}
}

// Ten thousand pods and a policy that changes: the state is right when Admit returns.
func TestHostile_NW5(t *testing.T) {
	e, f := engine(t)
	e.cfg.Ready = time.Minute
	for i := range 10000 {
		e.SetPod(apiPod(fmt.Sprint(i), netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}).String(), map[string]string{"app": fmt.Sprint("app", i%100)}))
	}
	e.Synced()
	addr := netip.MustParseAddr("10.0.0.1")
	e.SetPod(apiPod("me", "", map[string]string{"app": "me"}))
	for i := range 50 {
		peer := fmt.Sprint("app", i)
		e.SetPolicy(&networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "p"}, Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "me"}}, PolicyTypes: []networkingv1.PolicyType{"Egress"},
			Egress: []networkingv1.NetworkPolicyEgressRule{{To: []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": peer}}}}}}}})
		if i%10 != 0 {
			continue
		}
		if err := e.Admit(t.Context(), "x", "me", "uid-me", addr); err != nil {
			t.Fatal(err)
		}
		yes, no := netip.AddrFrom4([4]byte{10, 1, 0, byte(i)}).String(), netip.AddrFrom4([4]byte{10, 1, 0, byte(i + 1)}).String()
		if trace(t, f, "10.0.0.1", yes+":80") != "forward" || trace(t, f, "10.0.0.1", no+":80") != "drop" {
			t.Errorf("after change %d: %s should be reachable, %s not", i, yes, no)
		}
	}
}
