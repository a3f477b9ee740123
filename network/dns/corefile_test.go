package dns

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
)

// corefile is what a distribution ships, with a user's changes.
const corefile = `.:53 {
    errors
    health { # a comment
      lameduck 5s
    }
    kubernetes cluster.local in-addr.arpa ip6.arpa {
      pods insecure
      fallthrough in-addr.arpa ip6.arpa
    }
    hosts {
      192.0.2.10 registry.lan Printer.lan
      fd00::10 registry.lan
      fallthrough
    }
    forward . /etc/resolv.conf {
      max_concurrent 1000
    }
    rewrite name a b
    cache 30
}
corp.example:53 eu.corp.example {
    forward . 192.0.2.1 192.0.2.2:5353
}
`

func TestReadSettings(t *testing.T) {
	s, ignored := ReadSettings(map[string]string{
		"Corefile": corefile, "a.server": "sub.corp.example {\n forward . [fd00::1]:53 tls://192.0.2.9\n}", "b.override": "forward lab.example 192.0.2.3\n", "README": "nothing",
	})
	for name, want := range map[string]string{
		"www.corp.example.": "192.0.2.1:53 192.0.2.2:5353", "corp.example.": "192.0.2.1:53 192.0.2.2:5353", "x.sub.corp.example.": "[fd00::1]:53",
		"a.lab.example.": "192.0.2.3:53", "www.example.org.": "", "notcorp.example.": "", ".": "",
	} {
		if got := strings.Join(s.servers(name), " "); got != want {
			t.Errorf("%s is asked of %q, want %q", name, got, want)
		}
	}
	if got := fmt.Sprint(s.hosts["registry.lan."], s.hosts["printer.lan."]); got != "[192.0.2.10 fd00::10] [192.0.2.10]" {
		t.Errorf("hosts: %s", got)
	}
	if got := strings.Join(ignored, "; "); !strings.Contains(got, `Corefile, line 18: "rewrite name a b": not supported`) || !strings.Contains(got, "TLS") || len(ignored) != 2 {
		t.Errorf("ignored: %s", got)
	}
}

func FuzzReadSettings(f *testing.F) {
	for _, seed := range []string{corefile, "{", "}", ". {\nhosts {\n", "forward", "a{\nforward . x {", ".:53 {\nforward . 1.1.1.1\n}\n}"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, _ := ReadSettings(map[string]string{"Corefile": text, "x.override": text, "y.server": text})
		s.servers("a.b.")
		for zone, servers := range s.forward {
			if !strings.HasSuffix(zone, ".") || len(servers) == 0 {
				t.Errorf("%q -> %q", zone, servers)
			}
		}
	})
}

// TestFollowSettings: a domain is asked of its own server, names have addresses, and both go with the ConfigMap.
func TestFollowSettings(t *testing.T) {
	world, corp := newUpstream(t, a(60)), newUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		m := (&dns.Msg{}).SetReply(q)
		rr, _ := dns.NewRR(q.Question[0].Name + " 60 IN A 198.51.100.1")
		m.Answer = append(m.Answer, rr)
		w.WriteMsg(m)
	})
	s := server(t, nil, world.addr)
	custom := &corev1.ConfigMap{ObjectMeta: meta("kube-system", "coredns-custom"), Data: map[string]string{
		"corp.server": "corp.example {\n forward . " + corp.addr + "\n}\n", "names.override": "hosts {\n 192.0.2.7 registry.lan\n}\n"}}
	api := fake.NewClientset()
	shared := informers.NewSharedInformerFactory(api, 0)
	if err := s.Follow(shared.Core().V1().ConfigMaps().Informer()); err != nil {
		t.Fatal(err)
	}
	shared.Start(t.Context().Done())
	shared.WaitForCacheSync(t.Context().Done())
	becomes := func(name, want string) {
		t.Helper()
		deadline := time.Now().Add(20 * time.Second)
		for {
			got := ask(t, s, name, dns.TypeA)
			if got == want {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: %s, want %s", name, got, want)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	const everyone = "A 93.184.216.34"
	becomes("www.corp.example.", everyone)
	if err := api.Tracker().Add(custom); err != nil {
		t.Fatal(err)
	}
	becomes("www.corp.example.", "A 198.51.100.1")
	becomes("registry.lan.", "A 192.0.2.7")
	becomes("www.example.org.", everyone)
	if got := ask(t, s, "registry.lan.", dns.TypeAAAA); got != "-" {
		t.Errorf("registry.lan has no IPv6 address, and yet: %s", got)
	}
	if err := api.Tracker().Delete(corev1.SchemeGroupVersion.WithResource("configmaps"), "kube-system", "coredns-custom"); err != nil {
		t.Fatal(err)
	}
	becomes("www.corp.example.", everyone)
	becomes("registry.lan.", everyone)
}
