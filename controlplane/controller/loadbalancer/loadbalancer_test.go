package loadbalancer

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/record"

	"keelson.dev/keelson/controlplane/controller"
)

func TestParseRange(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.10-192.0.2.20": "192.0.2.10 192.0.2.20", " 192.0.2.1 - 192.0.2.1 ": "192.0.2.1 192.0.2.1",
		"192.0.2.77/28": "192.0.2.64 192.0.2.79", "10.0.0.0/8": "10.0.0.0 10.255.255.255", "192.0.2.1/32": "192.0.2.1 192.0.2.1",
		"0.0.0.0/0": "0.0.0.0 255.255.255.255", "192.0.2.9": "192.0.2.9 192.0.2.9",
		"192.0.2.20-192.0.2.10": "ends before", "fd00::/64": "only IPv4", "fd00::1-fd00::2": "only IPv4", "192.0.2.1-fd00::2": "only IPv4",
		"": "want FIRST-LAST", "192.0.2.0/33": "want FIRST-LAST", "a-b": "want FIRST-LAST",
	} {
		r, err := ParseRange(in)
		got := r.First.String() + " " + r.Last.String()
		if err != nil {
			got = err.Error()
		}
		if got != want && (err == nil || !strings.Contains(got, want)) {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}

func FuzzParseRange(f *testing.F) {
	for _, s := range []string{"192.0.2.10-192.0.2.20", "192.0.2.0/28", "::/0", "1.2.3.4%a-", "0.0.0.0/0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRange(s)
		if err == nil && (!r.Has(r.First) || !r.Has(r.Last)) {
			t.Errorf("%q: %v does not hold its own ends", s, r)
		}
	})
}

func balancer(name string, ips ...string) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer}}
	vip := corev1.LoadBalancerIPModeVIP
	for _, ip := range ips {
		s.Status.LoadBalancer.Ingress = append(s.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: ip, IPMode: &vip})
	}
	return s
}

func TestDecide(t *testing.T) {
	pool, err := ParsePool([]string{"192.0.2.1-192.0.2.2", "198.51.100.7"})
	if err != nil {
		t.Fatal(err)
	}
	class := "example.com/other"
	other := balancer("s", "192.0.2.1")
	other.Spec.LoadBalancerClass = &class
	changed := balancer("s", "192.0.2.1")
	changed.Spec.Type = corev1.ServiceTypeClusterIP
	wish := func(ip string, have ...string) *corev1.Service {
		s := balancer("s", have...)
		s.Spec.LoadBalancerIP = ip
		return s
	}
	old := balancer("s", "192.0.2.2")
	old.Status.LoadBalancer.Ingress[0].IPMode = nil
	for _, c := range []struct {
		about string
		svc   *corev1.Service
		taken string
		want  string
	}{
		{"the first free one", balancer("s"), "", "write 192.0.2.1"},
		{"the next free one", balancer("s"), "192.0.2.1", "write 192.0.2.2"},
		{"from the next range", balancer("s"), "192.0.2.1 192.0.2.2", "write 198.51.100.7"},
		{"none is left", balancer("s"), "192.0.2.1 192.0.2.2 198.51.100.7", "AllocationFailed"},
		{"it keeps what it has", balancer("s", "192.0.2.2"), "", "192.0.2.2"},
		{"it keeps one", balancer("s", "192.0.2.2", "192.0.2.1"), "", "write 192.0.2.2"},
		{"the mode is added", old, "", "write 192.0.2.2"},
		{"what another has is given up", balancer("s", "192.0.2.2"), "192.0.2.2", "write 192.0.2.1"},
		{"an address of another range stays not", balancer("s", "203.0.113.1"), "", "write 192.0.2.1"},
		{"another class is let be", other, "", ""},
		{"no balancer any more", changed, "", "write"},
		{"it asks for one", wish("198.51.100.7"), "", "write 198.51.100.7"},
		{"it asks for another", wish("198.51.100.7", "192.0.2.1"), "", "write 198.51.100.7"},
		{"it has what it asks for", wish("198.51.100.7", "198.51.100.7"), "", "198.51.100.7"},
		{"it asks for somebody's", wish("192.0.2.1"), "192.0.2.1", "AllocationFailed"},
		{"it asks for what we have not", wish("203.0.113.1", "192.0.2.1"), "", "write AllocationFailed"},
	} {
		d := decide(c.svc, pool, func(a netip.Addr) bool { return strings.Contains(" "+c.taken+" ", " "+a.String()+" ") })
		var got []string
		if d.write {
			got = append(got, "write")
		}
		if d.addr.IsValid() {
			got = append(got, d.addr.String())
		}
		if d.reason != "" {
			got = append(got, d.reason)
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s: %q, want %q", c.about, s, c.want)
		}
	}
}

// TestPoolOfOne: an address is assigned, a second Service is told that there is none, and gets it when the first goes.
func TestPoolOfOne(t *testing.T) {
	client := fake.NewClientset(balancer("first"))
	shared := informers.NewSharedInformerFactory(client, 0)
	events := record.NewFakeRecorder(100)
	pool, _ := ParsePool([]string{"192.0.2.1"})
	loop, err := New(controller.Deps{Client: client, Informers: shared, Events: events, Log: slog.New(slog.DiscardHandler)}, pool)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	shared.Start(ctx.Done())
	ended := make(chan error)
	go func() { ended <- loop.Run(ctx) }() // ends with ctx
	defer func() {
		cancel()
		<-ended
		shared.Shutdown()
	}()
	services := client.CoreV1().Services("ns")
	has := func(name, want string) {
		t.Helper()
		deadline := time.Now().Add(20 * time.Second)
		for {
			s, err := services.Get(t.Context(), name, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			for _, in := range s.Status.LoadBalancer.Ingress {
				got += in.IP
			}
			if got == want {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s has %q, want %q", name, got, want)
			}
			time.Sleep(2 * time.Millisecond)
		}
	}
	told := func(want string) {
		t.Helper()
		for {
			select {
			case e := <-events.Events:
				if strings.Contains(e, want) {
					return
				}
			case <-time.After(20 * time.Second):
				t.Fatalf("no event says %q", want)
			}
		}
	}
	has("first", "192.0.2.1")
	told("Assigned IP 192.0.2.1")
	if _, err := services.Create(ctx, balancer("second"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	told("AllocationFailed no free address")
	has("second", "")
	if err := services.Delete(ctx, "first", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	has("second", "192.0.2.1")
	s, err := services.Get(ctx, "second", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s.Spec.Type = corev1.ServiceTypeNodePort
	if _, err := services.Update(ctx, s, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	has("second", "")
}
