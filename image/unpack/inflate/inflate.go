package inflate

import (
	"encoding/binary"
	"errors"
	"io"
)

// ErrCorrupt is the error for bytes that are no deflate or gzip stream.
var ErrCorrupt = errors.New("gzip: corrupt input")

const (
	inSize    = 128 << 10
	window    = 32 << 10
	outSize   = window + 256<<10
	maxMatch  = 258
	copySlack = 8                        // word copies may write past a match's end
	outSlack  = 2 + maxMatch + copySlack // a turn that begins before outSize: two literals and a match
	// loopSlack of input lets the fast loop load words without looking: it takes at
	// most two loads of eight bytes a turn.
	loopSlack = 16
)

// decoder inflates one deflate stream after another from one source.
//
// out[read:written] is decoded and not yet given; up to window bytes before it
// are the history. When it is all given and the buffer full, the history moves to
// the front.
type decoder struct {
	src    io.Reader
	srcErr error // of src, io.EOF included; nil while it may have more

	in       [inSize]byte
	pos, end int    // in[pos:end] is not yet in bits
	bits     uint64 // the low nbits are input, the rest zero or input as well
	nbits    uint

	out           [outSize + outSlack]byte
	read, written int
	start         int // of this stream's first byte, if still in out: no match reaches before it

	state  state
	last   bool // the block is the stream's last
	stored int  // bytes left of a stored block

	lit  [litSize]uint32
	dist [distSize]uint32
}

type state int

const (
	wantHeader state = iota // of a block
	inStored
	inCodes
	ended // the stream is over
)

// begin starts a stream: no history.
func (d *decoder) begin() {
	d.state, d.last = wantHeader, false
	d.start = d.written
}

// fill reads more input, keeping what is left.
func (d *decoder) fill() error {
	if d.srcErr != nil {
		if d.srcErr == io.EOF {
			return io.ErrUnexpectedEOF
		}
		return d.srcErr
	}
	d.end = copy(d.in[:], d.in[d.pos:d.end])
	d.pos = 0
	for range 100 {
		n, err := d.src.Read(d.in[d.end:])
		d.end += n
		d.srcErr = err
		if n > 0 {
			return nil
		}
		if err != nil {
			return d.fill()
		}
	}
	return io.ErrNoProgress
}

// need brings at least n bits (at most 48) into the buffer.
func (d *decoder) need(n uint) error {
	for d.nbits < n {
		if d.pos == d.end {
			if err := d.fill(); err != nil {
				return err
			}
		}
		d.bits |= uint64(d.in[d.pos]) << d.nbits
		d.pos++
		d.nbits += 8
	}
	return nil
}

// take removes n bits, which need has brought.
func (d *decoder) take(n uint) uint32 {
	v := uint32(d.bits & (1<<n - 1))
	d.bits >>= n
	d.nbits -= n
	return v
}

// align drops the bits up to the next byte.
func (d *decoder) align() { d.take(d.nbits % 8) }

