package netfilter

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Packet is an imaginary packet: the first of a connection unless State says otherwise.
type Packet struct {
	In       string // interface it comes in by; "" when the node itself sends it
	Src, Dst netip.AddrPort
	Proto    string
	State    State // 0 means New
	Mark     uint32
	Later    bool // TCP: not a client's first packet, whatever connection tracking knows
}

// Host is what a tracer must know about the node beyond its rules.
type Host struct {
	Local func(netip.Addr) bool   // is it an address of the node?
	Out   func(netip.Addr) string // the interface that packets to it leave by
	Seen  func(list string, src netip.Addr) bool
	// Socket tells the mark of the node's connected socket that packets from src to dst are for; optional.
	Socket func(src, dst netip.AddrPort) (mark uint32, is bool)
}

// Outcome is one possible end of a packet.
type Outcome struct {
	Verdict    string // "local" (a process on the node gets it), "forward", "drop", "reject"
	Dst        netip.AddrPort
	Masquerade bool     // leaves with an address of the node as its source
	NoTrack    bool     // connection tracking was skipped
	Mark       uint32   // at the end
	Lists      []string // recent lists that the source was put on
	Path       []string // chains visited, for the failure message
}

// String is short: "forward 10.244.0.5:80 masq".
func (o Outcome) String() string {
	s := o.Verdict
	if o.Verdict == "local" || o.Verdict == "forward" {
		s += " " + o.Dst.String()
	}
	if o.Masquerade {
		s += " masq"
	}
	return s
}

// Tracer sends packets through the sets of all owners as the kernel would, following both branches wherever chance decides.
type Tracer struct {
	Sets map[Owner]Set
	Host Host
}

type walk struct {
	p       Packet
	o       Outcome
	snatted bool
	err     error
}

// end is what a chain did to a packet.
type end int

const (
	fell end = iota // through, or returned: the calling chain goes on
	accepted
	dropped
	rejected
	translated // nat only: the table is done with this connection
)

type branch struct {
	w   walk
	end end
}

// Trace returns every outcome that the packet can have, without doubles. An unanswerable rule set (a chain missing, a loop)
// gives an error.
func (t Tracer) Trace(p Packet) ([]Outcome, error) {
	if p.State == 0 {
		p.State = New
	}
	first := "PREROUTING"
	if p.In == "" {
		first = "OUTPUT"
	}
	var out []Outcome
	for _, b := range t.hook(walk{p: p, o: Outcome{Dst: p.Dst}}, first, Raw, Mangle, NAT) {
		out = append(out, t.route(b, p.In == "")...)
	}
	for _, o := range out {
		if strings.HasPrefix(o.Verdict, "error") {
			return nil, fmt.Errorf("netfilter trace: %s at %s", o.Verdict, strings.Join(o.Path, " > "))
		}
	}
	slices.SortFunc(out, func(a, b Outcome) int { return strings.Compare(a.String(), b.String()) })
	return slices.CompactFunc(out, func(a, b Outcome) bool { return a.String() == b.String() && slices.Equal(a.Lists, b.Lists) }), nil
}

// route takes a packet from the routing decision to its end.
func (t Tracer) route(b branch, fromHost bool) []Outcome {
	if b.end == dropped || b.end == rejected || b.w.err != nil {
		return []Outcome{finish(b, "")}
	}
	local := t.Host.Local(b.w.p.Dst.Addr())
	stage := "FORWARD"
	switch {
	case fromHost:
		stage = "OUTPUT"
	case local:
		stage = "INPUT"
	}
	var out []Outcome
	for _, f := range t.hook(b.w, stage, Filter) {
		if f.end == dropped || f.end == rejected || f.w.err != nil {
			out = append(out, finish(f, ""))
			continue
		}
		if stage == "INPUT" {
			out = append(out, finish(f, "local"))
			continue
		}
		verdict := "forward"
		if local {
			verdict = "local"
		}
		for _, g := range t.hook(f.w, "POSTROUTING", Mangle, NAT) {
			out = append(out, finish(g, verdict))
		}
	}
	return out
}

