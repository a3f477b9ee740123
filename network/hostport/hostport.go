package hostport

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"keelson.dev/keelson/network/netfilter"
)

// Mapping sends a port of the node to a port of a pod.
type Mapping struct {
	Proto  string     // tcp, udp or sctp
	HostIP netip.Addr // unspecified or invalid: every address of the node
	Port   uint16
	Pod    netip.AddrPort
	Owner  string // "namespace/pod", for people
}

// masq marks packets that must leave with an address of the node; the bit that kube-proxy uses for the same.
var masq = netfilter.Mark{Value: 0x4000, Mask: 0x4000}

// Conflict says which of have already holds a port that m wants; "" when none does.
func Conflict(have []Mapping, m Mapping) string {
	for _, h := range have {
		if h.Proto == m.Proto && h.Port == m.Port && (h.any() || m.any() || h.HostIP == m.HostIP) {
			return fmt.Sprintf("host port %s/%d is held by pod %s", m.Proto, m.Port, h.Owner)
		}
	}
	return ""
}

func (m Mapping) any() bool { return !m.HostIP.IsValid() || m.HostIP.IsUnspecified() }

// Rules is the ruleset for the mappings: an empty one has no hooks.
func Rules(ms []Mapping) netfilter.Set {
	if len(ms) == 0 {
		return netfilter.Set{}
	}
	ms = slices.Clone(ms)
	slices.SortFunc(ms, func(a, b Mapping) int {
		// A mapping of one address goes before that of all addresses, which would take its packets.
		anyA, anyB := strconv.FormatBool(a.any()), strconv.FormatBool(b.any())
		return cmp.Or(cmp.Compare(anyA, anyB), cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Port, b.Port), a.HostIP.Compare(b.HostIP))
	})
	s := netfilter.Set{}
	var ports []netfilter.Rule
	for _, m := range ms {
		name := fmt.Sprintf("%s-%d", m.Proto, m.Port)
		if !m.any() {
			v := m.HostIP.As16()
			name = fmt.Sprintf("%.1s%d-%x", m.Proto, m.Port, v[12:])
		}
		to := netfilter.Match{Proto: m.Proto, DstPorts: netfilter.Port(m.Port), DstLocal: netfilter.Yes}
		if !m.any() {
			to.Dst = netip.PrefixFrom(m.HostIP, m.HostIP.BitLen())
		}
		ports = append(ports, netfilter.Rule{Match: to, Target: netfilter.JumpTo(name), Comment: m.Owner})
		mark := netfilter.Target{Verb: netfilter.SetMark, Mark: masq}
		s.Chains = append(s.Chains, netfilter.Chain{Table: netfilter.NAT, Name: name, Rules: []netfilter.Rule{
			{Match: netfilter.Match{Src: netip.PrefixFrom(m.Pod.Addr(), m.Pod.Addr().BitLen())}, Target: mark},
			{Match: netfilter.Match{Src: netip.MustParsePrefix("127.0.0.0/8")}, Target: mark},
			{Match: netfilter.Match{Proto: m.Proto}, Target: netfilter.Target{Verb: netfilter.DNAT, To: m.Pod}},
		}})
	}
	s.Chains = append(s.Chains,
		netfilter.Chain{Table: netfilter.NAT, Name: "PORTS", Rules: ports},
		netfilter.Chain{Table: netfilter.NAT, Name: "MASQ", Rules: []netfilter.Rule{
			{Match: netfilter.Match{Mark: masq}, Target: netfilter.To(netfilter.Masquerade)},
		}})
	s.Hooks = []netfilter.Hook{
		{Table: netfilter.NAT, Base: "PREROUTING", Chain: "PORTS"},
		{Table: netfilter.NAT, Base: "OUTPUT", Chain: "PORTS"},
		{Table: netfilter.NAT, Base: "POSTROUTING", Chain: "MASQ"},
	}
	return s
}
