package inflate

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
)

// Reader decompresses a gzip stream, all its members, and checks their sums.
// Zero bytes after the last member are padding.
type Reader struct {
	d    decoder
	sum  uint32 // of this member so far
	size uint32 // as much of it, modulo 2^32
	in   bool   // inside a member
	err  error
}

// NewReader reads from src, which need not be buffered. Errors of src are passed
// on as they are; bad bytes are ErrCorrupt, an early end io.ErrUnexpectedEOF.
func NewReader(src io.Reader) *Reader {
	r := &Reader{}
	r.d.src = src
	return r
}

// Read gives decompressed bytes.
func (r *Reader) Read(p []byte) (int, error) {
	for len(p) > 0 {
		d := &r.d
		if d.read < d.written {
			n := copy(p, d.out[d.read:d.written])
			d.read += n
			return n, nil
		}
		if r.err != nil {
			return 0, r.err
		}
		r.err = r.step()
	}
	return 0, nil
}

// step decodes more, or goes to the next member.
func (r *Reader) step() error {
	if !r.in {
		return r.header()
	}
	from := r.d.written
	moved := from >= outSize // decode moves the window to the front
	err := r.d.decode()
	if moved {
		from = window
	}
	fresh := r.d.out[from:r.d.written]
	r.sum = crc32.Update(r.sum, crc32.IEEETable, fresh)
	r.size += uint32(len(fresh))
	if err == nil && r.d.state == ended {
		err = r.trailer()
	}
	return err
}

const (
	flagSum     = 1 << 1
	flagExtra   = 1 << 2
	flagName    = 1 << 3
	flagComment = 1 << 4
)

// errReserved is of flags that RFC 1952 2.3.1.2 has a reader refuse: what they
// would mean for the bytes after them is not known.
var errReserved = fmt.Errorf("%w: reserved flags in the header", ErrCorrupt)

// header reads a member's header; io.EOF when there is no further member.
func (r *Reader) header() error {
	d := &r.d
	first := d.start == 0 && d.written == 0 && r.sum == 0 && r.size == 0
	for {
		b, err := d.byte()
		if err == io.ErrUnexpectedEOF && !first {
			return io.EOF
		}
		if err != nil {
			return err
		}
		if b == 0 && !first {
			continue // padding
		}
		if b != 0x1f {
			return fmt.Errorf("%w: header", ErrCorrupt)
		}
		break
	}
	var h [9]byte
	if err := d.bytes(h[:]); err != nil {
		return err
	}
	if h[0] != 0x8b || h[1] != 8 {
		return fmt.Errorf("%w: header", ErrCorrupt)
	}
	if h[2]&0xe0 != 0 {
		return errReserved
	}
	if err := r.skipFields(h); err != nil {
		return err
	}
	r.in, r.sum, r.size = true, 0, 0
	d.begin()
	return nil
}

// skipFields passes over the optional parts, checking the header's own sum.
func (r *Reader) skipFields(h [9]byte) error {
	d := &r.d
	var seen bytes.Buffer
	seen.WriteByte(0x1f)
	seen.Write(h[:])
	flags := h[2]
	if flags&flagExtra != 0 {
		var n [2]byte
		if err := d.bytes(n[:]); err != nil {
			return err
		}
		extra := make([]byte, binary.LittleEndian.Uint16(n[:]))
		if err := d.bytes(extra); err != nil {
			return err
		}
		seen.Write(n[:])
		seen.Write(extra)
	}
	for _, f := range []byte{flagName, flagComment} {
		for n := 0; flags&f != 0; n++ {
			b, err := d.byte()
			if err != nil {
				return err
			}
			if n > 64<<10 {
				return fmt.Errorf("%w: header", ErrCorrupt)
			}
			seen.WriteByte(b)
			if b == 0 {
				break
			}
		}
	}
	if flags&flagSum != 0 {
		var n [2]byte
		if err := d.bytes(n[:]); err != nil {
			return err
		}
		if binary.LittleEndian.Uint16(n[:]) != uint16(crc32.ChecksumIEEE(seen.Bytes())) {
			return fmt.Errorf("%w: header checksum", ErrCorrupt)
		}
	}
	return nil
}

// trailer checks a member's sum and size.
func (r *Reader) trailer() error {
	r.d.align()
	var t [8]byte
	if err := r.d.bytes(t[:]); err != nil {
		return err
	}
	if binary.LittleEndian.Uint32(t[:]) != r.sum || binary.LittleEndian.Uint32(t[4:]) != r.size {
		return fmt.Errorf("%w: checksum", ErrCorrupt)
	}
	r.in = false
	r.sum = 1 // any but the first member's beginning: see header
	return nil
}

// byte reads one input byte; the bit buffer is at a byte's start.
func (d *decoder) byte() (byte, error) {
	if err := d.need(8); err != nil {
		return 0, err
	}
	return byte(d.take(8)), nil
}

func (d *decoder) bytes(p []byte) error {
	for i := range p {
		b, err := d.byte()
		if err != nil {
			return err
		}
		p[i] = b
	}
	return nil
}
