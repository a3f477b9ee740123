package netfilter

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
)

// matches decides one rule for one packet as the kernel does at that hook.
func (t Tracer) matches(w *walk, m Match, base string) bool {
	p := w.p
	in, out := p.In, ""
	if base == "FORWARD" || base == "OUTPUT" || base == "POSTROUTING" {
		out = t.Host.Out(p.Dst.Addr())
	}
	if base == "OUTPUT" || base == "POSTROUTING" {
		in = ""
	}
	return iface(m.In, m.NotIn, in) && iface(m.Out, m.NotOut, out) &&
		network(m.Src, m.NotSrc, p.Src.Addr()) && network(m.Dst, m.NotDst, p.Dst.Addr()) && m.DstBits.has(p.Dst.Addr()) &&
		(m.Proto == "" || m.Proto == p.Proto) && m.SrcPorts.has(p.Src.Port()) && m.DstPorts.has(p.Dst.Port()) &&
		(m.State == 0 || p.State&m.State != 0) && (m.NotState == 0 || p.State&m.NotState == 0) &&
		t.tri(m.SrcLocal, p.Src.Addr()) && t.tri(m.DstLocal, p.Dst.Addr()) &&
		(m.Mark.Mask == 0 || p.Mark&m.Mark.Mask == m.Mark.Value) &&
		(m.Recent.List == "" || m.Recent.Set || t.seen(w, m.Recent.List)) &&
		(m.SYN == Any || p.Proto == "tcp" && (m.SYN == Yes && p.State&New != 0 || m.SYN == No && p.Later))
}

func (t Tracer) seen(w *walk, list string) bool {
	return slices.Contains(w.o.Lists, list) || (t.Host.Seen != nil && t.Host.Seen(list, w.p.Src.Addr()))
}

func (t Tracer) tri(q Tri, a netip.Addr) bool {
	return q == Any || (q == Yes) == t.Host.Local(a)
}

func iface(want string, neg bool, have string) bool {
	if want == "" {
		return true
	}
	hit := want == have
	if stem, ok := strings.CutSuffix(want, "+"); ok {
		hit = have != "" && strings.HasPrefix(have, stem)
	}
	return hit != neg
}

func network(p netip.Prefix, neg bool, a netip.Addr) bool {
	return !p.IsValid() || p.Contains(a) != neg
}

func (b Bits) has(a netip.Addr) bool {
	if b.Mask == 0 {
		return true
	}
	if !a.Is4() {
		return false
	}
	v := a.As4()
	return binary.BigEndian.Uint32(v[:])&b.Mask == b.Value
}

func (p Ports) has(port uint16) bool {
	return p.From == 0 || (port >= p.From && port <= max(p.From, p.To))
}
