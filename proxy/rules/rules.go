package rules

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"net/netip"
	"strings"

	nf "keelson.dev/keelson/network/netfilter"
	"keelson.dev/keelson/proxy/model"
)

// masq marks packets that must leave with an address of the node; the bit is kube-proxy's.
var masq = nf.Mark{Value: 0x4000, Mask: 0x4000}

// Cluster is what the rules must know beyond Services.
type Cluster struct {
	Pods     netip.Prefix // all pod addresses: connections from elsewhere to a cluster IP are masqueraded
	Services netip.Prefix // an address in it that no Service has is refused; zero: not done
}

// Port is a port's part of the ruleset: its own chains, and the entries that lead to them.
type Port struct {
	Chains  []nf.Chain
	entries []entry // nat: dispatch by address
	refuse  []entry // filter: dispatch by address
	node    []nf.Rule
	noNode  []nf.Rule
	local   []netip.Addr // endpoints on this node: they may be reached by themselves
	virtual []netip.Addr // load balancer addresses: on no interface, so that other ports of them lead nowhere
}

// entry is a rule for one destination address.
type entry struct {
	addr netip.Addr
	rule nf.Rule
}

// ForPort builds one port's part.
func ForPort(p model.Port, c Cluster) Port {
	b := &builder{p: p, c: c, hash: hash(p.Key.String(), p.Proto), comment: p.Key.String()}
	b.internal()
	b.external()
	b.out.virtual = p.Balancer
	for _, ep := range p.Local {
		b.out.local = append(b.out.local, ep.Addr())
	}
	return b.out
}

type builder struct {
	p       model.Port
	c       Cluster
	hash    string
	comment string
	out     Port
	made    map[netip.AddrPort]bool // endpoint chains
}

func (b *builder) name(kind string) string { return kind + "-" + b.hash }

func (b *builder) chain(name string, rules []nf.Rule) {
	b.out.Chains = append(b.out.Chains, nf.Chain{Table: nf.NAT, Name: name, Rules: rules})
}

func mark() nf.Target { return nf.Target{Verb: nf.SetMark, Mark: masq} }

// to matches packets to an address and the port.
func (b *builder) to(a netip.Addr) nf.Match {
	return nf.Match{Dst: host(a), Proto: b.p.Proto, DstPorts: nf.Port(b.p.Port)}
}

// internal serves the cluster IP.
func (b *builder) internal() {
	match := b.to(b.p.ClusterIP)
	if len(b.p.Internal) == 0 {
		b.refuse(b.p.ClusterIP, match, len(b.p.Cluster) > 0)
		return
	}
	rules := []nf.Rule{{Match: nf.Match{Src: b.c.Pods, NotSrc: true}, Target: mark()}}
	b.chain(b.name("I"), append(rules, b.spread(b.p.Internal)...))
	b.lead(b.p.ClusterIP, match, "I")
}

func (b *builder) lead(a netip.Addr, m nf.Match, kind string) {
	b.out.entries = append(b.out.entries, entry{a, nf.Rule{Match: m, Target: nf.JumpTo(b.name(kind)), Comment: b.comment}})
}

// refuse answers new connections to a destination: no for a port without endpoints, silence where only this node has none.
func (b *builder) refuse(a netip.Addr, m nf.Match, silent bool) {
	b.out.refuse = append(b.out.refuse, entry{a, nf.Rule{Match: m, Target: refusal(silent), Comment: b.comment}})
}

func refusal(silent bool) nf.Target {
	if silent {
		return nf.To(nf.Drop)
	}
	return no
}

// no answers TCP with a reset: the kernel sends ICMP errors to one host once a second only, so that a client that tries more often
// would wait for its timeout instead.
var no = nf.Target{Verb: nf.Reject, Reset: true}

