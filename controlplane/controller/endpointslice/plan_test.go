package endpointslice

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"
)

func service(targets ...string) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "ns", UID: "svc", Labels: map[string]string{"l": "v"}},
		Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.9", IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol}}}
	for i, target := range targets {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: fmt.Sprint("p", i), Port: int32(80 + i), Protocol: corev1.ProtocolTCP, TargetPort: intstr.Parse(target)})
	}
	return s
}

func pod(n int, opts ...func(*corev1.Pod)) *corev1.Pod {
	ip := fmt.Sprintf("10.244.%d.%d", n/250, n%250+1)
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("p", n), Namespace: "ns", UID: types.UID(fmt.Sprintf("u%04d", n))},
		Spec: corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}}}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}},
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}}
	for _, o := range opts {
		o(p)
	}
	return p
}

func unready(p *corev1.Pod)     { p.Status.Conditions = nil }
func terminating(p *corev1.Pod) { at := metav1.NewTime(time.Unix(1, 0)); p.DeletionTimestamp = &at }
func ended(p *corev1.Pod)       { p.Status.Phase = corev1.PodSucceeded }
func noIP(p *corev1.Pod)        { p.Status.PodIP, p.Status.PodIPs = "", nil }

// store carries changes out, as the API would.
type store struct {
	slices []*discoveryv1.EndpointSlice
	made   int
}

func (s *store) apply(c changes) int {
	for _, x := range c.remove {
		s.slices = slices.DeleteFunc(s.slices, func(have *discoveryv1.EndpointSlice) bool { return have.Name == x.Name })
	}
	for _, x := range c.update {
		i := slices.IndexFunc(s.slices, func(have *discoveryv1.EndpointSlice) bool { return have.Name == x.Name })
		s.slices[i] = x
	}
	for _, x := range c.create {
		s.made++
		x.Name = fmt.Sprintf("%s%d", x.GenerateName, s.made)
		s.slices = append(s.slices, x)
	}
	return len(c.create) + len(c.update) + len(c.remove)
}

// places says in which slice each address is.
func (s *store) places() map[string]string {
	out := map[string]string{}
	for _, x := range s.slices {
		for _, e := range x.Endpoints {
			out[e.Addresses[0]] += x.Name
		}
	}
	return out
}

func TestConditions(t *testing.T) {
	for _, c := range []struct {
		name    string
		publish bool
		pod     *corev1.Pod
		want    string // ready serving terminating, or none
	}{
		{"ready", false, pod(1), "true true false"},
		{"not ready", false, pod(1, unready), "false false false"},
		{"drains", false, pod(1, terminating), "false true true"},
		{"ends", false, pod(1, terminating, unready), "false false true"},
		{"published though not ready", true, pod(1, unready), "true false false"},
		{"published while it ends", true, pod(1, terminating, unready), "true false true"},
		{"ended", false, pod(1, ended), "none"},
		{"no address yet", false, pod(1, noIP), "none"},
	} {
		svc := service("8080")
		svc.Spec.PublishNotReadyAddresses = c.publish
		got := "none"
		for _, s := range plan(input{service: svc, pods: []*corev1.Pod{c.pod}}).create {
			for _, e := range s.Endpoints {
				got = fmt.Sprint(*e.Conditions.Ready, *e.Conditions.Serving, *e.Conditions.Terminating)
			}
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestEndpointCarriesItsPod(t *testing.T) {
	svc := service("8080")
	named := func(p *corev1.Pod) { p.Spec.Hostname, p.Spec.Subdomain = "db-0", "web" }
	s := plan(input{service: svc, pods: []*corev1.Pod{pod(1, named)}, zones: map[string]string{"n1": "z1"}}).create[0]
	e := s.Endpoints[0]
	if *e.NodeName != "n1" || *e.Zone != "z1" || *e.Hostname != "db-0" || e.TargetRef.Name != "p1" || e.TargetRef.UID != "u0001" {
		t.Fatalf("%+v", e)
	}
	if s.Labels[discoveryv1.LabelServiceName] != "web" || s.Labels[discoveryv1.LabelManagedBy] != managedBy || s.Labels["l"] != "v" ||
		len(s.OwnerReferences) != 1 || s.AddressType != discoveryv1.AddressTypeIPv4 {
		t.Fatalf("%+v", s)
	}
	if _, headless := s.Labels[corev1.IsHeadlessService]; headless {
		t.Fatal("called headless")
	}
	svc.Spec.ClusterIP = corev1.ClusterIPNone
	if _, headless := plan(input{service: svc}).create[0].Labels[corev1.IsHeadlessService]; !headless {
		t.Fatal("not called headless")
	}
}

// What is wanted near is hinted, for ready endpoints and as far as the place is known.
func TestHints(t *testing.T) {
	for _, c := range []struct {
		want  string
		pod   *corev1.Pod
		zones map[string]string
		hints string
	}{
		{"", pod(1), map[string]string{"n1": "z1"}, "none"},
		{"PreferClose", pod(1), map[string]string{"n1": "z1"}, "z1"},
		{"PreferSameZone", pod(1), map[string]string{"n1": "z1"}, "z1"},
		{"PreferSameZone", pod(1), nil, "none"},
		{"PreferSameZone", pod(1, unready), map[string]string{"n1": "z1"}, "none"},
		{"PreferSameNode", pod(1), map[string]string{"n1": "z1"}, "n1 z1"},
		{"PreferSameNode", pod(1), nil, "n1"},
	} {
		svc := service("8080")
		if c.want != "" {
			svc.Spec.TrafficDistribution = &c.want
		}
		got := "none"
		if h := plan(input{service: svc, pods: []*corev1.Pod{c.pod}, zones: c.zones}).create[0].Endpoints[0].Hints; h != nil {
			var names []string
			for _, n := range h.ForNodes {
				names = append(names, n.Name)
			}
			for _, z := range h.ForZones {
				names = append(names, z.Name)
			}
			got = strings.Join(names, " ")
		}
		if got != c.hints {
			t.Errorf("%s: %s, want %s", c.want, got, c.hints)
		}
	}
}

// Pods that resolve a named port differently cannot share a slice.
func TestGroupsByPorts(t *testing.T) {
	other := func(p *corev1.Pod) { p.Spec.Containers[0].Ports[0].ContainerPort = 9090 }
	none := func(p *corev1.Pod) { p.Spec.Containers[0].Ports = nil }
	var got []string
	for _, s := range plan(input{service: service("http", "81"), pods: []*corev1.Pod{pod(1), pod(2, other), pod(3), pod(4, none)}}).create {
		var ports, ips []string
		for _, p := range s.Ports {
			ports = append(ports, fmt.Sprintf("%s=%d", *p.Name, *p.Port))
		}
		for _, e := range s.Endpoints {
			ips = append(ips, e.Addresses[0])
		}
		got = append(got, strings.Join(ports, ",")+": "+strings.Join(ips, " "))
	}
	slices.Sort(got)
	want := []string{"p0=8080,p1=81: 10.244.0.2 10.244.0.4", "p0=9090,p1=81: 10.244.0.3", "p1=81: 10.244.0.5"}
	if !slices.Equal(got, want) {
		t.Fatalf("%q", got)
	}
}

func TestDualStack(t *testing.T) {
	svc := service("80")
	svc.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}
	both := func(p *corev1.Pod) { p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: "fd00::1"}) }
	got := map[discoveryv1.AddressType]int{}
	for _, s := range plan(input{service: svc, pods: []*corev1.Pod{pod(1, both), pod(2)}}).create {
		got[s.AddressType] += len(s.Endpoints)
	}
	if got[discoveryv1.AddressTypeIPv4] != 2 || got[discoveryv1.AddressTypeIPv6] != 1 {
		t.Fatal(got)
	}
}

