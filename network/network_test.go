package network

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/network/dns"
	"keelson.dev/keelson/network/ipam"
	"keelson.dev/keelson/network/netfilter"
	"keelson.dev/keelson/network/netfilter/netfiltertest"
	"keelson.dev/keelson/network/netns"
	"keelson.dev/keelson/network/policy"
)

func TestMain(m *testing.M) { netfiltertest.Main(m) }

// node makes a Network in folders of the test and uninstalls it at the end.
func node(t *testing.T, change func(*Config)) *Network {
	t.Helper()
	netfiltertest.Need(t, "iptables-restore", "ip")
	cfg := testConfig(t)
	if change != nil {
		change(&cfg)
	}
	n, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Uninstall(context.Background()); err != nil {
			t.Error("uninstall:", err)
		}
		clean(t)
	})
	return n
}

func testConfig(t *testing.T) Config {
	run, err := os.MkdirTemp("/run", "keelson-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(run) })
	return Config{Bridge: "kltest0", PodCIDR: netip.MustParsePrefix("10.244.0.0/24"), ClusterCIDR: netip.MustParsePrefix("10.244.0.0/16"),
		StateDir: t.TempDir(), RunDir: run}
}

// clean fails when anything of ours is left on the node.
func clean(t *testing.T) {
	t.Helper()
	for _, c := range [][]string{{"ip", "-o", "link"}, {"iptables-save"}, {"ip", "route", "show", "table", "all"}, {"cat", "/proc/mounts"}} {
		out := netfiltertest.Run(t, c[0], c[1:]...)
		for line := range strings.Lines(out) {
			if strings.Contains(line, "/run/keelson/") { // of a server that this machine has
				continue
			}
			if strings.Contains(line, "kltest0") || strings.Contains(line, "KEELSON") || strings.Contains(line, "10.244.") ||
				strings.Contains(line, "keelson-test") {
				t.Errorf("left behind (%s): %s", c[0], line)
			}
		}
	}
}

func up(t *testing.T, n *Network, id string, ports ...PortMapping) Attachment {
	t.Helper()
	a, err := n.Setup(t.Context(), Pod{SandboxID: id, Namespace: "default", Name: id, PortMappings: ports})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// serve answers each TCP connection in the pod with the address of who asks, until the test ends.
func serve(t *testing.T, a Attachment, port int) {
	t.Helper()
	var l net.Listener
	if err := netns.Do(a.NetNSPath, func() (err error) {
		l, err = net.Listen("tcp4", fmt.Sprintf(":%d", port))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() { // ends when l is closed
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintln(c, c.RemoteAddr())
			c.Close()
		}
	}()
}

// ask connects from the pod (the node, when a is nil) and returns the address the server saw.
func ask(t *testing.T, a *Attachment, to string) (netip.Addr, error) {
	t.Helper()
	var from netip.Addr
	f := func() error {
		c, err := net.DialTimeout("tcp4", to, 3*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		line, err := bufio.NewReader(c).ReadString('\n')
		if err != nil {
			return err
		}
		ap, err := netip.ParseAddrPort(strings.TrimSpace(line))
		from = ap.Addr()
		return err
	}
	if a == nil {
		return from, f()
	}
	return from, netns.Do(a.NetNSPath, f)
}

func mustAsk(t *testing.T, a *Attachment, to string) netip.Addr {
	t.Helper()
	from, err := ask(t, a, to)
	if err != nil {
		t.Fatalf("asking %s: %v", to, err)
	}
	return from
}

func TestPodsReachEachOtherAndTheNode(t *testing.T) {
	n := node(t, nil)
	a, b := up(t, n, "a"), up(t, n, "b")
	serve(t, a, 80)
	serve(t, b, 80)
	if got := mustAsk(t, &a, b.IPs[0].String()+":80"); got != a.IPs[0] {
		t.Errorf("pod to pod: source %s, want %s", got, a.IPs[0])
	}
	if got := mustAsk(t, &a, a.IPs[0].String()+":80"); got != a.IPs[0] {
		t.Errorf("pod to itself: source %s, want %s", got, a.IPs[0])
	}
	if got := mustAsk(t, nil, a.IPs[0].String()+":80"); got != a.Gateway {
		t.Errorf("node to pod: source %s, want the gateway %s", got, a.Gateway)
	}
	l, err := net.Listen("tcp4", a.Gateway.String()+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := netns.Do(a.NetNSPath, func() error {
		c, err := net.DialTimeout("tcp4", l.Addr().String(), 3*time.Second)
		if err == nil {
			c.Close()
		}
		return err
	}); err != nil {
		t.Errorf("pod to node: %v", err)
	}
}

func TestForwardDropPolicyOfOthersDoesNotStopPods(t *testing.T) {
	n := node(t, nil)
	netfiltertest.Run(t, "iptables", "-P", "FORWARD", "DROP")
	netfiltertest.Run(t, "iptables", "-P", "INPUT", "DROP")
	defer netfiltertest.Run(t, "iptables", "-P", "FORWARD", "ACCEPT")
	defer netfiltertest.Run(t, "iptables", "-P", "INPUT", "ACCEPT")
	a, b := up(t, n, "a"), up(t, n, "b")
	serve(t, b, 80)
	mustAsk(t, &a, b.IPs[0].String()+":80")
}

// world makes a neighbour of the node outside the cluster: 192.0.2.1 is the node, 192.0.2.2 the neighbour.
func world(t *testing.T) Attachment {
	t.Helper()
	path := filepath.Join(t.TempDir(), "world")
	if err := netns.Create(path, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { netns.Remove(path) })
	netfiltertest.Run(t, "ip", "link", "add", "world0", "type", "veth", "peer", "name", "world1")
	t.Cleanup(func() { netfiltertest.Run(t, "ip", "link", "del", "world0") })
	netfiltertest.Run(t, "ip", "addr", "add", "192.0.2.1/24", "dev", "world0")
	netfiltertest.Run(t, "ip", "link", "set", "world0", "up")
	netfiltertest.Run(t, "nsenter", "--net="+"/proc/self/ns/net", "ip", "link", "set", "world1", "netns", path)
	for _, c := range []string{"ip link set lo up", "ip addr add 192.0.2.2/24 dev world1", "ip link set world1 up",
		"ip route add default via 192.0.2.1"} {
		netfiltertest.Run(t, "nsenter", append([]string{"--net=" + path}, strings.Fields(c)...)...)
	}
	return Attachment{NetNSPath: path, IPs: []netip.Addr{netip.MustParseAddr("192.0.2.2")}}
}

func TestOutsideSeesTheNode(t *testing.T) {
	n := node(t, nil)
	w, a := world(t), up(t, n, "a")
	serve(t, w, 80)
	serve(t, a, 80)
	if got := mustAsk(t, &a, "192.0.2.2:80"); got.String() != "192.0.2.1" {
		t.Errorf("pod to the world: source %s, want the node's", got)
	}
	if got := mustAsk(t, &w, a.IPs[0].String()+":80"); got != w.IPs[0] {
		t.Errorf("world to pod: source %s, want %s kept", got, w.IPs[0])
	}
}

func TestHostPort(t *testing.T) {
	n := node(t, nil)
	w := world(t)
	a := up(t, n, "a", PortMapping{Protocol: "TCP", HostPort: 8080, ContainerPort: 80})
	b := up(t, n, "b")
	serve(t, a, 80)
	for _, c := range []struct {
		name string
		from *Attachment
		to   string
		want string
	}{
		{"from the node's loopback", nil, "127.0.0.1:8080", ""},
		{"from the node", nil, "192.0.2.1:8080", ""},
		{"from the world", &w, "192.0.2.1:8080", "192.0.2.2"},
		{"from another pod", &b, "192.0.2.1:8080", b.IPs[0].String()},
		{"from itself", &a, "192.0.2.1:8080", ""},
		{"through the gateway", &b, a.Gateway.String() + ":8080", b.IPs[0].String()},
	} {
		got, err := ask(t, c.from, c.to)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		} else if c.want != "" && got.String() != c.want {
			t.Errorf("%s: source %s, want %s", c.name, got, c.want)
		}
	}
	_, err := n.Setup(t.Context(), Pod{SandboxID: "c", PortMappings: []PortMapping{{HostIP: "192.0.2.1", HostPort: 8080, ContainerPort: 1}}})
	if err == nil || !strings.Contains(err.Error(), "default/a") {
		t.Errorf("a second pod with the port: %v, want an error naming the holder", err)
	}
	if err := n.Teardown(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := ask(t, nil, "127.0.0.1:8080"); err == nil {
		t.Error("the port answers after teardown")
	}
	up(t, n, "c", PortMapping{HostIP: "192.0.2.1", HostPort: 8080, ContainerPort: 1})
}

func TestHostPortUDP(t *testing.T) {
	n := node(t, nil)
	send := func(want bool) {
		t.Helper()
		c, err := net.Dial("udp4", "127.0.0.1:5353")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(20 * time.Second))
		fmt.Fprint(c, "hello")
		_, err = c.Read(make([]byte, 10))
		if (err == nil) != want {
			t.Errorf("answer: %v, want one: %v", err, want)
		}
	}
	send(false)
	a := up(t, n, "a", PortMapping{Protocol: "UDP", HostPort: 5353, ContainerPort: 53})
	var pc net.PacketConn
	if err := netns.Do(a.NetNSPath, func() (err error) { pc, err = net.ListenPacket("udp4", ":53"); return err }); err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	go func() { // ends when pc is closed
		b := make([]byte, 100)
		for {
			k, who, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			pc.WriteTo(b[:k], who)
		}
	}()
	send(true)
}

func TestSetupIsIdempotentAndTeardownToo(t *testing.T) {
	n := node(t, nil)
	if err := n.Teardown(t.Context(), "never"); err != nil {
		t.Error("teardown without setup:", err)
	}
	a := up(t, n, "a")
	if b := up(t, n, "a"); b.NetNSPath != a.NetNSPath || b.IPs[0] != a.IPs[0] {
		t.Errorf("second setup: %+v, want %+v", b, a)
	}
	for range 2 {
		if err := n.Teardown(t.Context(), "a"); err != nil {
			t.Error(err)
		}
	}
	if b := up(t, n, "a"); b.IPs[0] == a.IPs[0] {
		t.Errorf("%s was given again at once", b.IPs[0])
	}
}

func TestSysctls(t *testing.T) {
	n := node(t, nil)
	a, err := n.Setup(t.Context(), Pod{SandboxID: "a", Sysctls: map[string]string{"net.ipv4.ip_local_port_range": "2000 3000"}})
	if err != nil {
		t.Fatal(err)
	}
	var got []byte
	if err := netns.Do(a.NetNSPath, func() (err error) {
		got, err = os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
		return err
	}); err != nil || strings.Join(strings.Fields(string(got)), " ") != "2000 3000" {
		t.Errorf("got %q, %v", got, err)
	}
	for _, bad := range []string{"kernel.hostname", "net.../../kernel/hostname", "net.ipv4/ip_forward"} {
		if _, err := n.Setup(t.Context(), Pod{SandboxID: "b", Sysctls: map[string]string{bad: "1"}}); err == nil {
			t.Errorf("sysctl %q was taken", bad)
		}
	}
	if got := n.Sandboxes(); len(got) != 1 {
		t.Errorf("after failed setups: %v, want one sandbox", got)
	}
}

func TestRestartKeepsPodsAndDropsHalfMadeOnes(t *testing.T) {
	netfiltertest.Need(t, "iptables-restore")
	cfg := testConfig(t)
	n, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	a := up(t, n, "a", PortMapping{HostPort: 8080, ContainerPort: 80})
	serve(t, a, 80)
	half, err := n.build(t.Context(), "") // as if killed in the middle of a Setup
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a second network on the same folder: %v", err)
	}
	n.Close()
	netfiltertest.Run(t, "iptables", "-t", "nat", "-N", "KEELSON-SVC-KEEP") // another owner's, which has not spoken yet
	if n, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.Uninstall(context.Background()); err != nil {
			t.Error(err)
		}
		clean(t)
	}()
	if b := up(t, n, "a"); b.IPs[0] != a.IPs[0] {
		t.Errorf("after restart: %s, want %s", b.IPs[0], a.IPs[0])
	}
	mustAsk(t, nil, "127.0.0.1:8080")
	if !strings.Contains(netfiltertest.Run(t, "iptables-save", "-t", "nat"), "KEELSON-SVC-KEEP") {
		t.Error("another owner's chain was removed before it spoke")
	}
	waitFor(t, "the half-made pod to go", func() bool { return !netns.Pinned(n.pin(half.Addr.String())) })
}

// waitFor asks until it is so; for what happens in the background and has no event to wait for.
func waitFor(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited 30 s for", what)
		}
	}
}