// external serves node port, external and load balancer addresses.
func (b *builder) external() {
	p := b.p
	if p.NodePort == 0 && len(p.External)+len(p.Balancer) == 0 {
		return
	}
	usable := len(p.Cluster) > 0 || (p.ExternalLocal && len(p.Local) > 0)
	if usable {
		b.chain(b.name("X"), b.entrance())
	}
	nodePort := nf.Match{Proto: p.Proto, DstPorts: nf.Port(p.NodePort)}
	if p.NodePort != 0 && usable {
		b.out.node = append(b.out.node, nf.Rule{Match: nodePort, Target: nf.JumpTo(b.name("X")), Comment: b.comment})
	}
	// What reaches filter untranslated found no endpoint here.
	silent := p.ExternalLocal && p.Anywhere
	lost := !usable || (p.ExternalLocal && len(p.Local) == 0)
	if p.NodePort != 0 && lost {
		b.out.noNode = append(b.out.noNode, nf.Rule{Match: nodePort, Target: refusal(silent), Comment: b.comment})
	}
	for _, a := range p.External {
		b.address(a, usable, lost, silent)
	}
	for _, a := range p.Balancer {
		if len(p.Sources) == 0 {
			b.address(a, usable, lost, silent)
			continue
		}
		for _, src := range p.Sources {
			m := b.to(a)
			m.Src = src
			if usable {
				b.lead(a, m, "X")
			}
		}
		b.refuse(a, b.to(a), usable)
	}
}

func (b *builder) address(a netip.Addr, usable, lost, silent bool) {
	if usable {
		b.lead(a, b.to(a), "X")
	}
	if lost {
		b.refuse(a, b.to(a), silent)
	}
}

// entrance is the chain of connections from outside. Under Local the client's address is kept and only this node's endpoints serve;
// pods and the node itself reach all endpoints even so, as if they had used the cluster IP.
func (b *builder) entrance() []nf.Rule {
	p := b.p
	if len(p.Cluster) > 0 {
		b.chain(b.name("C"), b.spread(p.Cluster))
	}
	if !p.ExternalLocal {
		return []nf.Rule{{Target: mark()}, {Target: nf.JumpTo(b.name("C"))}}
	}
	var rules []nf.Rule
	if len(p.Cluster) > 0 {
		rules = append(rules,
			nf.Rule{Match: nf.Match{Src: b.c.Pods}, Target: nf.JumpTo(b.name("C"))},
			nf.Rule{Match: nf.Match{SrcLocal: nf.Yes}, Target: mark()},
			nf.Rule{Match: nf.Match{SrcLocal: nf.Yes}, Target: nf.JumpTo(b.name("C"))})
	}
	if len(p.Local) > 0 {
		b.chain(b.name("L"), b.spread(p.Local))
		rules = append(rules, nf.Rule{Target: nf.JumpTo(b.name("L"))})
	}
	return rules
}

// spread sends a connection to one of the endpoints: the one the client used before, under affinity, or any with equal chance.
func (b *builder) spread(eps []netip.AddrPort) []nf.Rule {
	var rules []nf.Rule
	if b.p.Affinity > 0 {
		for _, ep := range eps {
			b.endpoint(ep)
			rules = append(rules, nf.Rule{Target: nf.JumpTo(b.endpointName(ep)), Match: nf.Match{
				Recent: nf.Recent{List: b.list(ep), Seconds: int(b.p.Affinity.Seconds())}}})
		}
	}
	for i, ep := range eps {
		m, to := nf.Match{Proto: b.p.Proto}, nf.Target{Verb: nf.DNAT, To: ep}
		if b.p.Affinity > 0 {
			to = nf.JumpTo(b.endpointName(ep))
		}
		if left := len(eps) - i; left > 1 {
			m.Probability = 1 / float64(left)
		}
		rules = append(rules, nf.Rule{Match: m, Target: to})
	}
	return rules
}

func (b *builder) endpointName(ep netip.AddrPort) string {
	return "E-" + hash(b.p.Key.String(), b.p.Proto, ep.String())
}

func (b *builder) list(ep netip.AddrPort) string { return "KEELSON-" + b.endpointName(ep) }

// endpoint makes the chain that remembers the client and translates, for a port with affinity.
func (b *builder) endpoint(ep netip.AddrPort) {
	if b.made[ep] {
		return
	}
	if b.made == nil {
		b.made = map[netip.AddrPort]bool{}
	}
	b.made[ep] = true
	b.chain(b.endpointName(ep), []nf.Rule{
		{Match: nf.Match{Proto: b.p.Proto, Recent: nf.Recent{List: b.list(ep), Set: true}}, Target: nf.Target{Verb: nf.DNAT, To: ep}},
	})
}

func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// hash is 13 letters and digits: enough that no two of a cluster's ports meet.
func hash(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:])[:13]
}

func bucketName(kind string, a netip.Addr) string {
	v := a.As4()
	return fmt.Sprintf("%s-%02d", kind, v[3]&bucketMask)
}