// decode writes to out until it is full or the stream ends (state is ended).
func (d *decoder) decode() error {
	if d.written >= outSize {
		from := d.written - window
		copy(d.out[:], d.out[from:d.written])
		d.start = max(d.start-from, 0)
		d.read -= from
		d.written = window
	}
	for d.written < outSize {
		var err error
		switch d.state {
		case wantHeader:
			if d.last {
				d.state = ended
				return nil
			}
			err = d.header()
		case inStored:
			err = d.copyStored()
		case inCodes:
			err = d.codes()
		case ended:
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// header reads a block's header, and its codes.
func (d *decoder) header() error {
	if err := d.need(3); err != nil {
		return err
	}
	d.last = d.take(1) == 1
	switch d.take(2) {
	case 0:
		d.align()
		if err := d.need(32); err != nil {
			return err
		}
		n := d.take(16)
		if d.take(16) != n^0xffff {
			return ErrCorrupt
		}
		d.stored, d.state = int(n), inStored
		return nil
	case 1:
		d.fixed()
	case 2:
		if err := d.dynamic(); err != nil {
			return err
		}
	default:
		return ErrCorrupt
	}
	d.state = inCodes
	return nil
}

func (d *decoder) copyStored() error {
	for d.stored > 0 && d.written < outSize {
		if d.nbits > 0 { // whole bytes that were loaded ahead
			d.out[d.written] = byte(d.take(8))
			d.written, d.stored = d.written+1, d.stored-1
			continue
		}
		if d.pos == d.end {
			if err := d.fill(); err != nil {
				return err
			}
		}
		n := min(d.stored, d.end-d.pos, outSize-d.written)
		copy(d.out[d.written:], d.in[d.pos:d.pos+n])
		d.pos, d.written, d.stored = d.pos+n, d.written+n, d.stored-n
	}
	if d.stored == 0 {
		d.state = wantHeader
	}
	return nil
}

// fixed makes the codes of RFC 1951, 3.2.6.
func (d *decoder) fixed() {
	var n [288]uint8
	for i := range n {
		switch {
		case i < 144:
			n[i] = 8
		case i < 256:
			n[i] = 9
		case i < 280:
			n[i] = 7
		default:
			n[i] = 8
		}
	}
	build(d.lit[:], litBits, n[:], litSymbols[:])
	for i := range 32 {
		n[i] = 5
	}
	build(d.dist[:], distBits, n[:32], distSymbols[:])
}

// codeOrder is the order of the code length codes (RFC 1951, 3.2.7).
var codeOrder = [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// numbers are the symbols of the code length code: themselves.
var numbers = func() (s [19]uint32) {
	for i := range s {
		s[i] = uint32(i) << 16
	}
	return s
}()

const preBits = 7 // the longest code of the code length code

// dynamic reads a block's own codes.
func (d *decoder) dynamic() error {
	if err := d.need(14); err != nil {
		return err
	}
	lits, dists, pres := int(d.take(5))+257, int(d.take(5))+1, int(d.take(4))+4
	if lits > 286 {
		return ErrCorrupt
	}
	var pre [19]uint8
	for _, c := range codeOrder[:pres] {
		if err := d.need(3); err != nil {
			return err
		}
		pre[c] = uint8(d.take(3))
	}
	var table [1 << preBits]uint32
	if !build(table[:], preBits, pre[:], numbers[:]) {
		return ErrCorrupt
	}
	var lengths [286 + 32]uint8
	if err := d.lengths(lengths[:lits+dists], &table); err != nil {
		return err
	}
	if !build(d.lit[:], litBits, lengths[:lits], litSymbols[:]) || !build(d.dist[:], distBits, lengths[lits:lits+dists], distSymbols[:]) {
		return ErrCorrupt
	}
	return nil
}

// lengths reads run-length coded code lengths.
func (d *decoder) lengths(out []uint8, table *[1 << preBits]uint32) error {
	for i := 0; i < len(out); {
		// A code and its extra bits are at most 14; near the input's end there may be fewer.
		e := table[d.bits&(1<<preBits-1)]
		for n := uint(1); e&isSpecial != 0 || uint(e&31) > d.nbits; n++ {
			if n > preBits {
				return ErrCorrupt
			}
			if err := d.need(max(n, d.nbits+1)); err != nil {
				return err
			}
			e = table[d.bits&(1<<preBits-1)]
			if d.nbits >= preBits && e&isSpecial != 0 {
				return ErrCorrupt
			}
		}
		d.take(uint(e & 31))
		sym := uint8(e >> 16)
		if sym < 16 {
			out[i] = sym
			i++
			continue
		}
		value, base, extra := uint8(0), 3, uint(3)
		switch sym {
		case 16:
			if i == 0 {
				return ErrCorrupt
			}
			value, extra = out[i-1], 2
		case 18:
			base, extra = 11, 7
		}
		if err := d.need(extra); err != nil {
			return err
		}
		n := base + int(d.take(extra))
		if i+n > len(out) {
			return ErrCorrupt
		}
		for range n {
			out[i] = value
			i++
		}
	}
	return nil
}

// codes decodes a block's symbols until out is full, or the block ends.
func (d *decoder) codes() error {
	for d.written < outSize && d.state == inCodes {
		if d.end-d.pos >= loopSlack {
			if err := d.fast(); err != nil {
				return err
			}
			continue
		}
		if d.srcErr == nil {
			if err := d.fill(); err != nil && d.srcErr == nil {
				return err
			}
			continue // at the source's end, slow uses up what is left
		}
		if err := d.slow(); err != nil {
			return err
		}
	}
	return nil
}

// fast decodes while there is input to load words from and room in out. One load
// has at least 56 bits; a length takes at most 15 + 5, its distance 15 + 13.
func (d *decoder) fast() error {
	var (
		in      = d.in[:d.end]
		pos     = d.pos
		bb      = d.bits
		nb      = d.nbits
		out     = &d.out
		w       = d.written
		lit     = &d.lit
		dist    = &d.dist
		lastPos = len(in) - loopSlack
		err     error
	)
	for pos <= lastPos && w < outSize {
		bb |= binary.LittleEndian.Uint64(in[pos:]) << (nb & 63)
		pos += int((63 - nb) >> 3)
		nb |= 56
		e := lit[bb&(1<<litBits-1)]
		if e&isLiteral != 0 { // up to three short literals for one load: 3 * 11 bits
			out[w] = byte(e >> 16)
			w++
			bb >>= e & 31
			nb -= uint(e & 31)
			e = lit[bb&(1<<litBits-1)]
			if e&isLiteral != 0 {
				out[w] = byte(e >> 16)
				w++
				bb >>= e & 31
				nb -= uint(e & 31)
				e = lit[bb&(1<<litBits-1)]
				if e&isLiteral != 0 {
					out[w] = byte(e >> 16)
					w++
					bb >>= e & 31
					nb -= uint(e & 31)
					continue
				}
			}
			bb |= binary.LittleEndian.Uint64(in[pos:]) << (nb & 63)
			pos += int((63 - nb) >> 3)
			nb |= 56
		}
		if e&isSpecial != 0 {
			if e&isSubtable != 0 {
				bb >>= litBits
				nb -= litBits
				e = lit[(e>>16+uint32(bb)&(1<<(e>>8&15)-1))%litSize]
				if e&isLiteral != 0 {
					out[w] = byte(e >> 16)
					w++
					bb >>= e & 31
					nb -= uint(e & 31)
					continue
				}
			}
			if e&isSpecial != 0 {
				if e&isEnd == 0 {
					err = ErrCorrupt
					break
				}
				bb >>= e & 31
				nb -= uint(e & 31)
				d.state = wantHeader
				break
			}
		}
		bb >>= e & 31
		nb -= uint(e & 31)
		extra := e >> 8 & 31
		n := int(e>>16) + int(bb&(1<<extra-1))
		bb >>= extra
		nb -= uint(extra)
		e = dist[bb&(1<<distBits-1)]
		if e&isSpecial != 0 {
			if e&isSubtable != 0 {
				bb >>= distBits
				nb -= distBits
				e = dist[(e>>16+uint32(bb)&(1<<(e>>8&15)-1))%distSize]
			}
			if e&isSpecial != 0 {
				err = ErrCorrupt
				break
			}
		}
		bb >>= e & 31
		nb -= uint(e & 31)
		extra = e >> 8 & 31
		back := int(e>>16) + int(bb&(1<<extra-1))
		bb >>= extra
		nb -= uint(extra)
		if w-back < d.start {
			err = ErrCorrupt
			break
		}
		copyMatch(out, w, n, back)
		w += n
	}
	d.pos, d.bits, d.nbits, d.written = pos, bb&(1<<nb-1), nb, w
	return err
}

// copyMatch repeats n bytes from back bytes before w at w. It may write some bytes
// more.
func copyMatch(out *[outSize + outSlack]byte, w, n, back int) {
	from := w - back
	if back >= n && n > 40 {
		copy(out[w:w+n], out[from:w])
		return
	}
	done := 0
	if back < 8 { // bytes, until a multiple of the distance is a word
		far := nearest[back&7]
		for ; done < n && done < far; done++ {
			out[w+done] = out[from+done]
		}
		from = max(w+done-far, 0) // less than 0 only when all is done
	}
	// Words: none is read before it was written. Past the match's end is room.
	src, dst := out[from:w+maxMatch], out[w+done:w+maxMatch+copySlack]
	for i := 0; i < n-done; i += 8 {
		binary.LittleEndian.PutUint64(dst[i:], binary.LittleEndian.Uint64(src[i:]))
	}
}

// nearest is the least multiple of a distance below 8 that is a word or more.
var nearest = [8]int{8, 8, 8, 9, 8, 10, 12, 14}

// repeat continues the first n bytes of b over the rest of it.
func repeat(b []byte, n int) {
	for i := n; i < len(b); i++ {
		b[i] = b[i-n]
	}
}

// slow decodes one symbol near the input's end, looking at every bit.
func (d *decoder) slow() error {
	e, err := d.symbol(d.lit[:], litBits)
	if err != nil {
		return err
	}
	if e&isLiteral != 0 {
		d.out[d.written] = byte(e >> 16)
		d.written++
		return nil
	}
	if e&isEnd != 0 && e&isSpecial != 0 {
		d.state = wantHeader
		return nil
	}
	n, err := d.value(e)
	if err != nil {
		return err
	}
	if e, err = d.symbol(d.dist[:], distBits); err != nil {
		return err
	}
	back, err := d.value(e)
	if err != nil {
		return err
	}
	if d.written-back < d.start {
		return ErrCorrupt
	}
	repeat(d.out[d.written-back:d.written+n], back)
	d.written += n
	return nil
}

func (d *decoder) value(e uint32) (int, error) {
	extra := uint(e >> 8 & 31)
	if err := d.need(extra); err != nil {
		return 0, err
	}
	return int(e>>16) + int(d.take(extra)), nil
}

// symbol takes one code. Bits that are not there yet read as zero, so an entry
// counts only when the buffer has all of its bits.
func (d *decoder) symbol(table []uint32, mainBits uint) (uint32, error) {
	for {
		e, skip := table[d.bits&(1<<mainBits-1)], uint(0)
		if e&(isSpecial|isSubtable) == isSpecial|isSubtable {
			skip = mainBits
			e = table[e>>16+uint32(d.bits>>mainBits)&(1<<(e>>8&15)-1)]
		}
		n := uint(e & 31)
		if n > 0 && skip+n <= d.nbits {
			d.take(skip + n)
			return e, nil
		}
		if d.nbits >= maxBits {
			return 0, ErrCorrupt
		}
		if err := d.need(d.nbits + 1); err != nil {
			return 0, err
		}
	}
}
