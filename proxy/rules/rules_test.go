package rules

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	nf "keelson.dev/keelson/network/netfilter"
	"keelson.dev/keelson/proxy/model"
)

var cluster = Cluster{Pods: netip.MustParsePrefix("10.244.0.0/16"), Services: netip.MustParsePrefix("10.96.0.0/12")}

func eps(list ...string) []netip.AddrPort {
	var out []netip.AddrPort
	for _, s := range list {
		out = append(out, netip.MustParseAddrPort(s))
	}
	return out
}

func port(change func(*model.Port)) model.Port {
	p := model.Port{Key: model.Key{Namespace: "ns", Name: "web", Port: "http"}, Proto: "tcp", ClusterIP: netip.MustParseAddr("10.96.1.1"), Port: 80,
		Internal: eps("10.244.0.5:8080", "10.244.1.5:8080"), Cluster: eps("10.244.0.5:8080", "10.244.1.5:8080"), Local: eps("10.244.0.5:8080"), Anywhere: true}
	if change != nil {
		change(&p)
	}
	return p
}

// none takes all endpoints away.
func none(p *model.Port) { p.Internal, p.Cluster, p.Local, p.Anywhere = nil, nil, nil, false }

// outside makes the port answer on every kind of outside address.
func outside(p *model.Port) {
	p.NodePort = 30080
	p.External = []netip.Addr{netip.MustParseAddr("203.0.113.7")}
	p.Balancer = []netip.Addr{netip.MustParseAddr("198.51.100.9")}
}

// The node is 192.0.2.1 with pod link k-1 for 10.244.0.5; everything else is behind eth0.
func theNode(seen ...string) nf.Host {
	return nf.Host{
		Local: func(a netip.Addr) bool { return a.String() == "192.0.2.1" || a.IsLoopback() },
		Out: func(a netip.Addr) string {
			if a.String() == "10.244.0.5" {
				return "k-1"
			}
			return "eth0"
		},
		Seen: func(list string, src netip.Addr) bool { return slices.Contains(seen, list) },
	}
}

type packet struct{ in, src, dst, want string }

func check(t *testing.T, table *Table, h nf.Host, proto string, packets []packet) {
	t.Helper()
	f := nf.NewFake()
	if err := f.Apply(t.Context(), nf.Service, table.Set()); err != nil {
		t.Fatal(err)
	}
	for _, p := range packets {
		got, err := f.Tracer(h).Trace(nf.Packet{In: p.in, Src: netip.MustParseAddrPort(p.src + ":40000"), Dst: netip.MustParseAddrPort(p.dst), Proto: proto})
		if err != nil {
			t.Fatal(err)
		}
		var ends []string
		for _, o := range got {
			ends = append(ends, o.String())
		}
		if s := strings.Join(ends, " | "); s != p.want {
			t.Errorf("%s from %q %s to %s:\n got %s\nwant %s", proto, p.in, p.src, p.dst, s, p.want)
		}
	}
}

func table(ports ...model.Port) *Table {
	t := NewTable(cluster)
	for i, p := range ports {
		t.Put(fmt.Sprint(i), ForPort(p, cluster))
	}
	return t
}

const (
	both     = "forward 10.244.0.5:8080 | forward 10.244.1.5:8080"
	bothMasq = "forward 10.244.0.5:8080 masq | forward 10.244.1.5:8080 masq"
)

func TestClusterIP(t *testing.T) {
	check(t, table(port(nil)), theNode(), "tcp", []packet{
		{"k-2", "10.244.0.9", "10.96.1.1:80", both},
		{"k-1", "10.244.0.5", "10.96.1.1:80", "forward 10.244.0.5:8080 masq | forward 10.244.1.5:8080"}, // hairpin
		{"", "192.0.2.1", "10.96.1.1:80", bothMasq},
		{"eth0", "192.0.2.50", "10.96.1.1:80", bothMasq},
		{"k-2", "10.244.0.9", "10.96.1.1:81", "reject"},
		{"k-2", "10.244.0.9", "10.96.9.9:80", "reject"}, // nobody's address
		{"k-2", "10.244.0.9", "203.0.113.50:80", "forward 203.0.113.50:80"},
	})
	check(t, table(port(nil)), theNode(), "udp", []packet{{"k-2", "10.244.0.9", "10.96.1.1:80", "reject"}})
}