func finish(b branch, verdict string) Outcome {
	o := b.w.o
	o.Dst, o.Mark = b.w.p.Dst, b.w.p.Mark
	switch {
	case b.w.err != nil:
		o.Verdict = "error: " + b.w.err.Error()
	case b.end == dropped:
		o.Verdict = "drop"
	case b.end == rejected:
		o.Verdict = "reject"
	default:
		o.Verdict = verdict
	}
	return o
}

// hook runs the tables of one netfilter hook. nat sees only the first packet of a connection.
func (t Tracer) hook(w walk, base string, tables ...Table) []branch {
	now := []branch{{w: w}}
	for _, table := range tables {
		var next []branch
		for _, b := range now {
			if b.end == dropped || b.end == rejected || b.w.err != nil || (table == NAT && b.w.p.State&New == 0) {
				next = append(next, b)
				continue
			}
			next = append(next, t.base(b.w, table, base)...)
		}
		now = next
	}
	return now
}

// base runs the owners' chains of a built-in chain in their order.
func (t Tracer) base(w walk, table Table, base string) []branch {
	now := []branch{{w: w}}
	for _, o := range Owners() {
		for _, h := range t.Sets[o].Hooks {
			if h.Table != table || h.Base != base {
				continue
			}
			var next []branch
			for _, b := range now {
				if b.end != fell {
					next = append(next, b)
					continue
				}
				next = append(next, t.chain(b.w, o, table, h.Chain, base, 0)...)
			}
			now = next
		}
	}
	return now
}

func (t Tracer) chain(w walk, o Owner, table Table, name, base string, depth int) []branch {
	w.o.Path = append(slices.Clone(w.o.Path), string(o)+"-"+name)
	i := slices.IndexFunc(t.Sets[o].Chains, func(c Chain) bool { return c.Table == table && c.Name == name })
	if i < 0 || depth > 40 {
		w.err = fmt.Errorf("no chain %s in %s, or a loop", name, table)
		return []branch{{w: w, end: accepted}}
	}
	return t.rules(w, o, table, t.Sets[o].Chains[i].Rules, base, depth)
}

func (t Tracer) rules(w walk, o Owner, table Table, rules []Rule, base string, depth int) []branch {
	for i, r := range rules {
		if !t.matches(&w, r.Match, base) {
			continue
		}
		var out []branch
		if p := r.Match.Probability; p > 0 && p < 1 { // the branch in which chance says no
			out = t.rules(clone(w), o, table, rules[i+1:], base, depth)
		}
		hit := clone(w)
		if rc := r.Match.Recent; rc.List != "" && rc.Set {
			hit.o.Lists = append(hit.o.Lists, rc.List)
		}
		if v := r.Target.Verb; v == Jump || v == Goto {
			for _, b := range t.chain(hit, o, table, r.Target.Chain, base, depth+1) {
				if b.end == fell && v == Jump {
					b.w.o.Path = w.o.Path
					out = append(out, t.rules(b.w, o, table, rules[i+1:], base, depth)...)
				} else {
					out = append(out, b)
				}
			}
			return out
		}
		done, e := t.act(&hit, r.Target, table)
		if done {
			return append(out, branch{hit, e})
		}
		return append(out, t.rules(hit, o, table, rules[i+1:], base, depth)...)
	}
	return []branch{{w: w}}
}

func (t Tracer) act(w *walk, tg Target, table Table) (bool, end) {
	switch tg.Verb {
	case Accept:
		return true, accepted
	case Drop:
		return true, dropped
	case Reject:
		return true, rejected
	case Return:
		return true, fell
	case DNAT:
		port := tg.To.Port()
		if port == 0 {
			port = w.p.Dst.Port()
		}
		w.p.Dst = netip.AddrPortFrom(tg.To.Addr(), port)
		w.p.State |= DNATed
		return true, translated
	case Masquerade:
		w.o.Masquerade = true
		return true, translated
	case SetMark:
		w.p.Mark = w.p.Mark&^tg.Mark.Mask ^ tg.Mark.Value
	case SocketMark:
		if t.Host.Socket != nil {
			if mark, is := t.Host.Socket(w.p.Src, w.p.Dst); is {
				w.p.Mark = mark
			}
		}
	case NoTrack:
		w.o.NoTrack, w.p.State = true, Untracked
	}
	return false, fell
}

func clone(w walk) walk {
	w.o.Lists, w.o.Path = slices.Clone(w.o.Lists), slices.Clone(w.o.Path)
	return w
}
