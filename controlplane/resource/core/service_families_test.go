package core_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

var (
	range4 = netip.MustParsePrefix("10.43.0.0/16")
	range6 = netip.MustParsePrefix("fd00:43::/112")
)

func withPolicy(policy corev1.IPFamilyPolicy, more ...func(*corev1.ServiceSpec)) func(*corev1.ServiceSpec) {
	return func(s *corev1.ServiceSpec) {
		s.IPFamilyPolicy = &policy
		for _, f := range more {
			f(s)
		}
	}
}

func withFamilies(f ...corev1.IPFamily) func(*corev1.ServiceSpec) {
	return func(s *corev1.ServiceSpec) { s.IPFamilies = f }
}

func withIPs(ips ...string) func(*corev1.ServiceSpec) {
	return func(s *corev1.ServiceSpec) { s.ClusterIP, s.ClusterIPs = ips[0], ips }
}

// stack tells policy and families of a Service, and whether its addresses are of them: "SingleStack IPv4".
func stack(s *corev1.Service) string {
	out := "nil"
	if p := s.Spec.IPFamilyPolicy; p != nil {
		out = string(*p)
	}
	for i, f := range s.Spec.IPFamilies {
		out += " " + string(f)
		if s.Spec.ClusterIP == corev1.ClusterIPNone {
			continue
		}
		prefix := range4
		if f == corev1.IPv6Protocol {
			prefix = range6
		}
		if a, err := netip.ParseAddr(s.Spec.ClusterIPs[i]); err != nil || !prefix.Contains(a) {
			out += " (" + s.Spec.ClusterIPs[i] + ")"
		}
	}
	if n := len(s.Spec.ClusterIPs); s.Spec.ClusterIP != corev1.ClusterIPNone && n != len(s.Spec.IPFamilies) || s.Spec.ClusterIPs[0] != s.Spec.ClusterIP {
		out += fmt.Sprintf(" with %s, %v", s.Spec.ClusterIP, s.Spec.ClusterIPs)
	}
	return out
}

// held are the addresses that Services of the namespace default have by their records, without the API's own.
func held(t *testing.T, client kubernetes.Interface) (out []string) {
	t.Helper()
	list, err := client.NetworkingV1().IPAddresses().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range list.Items {
		if p := a.Spec.ParentRef; p.Name != "kubernetes" {
			out = append(out, a.Name+"="+p.Name)
		}
	}
	slices.Sort(out)
	return out
}

const (
	single  = corev1.IPFamilyPolicySingleStack
	prefer  = corev1.IPFamilyPolicyPreferDualStack
	require = corev1.IPFamilyPolicyRequireDualStack
	v4      = corev1.IPv4Protocol
	v6      = corev1.IPv6Protocol
)

func TestSingleStack(t *testing.T) {
	client, stop := start(t, t.TempDir(), range4)
	defer stop()
	s := services{client.CoreV1().Services("default"), t}
	if got := stack(s.made("prefers", withPolicy(prefer))); got != "PreferDualStack IPv4" {
		t.Error(got)
	}
	// Whoever writes the endpoints of a headless Service without selector decides their families.
	if got := stack(s.made("by-hand", func(spec *corev1.ServiceSpec) { spec.Selector, spec.ClusterIP = nil, "None" })); got != "RequireDualStack IPv4 IPv6" {
		t.Error(got)
	}
	for want, change := range map[string]func(*corev1.ServiceSpec){
		`spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services`:                     withPolicy(require),
		`spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster`:                                                          withFamilies(v6),
		`spec.ipFamilies[1]: Invalid value: "IPv6": not configured on this cluster`:                                                          withPolicy(prefer, withFamilies(v4, v6)),
		`spec.clusterIPs[0]: Invalid value: ["fd00:43::9"]: IPv6 is not configured on this cluster`:                                          withIP("fd00:43::9"),
		`spec.ipFamilies[0]: Unsupported value: "IPv5": supported values: "IPv4", "IPv6"`:                                                    withFamilies("IPv5"),
		`spec.ipFamilyPolicy: Unsupported value: "Both": supported values: "PreferDualStack", "RequireDualStack", "SingleStack"`:             withPolicy("Both"),
		`spec.ipFamilyPolicy: Invalid value: "SingleStack": must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are s`: withFamilies(v4, v6),
	} {
		_, err := s.make("refused", change)
		wantError(t, err, want)
	}
}

