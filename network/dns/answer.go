package dns

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// local answers what the zone is responsible for. handled is false for a question of the rest of the world; chase is a name outside
// the zone whose addresses are still to be added (an ExternalName).
func (s *Server) local(q dns.Question) (m *dns.Msg, chase string, handled bool) {
	lower := strings.ToLower(q.Name)
	if addr, ok := reverse(lower); ok {
		names := s.zone.names(addr)
		if len(names) == 0 && !s.owns(addr) {
			return nil, "", false
		}
		return s.pointers(q, names), "", true
	}
	rel, ok := s.relative(lower)
	if !ok {
		addrs, known := s.settings.Load().hosts[lower]
		if !known {
			return nil, "", false
		}
		m = &dns.Msg{}
		s.fill(m, q, found{exists: true, addrs: addrs})
		return s.negative(m), "", true
	}
	m = &dns.Msg{}
	m.Authoritative = true
	if len(rel) == 1 && rel[0] == "dns-version" {
		if q.Qtype == dns.TypeTXT || q.Qtype == dns.TypeANY {
			m.Answer = append(m.Answer, &dns.TXT{Hdr: s.header(q.Name, dns.TypeTXT), Txt: []string{"1.1.0"}})
		}
		return s.negative(m), "", true
	}
	f := s.zone.lookup(rel)
	if !f.exists {
		m.Rcode = dns.RcodeNameError
		return s.negative(m), "", true
	}
	if f.cname != "" {
		m.Answer = append(m.Answer, &dns.CNAME{Hdr: s.header(q.Name, dns.TypeCNAME), Target: dns.Fqdn(f.cname)})
		if q.Qtype == dns.TypeCNAME {
			return m, "", true
		}
		return m, dns.Fqdn(f.cname), true
	}
	s.fill(m, q, f)
	if len(rel) == 0 && q.Qtype == dns.TypeSOA {
		m.Answer = append(m.Answer, s.soa())
	}
	if len(rel) == 0 && q.Qtype == dns.TypeNS {
		m.Answer = append(m.Answer, &dns.NS{Hdr: s.header(q.Name, dns.TypeNS), Ns: "ns.dns." + s.domain})
	}
	return s.negative(m), "", true
}

func (s *Server) fill(m *dns.Msg, q dns.Question, f found) {
	addrs := slices.Clone(f.addrs)
	rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
	for _, a := range addrs {
		if rr := s.address(q.Name, a); rr.Header().Rrtype == q.Qtype || q.Qtype == dns.TypeANY {
			m.Answer = append(m.Answer, rr)
		}
	}
	if q.Qtype != dns.TypeSRV {
		return
	}
	weight := uint16(100 / max(len(f.srv), 1))
	added := map[string]bool{}
	for _, t := range f.srv {
		name := t.name + "." + s.domain
		rr := &dns.SRV{Hdr: s.header(q.Name, dns.TypeSRV), Priority: 0, Weight: max(weight, 1), Port: t.port, Target: name}
		if !slices.ContainsFunc(m.Answer, func(o dns.RR) bool { return dns.IsDuplicate(o, rr) }) {
			m.Answer = append(m.Answer, rr)
		}
		if key := name + t.addr.String(); !added[key] {
			added[key] = true
			m.Extra = append(m.Extra, s.address(name, t.addr))
		}
	}
}

func (s *Server) address(name string, a netip.Addr) dns.RR {
	if a.Is4() {
		return &dns.A{Hdr: s.header(name, dns.TypeA), A: a.AsSlice()}
	}
	return &dns.AAAA{Hdr: s.header(name, dns.TypeAAAA), AAAA: a.AsSlice()}
}

func (s *Server) pointers(q dns.Question, names []string) *dns.Msg {
	m := &dns.Msg{}
	m.Authoritative = true
	if len(names) == 0 {
		m.Rcode = dns.RcodeNameError
		return s.negative(m)
	}
	slices.Sort(names)
	for _, n := range slices.Compact(names) {
		if q.Qtype == dns.TypePTR || q.Qtype == dns.TypeANY {
			m.Answer = append(m.Answer, &dns.PTR{Hdr: s.header(q.Name, dns.TypePTR), Ptr: n + "." + s.domain})
		}
	}
	return s.negative(m)
}

// negative adds the SOA that an answer without records needs, so that it can be cached.
func (s *Server) negative(m *dns.Msg) *dns.Msg {
	if len(m.Answer) == 0 {
		m.Ns = append(m.Ns, s.soa())
	}
	return m
}

func (s *Server) soa() dns.RR {
	return &dns.SOA{Hdr: s.header(s.domain, dns.TypeSOA), Ns: "ns.dns." + s.domain, Mbox: "hostmaster." + s.domain,
		Serial: 1, Refresh: 7200, Retry: 1800, Expire: 86400, Minttl: s.cfg.TTL}
}

func (s *Server) header(name string, typ uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: typ, Class: dns.ClassINET, Ttl: s.cfg.TTL}
}

// relative splits a lower-case name of the zone into its labels below the zone.
func (s *Server) relative(name string) ([]string, bool) {
	if name == s.domain {
		return nil, true
	}
	rest, ok := strings.CutSuffix(name, "."+s.domain)
	if !ok {
		return nil, false
	}
	return strings.Split(rest, "."), true
}

// owns tells whether an address can only be the cluster's, so that nobody else is to be asked for its name.
func (s *Server) owns(a netip.Addr) bool {
	return slices.ContainsFunc(s.cfg.Ranges, func(p netip.Prefix) bool { return p.Contains(a) })
}

// reverse reads the address of a PTR question.
func reverse(name string) (netip.Addr, bool) {
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa."); ok {
		l := strings.Split(rest, ".")
		if len(l) != 4 {
			return netip.Addr{}, false
		}
		slices.Reverse(l)
		a, err := netip.ParseAddr(strings.Join(l, "."))
		return a, err == nil
	}
	rest, ok := strings.CutSuffix(name, ".ip6.arpa.")
	if !ok {
		return netip.Addr{}, false
	}
	l := strings.Split(rest, ".")
	if len(l) != 32 {
		return netip.Addr{}, false
	}
	slices.Reverse(l)
	var b strings.Builder
	for i, d := range l {
		if i > 0 && i%4 == 0 {
			b.WriteByte(':')
		}
		b.WriteString(d)
	}
	a, err := netip.ParseAddr(b.String())
	return a, err == nil
}