func TestCancelledSetupLeavesNothing(t *testing.T) {
	n := node(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := n.Setup(ctx, Pod{SandboxID: "a"}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if got := n.Sandboxes(); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
	waitFor(t, "its link to go", func() bool { l, _ := n.links.List(); return len(l) == 0 })
}

// failing is a filter that refuses host ports.
type failing struct{ *netfilter.IPTables }

func (f failing) Apply(ctx context.Context, o netfilter.Owner, s netfilter.Set) error {
	if o == netfilter.HostPort && len(s.Chains) > 0 {
		return errors.New("no")
	}
	return f.IPTables.Apply(ctx, o, s)
}

func TestFailedHostPortRollsBack(t *testing.T) {
	n := node(t, func(c *Config) { c.Filter = failing{netfilter.NewIPTables(netfilter.Config{})} })
	if _, err := n.Setup(t.Context(), Pod{SandboxID: "a", PortMappings: []PortMapping{{HostPort: 1, ContainerPort: 1}}}); err == nil {
		t.Fatal("setup succeeded")
	}
	if got := n.Sandboxes(); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
	waitFor(t, "its link to go", func() bool { l, _ := n.links.List(); return len(l) == 0 })
	waitFor(t, "its record to go", func() bool { e, _ := os.ReadDir(filepath.Join(n.cfg.RunDir, "ipam")); return len(e) == 0 })
}

func TestSpares(t *testing.T) {
	n := node(t, func(c *Config) { c.Spares = 3 })
	full := func() bool { return !n.lacking() }
	waitFor(t, "the pool to fill", full)
	a, b := up(t, n, "a"), up(t, n, "b")
	serve(t, b, 80)
	mustAsk(t, &a, b.IPs[0].String()+":80")
	waitFor(t, "the pool to fill again", full)
	if err := n.Teardown(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
}

func TestHostile_NW13(t *testing.T) {
	n := node(t, func(c *Config) { c.PodCIDR = netip.MustParsePrefix("10.244.0.0/29") })
	seen := map[netip.Addr]bool{}
	for i := range 5 {
		seen[up(t, n, fmt.Sprint(i)).IPs[0]] = true
	}
	if len(seen) != 5 {
		t.Errorf("5 pods have the addresses %v", seen)
	}
	_, err := n.Setup(t.Context(), Pod{SandboxID: "x"})
	if !errors.Is(err, ipam.ErrExhausted) || !strings.Contains(err.Error(), "10.244.0.0/29") {
		t.Errorf("a sixth: %v, want ErrExhausted that names the range", err)
	}
	if err := n.Teardown(t.Context(), "0"); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Setup(t.Context(), Pod{SandboxID: "x"}); !errors.Is(err, ipam.ErrExhausted) {
		t.Errorf("at once after a release: %v, want ErrExhausted while the address rests", err)
	}
}

func TestHostile_NW8(t *testing.T) {
	n := node(t, nil)
	w := world(t)
	a := up(t, n, "a")
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	// Both the neighbour and a pod route the node's loopback address to the node.
	for _, from := range []struct{ ns, dev, via string }{{w.NetNSPath, "world1", "192.0.2.1"}, {a.NetNSPath, "eth0", a.Gateway.String()}} {
		in := func(c string) {
			netfiltertest.Run(t, "nsenter", append([]string{"--net=" + from.ns}, strings.Fields(c)...)...)
		}
		in("sysctl -qw net.ipv4.conf." + from.dev + ".route_localnet=1")
		in("ip addr del 127.0.0.1/8 dev lo")
		in("ip route add 127.0.0.1/32 via " + from.via + " dev " + from.dev)
		err := netns.Do(from.ns, func() error {
			c, err := net.DialTimeout("tcp4", l.Addr().String(), 500*time.Millisecond)
			if err == nil {
				c.Close()
			}
			return err
		})
		if err == nil {
			t.Errorf("from %s: the node's loopback answers", from.dev)
		}
	}
}

func TestHostile_NW9(t *testing.T) {
	n := node(t, nil)
	a, b := up(t, n, "a"), up(t, n, "b")
	var pc net.PacketConn
	if err := netns.Do(b.NetNSPath, func() (err error) { pc, err = net.ListenPacket("udp4", ":9999"); return err }); err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	send := func(src string) {
		t.Helper()
		if err := netns.Do(a.NetNSPath, func() error {
			c, err := (&net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(src)}}).Dial("udp4", b.IPs[0].String()+":9999")
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = fmt.Fprint(c, src)
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	netfiltertest.Run(t, "nsenter", "--net="+a.NetNSPath, "ip", "addr", "add", "10.244.0.77/32", "dev", "eth0")
	netfiltertest.Run(t, "nsenter", "--net="+a.NetNSPath, "ip", "addr", "add", "8.8.8.8/32", "dev", "eth0")
	send("10.244.0.77")
	send("8.8.8.8")
	send(a.IPs[0].String()) // sent last: it arriving means the forged ones would have
	buf := make([]byte, 100)
	pc.SetReadDeadline(time.Now().Add(20 * time.Second))
	k, _, err := pc.ReadFrom(buf)
	if err != nil || string(buf[:k]) != a.IPs[0].String() {
		t.Errorf("first packet to arrive: %q, %v; want only the honest one", buf[:k], err)
	}
	if b, _ := os.ReadFile("/proc/sys/net/ipv6/conf/" + n.links.Name(2) + "/disable_ipv6"); strings.TrimSpace(string(b)) == "0" {
		t.Error("IPv6 is on at the node's end: router advertisements of a pod would be heard")
	}
}

// Questions to the cluster DNS reach it from pods and from the node, and leave nothing in connection tracking.
func TestHostile_NW3(t *testing.T) {
	at := netip.MustParseAddrPort("10.96.0.10:53")
	n := node(t, func(c *Config) { c.DNS = at.Addr() })
	zone := dns.NewZone()
	zone.SetService(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}, Spec: corev1.ServiceSpec{ClusterIP: "10.96.1.1"}})
	srv, err := dns.New(dns.Config{Listen: []netip.AddrPort{at}, ResolvConf: "/dev/null"}, zone)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	a := up(t, n, "a")
	resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, at.String())
	}}
	waitFor(t, "the server to listen", func() bool {
		_, err := resolver.LookupNetIP(t.Context(), "ip4", "web.default.svc.cluster.local")
		return err == nil
	})
	// One socket, A and AAAA at once, many times: what a C library does.
	if err := netns.Do(a.NetNSPath, func() error {
		c, err := net.Dial("udp4", at.String())
		if err != nil {
			return err
		}
		defer c.Close()
		var ids [2000]bool
		for i := range 1000 {
			for j, typ := range []uint16{mdns.TypeA, mdns.TypeAAAA} {
				q := (&mdns.Msg{}).SetQuestion("web.default.svc.cluster.local.", typ)
				q.Id = uint16(2*i + j)
				b, _ := q.Pack()
				if _, err := c.Write(b); err != nil {
					return err
				}
			}
			for range 2 {
				buf := make([]byte, 512)
				c.SetReadDeadline(time.Now().Add(20 * time.Second))
				if _, err := c.Read(buf); err != nil {
					return fmt.Errorf("after %d pairs: %w", i, err)
				}
				ids[uint16(buf[0])<<8|uint16(buf[1])] = true
			}
		}
		for i, ok := range ids {
			if !ok {
				return fmt.Errorf("question %d was not answered", i)
			}
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if out := netfiltertest.Run(t, "conntrack", "-L", "-p", "udp"); strings.Contains(out, "10.96.0.10") {
		t.Errorf("tracked: %s", out)
	}
}

// A pod that may send nothing has sent nothing, from its first packet on.
func TestHostile_NW4(t *testing.T) {
	netfiltertest.Need(t, "iptables-restore")
	filter := netfilter.NewIPTables(netfilter.Config{})
	e := policy.New(policy.Config{PodCIDR: netip.MustParsePrefix("10.244.0.0/24")}, filter)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	n := node(t, func(c *Config) { c.Filter, c.Guard, c.Spares = filter, e, 4 })
	defer func() { cancel(); <-done }() // before the node is uninstalled
	e.SetPolicy(&networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "deny"},
		Spec: networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{"Egress"}}})
	e.Synced()
	sink, err := n.Setup(t.Context(), Pod{SandboxID: "sink", Namespace: "other", Name: "sink", UID: "sink"})
	if err != nil {
		t.Fatal(err)
	}
	var pc net.PacketConn
	if err := netns.Do(sink.NetNSPath, func() (err error) { pc, err = net.ListenPacket("udp4", ":9999"); return err }); err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	send := func(id string, namespace string) {
		t.Helper()
		a, err := n.Setup(t.Context(), Pod{SandboxID: id, Namespace: namespace, Name: id, UID: id})
		if err != nil {
			t.Fatal(err)
		}
		if err := netns.Do(a.NetNSPath, func() error { // the first thing it does
			c, err := net.Dial("udp4", sink.IPs[0].String()+":9999")
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = fmt.Fprint(c, id)
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 10 {
		send(fmt.Sprint("shut", i), "default")
	}
	send("free", "other")
	buf := make([]byte, 100)
	pc.SetReadDeadline(time.Now().Add(20 * time.Second))
	k, _, err := pc.ReadFrom(buf)
	if err != nil || string(buf[:k]) != "free" {
		t.Errorf("first to arrive: %q, %v; want only the one that may send", buf[:k], err)
	}
}

func BenchmarkSetupTeardown(b *testing.B) {
	netfiltertest.Need(b, "iptables-restore")
	run, err := os.MkdirTemp("/run", "keelson-test-")
	if err != nil {
		b.Fatal(err)
	}
	for _, spares := range []int{0, 16} {
		b.Run(fmt.Sprintf("spares=%d", spares), func(b *testing.B) {
			n, err := New(Config{Bridge: "kltest0", PodCIDR: netip.MustParsePrefix("10.244.0.0/16"), StateDir: b.TempDir(), RunDir: run,
				Spares: spares})
			if err != nil {
				b.Fatal(err)
			}
			defer n.Uninstall(context.Background())
			var setup, down time.Duration
			i := 0
			for b.Loop() {
				b.StopTimer() // as on a node where pods do not come back to back: what went before is over
				for l, _ := n.links.List(); n.lacking() || len(l) > spares; l, _ = n.links.List() {
					time.Sleep(time.Millisecond)
				}
				b.StartTimer()
				t0 := time.Now()
				if _, err := n.Setup(b.Context(), Pod{SandboxID: fmt.Sprint(i)}); err != nil {
					b.Fatal(err)
				}
				t1 := time.Now()
				if err := n.Teardown(b.Context(), fmt.Sprint(i)); err != nil {
					b.Fatal(err)
				}
				setup, down = setup+t1.Sub(t0), down+time.Since(t1)
				i++
			}
			b.ReportMetric(float64(setup.Microseconds())/float64(i), "us/setup")
			b.ReportMetric(float64(down.Microseconds())/float64(i), "us/teardown")
		})
	}
}

func BenchmarkBurst(b *testing.B) {
	netfiltertest.Need(b, "iptables-restore")
	run, err := os.MkdirTemp("/run", "keelson-test-")
	if err != nil {
		b.Fatal(err)
	}
	n, err := New(Config{Bridge: "kltest0", PodCIDR: netip.MustParsePrefix("10.244.0.0/16"), StateDir: b.TempDir(), RunDir: run})
	if err != nil {
		b.Fatal(err)
	}
	defer n.Uninstall(context.Background())
	var setup, down time.Duration
	pods := 0
	for b.Loop() {
		t0 := time.Now()
		for i := range 50 {
			if _, err := n.Setup(b.Context(), Pod{SandboxID: fmt.Sprint(i)}); err != nil {
				b.Fatal(err)
			}
		}
		t1 := time.Now()
		for i := range 50 {
			if err := n.Teardown(b.Context(), fmt.Sprint(i)); err != nil {
				b.Fatal(err)
			}
		}
		setup, down, pods = setup+t1.Sub(t0), down+time.Since(t1), pods+50
		b.StopTimer()
		for { // not measured: the background catches up
			if l, _ := n.links.List(); len(l) == 0 {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(setup.Microseconds())/float64(pods), "us/setup")
	b.ReportMetric(float64(down.Microseconds())/float64(pods), "us/teardown")
}