func TestDualStack(t *testing.T) {
	client, stop := start(t, t.TempDir(), range4, range6)
	defer stop()
	s := services{client.CoreV1().Services("default"), t}
	cidr, err := client.NetworkingV1().ServiceCIDRs().Get(t.Context(), "kubernetes", get)
	if err != nil || strings.Join(cidr.Spec.CIDRs, " ") != "10.43.0.0/16 fd00:43::/112" {
		t.Errorf("ServiceCIDR %v, %v", cidr, err)
	}
	for i, c := range []struct {
		change func(*corev1.ServiceSpec)
		want   string
	}{
		{nil, "SingleStack IPv4"},
		{withFamilies(v6), "SingleStack IPv6"},
		{withIP("fd00:43::77"), "SingleStack IPv6"},
		{withPolicy(prefer), "PreferDualStack IPv4 IPv6"},
		{withPolicy(require), "RequireDualStack IPv4 IPv6"},
		{withPolicy(require, withFamilies(v6)), "RequireDualStack IPv6 IPv4"},
		{withPolicy(prefer, withFamilies(v6, v4)), "PreferDualStack IPv6 IPv4"},
		{withPolicy(require, withIP("fd00:43::78")), "RequireDualStack IPv6 IPv4"},
		{withPolicy(require, withIPs("10.43.7.7", "fd00:43::79")), "RequireDualStack IPv4 IPv6"},
		{withPolicy(require, withIP("None")), "RequireDualStack IPv4 IPv6"},
		{withPolicy(prefer, asType(corev1.ServiceTypeLoadBalancer)), "PreferDualStack IPv4 IPv6"},
	} {
		name := fmt.Sprintf("s%d", i)
		svc := s.made(name, c.change)
		if got := stack(svc); got != c.want {
			t.Errorf("%d: %s; want %s", i, got, c.want)
		}
		var want []string
		for _, ip := range svc.Spec.ClusterIPs {
			if ip != corev1.ClusterIPNone {
				want = append(want, ip+"="+name)
			}
		}
		slices.Sort(want)
		if got := held(t, client); !slices.Equal(got, want) {
			t.Errorf("%d: records %v; want %v", i, got, want)
		}
		s.delete(name)
		if got := held(t, client); len(got) > 0 {
			t.Errorf("%d: deleted, and %v are held", i, got)
		}
	}
	t.Run("refused", func(t *testing.T) { testDualRefused(t, s) })
	t.Run("second address", func(t *testing.T) { testSecondAddress(t, client) })
}

func testDualRefused(t *testing.T, s services) {
	s.t = t
	s.made("has", withPolicy(require, withIPs("10.43.8.8", "fd00:43::88")))
	for want, change := range map[string]func(*corev1.ServiceSpec){
		`spec.ipFamilyPolicy: Invalid value: "SingleStack": must be 'RequireDualStack' or 'PreferDualStack' when multiple cluster IPs are specified`: withIPs("10.43.0.9", "fd00:43::9"),
		`spec.clusterIPs: Invalid value: ["10.43.0.9","10.43.0.10"]: may specify no more than one IP for each IP family`:                             withPolicy(require, withIPs("10.43.0.9", "10.43.0.10")),
		"spec.clusterIPs[0]: Invalid value: \"10.43.0.9\": expected an IPv6 value as indicated by `ipFamilies[0]`":                                   withPolicy(prefer, withFamilies(v6), withIP("10.43.0.9")),
		`failed to allocate IP fd00:43::88: provided IP is already allocated`:                                                                        withPolicy(require, withIPs("10.43.0.9", "fd00:43::88")),
		`failed to allocate IP fd00:44::1: the provided network does not match the current range`:                                                    withPolicy(require, withIPs("10.43.0.9", "fd00:44::1")),
		`spec.ipFamilies[1]: Duplicate value: "IPv4"`:                                                                                                withPolicy(require, withFamilies(v4, v4)),
	} {
		_, err := s.make("refused", change)
		wantError(t, err, want)
	}
	// What a refused one had taken before it was refused is free again.
	s.made("heir", withIP("10.43.0.9"))
	for want, change := range map[string]func(*corev1.ServiceSpec){
		`spec.clusterIPs[0]: Invalid value`: withIPs("10.43.8.9", "fd00:43::88"),
		`spec.clusterIPs[1]: Invalid value`: withIPs("10.43.8.8", "fd00:43::89"),
		"spec.clusterIPs[0]: Invalid value: \"10.43.8.8\": expected an IPv6 value as indicated by `ipFamilies[0]`": withFamilies(v6, v4),
		`must be 'SingleStack' to release the`: withFamilies(v4),
	} {
		_, err := s.changed("has", change)
		wantError(t, err, want)
	}
	s.delete("has", "heir")
}

