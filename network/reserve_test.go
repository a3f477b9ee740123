package network

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/network/netfilter"
	"keelson.dev/keelson/network/netfilter/netfiltertest"
	"keelson.dev/keelson/network/policy"
)

const apiPort = 6443

// throughService are the rules by which the API server is reached at 10.96.0.1:443, as the Service proxy writes them.
var throughService = netfilter.Set{
	Chains: []netfilter.Chain{
		{Table: netfilter.NAT, Name: "SERVICES", Rules: []netfilter.Rule{
			{Match: netfilter.Match{Src: netip.MustParsePrefix("10.244.0.0/16"), NotSrc: true, Dst: netip.MustParsePrefix("10.96.0.1/32")},
				Target: netfilter.Target{Verb: netfilter.SetMark, Mark: netfilter.Mark{Value: 0x4000, Mask: 0x4000}}},
			{Match: netfilter.Match{Dst: netip.MustParsePrefix("10.96.0.1/32"), Proto: "tcp", DstPorts: netfilter.Port(443)},
				Target: netfilter.Target{Verb: netfilter.DNAT, To: netip.MustParseAddrPort("192.0.2.1:6443")}}}},
		{Table: netfilter.NAT, Name: "MASQ", Rules: []netfilter.Rule{{Match: netfilter.Match{Mark: netfilter.Mark{Value: 0x4000, Mask: 0x4000}}, Target: netfilter.To(netfilter.Masquerade)}}},
	},
	Hooks: []netfilter.Hook{{Table: netfilter.NAT, Base: "PREROUTING", Chain: "SERVICES"}, {Table: netfilter.NAT, Base: "OUTPUT", Chain: "SERVICES"},
		{Table: netfilter.NAT, Base: "POSTROUTING", Chain: "MASQ"}},
}

