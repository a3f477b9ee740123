package address

import (
	"encoding/binary"
	"iter"
	"math"
	"math/bits"
	"net/netip"
)

// span is a range of usable addresses: without the network's own address and, in IPv4, without the broadcast address.
// Positions are counted from the first usable address.
type span struct {
	first netip.Addr
	size  uint64
	// low is how many addresses at the lower end are left to those who choose by hand, as long as there are others.
	low uint64
}

func spanOf(prefix netip.Prefix) span {
	prefix = prefix.Masked()
	host := prefix.Addr().BitLen() - prefix.Bits()
	size := uint64(math.MaxInt64)
	if host < 63 {
		size = 1 << host
	}
	s := span{first: prefix.Addr().Next(), size: size - 1}
	if prefix.Addr().Is4() && s.size > 0 {
		s.size--
	}
	s.low = reserved(size)
	if s.low >= s.size {
		s.low = 0
	}
	return s
}

// reserved is min(max(16, size/16), 256), and nothing of a range as small as 16.
func reserved(size uint64) uint64 {
	if size <= 16 {
		return 0
	}
	return min(max(16, size/16), 256)
}

func (s span) contains(addr netip.Addr) bool {
	if s.size == 0 || addr.BitLen() != s.first.BitLen() || addr.Less(s.first) {
		return false
	}
	last := add(s.first, s.size-1)
	return !last.Less(addr)
}

// at is a position in the upper part, chosen by any number; false if the span is empty.
func (s span) at(seed uint64) (netip.Addr, bool) {
	if s.size == 0 {
		return netip.Addr{}, false
	}
	return add(s.first, s.low+seed%(s.size-s.low)), true
}

// all yields every address once: the upper part from a chosen place on and around, then the lower one.
func (s span) all(seed uint64) iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		if s.size == 0 {
			return
		}
		upper := s.size - s.low
		for i := range upper {
			if !yield(add(s.first, s.low+(seed%upper+i)%upper)) {
				return
			}
		}
		for i := range s.low {
			if !yield(add(s.first, i)) {
				return
			}
		}
	}
}

// add returns the n-th address after a.
func add(a netip.Addr, n uint64) netip.Addr {
	if a.Is4() {
		b := a.As4()
		binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+uint32(n)) //nolint:gosec // spans of IPv4 are smaller
		return netip.AddrFrom4(b)
	}
	b := a.As16()
	low, carry := bits.Add64(binary.BigEndian.Uint64(b[8:]), n, 0)
	binary.BigEndian.PutUint64(b[8:], low)
	binary.BigEndian.PutUint64(b[:8], binary.BigEndian.Uint64(b[:8])+carry)
	return netip.AddrFrom16(b)
}
