package rules

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	nf "keelson.dev/keelson/network/netfilter"
)

// bucketMask picks the destination bits by which addresses are spread over dispatch chains: with 10,000 Services a
// packet meets 64 + 80 rules on average instead of 5,000, and a change rewrites 160 lines.
const bucketMask = 0x3f

// Table is the ruleset of all ports. It remembers the parts that did not change, so that Set costs what did.
type Table struct {
	c       Cluster
	ports   map[string]Port
	buckets map[string]map[string][]nf.Rule // bucket chain -> port id -> rules
	chains  map[string]nf.Chain             // bucket chains as last built
	stale   map[string]bool                 // buckets to build anew
	node    [2][]nf.Rule                    // NODEPORTS and its refusals, as last built
	nodeOld bool
	local   map[netip.Addr]int // endpoints on this node -> ports that have them
	virtual map[netip.Addr]int // load balancer addresses -> ports that have them
	masq    []nf.Rule          // MASQ as last built
	masqOld bool
}

// NewTable returns an empty one.
func NewTable(c Cluster) *Table {
	return &Table{c: c, ports: map[string]Port{}, buckets: map[string]map[string][]nf.Rule{}, chains: map[string]nf.Chain{},
		stale: map[string]bool{}, nodeOld: true, local: map[netip.Addr]int{}, masqOld: true, virtual: map[netip.Addr]int{}}
}

// Put makes p the part of the port called id; a p without anything removes it.
func (t *Table) Put(id string, p Port) {
	old := t.ports[id]
	t.unlist(id, "B", old.entries)
	t.unlist(id, "R", old.refuse)
	t.masqOld = count(t.local, old.local, -1) || t.masqOld
	t.masqOld = count(t.local, p.local, 1) || t.masqOld
	count(t.virtual, old.virtual, -1)
	count(t.virtual, p.virtual, 1)
	t.nodeOld = t.nodeOld || len(old.node)+len(p.node)+len(old.noNode)+len(p.noNode) > 0
	delete(t.ports, id)
	if len(p.Chains)+len(p.entries)+len(p.refuse)+len(p.node)+len(p.noNode)+len(p.local) == 0 {
		return
	}
	t.ports[id] = p
	t.list(id, "B", p.entries)
	t.list(id, "R", p.refuse)
}

// count adds to how many ports have each address, and tells whether addresses came or went.
func count(have map[netip.Addr]int, addrs []netip.Addr, by int) (changed bool) {
	for _, a := range addrs {
		was := have[a]
		if have[a] += by; have[a] == 0 {
			delete(have, a)
		}
		changed = changed || was == 0 || have[a] == 0
	}
	return changed
}

func (t *Table) unlist(id, kind string, es []entry) {
	for _, e := range es {
		b := bucketName(kind, e.addr)
		delete(t.buckets[b], id)
		t.stale[b] = true
	}
}

func (t *Table) list(id, kind string, es []entry) {
	for _, e := range es {
		b := bucketName(kind, e.addr)
		if t.buckets[b] == nil {
			t.buckets[b] = map[string][]nf.Rule{}
		}
		t.buckets[b][id] = append(t.buckets[b][id], e.rule)
		t.stale[b] = true
	}
}

// Set is the whole ruleset. Chains that did not change have the very slices of the last call.
func (t *Table) Set() nf.Set {
	t.build()
	s := nf.Set{}
	for _, id := range slices.Sorted(maps.Keys(t.ports)) {
		s.Chains = append(s.Chains, t.ports[id].Chains...)
	}
	for _, b := range slices.Sorted(maps.Keys(t.chains)) {
		s.Chains = append(s.Chains, t.chains[b])
	}
	s.Chains = append(s.Chains, t.fixed()...)
	for _, h := range []struct {
		table nf.Table
		base  string
		chain string
	}{
		{nf.NAT, "PREROUTING", "SERVICES"}, {nf.NAT, "OUTPUT", "SERVICES"}, {nf.NAT, "POSTROUTING", "MASQ"},
		{nf.Filter, "FORWARD", "FORWARD"}, {nf.Filter, "INPUT", "REFUSE"}, {nf.Filter, "OUTPUT", "REFUSE"},
	} {
		s.Hooks = append(s.Hooks, nf.Hook{Table: h.table, Base: h.base, Chain: h.chain})
	}
	return s
}

