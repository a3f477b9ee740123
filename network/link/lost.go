package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// The numbers of linux/rtnetlink.h and linux/netconf.h that unix lacks.
const (
	newNetconf        = 80 // RTM_NEWNETCONF
	netconfForwarding = 2  // NETCONFA_FORWARDING
)

// A Removal is what the kernel tells went: a link by its name (or it was turned off), an address, the target of a route. The zero
// value may be anything.
type Removal struct {
	Link   string
	Target netip.Prefix
}

// Watch calls removed for what goes from the network namespace of the calling thread, whoever removes it, until its closer is
// closed; then done tells. Nothing is asked again and again.
func Watch(removed func(Removal)) (closer func(), done <-chan error, err error) {
	sock, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_NETCONF)
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
	var skip int
	var want uint16
	switch kind {
	case unix.RTM_DELLINK, unix.RTM_NEWLINK:
		skip, want = unix.SizeofIfInfomsg, unix.IFLA_IFNAME
		if kind == unix.RTM_NEWLINK && (len(data) < skip || nl.DeserializeIfInfomsg(data).Flags&unix.IFF_UP != 0) {
			return Removal{}, false
		}
	case unix.RTM_DELADDR:
		skip, want = unix.SizeofIfAddrmsg, unix.IFA_LOCAL
	case unix.RTM_DELROUTE:
		skip, want = unix.SizeofRtMsg, unix.RTA_DST
	case newNetconf:
		skip, want = 4, netconfForwarding // struct netconfmsg, aligned
	default:
		return Removal{}, false
	}
	if len(data) < skip {
		return Removal{}, false
	}
	attrs, err := nl.ParseRouteAttr(data[skip:])
	if err != nil {
		return Removal{}, true
	}
	for _, a := range attrs {
		if a.Attr.Type != want {
			continue
		}
		switch kind {
		case newNetconf:
			return Removal{}, len(a.Value) >= 4 && nl.NativeEndian().Uint32(a.Value) == 0
		case unix.RTM_DELLINK, unix.RTM_NEWLINK:
			return Removal{Link: unix.ByteSliceToString(a.Value)}, true
		}
		if addr, ok := netip.AddrFromSlice(a.Value); ok {
			bits := addr.BitLen()
			if kind == unix.RTM_DELROUTE {
				bits = int(data[1]) // rtm_dst_len
			}
			return Removal{Target: netip.PrefixFrom(addr, bits)}, true
		}
	}
	return Removal{}, false // the default route's, which has no target
}

// Lost is what is missing of the node's own (in words), and of the pods' ends: gone, or there but off or without its route.
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
	for name, pod := range ends {
		dev := links[name]
		if dev == nil {
			lost.Gone = append(lost.Gone, name)
		} else if at, is := through[host(pod).String()]; !is || at != dev.Index || dev.Flags&net.FlagUp == 0 {
			lost.Loose = append(lost.Loose, name)
		}
	}
	return lost, nil
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
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
	if err == nil && strings.TrimSpace(string(b)) == "0" {
		lost = append(lost, "net.ipv4.ip_forward=1")
	}
	return lost, nil
}
