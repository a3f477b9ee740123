package inflate

import "math/bits"

// Table entries are packed so that one load tells everything.
//
//	literal   bit 31 set; bits 16-23 the byte;                     bits 0-4 code length
//	length    bits 16-24 base; bits 8-12 number of extra bits;     bits 0-4 code length
//	distance  bits 16-30 base; bits 8-12 number of extra bits;     bits 0-4 code length
//	special   bit 15 set, and one of
//	          bit 14: look in a subtable: bits 16-30 its start, bits 8-11 its index bits; bits 0-4 bits to skip first
//	          bit 13: end of block;                                bits 0-4 code length
//	          neither: no such code
const (
	isLiteral  = 1 << 31
	isSpecial  = 1 << 15
	isSubtable = 1 << 14
	isEnd      = 1 << 13

	litBits  = 11 // index bits of the main tables
	distBits = 8
	maxBits  = 15 // of a code

	// A subtable has at most 1<<(maxBits-main) entries, and each takes at least two codes.
	litSize  = 1<<litBits + (286/2+1)<<(maxBits-litBits)
	distSize = 1<<distBits + (30/2+1)<<(maxBits-distBits)
)

// What symbols mean, without their code lengths. Filled once, never changed.
var (
	litSymbols  = makeLitSymbols()
	distSymbols = makeDistSymbols()
)

func makeLitSymbols() (s [288]uint32) {
	for i := range 256 {
		s[i] = isLiteral | uint32(i)<<16
	}
	s[256] = isSpecial | isEnd
	base := uint32(3)
	for i := range 28 {
		extra := uint32(max(0, i/4-1))
		s[257+i] = base<<16 | extra<<8
		base += 1 << extra
	}
	s[285] = 258 << 16
	s[286], s[287] = isSpecial, isSpecial
	return s
}

func makeDistSymbols() (s [32]uint32) {
	base := uint32(1)
	for i := range 30 {
		extra := uint32(max(0, i/2-1))
		s[i] = base<<16 | extra<<8
		base += 1 << extra
	}
	s[30], s[31] = isSpecial, isSpecial
	return s
}

// build makes the decoding table for codes of the given lengths (0: unused);
// symbols says what each means. It is false for lengths that make no code: too
// many, or too few unless there is a single one-bit code or none at all.
func build(table []uint32, mainBits uint, lengths []uint8, symbols []uint32) bool {
	var count [maxBits + 1]int
	longest := uint(0)
	for _, n := range lengths {
		count[n]++
		longest = max(longest, uint(n))
	}
	count[0] = 0
	var next [maxBits + 2]uint32 // next code of each length (RFC 1951, 3.2.2)
	code := uint32(0)
	for n := uint(1); n <= longest; n++ {
		next[n] = code
		code += uint32(count[n])
		if code > 1<<n {
			return false
		}
		code <<= 1
	}
	for i := range table[:1<<mainBits] {
		table[i] = isSpecial
	}
	if longest == 0 {
		return true // unused, or an error where it is used
	}
	if code >>= 1; code != 1<<longest && !(code == 1 && longest == 1) {
		return false
	}
	free := uint32(1) << mainBits // where the next subtable starts
	subBits := longest - min(longest, mainBits)
	for sym, n := range lengths {
		if n == 0 {
			continue
		}
		length := uint(n)
		rev := uint32(bits.Reverse16(uint16(next[length]))) >> (16 - length)
		next[length]++
		if length <= mainBits {
			e := symbols[sym] | uint32(length)
			for i := rev; i < 1<<mainBits; i += 1 << length {
				table[i] = e
			}
			continue
		}
		head := rev & (1<<mainBits - 1)
		if table[head]&(isSpecial|isSubtable) != isSpecial|isSubtable {
			table[head] = isSpecial | isSubtable | free<<16 | uint32(subBits)<<8 | uint32(mainBits)
			for i := range uint32(1) << subBits {
				table[free+i] = isSpecial
			}
			free += 1 << subBits
		}
		start := table[head] >> 16
		e := symbols[sym] | uint32(length-mainBits)
		for i := rev >> mainBits; i < 1<<subBits; i += 1 << (length - mainBits) {
			table[start+i] = e
		}
	}
	return true
}
