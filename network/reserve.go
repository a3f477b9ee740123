package network

import (
	"context"
	"net/netip"

	nf "keelson.dev/keelson/network/netfilter"
)

// HostMark is what connections that the node's own programs begin to its pods (probes) may have as their mark (SO_MARK): the reserve is
// for them too.
var HostMark = int(nf.Answer.Value)

// Reserve keeps what the node lives by out of connection tracking while the table is nearly full: a table that is full drops whatever would need
// a new entry. Its own API and kubelet ([Config.Reserved]) are answered to other machines and to itself, and its probes reach its pods.
//
// It is not on always: packets that nobody tracks are no part of a firewall's "established", and not its "new" either, so an
// administrator's rules may stop new connections of that kind. Where the table is full those would be stopped anyway; packets of
// connections that exist are let in by us.
func (n *Network) Reserve(ctx context.Context, on bool) error {
	if !on {
		return n.cfg.Filter.Apply(ctx, nf.Reserve, nf.Set{})
	}
	err := n.cfg.Filter.Apply(ctx, nf.Reserve, reserveRules(n.cfg, n.links.Pattern(), true))
	if err != nil && ctx.Err() == nil { // a kernel that cannot look for the socket of a packet
		n.cfg.Log.Warn("probes have no reserve of connections", "error", err)
		err = n.cfg.Filter.Apply(ctx, nf.Reserve, reserveRules(n.cfg, n.links.Pattern(), false))
	}
	return err
}

// reserveRules leave tracked whatever may have been translated: an answer of the API server to a pod, or to the node's own address, can
// belong to a connection that came through the Service "kubernetes", and nothing in the packet tells.
func reserveRules(cfg Config, pods string, probes bool) nf.Set {
	loop := netip.MustParsePrefix("127.0.0.0/8")
	off, accept := nf.To(nf.NoTrack), nf.To(nf.Accept)
	var in, out, let, answer []nf.Rule
	if probes {
		in = []nf.Rule{
			{Match: nf.Match{In: pods, Proto: "tcp", SYN: nf.No, DstLocal: nf.Yes}, Target: nf.To(nf.SocketMark)},
			{Match: nf.Match{In: pods, Proto: "tcp", DstLocal: nf.Yes, Mark: nf.Answer}, Target: off, Comment: "answers to probes"},
		}
		out = []nf.Rule{{Match: nf.Match{Dst: cfg.PodCIDR, Proto: "tcp", Mark: nf.Answer}, Target: off, Comment: "probes"}}
	}
	for _, port := range cfg.Reserved {
		to, from := nf.Match{Proto: "tcp", DstPorts: nf.Port(port)}, nf.Match{Proto: "tcp", SrcPorts: nf.Port(port)}
		outside := to
		outside.In, outside.NotIn, outside.Src, outside.NotSrc, outside.DstLocal = "lo", true, cfg.ClusterCIDR, true, nf.Yes
		in = append(in, nf.Rule{Match: outside, Target: off})
		back := from
		back.Dst, back.NotDst, back.SrcLocal, back.DstLocal = cfg.ClusterCIDR, true, nf.Yes, nf.No
		out = append(out, nf.Rule{Match: back, Target: off})
		for _, m := range []nf.Match{to, from} {
			m.Src, m.Dst = loop, loop
			out = append(out, nf.Rule{Match: m, Target: off})
		}
		to.State, to.SYN, to.DstLocal = nf.Untracked, nf.No, nf.Yes
		from.State, from.SYN, from.SrcLocal = nf.Untracked, nf.No, nf.Yes
		let, answer = append(let, nf.Rule{Match: to, Target: accept}), append(answer, nf.Rule{Match: from, Target: accept})
	}
	return nf.Set{
		Chains: []nf.Chain{{Table: nf.Raw, Name: "PREROUTING", Rules: in}, {Table: nf.Raw, Name: "OUTPUT", Rules: out},
			{Table: nf.Filter, Name: "INPUT", Rules: let}, {Table: nf.Filter, Name: "OUTPUT", Rules: answer}},
		Hooks: []nf.Hook{{Table: nf.Raw, Base: "PREROUTING", Chain: "PREROUTING"}, {Table: nf.Raw, Base: "OUTPUT", Chain: "OUTPUT"},
			{Table: nf.Filter, Base: "INPUT", Chain: "INPUT"}, {Table: nf.Filter, Base: "OUTPUT", Chain: "OUTPUT"}},
	}
}
