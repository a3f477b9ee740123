package conntrack

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"keelson.dev/keelson/proxy/model"
)

// Expect is what UDP connections may look like: where a destination may be translated to.
type Expect struct {
	byAddr map[netip.AddrPort]map[netip.AddrPort]bool
	byPort map[uint16]map[netip.AddrPort]bool // node ports, on any address
}

// For builds it from the ports that exist now, and from those that existed before the change: their destinations are ours to judge.
func For(now, before []model.Port) Expect {
	e := Expect{map[netip.AddrPort]map[netip.AddrPort]bool{}, map[uint16]map[netip.AddrPort]bool{}}
	for _, p := range before {
		e.add(p, false)
	}
	for _, p := range now {
		e.add(p, true)
	}
	return e
}

func (e Expect) add(p model.Port, serves bool) {
	if p.Proto != "udp" {
		return
	}
	dests := append([]netip.Addr{p.ClusterIP}, p.External...)
	for _, a := range append(dests, p.Balancer...) {
		at := netip.AddrPortFrom(a, p.Port)
		if e.byAddr[at] == nil {
			e.byAddr[at] = map[netip.AddrPort]bool{}
		}
		allow(e.byAddr[at], p, serves)
	}
	if p.NodePort != 0 {
		if e.byPort[p.NodePort] == nil {
			e.byPort[p.NodePort] = map[netip.AddrPort]bool{}
		}
		allow(e.byPort[p.NodePort], p, serves)
	}
}

func allow(to map[netip.AddrPort]bool, p model.Port, serves bool) {
	if !serves {
		return
	}
	for _, list := range [][]netip.AddrPort{p.Internal, p.Cluster, p.Local} {
		for _, ep := range list {
			to[ep] = true
		}
	}
}

// Empty tells whether there is nothing to judge.
func (e Expect) Empty() bool { return len(e.byAddr)+len(e.byPort) == 0 }

// Stale decides one connection: dst is where the client sends, server is who answers.
func (e Expect) Stale(dst, server netip.AddrPort) bool {
	to, ours := e.byAddr[dst]
	if !ours {
		if to, ours = e.byPort[dst.Port()]; !ours || server.Port() == 0 {
			return false
		}
		// A node port lies on the node's addresses only. Somebody else's connection to the same port number elsewhere is
		// translated to nobody; ending it would cost that sender nothing but a new entry, and is avoided for what is untranslated
		// while the port has nobody to serve it.
		if dst == server && len(to) == 0 {
			return false
		}
	}
	return !to[server]
}

// Table is the kernel's connection table.
type Table struct{}

// Clean ends the stale connections and says how many they were.
func (Table) Clean(e Expect) (uint, error) {
	if e.Empty() {
		return 0, nil
	}
	n, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, e)
	if err != nil {
		return n, fmt.Errorf("conntrack: %w", err)
	}
	return n, nil
}

// MatchConntrackFlow is asked by the netlink library for each connection.
func (e Expect) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	if f.Forward.Protocol != unix.IPPROTO_UDP {
		return false
	}
	return e.Stale(at(f.Forward.DstIP, f.Forward.DstPort), at(f.Reverse.SrcIP, f.Reverse.SrcPort))
}

func at(ip net.IP, port uint16) netip.AddrPort {
	a, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(a.Unmap(), port)
}
