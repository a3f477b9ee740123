package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The two ends' hardware addresses: the same for every pod, since no two ends share a wire.
var (
	nodeMAC = net.HardwareAddr{0xee, 0xee, 0xee, 0xee, 0xee, 0x01}
	podMAC  = func(a netip.Addr) net.HardwareAddr {
		b := a.As4()
		return net.HardwareAddr{0x0a, 0x58, b[0], b[1], b[2], b[3]}
	}
)

// Links changes the links of the namespace it was made in.
type Links struct {
	h      *netlink.Handle
	bridge string
}

// Open connects to the kernel. bridge names our device and begins the name of every pod link, so it has at most 9 bytes.
func Open(bridge string) (*Links, error) {
	if bridge == "" || len(bridge) > 9 || strings.ContainsAny(bridge, "/ +%:") {
		return nil, fmt.Errorf("link: bridge name %q: want 1 to 9 characters without space, /, +, %% and :", bridge)
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("link: netlink socket: %w", err)
	}
	return &Links{h: h, bridge: bridge}, nil
}

// Close closes the socket.
func (l *Links) Close() { l.h.Close() }

// Pattern matches every pod link, as iptables writes it.
func (l *Links) Pattern() string { return l.bridge + "-+" }

// Name is the node's end of the pod in a slot.
func (l *Links) Name(slot int) string { return fmt.Sprintf("%s-%d", l.bridge, slot) }

// dumps is how often a dump is tried: each is over in a millisecond, and something must change in every one.
const dumps = 100

// Whole asks the kernel for a list again when something changed while it was being told (NLM_F_DUMP_INTR): such a list may
// lack what was there all the time, and on a node where pods come and go it is what one gets every now and then.
func Whole[T any](dump func() ([]T, error)) (list []T, err error) {
	for range dumps {
		if list, err = dump(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return list, err
}

// MTU is that of the device with the default route; 1500 without one.
func (l *Links) MTU() int {
	routes, err := Whole(func() ([]netlink.Route, error) {
		return l.h.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{}, netlink.RT_FILTER_DST)
	})
	if err != nil {
		return 1500
	}
	for _, r := range routes {
		if dev, err := l.h.LinkByIndex(r.LinkIndex); err == nil && dev.Attrs().MTU > 0 {
			return dev.Attrs().MTU
		}
	}
	return 1500
}

// EnsureNode makes the bridge with the gateway address, turns forwarding on and makes packets to unused pod addresses come back
// at once instead of leaving by the default route. Idempotent.
func (l *Links) EnsureNode(gateway netip.Addr, pods netip.Prefix, mtu int) error {
	la := netlink.NewLinkAttrs()
	la.Name, la.MTU = l.bridge, mtu
	err := l.h.LinkAdd(&netlink.Bridge{LinkAttrs: la})
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("link: bridge %s: %w", l.bridge, err)
	}
	dev, err := l.h.LinkByName(l.bridge)
	if err != nil {
		return fmt.Errorf("link: bridge %s: %w", l.bridge, err)
	}
	if dev.Type() != "bridge" {
		return fmt.Errorf("link: %s exists and is a %s, not our bridge: choose another name or delete it", l.bridge, dev.Type())
	}
	if err := write(l.nodeSettings()); err != nil {
		return err
	}
	if err := l.h.AddrReplace(dev, &netlink.Addr{IPNet: host(gateway)}); err != nil {
		return fmt.Errorf("link: address %s on %s: %w", gateway, l.bridge, err)
	}
	if err := l.h.LinkSetUp(dev); err != nil {
		return fmt.Errorf("link: %s up: %w", l.bridge, err)
	}
	dst := &net.IPNet{IP: pods.Masked().Addr().AsSlice(), Mask: net.CIDRMask(pods.Bits(), 32)}
	if err := l.h.RouteReplace(&netlink.Route{Dst: dst, Type: unix.RTN_UNREACHABLE}); err != nil {
		return fmt.Errorf("link: route for unused addresses of %s: %w", pods, err)
	}
	return nil
}

// AddAddress gives the bridge one more address that the node answers on. It goes with the bridge. Idempotent.
func (l *Links) AddAddress(a netip.Addr) error {
	dev, err := l.h.LinkByName(l.bridge)
	if err == nil {
		err = l.h.AddrReplace(dev, &netlink.Addr{IPNet: host(a)})
	}
	if err != nil {
		return fmt.Errorf("link: address %s on %s: %w", a, l.bridge, err)
	}
	return nil
}

// Node checks that the bridge is there and up.
func (l *Links) Node() error {
	dev, err := l.h.LinkByName(l.bridge)
	if err != nil {
		return fmt.Errorf("link: bridge %s: %w", l.bridge, err)
	}
	if dev.Attrs().Flags&net.FlagUp == 0 {
		return fmt.Errorf("link: bridge %s is down", l.bridge)
	}
	return nil
}

// Connect finishes the node's end of a pod's pair, which Wire made: filters, route, neighbour, up.
func (l *Links) Connect(name string, pod, gateway netip.Addr) error {
	dev, err := l.h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("link: %s: %w", name, err)
	}
	if err := write(endSettings(name)); err != nil {
		return err
	}
	if err := l.h.LinkSetUp(dev); err != nil {
		return fmt.Errorf("link: %s up: %w", name, err)
	}
	if err := l.h.NeighSet(neighbour(dev, pod, podMAC(pod))); err != nil {
		return fmt.Errorf("link: neighbour %s on %s: %w", pod, name, err)
	}
	r := &netlink.Route{LinkIndex: dev.Attrs().Index, Dst: host(pod), Scope: netlink.SCOPE_LINK, Src: gateway.AsSlice()}
	if err := l.h.RouteReplace(r); err != nil {
		return fmt.Errorf("link: route to %s: %w", pod, err)
	}
	return nil
}