func TestWithoutEndpointsIsRefusedAtOnce(t *testing.T) {
	check(t, table(port(func(p *model.Port) { outside(p); none(p) })), theNode(), "tcp", []packet{
		{"k-2", "10.244.0.9", "10.96.1.1:80", "reject"},
		{"", "192.0.2.1", "10.96.1.1:80", "reject"},
		{"eth0", "192.0.2.50", "192.0.2.1:30080", "reject"},
		{"", "127.0.0.1", "127.0.0.1:30080", "reject"},
		{"eth0", "192.0.2.50", "203.0.113.7:80", "reject"},
		{"eth0", "192.0.2.50", "198.51.100.9:80", "reject"},
		{"eth0", "192.0.2.50", "192.0.2.1:30081", "local 192.0.2.1:30081"},
	})
}

func TestOutsideAddresses(t *testing.T) {
	check(t, table(port(outside)), theNode(), "tcp", []packet{
		{"eth0", "192.0.2.50", "192.0.2.1:30080", bothMasq},
		{"", "127.0.0.1", "127.0.0.1:30080", bothMasq},
		{"k-2", "10.244.0.9", "192.0.2.1:30080", bothMasq},
		{"eth0", "192.0.2.50", "203.0.113.7:80", bothMasq},
		{"eth0", "192.0.2.50", "198.51.100.9:80", bothMasq},
		{"eth0", "192.0.2.50", "198.51.100.9:81", "reject"},
		{"eth0", "192.0.2.50", "203.0.113.8:30080", "forward 203.0.113.8:30080"}, // a node port is the node's only
	})
}

// A load balancer's address is on no interface: its other ports are refused, not sent on to the default route.
func TestBalancerAddressHasNoOtherPorts(t *testing.T) {
	tab := table(port(outside))
	check(t, tab, theNode(), "tcp", []packet{
		{"eth0", "203.0.113.99", "198.51.100.9:80", bothMasq},
		{"eth0", "203.0.113.99", "198.51.100.9:22", "reject"},
		{"", "192.0.2.1", "198.51.100.9:22", "reject"},
		{"eth0", "203.0.113.99", "198.51.100.10:22", "forward 198.51.100.10:22"},
	})
	tab.Put("0", ForPort(port(nil), cluster))
	check(t, tab, theNode(), "tcp", []packet{{"eth0", "203.0.113.99", "198.51.100.9:22", "forward 198.51.100.9:22"}})
}

func TestExternalTrafficPolicyLocal(t *testing.T) {
	local := func(p *model.Port) { outside(p); p.ExternalLocal = true }
	check(t, table(port(local)), theNode(), "tcp", []packet{
		{"eth0", "192.0.2.50", "192.0.2.1:30080", "forward 10.244.0.5:8080"},
		{"eth0", "192.0.2.50", "198.51.100.9:80", "forward 10.244.0.5:8080"},
		{"k-2", "10.244.0.9", "198.51.100.9:80", both},
		{"", "192.0.2.1", "198.51.100.9:80", bothMasq},
		{"eth0", "192.0.2.50", "10.96.1.1:80", bothMasq},
	})
	check(t, table(port(func(p *model.Port) { local(p); p.Local = nil })), theNode(), "tcp", []packet{
		{"eth0", "192.0.2.50", "192.0.2.1:30080", "drop"}, // silent: another node has some
		{"eth0", "192.0.2.50", "198.51.100.9:80", "drop"},
		{"k-2", "10.244.0.9", "198.51.100.9:80", both},
		{"", "127.0.0.1", "127.0.0.1:30080", bothMasq},
	})
	check(t, table(port(func(p *model.Port) { local(p); none(p) })), theNode(), "tcp", []packet{
		{"eth0", "192.0.2.50", "192.0.2.1:30080", "reject"},
	})
}