// NW1: what the reserve leaves untracked, and what it must not.
func TestHostile_NW1_rules(t *testing.T) {
	cfg, err := Config{PodCIDR: netip.MustParsePrefix("10.244.0.0/24"), ClusterCIDR: netip.MustParsePrefix("10.244.0.0/16"), StateDir: "/s", RunDir: "/r",
		Reserved: []uint16{apiPort, 10250}, Filter: netfilter.NewFake()}.complete()
	if err != nil {
		t.Fatal(err)
	}
	f := netfilter.NewFake()
	isolated := policy.Compile(policy.State{Pods: []policy.Pod{{Namespace: "x", Name: "shut", Addr: netip.MustParseAddr("10.244.0.5"), Local: true}},
		Policies: []*networkingv1.NetworkPolicy{{ObjectMeta: metav1.ObjectMeta{Namespace: "x"}, Spec: networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{"Egress", "Ingress"}}}}})
	for owner, set := range map[netfilter.Owner]netfilter.Set{netfilter.Node: nodeRules(cfg, "k-+"), netfilter.Service: throughService,
		netfilter.Policy: isolated, netfilter.Reserve: reserveRules(cfg, "k-+", true)} {
		if err := f.Apply(t.Context(), owner, set); err != nil {
			t.Fatal(err)
		}
	}
	tracer := f.Tracer(netfilter.Host{
		Local: func(a netip.Addr) bool {
			return a.String() == "192.0.2.1" || a.String() == "10.244.0.1" || a.IsLoopback()
		},
		Out: func(a netip.Addr) string {
			if netip.MustParsePrefix("10.244.0.0/24").Contains(a) {
				return "k-1"
			}
			return "eth0"
		},
		Socket: func(src, dst netip.AddrPort) (uint32, bool) { // a probe's connection, and one that somebody opened to the node
			return map[netip.AddrPort]uint32{netip.MustParseAddrPort("10.244.0.1:40000"): uint32(HostMark)}[dst], dst.Port() == 40000 || dst.Port() == apiPort
		}})
	const begins, later, known = 0, 1, 2 // a first packet; one of a connection that nobody tracked before; one that is tracked
	for _, row := range []struct {
		name, in, src, dst string
		kind               int
		mark               uint32
		want               string
		untracked          bool
	}{
		{"the API from another machine", "eth0", "192.0.2.9:5000", "192.0.2.1:6443", begins, 0, "local 192.0.2.1:6443", true},
		{"its answer", "", "192.0.2.1:6443", "192.0.2.9:5000", later, 0, "forward 192.0.2.9:5000", true},
		{"the kubelet from another machine", "eth0", "192.0.2.9:5000", "192.0.2.1:10250", begins, 0, "local 192.0.2.1:10250", true},
		{"its answer", "", "192.0.2.1:10250", "192.0.2.9:5000", later, 0, "forward 192.0.2.9:5000", true},
		{"another server of the node's", "eth0", "192.0.2.9:5000", "192.0.2.1:22", begins, 0, "local 192.0.2.1:22", false},
		{"the port of another machine", "eth0", "192.0.2.9:5000", "203.0.113.1:6443", begins, 0, "forward 203.0.113.1:6443", false},
		{"the node asks another machine's API", "", "192.0.2.1:5000", "192.0.2.9:6443", begins, 0, "forward 192.0.2.9:6443", false},
		{"loopback", "", "127.0.0.1:5000", "127.0.0.1:6443", begins, 0, "local 127.0.0.1:6443", true},
		{"its answer", "", "127.0.0.1:6443", "127.0.0.1:5000", later, 0, "local 127.0.0.1:5000", true},
		{"another port of loopback: a Service's or a host port", "", "127.0.0.1:5000", "127.0.0.1:30080", begins, 0, "local 127.0.0.1:30080", false},
		{"loopback from outside stays shut", "eth0", "192.0.2.9:5000", "127.0.0.1:6443", later, 0, "drop", true},
		{"the node through the Service", "", "192.0.2.1:5000", "10.96.0.1:443", begins, 0, "local 192.0.2.1:6443 masq", false},
		{"its answer", "", "192.0.2.1:6443", "192.0.2.1:5000", known, 0, "local 192.0.2.1:5000", false},
		{"a pod through the Service", "k-1", "10.244.0.6:5000", "10.96.0.1:443", begins, 0, "local 192.0.2.1:6443", false},
		{"its answer", "", "192.0.2.1:6443", "10.244.0.6:5000", known, 0, "forward 10.244.0.6:5000", false},
		{"a pod at the API itself: nobody can tell its answers from those", "k-1", "10.244.0.6:5000", "192.0.2.1:6443", later, 0, "local 192.0.2.1:6443", false},
		{"a probe", "", "10.244.0.1:40000", "10.244.0.6:80", begins, uint32(HostMark), "forward 10.244.0.6:80", true},
		{"its answer", "k-1", "10.244.0.6:80", "10.244.0.1:40000", later, 0, "local 10.244.0.1:40000", true},
		{"the answer of a pod that may send nothing", "k-1", "10.244.0.5:80", "10.244.0.1:40000", later, 0, "local 10.244.0.1:40000", true},
		{"that pod's own connection", "k-1", "10.244.0.5:80", "10.244.0.1:40000", begins, 0, "drop", false},
		{"to where somebody listens", "k-1", "10.244.0.5:80", "192.0.2.1:6443", later, 0, "drop", false},
		{"and to another pod", "k-1", "10.244.0.5:80", "10.244.0.6:80", later, 0, "drop", false},
		{"a connection of the node's to a pod, not a probe", "", "10.244.0.1:40001", "10.244.0.6:80", begins, 0, "forward 10.244.0.6:80", false},
		{"a mark leads nowhere else", "", "192.0.2.1:5000", "192.0.2.9:80", begins, uint32(HostMark), "forward 192.0.2.9:80", false},
	} {
		p := netfilter.Packet{In: row.in, Src: netip.MustParseAddrPort(row.src), Dst: netip.MustParseAddrPort(row.dst), Proto: "tcp", Mark: row.mark,
			Later: row.kind != begins}
		if row.kind == known {
			p.State = netfilter.Established | netfilter.DNATed
		}
		got, err := tracer.Trace(p)
		if err != nil || len(got) != 1 || got[0].String() != row.want || got[0].NoTrack != row.untracked {
			t.Errorf("%s (%s to %s): %+v, %v; want %s, untracked %t", row.name, row.src, row.dst, got, err, row.want, row.untracked)
		}
	}
}

