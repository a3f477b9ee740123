package model

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func ptr[T any](v T) *T { return &v }

func service(change func(*corev1.Service)) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web"}, Spec: corev1.ServiceSpec{ClusterIP: "10.96.1.1",
		Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: "TCP"}}}}
	if change != nil {
		change(s)
	}
	return s
}

// slice reads endpoints from words: "10.244.0.5 ready node1", "... ending node2 zone=a", with the state ready, notready, ending (serving),
// dead (terminating, not serving).
func slice(lines ...string) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: ptr("http"), Port: ptr(int32(8080)), Protocol: ptr(corev1.ProtocolTCP)}}}
	for _, l := range lines {
		w := strings.Fields(l)
		e := discoveryv1.Endpoint{Addresses: w[:1], NodeName: &w[2]}
		ready, serving, ending := w[1] == "ready", w[1] == "ready" || w[1] == "ending", w[1] == "ending" || w[1] == "dead"
		e.Conditions = discoveryv1.EndpointConditions{Ready: &ready, Serving: &serving, Terminating: &ending}
		for _, h := range w[3:] {
			if e.Hints == nil {
				e.Hints = &discoveryv1.EndpointHints{}
			}
			if z, ok := strings.CutPrefix(h, "zone="); ok {
				e.Hints.ForZones = append(e.Hints.ForZones, discoveryv1.ForZone{Name: z})
			}
			if n, ok := strings.CutPrefix(h, "fornode="); ok {
				e.Hints.ForNodes = append(e.Hints.ForNodes, discoveryv1.ForNode{Name: n})
			}
		}
		s.Endpoints = append(s.Endpoints, e)
	}
	return s
}

func last(list []netip.AddrPort) string {
	var out []string
	for _, ep := range list {
		a := ep.Addr().As4()
		out = append(out, fmt.Sprint(a[3]))
	}
	return strings.Join(out, ",")
}

func TestWhoTakesConnections(t *testing.T) {
	for _, c := range []struct {
		name                     string
		eps                      []string
		internal, cluster, local string
		anywhere                 bool
	}{
		{"nothing", nil, "", "", "", false},
		{"ready ones", []string{"10.0.0.1 ready n1", "10.0.0.2 ready n2"}, "1,2", "1,2", "1", true},
		{"not ready", []string{"10.0.0.1 notready n1", "10.0.0.2 ready n2"}, "2", "2", "", true},
		{"ending only when no other", []string{"10.0.0.1 ending n2", "10.0.0.2 ready n2"}, "2", "2", "", true},
		{"all ending", []string{"10.0.0.1 ending n1", "10.0.0.2 ending n2"}, "1,2", "1,2", "1", true},
		{"local ending, others ready", []string{"10.0.0.1 ending n1", "10.0.0.2 ready n2"}, "2", "2", "1", true},
		{"dead", []string{"10.0.0.1 dead n1"}, "", "", "", false},
		{"zone hints", []string{"10.0.0.1 ready n1 zone=a", "10.0.0.2 ready n2 zone=b"}, "1", "1", "1", true},
		{"hints not complete", []string{"10.0.0.1 ready n1 zone=a", "10.0.0.2 ready n2"}, "1,2", "1,2", "1", true},
		{"no hint for our zone", []string{"10.0.0.1 ready n1 zone=c", "10.0.0.2 ready n2 zone=b"}, "1,2", "1,2", "1", true},
		{"node hints win", []string{"10.0.0.1 ready n2 zone=a fornode=n2", "10.0.0.2 ready n3 zone=a fornode=n1"}, "2", "2", "", true},
		{"twice, ready wins", []string{"10.0.0.1 notready n1", "10.0.0.1 ready n1"}, "1", "1", "1", true},
		{"nonsense addresses", []string{"127.0.0.1 ready n1", "0.0.0.0 ready n1", "x ready n1", "fd00::1 ready n1"}, "", "", "", false},
	} {
		got := Ports(service(nil), []*discoveryv1.EndpointSlice{slice(c.eps...)}, Node{Name: "n1", Zone: "a"})
		p := got[0]
		if last(p.Internal) != c.internal || last(p.Cluster) != c.cluster || last(p.Local) != c.local || p.Anywhere != c.anywhere {
			t.Errorf("%s: internal %s, cluster %s, local %s, anywhere %v; want %s, %s, %s, %v", c.name, last(p.Internal), last(p.Cluster),
				last(p.Local), p.Anywhere, c.internal, c.cluster, c.local, c.anywhere)
		}
	}
	p := Ports(service(func(s *corev1.Service) {
		s.Spec.InternalTrafficPolicy = ptr(corev1.ServiceInternalTrafficPolicyLocal)
	}), []*discoveryv1.EndpointSlice{slice("10.0.0.1 ready n1", "10.0.0.2 ready n2")}, Node{Name: "n1"})[0]
	if last(p.Internal) != "1" || last(p.Cluster) != "1,2" {
		t.Errorf("internal traffic policy Local: %s, %s", last(p.Internal), last(p.Cluster))
	}
}

func TestServiceFields(t *testing.T) {
	p := Ports(service(func(s *corev1.Service) {
		s.Spec.Type = corev1.ServiceTypeLoadBalancer
		s.Spec.ClusterIP, s.Spec.ClusterIPs = "fd00::1", []string{"fd00::1", "10.96.1.1"}
		s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
		s.Spec.ExternalIPs = []string{"203.0.113.7", "fd00::2", "x"}
		s.Spec.LoadBalancerSourceRanges = []string{" 192.0.2.7/24 ", "fd00::/64"}
		s.Spec.Ports[0].NodePort = 30080
		s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "198.51.100.9"}, {IP: "198.51.100.10", IPMode: ptr(corev1.LoadBalancerIPModeProxy)}, {Hostname: "x"}}
	}), nil, Node{})[0]
	got := fmt.Sprint(p.ClusterIP, p.Affinity, p.External, p.Balancer, p.Sources, p.NodePort)
	if want := "10.96.1.1 3h0m0s [203.0.113.7] [198.51.100.9] [192.0.2.0/24] 30080"; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	for name, s := range map[string]*corev1.Service{
		"headless":     service(func(s *corev1.Service) { s.Spec.ClusterIP = "None" }),
		"externalName": service(func(s *corev1.Service) { s.Spec.Type = "ExternalName" }),
		"not yet":      service(func(s *corev1.Service) { s.Spec.ClusterIP = "" }),
		"IPv6":         service(func(s *corev1.Service) { s.Spec.ClusterIP = "fd00::1" }),
	} {
		if got := Ports(s, nil, Node{}); got != nil {
			t.Errorf("%s: %v", name, got)
		}
	}
	p = Ports(service(func(s *corev1.Service) {
		s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
		s.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: ptr(int32(5))}}
	}), nil, Node{})[0]
	if p.Affinity != 5*time.Second {
		t.Errorf("affinity %v", p.Affinity)
	}
}
