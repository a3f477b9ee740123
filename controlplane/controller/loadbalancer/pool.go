package loadbalancer

import (
	"fmt"
	"net/netip"
	"strings"
)

// Range is a run of IPv4 addresses, both ends included.
type Range struct{ First, Last netip.Addr }

// ParseRange reads "192.0.2.10-192.0.2.20", "192.0.2.0/28" (all of it, the first and last address too) or one address.
func ParseRange(s string) (Range, error) {
	s = strings.TrimSpace(s)
	r, err := parse(s)
	if err != nil {
		return Range{}, fmt.Errorf("load balancer range %q: want FIRST-LAST, a CIDR or an address: %w", s, err)
	}
	if !r.First.Is4() || !r.Last.Is4() {
		return Range{}, fmt.Errorf("load balancer range %q: only IPv4 addresses can be announced", s)
	}
	if r.Last.Less(r.First) {
		return Range{}, fmt.Errorf("load balancer range %q: it ends before it begins", s)
	}
	return r, nil
}

func parse(s string) (r Range, err error) {
	if first, last, ok := strings.Cut(s, "-"); ok {
		if r.First, err = netip.ParseAddr(strings.TrimSpace(first)); err == nil {
			r.Last, err = netip.ParseAddr(strings.TrimSpace(last))
		}
		return r, err
	}
	if !strings.Contains(s, "/") {
		r.First, err = netip.ParseAddr(s)
		return Range{r.First, r.First}, err
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || !p.Addr().Is4() {
		return Range{p.Addr(), p.Addr()}, err // who is not IPv4 is refused by the caller
	}
	a := p.Masked().Addr().As4()
	host := ^uint32(0) >> p.Bits()
	if p.Bits() == 32 {
		host = 0
	}
	for i := range a {
		a[i] |= byte(host >> (24 - 8*i))
	}
	return Range{p.Masked().Addr(), netip.AddrFrom4(a)}, nil
}

// Has tells whether an address is in the range.
func (r Range) Has(a netip.Addr) bool { return !a.Less(r.First) && !r.Last.Less(a) }

// Pool is the administrator's ranges, in the order in which they are used.
type Pool []Range

// ParsePool reads a list of ranges.
func ParsePool(list []string) (Pool, error) {
	var out Pool
	for _, s := range list {
		r, err := ParseRange(s)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

// Has tells whether an address is in the pool.
func (p Pool) Has(a netip.Addr) bool {
	for _, r := range p {
		if r.Has(a) {
			return true
		}
	}
	return false
}

// free returns the first address that is not taken. It looks at no more addresses than are taken, and one.
func (p Pool) free(taken func(netip.Addr) bool) (netip.Addr, bool) {
	for _, r := range p {
		for a := r.First; r.Has(a); a = a.Next() {
			if !taken(a) {
				return a, true
			}
		}
	}
	return netip.Addr{}, false
}
