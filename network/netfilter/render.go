package netfilter

import (
	"fmt"
	"strconv"
	"strings"
)

// maxChain is the longest chain name the kernel takes (XT_EXTENSION_MAXNAMELEN less its NUL).
const maxChain = 28

// names builds the kernel's chain names for a prefix.
type names struct{ prefix string }

func (n names) root(base string) string           { return n.prefix + "-" + base }
func (n names) chain(o Owner, name string) string { return n.prefix + "-" + string(o) + "-" + name }

// owner returns whose chain the kernel's chain name is; "" for roots and strangers.
func (n names) owner(full string) Owner {
	rest, ok := strings.CutPrefix(full, n.prefix+"-")
	if !ok {
		return ""
	}
	tag, _, ok := strings.Cut(rest, "-")
	if !ok {
		return ""
	}
	return Owner(tag)
}

// render writes the rule as iptables-restore reads it, without the "-A chain" in front.
func (n names) render(o Owner, r Rule) string {
	var b strings.Builder
	m := r.Match
	put := func(f string, a ...any) { fmt.Fprintf(&b, f+" ", a...) }
	if m.In != "" {
		put("%s-i %s", not(m.NotIn), m.In)
	}
	if m.Out != "" {
		put("%s-o %s", not(m.NotOut), m.Out)
	}
	if m.Src.IsValid() {
		put("%s-s %s", not(m.NotSrc), m.Src)
	}
	if m.Dst.IsValid() {
		put("%s-d %s", not(m.NotDst), m.Dst)
	}
	if m.DstBits.Mask != 0 {
		put("-d %s/%s", dotted(m.DstBits.Value), dotted(m.DstBits.Mask))
	}
	renderProto(put, m)
	if r.Comment != "" {
		put(`-m comment --comment "%s"`, clean(r.Comment))
	}
	renderExtra(put, m)
	renderTarget(put, n, o, r.Target, m.Proto)
	return strings.TrimSpace(b.String())
}

func renderProto(put func(string, ...any), m Match) {
	if m.Proto == "" {
		return
	}
	put("-p %s", m.Proto)
	if m.SrcPorts.From == 0 && m.DstPorts.From == 0 && m.SYN == Any {
		return
	}
	put("-m %s", m.Proto)
	if m.SrcPorts.From != 0 {
		put("--sport %s", m.SrcPorts)
	}
	if m.DstPorts.From != 0 {
		put("--dport %s", m.DstPorts)
	}
	switch m.SYN {
	case Yes:
		put("--tcp-flags SYN,RST SYN")
	case No:
		put("! --syn")
	}
}

func renderExtra(put func(string, ...any), m Match) {
	if m.State != 0 {
		put("-m conntrack --ctstate %s", m.State)
	}
	if m.NotState != 0 {
		put("-m conntrack ! --ctstate %s", m.NotState)
	}
	if m.SrcLocal != Any {
		put("-m addrtype %s--src-type LOCAL", not(m.SrcLocal == No))
	}
	if m.DstLocal != Any {
		put("-m addrtype %s--dst-type LOCAL", not(m.DstLocal == No))
	}
	if m.Mark.Mask != 0 {
		put("-m mark --mark %#x/%#x", m.Mark.Value, m.Mark.Mask)
	}
	if m.Probability > 0 {
		put("-m statistic --mode random --probability %.11f", m.Probability)
	}
	if r := m.Recent; r.List != "" {
		if r.Set {
			put("-m recent --name %s --set", r.List)
		} else {
			put("-m recent --name %s --rcheck --seconds %d --reap", r.List, r.Seconds)
		}
	}
}

func renderTarget(put func(string, ...any), n names, o Owner, t Target, proto string) {
	switch t.Verb {
	case Continue:
	case Jump:
		put("-j %s", n.chain(o, t.Chain))
	case Goto:
		put("-g %s", n.chain(o, t.Chain))
	case DNAT:
		if t.To.Port() == 0 {
			put("-j DNAT --to-destination %s", t.To.Addr())
		} else {
			put("-j DNAT --to-destination %s", t.To)
		}
	case SetMark:
		put("-j MARK --set-xmark %#x/%#x", t.Mark.Value, t.Mark.Mask)
	case Masquerade:
		put("-j MASQUERADE --random-fully")
	case NoTrack:
		put("-j CT --notrack")
	case SocketMark:
		put("-m socket --restore-skmark")
	case ClampMSS:
		put("-j TCPMSS --clamp-mss-to-pmtu")
	case Reject:
		if t.Reset && proto == "tcp" {
			put("-j REJECT --reject-with tcp-reset")
		} else {
			put("-j REJECT --reject-with icmp-port-unreachable")
		}
	default:
		put("-j %s", t.Verb)
	}
}

// String writes the range as iptables does.
func (p Ports) String() string {
	if p.To == 0 || p.To == p.From {
		return strconv.Itoa(int(p.From))
	}
	return fmt.Sprintf("%d:%d", p.From, p.To)
}

// String lists the states as iptables does.
func (s State) String() string {
	all := []string{"NEW", "ESTABLISHED", "RELATED", "INVALID", "UNTRACKED", "DNAT"}
	var out []string
	for i, name := range all {
		if s&(1<<i) != 0 {
			out = append(out, name)
		}
	}
	return strings.Join(out, ",")
}

func not(b bool) string {
	if b {
		return "! "
	}
	return ""
}

func dotted(v uint32) string {
	return fmt.Sprintf("%d.%d.%d.%d", byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
}

// clean keeps a comment from ending its quotes or its line: comments carry names that users chose.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '"' || r == '\\' || r == '\'' || r == '`' || r == '$' {
			return '_'
		}
		return r
	}, s)
	return s[:min(len(s), 200)]
}
