package netfilter

import (
	"fmt"
	"slices"
	"strings"
)

// plan is one transaction: the input of iptables-restore and what the kernel holds once it is through.
type plan struct {
	text    string
	applied map[key][]string // chains written
	removed []key
	based   []key // built-in chains that are hooked afterwards
}

// rootOrder sorts the chains that a root calls by the order of their owners and, inside one owner, leaves them as they are.
func (n names) rootOrder(chains []string) []string {
	rank := func(full string) int {
		i := slices.Index(Owners(), n.owner(full))
		if i < 0 {
			i = len(Owners())
		}
		return i
	}
	slices.SortStableFunc(chains, func(a, b string) int { return rank(a) - rank(b) })
	return chains
}

// change is what Apply hands to diff: the chains wanted and the chains to go, by full name. Chains in neither stay.
type change struct {
	want   map[key][]string
	remove []key
}

// diff writes the transaction that turns have (the chains as we last wrote them; k for what only the kernel knows) into c.
// The tables come in the order filter first: a new accept may exist before its DNAT, not after.
func (n names) diff(k kernel, have map[key][]string, c change) plan {
	p := plan{applied: map[key][]string{}}
	var b strings.Builder
	for _, t := range []Table{Filter, Raw, Mangle, NAT} {
		n.diffTable(&b, &p, t, k, have, c)
	}
	p.text = b.String()
	return p
}

func (n names) diffTable(b *strings.Builder, p *plan, t Table, k kernel, have map[key][]string, c change) {
	var write, drop []key
	for at, want := range c.want {
		if old, ok := have[at]; at.table == t && !(ok && slices.Equal(old, want)) {
			write = append(write, at)
		}
	}
	for _, at := range c.remove {
		if at.table == t && c.want[at] == nil {
			drop = append(drop, at)
		}
	}
	slices.SortFunc(write, byName)
	slices.SortFunc(drop, byName)
	base := n.unhooked(t, k, c)
	if len(write)+len(drop)+len(base) == 0 {
		return
	}
	fmt.Fprintf(b, "*%s\n", t)
	for _, at := range append(slices.Clone(write), drop...) {
		fmt.Fprintf(b, ":%s - [0:0]\n", at.name) // makes it, or empties it
	}
	for _, at := range write {
		for _, r := range c.want[at] {
			b.WriteString("-A " + at.name + " " + r + "\n")
		}
		p.applied[at] = c.want[at]
	}
	for _, at := range base {
		if k.misplaced[at] {
			fmt.Fprintf(b, "-D %s -j %s\n", at.name, n.root(at.name))
		}
		fmt.Fprintf(b, "-I %s 1 -j %s\n", at.name, n.root(at.name))
	}
	for _, at := range drop {
		fmt.Fprintf(b, "-X %s\n", at.name)
	}
	b.WriteString("COMMIT\n")
	p.removed = append(p.removed, drop...)
	p.based = append(p.based, base...)
}

// unhooked lists the built-in chains whose root is wanted and not yet called.
func (n names) unhooked(t Table, k kernel, c change) []key {
	var out []key
	for at := range c.want {
		base, ok := strings.CutPrefix(at.name, n.prefix+"-")
		if at.table != t || !ok || n.owner(at.name) != "" {
			continue
		}
		if in := (key{t, base}); !k.based[in] {
			out = append(out, in)
		}
	}
	slices.SortFunc(out, byName)
	return out
}

func byName(a, b key) int { return strings.Compare(a.name, b.name) }

// clear writes the transaction that removes every chain of ours that the kernel holds.
func (n names) clear(k kernel) string {
	var b strings.Builder
	for _, t := range []Table{NAT, Mangle, Raw, Filter} {
		var chains []key
		for at := range k.chains {
			if at.table == t {
				chains = append(chains, at)
			}
		}
		if len(chains) == 0 {
			continue
		}
		slices.SortFunc(chains, byName)
		fmt.Fprintf(&b, "*%s\n", t)
		for _, at := range chains {
			fmt.Fprintf(&b, ":%s - [0:0]\n", at.name)
		}
		for _, m := range []map[key]bool{k.based, k.misplaced} {
			for at, yes := range m {
				if yes && at.table == t {
					fmt.Fprintf(&b, "-D %s -j %s\n", at.name, n.root(at.name))
				}
			}
		}
		for _, at := range chains {
			fmt.Fprintf(&b, "-X %s\n", at.name)
		}
		b.WriteString("COMMIT\n")
	}
	return b.String()
}
