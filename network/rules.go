package network

import (
	"fmt"
	"net/netip"
	"strings"

	"keelson.dev/keelson/network/hostport"
	"keelson.dev/keelson/network/netfilter"
)

// nodeRules are the rules every node has, whatever its pods. pods is the pattern of the pod links' names.
func nodeRules(cfg Config, pods string) netfilter.Set {
	loop := netip.MustParsePrefix("127.0.0.0/8")
	multicast := netip.MustParsePrefix("224.0.0.0/4")
	accept := netfilter.To(netfilter.Accept)
	s := netfilter.Set{
		Chains: []netfilter.Chain{
			{Table: netfilter.Filter, Name: "FORWARD", Rules: []netfilter.Rule{
				{Match: netfilter.Match{In: pods}, Target: accept, Comment: "from pods"},
				{Match: netfilter.Match{Out: pods}, Target: accept, Comment: "to pods"},
			}},
			{Table: netfilter.Filter, Name: "INPUT", Rules: []netfilter.Rule{
				// The price of answering host ports on 127.0.0.1 is that pod links route loopback addresses; nobody else may use that.
				{Match: netfilter.Match{In: "lo", NotIn: true, Dst: loop,
					NotState: netfilter.Established | netfilter.Related | netfilter.DNATed}, Target: netfilter.To(netfilter.Drop),
					Comment: "loopback from outside"},
				{Match: netfilter.Match{In: pods}, Target: accept, Comment: "from pods"},
			}},
			{Table: netfilter.NAT, Name: "POSTROUTING", Rules: []netfilter.Rule{
				{Match: netfilter.Match{Src: cfg.PodCIDR, Dst: cfg.ClusterCIDR}, Target: netfilter.To(netfilter.Return)},
				{Match: netfilter.Match{Src: cfg.PodCIDR, Dst: multicast}, Target: netfilter.To(netfilter.Return)},
				{Match: netfilter.Match{Src: cfg.PodCIDR}, Target: netfilter.To(netfilter.Masquerade), Comment: "pods to the outside"},
			}},
		},
		Hooks: []netfilter.Hook{
			{Table: netfilter.Filter, Base: "FORWARD", Chain: "FORWARD"},
			{Table: netfilter.Filter, Base: "INPUT", Chain: "INPUT"},
			{Table: netfilter.NAT, Base: "POSTROUTING", Chain: "POSTROUTING"},
		},
	}
	if cfg.DNS.IsValid() {
		untracked(&s, cfg.DNS)
	}
	return s
}

// untracked keeps the cluster DNS out of connection tracking: parallel questions of one socket have no entry to race for, and a
// full table does not stop names from being found.
func untracked(s *netfilter.Set, addr netip.Addr) {
	at, off := netip.PrefixFrom(addr, addr.BitLen()), netfilter.To(netfilter.NoTrack)
	var in, out []netfilter.Rule
	for _, proto := range []string{"udp", "tcp"} {
		to := netfilter.Rule{Match: netfilter.Match{Dst: at, Proto: proto, DstPorts: netfilter.Port(53)}, Target: off, Comment: "cluster DNS"}
		from := netfilter.Rule{Match: netfilter.Match{Src: at, Proto: proto, SrcPorts: netfilter.Port(53)}, Target: off, Comment: "cluster DNS"}
		in, out = append(in, to), append(out, to, from)
	}
	s.Chains = append(s.Chains, netfilter.Chain{Table: netfilter.Raw, Name: "PREROUTING", Rules: in},
		netfilter.Chain{Table: netfilter.Raw, Name: "OUTPUT", Rules: out})
	s.Hooks = append(s.Hooks, netfilter.Hook{Table: netfilter.Raw, Base: "PREROUTING", Chain: "PREROUTING"},
		netfilter.Hook{Table: netfilter.Raw, Base: "OUTPUT", Chain: "OUTPUT"})
}

// mappings translates and checks a pod's host ports; those without a host port are left out.
func mappings(pod string, a netip.Addr, ports []PortMapping) ([]hostport.Mapping, error) {
	var out []hostport.Mapping
	for _, p := range ports {
		if p.HostPort == 0 {
			continue
		}
		m := hostport.Mapping{Proto: strings.ToLower(p.Protocol), Port: uint16(p.HostPort),
			Pod: netip.AddrPortFrom(a, uint16(p.ContainerPort)), Owner: pod}
		if m.Proto == "" {
			m.Proto = "tcp"
		}
		if m.Proto != "tcp" && m.Proto != "udp" && m.Proto != "sctp" {
			return nil, fmt.Errorf("network: host port %d: protocol %q: want TCP, UDP or SCTP", p.HostPort, p.Protocol)
		}
		if p.HostPort < 0 || p.HostPort > 65535 || p.ContainerPort < 1 || p.ContainerPort > 65535 {
			return nil, fmt.Errorf("network: host port %d to %d: want 1 to 65535", p.HostPort, p.ContainerPort)
		}
		if p.HostIP != "" {
			ip, err := netip.ParseAddr(p.HostIP)
			if err != nil {
				return nil, fmt.Errorf("network: host port %d: host IP: %w", p.HostPort, err)
			}
			if m.HostIP = ip.Unmap(); !m.HostIP.Is4() && !m.HostIP.IsUnspecified() {
				continue // IPv6 of a node whose pods have IPv4 only: nothing to map
			}
		}
		out = append(out, m)
	}
	return out, nil
}