// A second address comes with the policy and goes with it; the first stays.
func testSecondAddress(t *testing.T, client kubernetes.Interface) {
	s := services{client.CoreV1().Services("default"), t}
	first := s.made("svc", nil).Spec.ClusterIP
	svc := ok[*corev1.Service](t)(s.changed("svc", withPolicy(require)))
	if got := stack(svc); got != "RequireDualStack IPv4 IPv6" || svc.Spec.ClusterIP != first {
		t.Errorf("upgraded: %s at %s", got, svc.Spec.ClusterIP)
	}
	second := svc.Spec.ClusterIPs[1]
	if got := held(t, client); !slices.Equal(got, []string{first + "=svc", second + "=svc"}) {
		t.Errorf("upgraded: %v are held", got)
	}
	svc = ok[*corev1.Service](t)(s.changed("svc", withPolicy(single)))
	if got := stack(svc); got != "SingleStack IPv4" || svc.Spec.ClusterIP != first {
		t.Errorf("downgraded: %s at %s", got, svc.Spec.ClusterIP)
	}
	if got := held(t, client); !slices.Equal(got, []string{first + "=svc"}) {
		t.Errorf("downgraded: %v are held", got)
	}
	s.made("heir", withIP(second))
	svc = ok[*corev1.Service](t)(s.changed("svc", withPolicy(prefer)))
	// As ExternalName it has none.
	svc = ok[*corev1.Service](t)(s.changed("svc", func(spec *corev1.ServiceSpec) {
		spec.Type, spec.ExternalName = corev1.ServiceTypeExternalName, "example.com"
	}))
	if svc.Spec.ClusterIPs != nil || svc.Spec.IPFamilies != nil || svc.Spec.IPFamilyPolicy != nil {
		t.Errorf("as ExternalName: %+v", svc.Spec)
	}
	if got := held(t, client); !slices.Equal(got, []string{second + "=heir"}) {
		t.Errorf("as ExternalName: %v are held", got)
	}
	s.delete("svc", "heir")
}

// A cluster of one family that gets a second: the range's object follows, what is there stays as it is until it is changed.
func TestSecondFamily(t *testing.T) {
	dir := t.TempDir()
	client, stop := start(t, dir, range4)
	s := services{client.CoreV1().Services("default"), t}
	before := s.made("kept", withPolicy(prefer))
	stop()
	client, stop = start(t, dir, range4, range6)
	defer stop()
	s = services{client.CoreV1().Services("default"), t}
	cidr, err := client.NetworkingV1().ServiceCIDRs().Get(t.Context(), "kubernetes", get)
	if err != nil || strings.Join(cidr.Spec.CIDRs, " ") != "10.43.0.0/16 fd00:43::/112" {
		t.Errorf("ServiceCIDR %v, %v", cidr, err)
	}
	svc := ok[*corev1.Service](t)(s.changed("kept", func(spec *corev1.ServiceSpec) { spec.Ports[0].Port = 81 }))
	if got := stack(svc); got != "PreferDualStack IPv4" {
		t.Errorf("another port: %s", got)
	}
	svc = ok[*corev1.Service](t)(s.changed("kept", withPolicy(require)))
	if got := stack(svc); got != "RequireDualStack IPv4 IPv6" || svc.Spec.ClusterIP != before.Spec.ClusterIP {
		t.Errorf("upgraded: %s at %s", got, svc.Spec.ClusterIP)
	}
}
