package link

import (
	"fmt"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Wire is a pod's side of its pair.
type Wire struct {
	Host     *os.File // the node's namespace
	HostName string   // the node's end
	Pod      netip.Addr
	Gateway  netip.Addr
	MTU      int
}

// Make builds the pair from inside the pod's namespace, in which the calling thread must be: eth0 here, its peer in
// the node's namespace; loopback up, address, routes, neighbour. An error is unix.EEXIST when the node has a link of that name. Half-made
// things go with the namespace.
func (w Wire) Make() error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("link: netlink socket: %w", err)
	}
	defer h.Close()
	la := netlink.NewLinkAttrs()
	la.Name, la.MTU, la.HardwareAddr = "eth0", w.MTU, podMAC(w.Pod)
	pair := &netlink.Veth{LinkAttrs: la, PeerName: w.HostName, PeerHardwareAddr: nodeMAC, PeerMTU: uint32(w.MTU),
		PeerNamespace: netlink.NsFd(w.Host.Fd())}
	if err := h.LinkAdd(pair); err != nil {
		return fmt.Errorf("link: pair eth0 and %s: %w", w.HostName, err)
	}
	lo, err := h.LinkByName("lo")
	if err == nil {
		err = h.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("link: lo: %w", err)
	}
	if err := h.AddrAdd(pair, &netlink.Addr{IPNet: host(w.Pod), Flags: unix.IFA_F_NODAD}); err != nil {
		return fmt.Errorf("link: address %s: %w", w.Pod, err)
	}
	if err := h.LinkSetUp(pair); err != nil {
		return fmt.Errorf("link: eth0 up: %w", err)
	}
	if err := h.NeighSet(neighbour(pair, w.Gateway, nodeMAC)); err != nil {
		return fmt.Errorf("link: neighbour %s: %w", w.Gateway, err)
	}
	gw := &netlink.Route{LinkIndex: pair.Index, Dst: host(w.Gateway), Scope: netlink.SCOPE_LINK}
	if err := h.RouteAdd(gw); err != nil {
		return fmt.Errorf("link: route to the gateway: %w", err)
	}
	if err := h.RouteAdd(&netlink.Route{LinkIndex: pair.Index, Gw: w.Gateway.AsSlice()}); err != nil {
		return fmt.Errorf("link: default route: %w", err)
	}
	return nil
}
