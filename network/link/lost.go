package link

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// The numbers of linux/rtnetlink.h and linux/netconf.h that unix lacks.
const (
	newNetconf        = 80 // RTM_NEWNETCONF
	netconfForwarding = 2  // NETCONFA_FORWARDING
	netconfFilter     = 3  // NETCONFA_RP_FILTER
	sizeofNdMsg       = 12
	ndDestination     = 1 // NDA_DST
	ndLinkAddress     = 2 // NDA_LLADDR
)

// A Removal is what the kernel tells went: a link by its name (or it was turned off), an address, the target of a route, the address of a
// neighbour that went or is another now. The zero value may be anything: forwarding, another setting.
type Removal struct {
	Link   string
	Target netip.Prefix
}

// Watch calls removed for what goes from the network namespace of the calling thread, whoever removes it, until its closer is
// closed; then done tells. Nothing is asked again and again.
func Watch(removed func(Removal)) (closer func(), done <-chan error, err error) {
	sock, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_NETCONF,
		unix.RTNLGRP_NEIGH, unix.RTNLGRP_IPV6_IFADDR)
	if err != nil {
		return nil, nil, fmt.Errorf("link: watch: %w", err)
	}
	_ = unix.SetsockoptInt(sock.GetFd(), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1<<20)
	ended := make(chan error, 1)
	go func() { ended <- receive(sock, removed) }() // ends when the socket is closed
	return sock.Close, ended, nil
}

func receive(sock *nl.NetlinkSocket, removed func(Removal)) error {
	for {
		msgs, _, err := sock.Receive()
		switch {
		case errors.Is(err, os.ErrClosed):
			return nil
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.ENOBUFS): // more happened than we could take
			removed(Removal{})
		case err != nil:
			return fmt.Errorf("link: watch: %w", err)
		}
		for _, m := range msgs {
			if r, is := removal(m.Header.Type, m.Data); is {
				removed(r)
			}
		}
	}
}

// removal reads a message of the kernel.
func removal(kind uint16, data []byte) (Removal, bool) {
	skip := map[uint16]int{unix.RTM_DELLINK: unix.SizeofIfInfomsg, unix.RTM_NEWLINK: unix.SizeofIfInfomsg, unix.RTM_DELADDR: unix.SizeofIfAddrmsg,
		unix.RTM_NEWADDR: unix.SizeofIfAddrmsg, unix.RTM_DELROUTE: unix.SizeofRtMsg, newNetconf: 4, unix.RTM_DELNEIGH: sizeofNdMsg, unix.RTM_NEWNEIGH: sizeofNdMsg}[kind]
	if skip == 0 || len(data) < skip {
		return Removal{}, false
	}
	attrs, err := nl.ParseRouteAttr(data[skip:])
	if err != nil {
		return Removal{}, true
	}
	has := make(map[uint16][]byte, len(attrs))
	for _, a := range attrs {
		has[a.Attr.Type] = a.Value
	}
	switch kind {
	case unix.RTM_DELLINK, unix.RTM_NEWLINK:
		name := has[unix.IFLA_IFNAME]
		up := nl.DeserializeIfInfomsg(data).Flags&unix.IFF_UP != 0
		return Removal{Link: unix.ByteSliceToString(name)}, name != nil && (kind == unix.RTM_DELLINK || !up)
	case unix.RTM_DELADDR:
		return target(has[unix.IFA_LOCAL], -1)
	case unix.RTM_NEWADDR: // a link whose IPv6 somebody turned on gets one; of that setting itself nothing is told
		a, ok := netip.AddrFromSlice(has[unix.IFA_ADDRESS])
		return Removal{}, ok && a.IsLinkLocalUnicast() && a.Is6()
	case unix.RTM_DELROUTE:
		return target(has[unix.RTA_DST], int(data[1])) // rtm_dst_len; the default route has no target
	case newNetconf:
		return Removal{}, turnedOff(has)
	}
	r, is := target(has[ndDestination], -1)
	if !is || data[0] != unix.AF_INET || !r.Target.Addr().Is4() {
		return Removal{}, false
	}
	const state = 8 // of struct ndmsg
	right := kind == unix.RTM_NEWNEIGH && nl.NativeEndian().Uint16(data[state:])&netlink.NUD_PERMANENT != 0
	return r, !right || !bytes.Equal(has[ndLinkAddress], podMAC(r.Target.Addr()))
}

// target is of an address, or of a prefix of it if bits is not negative.
func target(b []byte, bits int) (Removal, bool) {
	addr, ok := netip.AddrFromSlice(b)
	if ok && bits < 0 {
		bits = addr.BitLen()
	}
	return Removal{Target: netip.PrefixFrom(addr, bits)}, ok
}