// Delete removes a pod link and so its pair; idempotent. Dropping the namespace is the cheaper way; this is for what
// was left over.
func (l *Links) Delete(name string) error {
	dev, err := l.h.LinkByName(name)
	if err == nil {
		err = l.h.LinkDel(dev)
	}
	var gone netlink.LinkNotFoundError
	if err != nil && !errors.As(err, &gone) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("link: delete %s: %w", name, err)
	}
	return nil
}

// List names the pod links.
func (l *Links) List() ([]string, error) {
	links, err := Whole(l.h.LinkList)
	if err != nil {
		return nil, fmt.Errorf("link: list: %w", err)
	}
	var out []string
	for _, dev := range links {
		if n := dev.Attrs().Name; dev.Type() == "veth" && strings.HasPrefix(n, l.bridge+"-") {
			out = append(out, n)
		}
	}
	return out, nil
}

// RemoveNode removes the bridge and the route for unused addresses. Idempotent. Forwarding stays as it is: others may need it by now.
func (l *Links) RemoveNode(pods netip.Prefix) error {
	dst := &net.IPNet{IP: pods.Masked().Addr().AsSlice(), Mask: net.CIDRMask(pods.Bits(), 32)}
	err := l.h.RouteDel(&netlink.Route{Dst: dst, Type: unix.RTN_UNREACHABLE})
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("link: route of %s: %w", pods, err)
	}
	return l.Delete(l.bridge)
}

// FlushConntrack forgets the connections from and to the addresses, so that the next pod with one of them inherits none. One dump for all.
func (l *Links) FlushConntrack(addrs []netip.Addr) error {
	f := flush{}
	for _, a := range addrs {
		f[a] = true
	}
	if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, f); err != nil {
		return fmt.Errorf("link: conntrack: %w", err)
	}
	return nil
}

// FlushUDP forgets the UDP connections to any of the ports of the node.
func (l *Links) FlushUDP(ports []uint16) error {
	f := flushPorts{}
	for _, p := range ports {
		f[p] = true
	}
	if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, f); err != nil {
		return fmt.Errorf("link: conntrack: %w", err)
	}
	return nil
}

type flushPorts map[uint16]bool

// MatchConntrackFlow is asked by the netlink library for each connection.
func (f flushPorts) MatchConntrackFlow(c *netlink.ConntrackFlow) bool {
	return c.Forward.Protocol == unix.IPPROTO_UDP && f[c.Forward.DstPort]
}

type flush map[netip.Addr]bool

// MatchConntrackFlow is asked by the netlink library for each connection.
func (f flush) MatchConntrackFlow(c *netlink.ConntrackFlow) bool {
	for _, ip := range []net.IP{c.Forward.SrcIP, c.Forward.DstIP, c.Reverse.SrcIP, c.Reverse.DstIP} {
		if a, ok := netip.AddrFromSlice(ip); ok && f[a.Unmap()] {
			return true
		}
	}
	return false
}

// setting is a file below /proc/sys and what is to be in it. A kernel without the file needs none.
type setting struct{ file, value string }

// nodeSettings are what the node and its bridge are to have.
func (l *Links) nodeSettings() []setting {
	return []setting{
		{"net/ipv4/ip_forward", "1"},
		{"net/ipv4/conf/" + l.bridge + "/send_redirects", "0"},
		{"net/ipv6/conf/" + l.bridge + "/accept_ra", "0"},
		{"net/ipv6/conf/" + l.bridge + "/disable_ipv6", "1"},
	}
}

// endSettings are what the node's end of a pod's link is to have.
func endSettings(name string) []setting {
	return []setting{
		{"net/ipv4/conf/" + name + "/forwarding", "1"},
		{"net/ipv4/conf/" + name + "/rp_filter", "1"},      // only the pod's own address may come in here
		{"net/ipv4/conf/" + name + "/route_localnet", "1"}, // a host port answers on 127.0.0.1; guarded in the INPUT chain
		{"net/ipv6/conf/" + name + "/disable_ipv6", "1"},   // no router advertisement reaches the node
	}
}

func write(settings []setting) error {
	for _, s := range settings {
		if err := Sysctl(s.file, s.value); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// changed lists the settings that have another value.
func changed(settings []setting) (out []string) {
	for _, s := range settings {
		b, err := os.ReadFile(filepath.Join("/proc/sys", s.file))
		if err == nil && strings.TrimSpace(string(b)) != s.value {
			out = append(out, strings.ReplaceAll(s.file, "/", ".")+"="+s.value)
		}
	}
	return out
}

// Sysctl writes a kernel parameter of the calling thread's network namespace; name is separated by slashes.
func Sysctl(name, value string) error {
	path := filepath.Join("/proc/sys", name)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("link: sysctl %s: %w", name, err)
	}
	defer f.Close()
	if _, err := f.WriteString(value); err != nil {
		return fmt.Errorf("link: sysctl %s = %q: %w", name, value, err)
	}
	return nil
}

func host(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}

func neighbour(dev netlink.Link, a netip.Addr, mac net.HardwareAddr) *netlink.Neigh {
	return &netlink.Neigh{LinkIndex: dev.Attrs().Index, Family: unix.AF_INET, State: netlink.NUD_PERMANENT,
		IP: a.AsSlice(), HardwareAddr: mac}
}