// NW1, with a table that is full: the API and probes are answered; what was translated before goes on, with the reserve and without.
func TestHostile_NW1(t *testing.T) {
	netfiltertest.Need(t, "conntrack", "iptables-restore")
	filter := netfilter.NewIPTables(netfilter.Config{})
	guard := policy.New(policy.Config{PodCIDR: netip.MustParsePrefix("10.244.0.0/24")}, filter)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- guard.Run(ctx) }()
	n := node(t, func(c *Config) { c.Filter, c.Guard, c.Reserved = filter, guard, []uint16{apiPort} })
	defer func() { cancel(); <-done }()
	guard.SetPolicy(&networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "shut"},
		Spec: networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{"Egress"}}})
	guard.Synced()
	w := world(t)
	netfiltertest.Run(t, "ip", "route", "add", "default", "via", w.IPs[0].String())
	shut, err := n.Setup(t.Context(), Pod{SandboxID: "shut", Namespace: "default", Name: "shut", UID: "shut", PortMappings: []PortMapping{{HostPort: 8080, ContainerPort: 80}}})
	if err != nil {
		t.Fatal(err)
	}
	free, err := n.Setup(t.Context(), Pod{SandboxID: "free", Namespace: "other", Name: "free", UID: "free"})
	if err != nil {
		t.Fatal(err)
	}
	serve(t, shut, 80)
	serve(t, Attachment{NetNSPath: "/proc/self/ns/net"}, apiPort)
	if err := filter.Apply(t.Context(), netfilter.Service, throughService); err != nil {
		t.Fatal(err)
	}
	probe := func() error {
		d := net.Dialer{Timeout: 3 * time.Second, Control: func(_, _ string, c syscall.RawConn) (err error) {
			return errors.Join(c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, HostMark) }), err)
		}}
		c, err := d.DialContext(t.Context(), "tcp4", shut.IPs[0].String()+":80")
		if err == nil {
			c.Close()
		}
		return err
	}
	all := []struct {
		name     string
		ask      func() error
		reserved bool
	}{
		{"the API from another machine", func() error { _, err := ask(t, &w, "192.0.2.1:6443"); return err }, true},
		{"the API from the node", func() error { _, err := ask(t, nil, "127.0.0.1:6443"); return err }, true},
		{"a probe of a pod that may send nothing", probe, true},
		{"the API through the Service, from a pod", func() error { _, err := ask(t, &free, "10.96.0.1:443"); return err }, false},
		{"the API through the Service, from the node", func() error { _, err := ask(t, nil, "10.96.0.1:443"); return err }, false},
		{"the API's own address, from a pod", func() error { _, err := ask(t, &free, "192.0.2.1:6443"); return err }, false},
		{"a host port on loopback", func() error { _, err := ask(t, nil, "127.0.0.1:8080"); return err }, false},
		{"a pod, by the node", func() error { _, err := ask(t, nil, shut.IPs[0].String()+":80"); return err }, false},
	}
	check := func(when string, want func(reserved bool) bool) {
		t.Helper()
		var asking sync.WaitGroup
		for _, a := range all {
			asking.Go(func() {
				if err := a.ask(); (err == nil) != want(a.reserved) {
					t.Errorf("%s: %s: %v", when, a.name, err)
				}
			})
		}
		asking.Wait()
	}
	always, never, onlyReserved := func(bool) bool { return true }, func(bool) bool { return false }, func(reserved bool) bool { return reserved }
	fillTable(t)
	check("full", never)
	for _, on := range []bool{true, true, false, true} { // it may be said twice, and taken back
		if err := n.Reserve(t.Context(), on); err != nil {
			t.Fatal(err)
		}
	}
	check("full, with the reserve", onlyReserved)
	netfiltertest.Run(t, "conntrack", "-F")
	check("with the reserve, and room", always)
	if _, err := ask(t, &shut, "192.0.2.1:6443"); err == nil {
		t.Error("a pod that may send nothing reaches the API")
	}
	if err := n.Reserve(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	check("with room again", always)
	if out := netfiltertest.Run(t, "iptables-save"); strings.Contains(out, "KEELSON-RSV") {
		t.Errorf("left: %s", out)
	}
}

