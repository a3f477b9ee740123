package announce

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/mdlayher/arp"

	"keelson.dev/keelson/network/netfilter/netfiltertest"
	"keelson.dev/keelson/network/netns"
)

func TestMain(m *testing.M) { netfiltertest.Main(m) }

// neighbour is a machine on the node's network, 192.0.2.0/24.
type neighbour struct {
	t      *testing.T
	client *arp.Client
	mac    net.HardwareAddr
	ip     netip.Addr
}

func lan(t *testing.T, name string) *neighbour {
	t.Helper()
	netfiltertest.Need(t, "ip")
	ns := "lan-" + name
	netfiltertest.Run(t, "ip", "netns", "add", ns)
	t.Cleanup(func() { netfiltertest.Run(t, "ip", "netns", "del", ns) })
	netfiltertest.Run(t, "ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", ns)
	t.Cleanup(func() { netfiltertest.Run(t, "ip", "link", "del", name) })
	netfiltertest.Run(t, "ip", "addr", "add", "192.0.2.1/24", "dev", name)
	netfiltertest.Run(t, "ip", "link", "set", name, "up")
	netfiltertest.Run(t, "ip", "-n", ns, "addr", "add", "192.0.2.2/24", "dev", "eth0")
	netfiltertest.Run(t, "ip", "-n", ns, "link", "set", "eth0", "up")
	n := &neighbour{t: t, ip: netip.MustParseAddr("192.0.2.2")}
	if err := netns.Do("/run/netns/"+ns, func() error {
		ifi, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		n.mac = ifi.HardwareAddr
		n.client, err = arp.Dial(ifi)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.client.Close() })
	return n
}

// hear waits for an ARP packet.
func (n *neighbour) hear(what string, ok func(*arp.Packet) bool) {
	n.t.Helper()
	if err := n.client.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		n.t.Fatal(err)
	}
	for {
		p, _, err := n.client.Read()
		if err != nil {
			n.t.Fatalf("%s: %v", what, err)
		}
		if ok(p) {
			return
		}
	}
}

// asks tells whether somebody answers for an address within a while. As neighbours do, it asks again after a second without an
// answer: the first question may come before the node listens.
func (n *neighbour) asks(a netip.Addr, within time.Duration) bool {
	n.t.Helper()
	deadline := time.Now().Add(within)
	ask := func() {
		if err := n.client.Request(a); err != nil {
			n.t.Fatal(err)
		}
		next := time.Now().Add(time.Second)
		if next.After(deadline) {
			next = deadline
		}
		if err := n.client.SetReadDeadline(next); err != nil {
			n.t.Fatal(err)
		}
	}
	ask()
	for {
		p, _, err := n.client.Read()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			if !time.Now().Before(deadline) {
				return false
			}
			ask()
			continue
		}
		if err != nil {
			n.t.Fatal(err)
		}
		if p.Operation == arp.OperationReply && p.SenderIP == a {
			return true
		}
	}
}

func start(t *testing.T, cfg Config) *Announcer {
	t.Helper()
	a := New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }() // ends with ctx
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Error("Run did not end")
		}
	})
	return a
}

func announces(a netip.Addr) func(*arp.Packet) bool {
	return func(p *arp.Packet) bool {
		return p.Operation == arp.OperationRequest && p.SenderIP == a && p.TargetIP == a
	}
}

func TestAnnouncesAndAnswers(t *testing.T) {
	n := lan(t, "lan1")
	a := start(t, Config{})
	vip, other := netip.MustParseAddr("192.0.2.100"), netip.MustParseAddr("192.0.2.101")
	a.Set([]netip.Addr{vip, netip.MustParseAddr("198.51.100.1")})
	n.hear("a new address is announced", announces(vip))
	if !n.asks(vip, 20*time.Second) {
		t.Error("nobody answers for the address")
	}
	if n.asks(other, 300*time.Millisecond) || n.asks(netip.MustParseAddr("198.51.100.1"), 300*time.Millisecond) {
		t.Error("somebody answers for an address that is not the node's, or not of this network")
	}
	a.Set([]netip.Addr{other})
	n.hear("the next is announced", announces(other))
	if n.asks(vip, 300*time.Millisecond) {
		t.Error("the address was taken back and is still answered for")
	}
	// The interface goes down and comes back: announced once more.
	netfiltertest.Run(t, "ip", "link", "set", "lan1", "down")
	netfiltertest.Run(t, "ip", "link", "set", "lan1", "up")
	n.hear("announced when the interface is back", announces(other))
	if !n.asks(other, 20*time.Second) {
		t.Error("nobody answers any more")
	}
}

func TestSkippedInterfaces(t *testing.T) {
	n := lan(t, "lan2")
	a := start(t, Config{Skip: func(name string) bool { return name == "lan2" }})
	vip := netip.MustParseAddr("192.0.2.100")
	a.Set([]netip.Addr{vip})
	if n.asks(vip, 500*time.Millisecond) {
		t.Error("answered on an interface of the pods'")
	}
}

// TestHostile_NW19: another machine claims a load balancer's address. It is named, the address is defended once, and a duel does
// not flood the network.
func TestHostile_NW19(t *testing.T) {
	n := lan(t, "lan3")
	claims := make(chan net.HardwareAddr, 100)
	a := start(t, Config{Conflict: func(_ netip.Addr, mac net.HardwareAddr) { claims <- mac }})
	vip := netip.MustParseAddr("192.0.2.100")
	a.Set([]netip.Addr{vip})
	for range len(again) + 1 { // its own announcements, so that what follows is the defence
		n.hear("announced", announces(vip))
	}
	for range 50 {
		p, err := arp.NewPacket(arp.OperationReply, n.mac, vip, net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, vip)
		if err != nil {
			t.Fatal(err)
		}
		if err := n.client.WriteTo(p, net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}); err != nil {
			t.Fatal(err)
		}
	}
	n.hear("the address is defended", announces(vip))
	select {
	case mac := <-claims:
		if mac.String() != n.mac.String() {
			t.Errorf("%s is named, it was %s", mac, n.mac)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the other machine is not reported")
	}
	// Answered after all fifty claims were read: they were sent before the question.
	if !n.asks(vip, 20*time.Second) {
		t.Error("nobody answers for the address after the duel")
	}
	if len(claims) != 0 {
		t.Errorf("reported %d times more", len(claims))
	}
}