// turnedOff tells of forwarding that is 0, and of a source check that was changed to what it is not with us. A new link tells its
// source check beside its forwarding: that is no change.
func turnedOff(has map[uint16][]byte) bool {
	value := func(b []byte) uint32 {
		if len(b) < 4 {
			return 1
		}
		return nl.NativeEndian().Uint32(b)
	}
	_, whole := has[netconfForwarding]
	return value(has[netconfForwarding]) == 0 || !whole && value(has[netconfFilter]) != 1
}

// Lost is what is missing of the node's own (in words), and of the pods' ends: gone, or there but off, without its route or its neighbour,
// or with other settings.
type Lost struct {
	Node        []string
	Gone, Loose []string
}

// Lost compares what is there with what should be: the bridge with addrs, the route of pods, forwarding, and the ends by
// name with the pods' addresses.
func (l *Links) Lost(addrs []netip.Addr, pods netip.Prefix, ends map[string]netip.Addr) (lost Lost, err error) {
	list, err := Whole(l.h.LinkList)
	if err != nil {
		return lost, fmt.Errorf("link: list: %w", err)
	}
	links := make(map[string]*netlink.LinkAttrs, len(list))
	for _, dev := range list {
		links[dev.Attrs().Name] = dev.Attrs()
	}
	routes, err := Whole(func() ([]netlink.Route, error) {
		return l.h.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return lost, fmt.Errorf("link: list routes: %w", err)
	}
	through := make(map[string]int, len(routes)) // target -> link; 0 for that of unused addresses
	for _, r := range routes {
		if r.Dst != nil && (r.Type == unix.RTN_UNREACHABLE || r.LinkIndex != 0) {
			through[r.Dst.String()] = r.LinkIndex
		}
	}
	if lost.Node, err = l.lostOfNode(links[l.bridge], addrs); err != nil {
		return lost, err
	}
	if at, is := through[pods.Masked().String()]; !is || at != 0 {
		lost.Node = append(lost.Node, "the route of unused addresses of "+pods.String())
	}
	near, err := l.neighbours()
	if err != nil {
		return lost, err
	}
	for name, pod := range ends {
		dev := links[name]
		if dev == nil {
			lost.Gone = append(lost.Gone, name)
		} else if at, is := through[host(pod).String()]; !is || at != dev.Index || dev.Flags&net.FlagUp == 0 || !near[neighbourKey{dev.Index, pod}] ||
			len(changed(endSettings(name))) > 0 {
			lost.Loose = append(lost.Loose, name)
		}
	}
	return lost, nil
}

// neighbourKey is a neighbour behind a link.
type neighbourKey struct {
	link int
	addr netip.Addr
}

// neighbours are those that are as Connect makes them.
func (l *Links) neighbours() (map[neighbourKey]bool, error) {
	list, err := Whole(func() ([]netlink.Neigh, error) { return l.h.NeighList(0, netlink.FAMILY_V4) })
	if err != nil {
		return nil, fmt.Errorf("link: list neighbours: %w", err)
	}
	out := make(map[neighbourKey]bool, len(list))
	for _, n := range list {
		a, ok := netip.AddrFromSlice(n.IP)
		if a = a.Unmap(); ok && n.State == netlink.NUD_PERMANENT && bytes.Equal(n.HardwareAddr, podMAC(a)) {
			out[neighbourKey{n.LinkIndex, a}] = true
		}
	}
	return out, nil
}

func (l *Links) lostOfNode(bridge *netlink.LinkAttrs, addrs []netip.Addr) (lost []string, err error) {
	switch {
	case bridge == nil:
		lost = append(lost, "the bridge "+l.bridge)
	case bridge.Flags&net.FlagUp == 0:
		lost = append(lost, "the bridge "+l.bridge+" (it was turned off)")
	}
	if bridge != nil {
		have, err := Whole(func() ([]netlink.Addr, error) {
			return l.h.AddrList(&netlink.Bridge{LinkAttrs: *bridge}, netlink.FAMILY_V4)
		})
		if err != nil {
			return nil, fmt.Errorf("link: addresses of %s: %w", l.bridge, err)
		}
		on := map[netip.Addr]bool{}
		for _, a := range have {
			if addr, ok := netip.AddrFromSlice(a.IP); ok {
				on[addr.Unmap()] = true
			}
		}
		for _, a := range addrs {
			if !on[a] {
				lost = append(lost, fmt.Sprintf("address %s of %s", a, l.bridge))
			}
		}
	}
	return append(lost, changed(l.nodeSettings())...), nil
}