func TestHundredPerSlice(t *testing.T) {
	var all []*corev1.Pod
	for i := range 250 {
		all = append(all, pod(i))
	}
	svc, st := service("80"), &store{}
	st.apply(plan(input{service: svc, pods: all}))
	if len(st.slices) != 3 || len(st.slices[0].Endpoints) != 100 || len(st.slices[2].Endpoints) != 50 {
		t.Fatalf("%d slices", len(st.slices))
	}
	if c := plan(input{service: svc, pods: all, slices: st.slices}); len(c.create)+len(c.update)+len(c.remove) != 0 {
		t.Fatalf("what is right is changed: %+v", c)
	}
	all[150].Status.Conditions = nil // one pod's change rewrites one slice
	if n := st.apply(plan(input{service: svc, pods: all, slices: st.slices})); n != 1 {
		t.Fatalf("%d slices were written", n)
	}
	st.apply(plan(input{service: svc, pods: nil, slices: st.slices}))
	if len(st.slices) != 1 || len(st.slices[0].Endpoints) != 0 {
		t.Fatalf("a service without pods has %d slices", len(st.slices))
	}
}

// Under any churn: every endpoint is in exactly one slice, stays in it, no slice is too full, and a settled plan is empty.
func TestPlanUnderChurn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		svc, st, live := service("80"), &store{}, map[int]*corev1.Pod{}
		for range rapid.IntRange(1, 15).Draw(t, "rounds") {
			from := rapid.IntRange(0, 300).Draw(t, "from")
			for n := from; n < from+rapid.IntRange(1, 150).Draw(t, "many"); n++ {
				if live[n] != nil {
					delete(live, n)
				} else {
					live[n] = pod(n)
				}
			}
			var all []*corev1.Pod
			for _, p := range live {
				all = append(all, p)
			}
			before := st.places()
			st.apply(plan(input{service: svc, pods: all, slices: st.slices}))
			after := st.places()
			if len(after) != len(live) {
				t.Fatalf("%d endpoints for %d pods", len(after), len(live))
			}
			for _, p := range live {
				was, is := before[p.Status.PodIP], after[p.Status.PodIP]
				if is == "" || was != "" && was != is {
					t.Fatalf("%s moved from %q to %q", p.Status.PodIP, was, is)
				}
			}
			for _, s := range st.slices {
				if len(s.Endpoints) > perSlice || len(s.Endpoints) == 0 && len(live) > 0 {
					t.Fatalf("%s has %d endpoints", s.Name, len(s.Endpoints))
				}
			}
			if c := plan(input{service: svc, pods: all, slices: st.slices}); len(c.create)+len(c.update)+len(c.remove) != 0 {
				t.Fatalf("a settled service is changed: %d %d %d", len(c.create), len(c.update), len(c.remove))
			}
		}
	})
}