func (t *Table) build() {
	for b := range t.stale {
		table := nf.NAT
		if b[0] == 'R' {
			table = nf.Filter
		}
		var rules []nf.Rule
		for _, id := range slices.Sorted(maps.Keys(t.buckets[b])) {
			rules = append(rules, t.buckets[b][id]...)
		}
		if delete(t.chains, b); len(rules) > 0 {
			t.chains[b] = nf.Chain{Table: table, Name: b, Rules: rules}
		}
	}
	t.stale = map[string]bool{}
	if t.masqOld {
		t.masq = []nf.Rule{{Match: nf.Match{Mark: masq}, Target: nf.To(nf.Masquerade)}}
		for _, a := range slices.SortedFunc(maps.Keys(t.local), netip.Addr.Compare) {
			t.masq = append(t.masq, nf.Rule{Match: nf.Match{Src: host(a), Dst: host(a), State: nf.DNATed}, Target: nf.To(nf.Masquerade)})
		}
		t.masqOld = false
	}
	if !t.nodeOld {
		return
	}
	t.node = [2][]nf.Rule{}
	for _, id := range slices.Sorted(maps.Keys(t.ports)) {
		t.node[0] = append(t.node[0], t.ports[id].node...)
		t.node[1] = append(t.node[1], t.ports[id].noNode...)
	}
	t.nodeOld = false
}

// fixed are the chains that exist whatever Services there are.
func (t *Table) fixed() []nf.Chain {
	services := append(t.jumps("B"), nf.Rule{Match: nf.Match{DstLocal: nf.Yes}, Target: nf.JumpTo("NODEPORTS")})
	refuse := append([]nf.Rule{{Match: nf.Match{NotState: nf.New}, Target: nf.To(nf.Return)}}, t.jumps("R")...)
	refuse = append(refuse, nf.Rule{Match: nf.Match{DstLocal: nf.Yes}, Target: nf.JumpTo("NONODEPORTS")})
	if t.c.Services.IsValid() {
		// An address of a Service is nowhere but in these rules: what came past them would leave by the default route.
		refuse = append(refuse, deny(t.c.Services)...)
	}
	for _, a := range slices.SortedFunc(maps.Keys(t.virtual), netip.Addr.Compare) { // ports that no Service has
		refuse = append(refuse, deny(host(a))...)
	}
	accept := nf.To(nf.Accept)
	return []nf.Chain{
		{Table: nf.NAT, Name: "SERVICES", Rules: services},
		{Table: nf.NAT, Name: "NODEPORTS", Rules: t.node[0]},
		{Table: nf.NAT, Name: "MASQ", Rules: t.masq},
		{Table: nf.Filter, Name: "REFUSE", Rules: refuse},
		{Table: nf.Filter, Name: "NONODEPORTS", Rules: t.node[1]},
		{Table: nf.Filter, Name: "FORWARD", Rules: []nf.Rule{
			// A late packet that conntrack no longer knows would arrive untranslated and reset the connection at its other end.
			{Match: nf.Match{State: nf.Invalid}, Target: nf.To(nf.Drop)},
			{Target: nf.JumpTo("REFUSE")},
			{Match: nf.Match{Mark: masq}, Target: accept},
			{Match: nf.Match{Dst: t.c.Pods, State: nf.Established | nf.Related}, Target: accept},
			{Match: nf.Match{Src: t.c.Pods, State: nf.Established | nf.Related}, Target: accept},
		}},
	}
}

// deny refuses whatever is sent to addresses that nobody has.
func deny(to netip.Prefix) []nf.Rule {
	return []nf.Rule{{Match: nf.Match{Dst: to, DstLocal: nf.No, Proto: "tcp"}, Target: no}, {Match: nf.Match{Dst: to, DstLocal: nf.No}, Target: no}}
}

// jumps leads to the bucket chains that exist.
func (t *Table) jumps(kind string) []nf.Rule {
	var out []nf.Rule
	for i := range uint32(bucketMask + 1) {
		if name := fmt.Sprintf("%s-%02d", kind, i); t.chains[name].Name != "" {
			out = append(out, nf.Rule{Match: nf.Match{DstBits: nf.Bits{Value: i, Mask: bucketMask}}, Target: nf.JumpTo(name)})
		}
	}
	return out
}