// fillTable fills the kernel's table of connections with ones that are not given up for new ones.
func fillTable(t *testing.T) {
	t.Helper()
	figure := func(name string) int {
		t.Helper()
		b, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_" + name)
		if err != nil {
			t.Skip("the kernel does not show its table of connections: ", err)
		}
		v, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	limit := figure("max")
	if limit > 600_000 {
		t.Skipf("the machine's limit of %d connections, which a network namespace cannot change, is more than a test should fill", limit)
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	const batch = 200
	t.Cleanup(func() { netfiltertest.Run(t, "conntrack", "-F") })
	next := uint32(0)
	for others := true; others; {
		for figure("count") < limit {
			if next > 4*uint32(limit) {
				t.Fatalf("the table has %d connections of %d and takes no more", figure("count"), limit)
			}
			var buf []byte
			for range batch {
				next++
				buf = append(buf, connection(next)...)
			}
			if err := unix.Sendto(fd, buf, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
				t.Fatal(err)
			}
		}
		// What others have left ends by itself and would make room. The program fails when there is nothing of it.
		others = exec.Command("conntrack", "-D", "--mark", "0").Run() == nil
	}
}

// connection is the message that makes the kernel remember an assured TCP connection, the i-th.
func connection(i uint32) []byte {
	const (
		newConnection                                     = 1 << 8 // NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_NEW
		original, reply, status, protoinfo, timeout, mark = 1, 2, 3, 4, 7, 8
		seenReply, assured, confirmed                     = 1 << 1, 1 << 2, 1 << 3
		tupleIP, tupleProto, v4src, v4dst                 = 1, 2, 1, 2
		protoNumber, protoSrc, protoDst, tcp, tcpState    = 1, 2, 3, 1, 1
		established                                       = 3
	)
	src, dst := []byte{172, 16 | byte(i>>28), byte(i >> 20), byte(i >> 12)}, []byte{203, 0, 113, 7}
	sport, dport := nl.Uint16Attr(0), []byte{0, 80}
	sport[0], sport[1] = byte(1+(i>>8)&0xf), byte(i)
	tuple := func(kind int, src, dst, sport, dport []byte) *nl.RtAttr {
		a := nl.NewRtAttr(kind|unix.NLA_F_NESTED, nil)
		ip := a.AddRtAttr(tupleIP|unix.NLA_F_NESTED, nil)
		ip.AddRtAttr(v4src, src)
		ip.AddRtAttr(v4dst, dst)
		proto := a.AddRtAttr(tupleProto|unix.NLA_F_NESTED, nil)
		proto.AddRtAttr(protoNumber, []byte{unix.IPPROTO_TCP})
		proto.AddRtAttr(protoSrc, sport)
		proto.AddRtAttr(protoDst, dport)
		return a
	}
	info := nl.NewRtAttr(protoinfo|unix.NLA_F_NESTED, nil)
	info.AddRtAttr(tcp|unix.NLA_F_NESTED, nil).AddRtAttr(tcpState, []byte{established})
	req := nl.NewNetlinkRequest(newConnection, unix.NLM_F_CREATE)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_INET})
	for _, a := range []*nl.RtAttr{tuple(original, src, dst, sport, dport), tuple(reply, dst, src, dport, sport),
		nl.NewRtAttr(status, nl.BEUint32Attr(seenReply|assured|confirmed)), nl.NewRtAttr(timeout, nl.BEUint32Attr(86400)), nl.NewRtAttr(mark, nl.BEUint32Attr(1)), info} {
		req.AddData(a)
	}
	return req.Serialize()
}