func TestInternalTrafficPolicyLocal(t *testing.T) {
	check(t, table(port(func(p *model.Port) { p.Internal = p.Local })), theNode(), "tcp", []packet{
		{"k-2", "10.244.0.9", "10.96.1.1:80", "forward 10.244.0.5:8080"},
	})
	check(t, table(port(func(p *model.Port) { p.Internal = nil })), theNode(), "tcp", []packet{
		{"k-2", "10.244.0.9", "10.96.1.1:80", "drop"},
	})
}

func TestSourceRanges(t *testing.T) {
	check(t, table(port(func(p *model.Port) {
		outside(p)
		p.Sources = []netip.Prefix{netip.MustParsePrefix("192.0.2.48/28"), netip.MustParsePrefix("100.64.0.0/10")}
	})), theNode(), "tcp", []packet{
		{"eth0", "192.0.2.50", "198.51.100.9:80", bothMasq},
		{"eth0", "100.64.1.1", "198.51.100.9:80", bothMasq},
		{"eth0", "192.0.2.80", "198.51.100.9:80", "drop"},
		{"eth0", "192.0.2.80", "203.0.113.7:80", bothMasq}, // ranges are the load balancer's only
		{"eth0", "192.0.2.80", "192.0.2.1:30080", bothMasq},
	})
}

func TestAffinity(t *testing.T) {
	p := port(func(p *model.Port) { p.Affinity = 3 * time.Hour })
	b := &builder{p: p, hash: hash(p.Key.String(), p.Proto)}
	check(t, table(p), theNode(), "tcp", []packet{{"k-2", "10.244.0.9", "10.96.1.1:80", both}})
	for _, ep := range p.Internal {
		check(t, table(p), theNode(b.list(ep)), "tcp", []packet{{"k-2", "10.244.0.9", "10.96.1.1:80", "forward " + ep.String()}})
	}
}

func TestShare(t *testing.T) {
	p := port(func(p *model.Port) { p.Internal = eps("10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1", "10.0.0.4:1") })
	left := 1.0
	for _, r := range (&builder{p: p}).spread(p.Internal) {
		share := left * r.Match.Probability
		if r.Match.Probability == 0 {
			share = left
		}
		if left -= share; share < 0.2499 || share > 0.2501 {
			t.Errorf("an endpoint of four gets %v of the connections", share)
		}
	}
}

// What Put did by steps must be what a new table of the same ports says.
func TestTableForgetsNothingAndKeepsNothing(t *testing.T) {
	ports := map[string]model.Port{}
	tb := NewTable(cluster)
	step := func(id string, p *model.Port) {
		t.Helper()
		if p == nil {
			delete(ports, id)
			tb.Put(id, Port{})
		} else {
			ports[id] = *p
			tb.Put(id, ForPort(*p, cluster))
		}
		fresh := NewTable(cluster)
		for id, p := range ports {
			fresh.Put(id, ForPort(p, cluster))
		}
		if got, want := nf.Text(nf.Service, tb.Set()), nf.Text(nf.Service, fresh.Set()); got != want {
			t.Errorf("after %s:\n got %s\nwant %s", id, got, want)
		}
	}
	for i := range 130 { // more than there are buckets
		p := port(func(p *model.Port) {
			p.Key.Name = fmt.Sprint(i)
			p.ClusterIP = netip.AddrFrom4([4]byte{10, 96, 2, byte(i)})
			if i%3 == 0 {
				none(p)
			}
			if i%2 == 0 {
				outside(p)
				p.NodePort = uint16(30000 + i)
			}
		})
		step(fmt.Sprint(i), &p)
	}
	for i := range 65 {
		p := port(func(p *model.Port) {
			p.Key.Name = fmt.Sprint(i)
			p.ClusterIP = netip.AddrFrom4([4]byte{10, 96, 3, byte(i)})
		})
		step(fmt.Sprint(i), &p)
	}
	for i := range 130 {
		step(fmt.Sprint(i), nil)
	}
}
