package policy

import (
	"cmp"
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	nf "keelson.dev/keelson/network/netfilter"
)

// allowed marks a packet that some policy lets pass; it is cleared before each pod's chain.
var allowed = nf.Mark{Value: 0x10000, Mask: 0x10000}

// Compile builds the ruleset. Without a policy that chooses a local pod it is empty.
func Compile(s State) nf.Set {
	c := compiler{s: s, chains: map[string][]nf.Rule{}}
	slices.SortFunc(c.s.Policies, func(a, b *networkingv1.NetworkPolicy) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	slices.SortFunc(c.s.Pods, func(a, b Pod) int { return a.Addr.Compare(b.Addr) })
	var dispatch []nf.Rule
	for _, p := range c.s.Pods {
		if p.Local {
			dispatch = append(dispatch, c.pod(p)...)
		}
	}
	if len(dispatch) == 0 {
		return nf.Set{}
	}
	c.chains["POD"] = append([]nf.Rule{{Match: nf.Match{State: nf.Established | nf.Related}, Target: nf.To(nf.Return)},
		{Match: nf.Match{Mark: nf.Answer, State: nf.Untracked}, Target: nf.To(nf.Return), Comment: "answers to probes"}}, dispatch...)
	out := nf.Set{Hooks: []nf.Hook{{Table: nf.Filter, Base: "FORWARD", Chain: "POD"}, {Table: nf.Filter, Base: "INPUT", Chain: "POD"}}}
	for name, rules := range c.chains {
		out.Chains = append(out.Chains, nf.Chain{Table: nf.Filter, Name: name, Rules: rules})
	}
	slices.SortFunc(out.Chains, func(a, b nf.Chain) int { return strings.Compare(a.Name, b.Name) })
	return out
}

type compiler struct {
	s      State
	chains map[string][]nf.Rule
}

// direction is a way of traffic, seen from the isolated pod: which address of a packet is the pod's, which the peer's.
type direction struct {
	kind string // of the pod's chain
	typ  networkingv1.PolicyType
	pod  func(m *nf.Match, p netip.Prefix)
	peer func(m *nf.Match, p netip.Prefix)
}

func source(m *nf.Match, p netip.Prefix) { m.Src = p }
func dest(m *nf.Match, p netip.Prefix)   { m.Dst = p }

var (
	egress  = direction{"O", networkingv1.PolicyTypeEgress, source, dest}
	ingress = direction{"I", networkingv1.PolicyTypeIngress, dest, source}
)

// pod makes the chains of one local pod, where policies isolate it, and returns the rules that lead there.
func (c *compiler) pod(p Pod) []nf.Rule {
	var out []nf.Rule
	for _, d := range []direction{egress, ingress} {
		var policies []string
		isolated := false
		for _, np := range c.s.Policies {
			if np.Namespace != p.Namespace || !applies(np, d.typ) || !(p.Unknown || matches(&np.Spec.PodSelector, p.Labels)) {
				continue
			}
			isolated = true
			if !p.Unknown {
				policies = append(policies, c.policy(np, d)...)
			}
		}
		if !isolated {
			continue
		}
		name := d.kind + "-" + hash(p.Namespace, p.Name, p.Addr.String())
		rules := []nf.Rule{{Target: nf.Target{Verb: nf.SetMark, Mark: nf.Mark{Mask: allowed.Mask}}}}
		for _, q := range policies {
			rules = append(rules, nf.Rule{Target: nf.JumpTo(q)})
		}
		c.chains[name] = append(rules, nf.Rule{Match: nf.Match{Mark: allowed}, Target: nf.To(nf.Return)},
			nf.Rule{Target: nf.To(nf.Drop), Comment: "not allowed"})
		m := nf.Match{}
		d.pod(&m, single(p.Addr))
		self := nf.Match{Src: single(p.Addr), Dst: single(p.Addr)} // through a Service, back to itself
		out = append(out, nf.Rule{Match: self, Target: nf.To(nf.Return)},
			nf.Rule{Match: m, Target: nf.JumpTo(name), Comment: p.Namespace + "/" + p.Name})
	}
	return out
}

func applies(np *networkingv1.NetworkPolicy, t networkingv1.PolicyType) bool {
	if len(np.Spec.PolicyTypes) > 0 {
		return slices.Contains(np.Spec.PolicyTypes, t)
	}
	return t == networkingv1.PolicyTypeIngress || len(np.Spec.Egress) > 0
}

// policy makes a policy's chains for one direction, once, and names them.
func (c *compiler) policy(np *networkingv1.NetworkPolicy, d direction) []string {
	var out []string
	add := func(i int, ports []networkingv1.NetworkPolicyPort, peers []networkingv1.NetworkPolicyPeer) {
		name := fmt.Sprintf("Q-%s", hash(np.Namespace, np.Name, d.kind, fmt.Sprint(i)))
		if _, ok := c.chains[name]; !ok {
			c.chains[name] = c.rule(np.Namespace, ports, peers, d, c.chosen(np))
		}
		out = append(out, name)
	}
	if d.kind == ingress.kind {
		for i, r := range np.Spec.Ingress {
			add(i, r.Ports, r.From)
		}
	} else {
		for i, r := range np.Spec.Egress {
			add(i, r.Ports, r.To)
		}
	}
	return out
}

// chosen lists the pods that a policy isolates: those whose named ports an ingress rule means.
func (c *compiler) chosen(np *networkingv1.NetworkPolicy) []Pod {
	var out []Pod
	for _, p := range c.s.Pods {
		if p.Local && !p.Unknown && p.Namespace == np.Namespace && matches(&np.Spec.PodSelector, p.Labels) {
			out = append(out, p)
		}
	}
	return out
}

// rule is one ingress or egress rule: any of the ports with any of the peers.
func (c *compiler) rule(ns string, ports []networkingv1.NetworkPolicyPort, peers []networkingv1.NetworkPolicyPeer, d direction, chosen []Pod) []nf.Rule {
	target := nf.Target{Verb: nf.SetMark, Mark: allowed} // no peers: everybody
	targets := []nf.Target{target}
	named := chosen
	if len(peers) > 0 {
		targets = nil
		for _, p := range peers {
			targets = append(targets, nf.JumpTo(c.peers(ns, p, d)))
		}
	}
	if d.kind == egress.kind {
		named = c.s.Pods // a named port is the peer's own
	}
	var out []nf.Rule
	for _, m := range portMatches(ports, named) {
		for _, t := range targets {
			out = append(out, nf.Rule{Match: m, Target: t})
		}
	}
	return out
}

// portMatches lists what a rule's ports match; no ports match everything. A named port is looked up in the pods it may mean.
func portMatches(ports []networkingv1.NetworkPolicyPort, named []Pod) []nf.Match {
	if len(ports) == 0 {
		return []nf.Match{{}}
	}
	var out []nf.Match
	for _, p := range ports {
		m := nf.Match{Proto: "tcp"}
		if p.Protocol != nil {
			m.Proto = strings.ToLower(string(*p.Protocol))
		}
		switch {
		case p.Port == nil:
			out = append(out, m)
		case p.Port.StrVal != "":
			for _, pod := range named {
				for _, np := range pod.Ports {
					if np.Name == p.Port.StrVal && np.Proto == m.Proto {
						one := m
						one.Dst, one.DstPorts = single(pod.Addr), nf.Port(np.Number)
						out = append(out, one)
					}
				}
			}
		default:
			m.DstPorts = nf.Port(uint16(p.Port.IntVal))
			if p.EndPort != nil {
				m.DstPorts.To = uint16(*p.EndPort)
			}
			out = append(out, m)
		}
	}
	return out
}

// peers makes the chain that marks packets of one peer entry, shared by all that say the same.
func (c *compiler) peers(ns string, p networkingv1.NetworkPolicyPeer, d direction) string {
	if p.IPBlock != nil {
		return c.block(p.IPBlock, d)
	}
	spaces := "=" + ns
	if p.NamespaceSelector != nil {
		spaces = metav1.FormatLabelSelector(p.NamespaceSelector)
	}
	pods := "*"
	if p.PodSelector != nil {
		pods = metav1.FormatLabelSelector(p.PodSelector)
	}
	name := "S-" + hash(d.kind, spaces, pods)
	if _, ok := c.chains[name]; ok {
		return name
	}
	rules := []nf.Rule{}
	for _, pod := range c.s.Pods {
		in := pod.Namespace == ns
		if p.NamespaceSelector != nil {
			in = matches(p.NamespaceSelector, c.s.Namespaces[pod.Namespace])
		}
		if !in || pod.Unknown || (p.PodSelector != nil && !matches(p.PodSelector, pod.Labels)) {
			continue
		}
		m := nf.Match{}
		d.peer(&m, single(pod.Addr))
		rules = append(rules, nf.Rule{Match: m, Target: nf.Target{Verb: nf.SetMark, Mark: allowed}})
	}
	c.chains[name] = rules
	return name
}

func (c *compiler) block(b *networkingv1.IPBlock, d direction) string {
	name := "S-" + hash(append([]string{d.kind, "block", b.CIDR}, b.Except...)...)
	if _, ok := c.chains[name]; ok {
		return name
	}
	rules := []nf.Rule{}
	add := func(cidr string, t nf.Target) {
		p, err := netip.ParsePrefix(cidr)
		if err != nil || !p.Addr().Is4() {
			return // IPv6: no packet here has such an address
		}
		m := nf.Match{}
		d.peer(&m, p.Masked())
		rules = append(rules, nf.Rule{Match: m, Target: t})
	}
	for _, e := range b.Except {
		add(e, nf.To(nf.Return))
	}
	add(b.CIDR, nf.Target{Verb: nf.SetMark, Mark: allowed})
	c.chains[name] = rules
	return name
}

// matches evaluates a selector; one that cannot be read matches nothing.
func matches(s *metav1.LabelSelector, set labels.Set) bool {
	sel, err := metav1.LabelSelectorAsSelector(s)
	return err == nil && sel.Matches(set)
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

func hash(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:])[:13]
}
