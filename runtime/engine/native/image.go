package native

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// Base is the address at which an image is mapped: free in every process of
// amd64 and arm64 (also with 39 bits of addresses), whatever is randomised.
const Base = 0x20_0000_0000

// Header of an image, little endian:
//
//	0   8 bytes  magic "keelson1"
//	8   u64      length of the image
//	16  u64      offset of the first instruction
//	24  u32      number of instructions
//	28  u32      0
//	32  u64      clone flags
//	40  u64      address of the PID namespace's path to be joined, or 0
//	48  u64      address of the cgroup v2 directory to be born in, or 0
//	56  u64      0
//
// Data follow, then the instructions.
const (
	Magic      = "keelson1"
	headerSize = 64
	insnSize   = 72
)

// ptr is an address in the mapped image.
type ptr uint64

// reg is a register of the interpreter: a call's result, mostly a descriptor.
type reg uint8

// Registers that are set before the first instruction.
const (
	RegStatus reg = iota // socket to the keeper
	RegStdin
	RegStdout
	RegStderr
	RegConsole // socket for a terminal's master
	RegTarget  // pidfd of a container's first process, to be joined
	firstFree
	Registers = 48
)

// arg is an argument of an instruction: a value, or a register's.
type arg struct {
	value uint64
	isReg bool
}

func imm[T ~int | ~uint | ~uint64 | ~int64 | ~uint32 | ~uintptr | ~uint8](v T) arg {
	return arg{value: uint64(v)}
}

func (p ptr) arg() arg { return arg{value: uint64(p)} }
func (r reg) arg() arg { return arg{value: uint64(r), isReg: true} }

// Instructions that are no system calls.
const (
	opStore32 = 0x10000 + iota // *(u32 *)args[0] = args[1]
	opLoad32                   // out = *(u32 *)args[0]
	opSet                      // out = args[0]
	opFail                     // an error, with errno args[0]
	opNeed                     // an error with errno args[2], unless args[0] == args[1]
	opLoad8                    // out = *(u8 *)args[0]
)

// insn is one instruction.
type insn struct {
	nr     uint32
	args   []arg
	out    reg
	hasOut bool
	what   string // for the error's text
	soft   bool   // an error (only errno, if that is not 0) is not the end
	errno  uint16
	okTo   label // where to go on; 0: at the next
	errTo  label
}

// label is a place among the instructions.
type label int

// image is a program being built.
type image struct {
	data    []byte
	strings map[string]ptr
	insns   []*insn
	places  []int // of each label but 0
	nextReg reg
	free    []reg
	err     error
}

func newImage() *image { return &image{strings: map[string]ptr{}, nextReg: firstFree} }

func (im *image) fail(err error) {
	if im.err == nil {
		im.err = err
	}
}

// bytes puts b into the image, aligned for any use.
func (im *image) bytes(b []byte) ptr {
	for len(im.data)%8 != 0 {
		im.data = append(im.data, 0)
	}
	at := ptr(Base + headerSize + len(im.data))
	im.data = append(im.data, b...)
	return at
}

// str puts s into the image as C has strings.
func (im *image) str(s string) ptr {
	if at, ok := im.strings[s]; ok {
		return at
	}
	if strings.IndexByte(s, 0) >= 0 {
		im.fail(fmt.Errorf("%q holds a zero byte", s))
		return 0
	}
	at := im.bytes(append([]byte(s), 0))
	im.strings[s] = at
	return at
}

// words puts 64-bit values into the image.
func (im *image) words(values ...uint64) ptr {
	b := make([]byte, 0, 8*len(values))
	for _, v := range values {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return im.bytes(b)
}

// list puts strings and the array of their addresses, ended by 0, into the
// image: argv, envp.
func (im *image) list(items []string) ptr {
	at := make([]uint64, 0, len(items)+1)
	for _, s := range items {
		at = append(at, uint64(im.str(s)))
	}
	return im.words(append(at, 0)...)
}

// do appends an instruction; an error ends the program with what as its text.
func (im *image) do(what string, nr uint32, args ...arg) *insn {
	i := &insn{nr: nr, args: args, what: what}
	im.insns = append(im.insns, i)
	return i
}

// into keeps the result.
func (i *insn) into(r reg) *insn {
	i.out, i.hasOut = r, true
	return i
}

// ignore goes on after any error.
func (i *insn) ignore() *insn {
	i.soft = true
	return i
}

// unless goes on after this error.
func (i *insn) unless(errno uint16) *insn {
	i.soft, i.errno = true, errno
	return i
}

// onError goes to l after any error.
func (i *insn) onError(l label) *insn {
	i.soft, i.errTo = true, l
	return i
}

// then goes to l after success.
func (i *insn) then(l label) *insn {
	i.okTo = l
	return i
}

// label makes a place to be placed later.
func (im *image) label() label {
	im.places = append(im.places, -1)
	return label(len(im.places))
}

func (im *image) place(l label) { im.places[l-1] = len(im.insns) }

// reg takes a free register.
func (im *image) reg() reg {
	if n := len(im.free); n > 0 {
		r := im.free[n-1]
		im.free = im.free[:n-1]
		return r
	}
	if im.nextReg >= Registers {
		im.fail(fmt.Errorf("out of registers"))
		return firstFree
	}
	im.nextReg++
	return im.nextReg - 1
}

// release gives a register back.
func (im *image) release(r reg) { im.free = append(im.free, r) }

// close closes the descriptor in r and gives r back.
func (im *image) close(r reg) {
	im.do("close", sysClose, r.arg()).ignore()
	im.release(r)
}

// header is what the launcher needs beside the instructions.
type header struct {
	cloneFlags uint64
	pidPath    string
	cgroupDir  string
}

// render makes the image's bytes.
func (im *image) render(h header) ([]byte, error) {
	var pidPath, cgroupDir ptr
	if h.pidPath != "" {
		pidPath = im.str(h.pidPath)
	}
	if h.cgroupDir != "" {
		cgroupDir = im.str(h.cgroupDir)
	}
	for _, i := range im.insns {
		im.str(i.what)
	}
	start := uint64(headerSize + (len(im.data)+7)/8*8)
	out := make([]byte, start, int(start)+len(im.insns)*insnSize)
	copy(out[headerSize:], im.data)
	for at, i := range im.insns {
		text, err := im.encode(at, i)
		if err != nil {
			return nil, err
		}
		out = append(out, text...)
	}
	copy(out, Magic)
	le := binary.LittleEndian
	le.PutUint64(out[8:], uint64(len(out)))
	le.PutUint64(out[16:], start)
	le.PutUint32(out[24:], uint32(len(im.insns)))
	le.PutUint64(out[32:], h.cloneFlags)
	le.PutUint64(out[40:], uint64(pidPath))
	le.PutUint64(out[48:], uint64(cgroupDir))
	return out, im.err
}

// encode renders an instruction:
//
//	0  u32 nr
//	4  u8  bit n: args[n] is a register
//	5  u8  register for the result, 0xff: none
//	6  u8  1: errors are soft
//	7  u8  0
//	8  u16 only this errno is soft; 0: all
//	10 u16 instructions to pass over after success
//	12 u16 instructions to pass over after a soft error
//	14 u16 0
//	16 u64 address of the text for an error
//	24 u64 args[6]
func (im *image) encode(at int, i *insn) ([]byte, error) {
	okSkip, err1 := im.skip(at, i.okTo)
	errSkip, err2 := im.skip(at, i.errTo)
	if err1 != nil || err2 != nil || len(i.args) > 6 {
		return nil, fmt.Errorf("instruction %d (%s) is not well made: %v %v", at, i.what, err1, err2)
	}
	le := binary.LittleEndian
	b := make([]byte, insnSize)
	le.PutUint32(b, i.nr)
	b[5] = 0xff
	if i.hasOut {
		b[5] = byte(i.out)
	}
	if i.soft {
		b[6] = 1
	}
	le.PutUint16(b[8:], i.errno)
	le.PutUint16(b[10:], okSkip)
	le.PutUint16(b[12:], errSkip)
	le.PutUint64(b[16:], uint64(im.strings[i.what]))
	for n, a := range i.args {
		if a.isReg {
			b[4] |= 1 << n
		}
		le.PutUint64(b[24+8*n:], a.value)
	}
	return b, nil
}

func (im *image) skip(at int, to label) (uint16, error) {
	if to == 0 {
		return 0, nil
	}
	skip := im.places[to-1] - at - 1
	if skip < 0 || skip > 0xffff {
		return 0, fmt.Errorf("a jump of %d", skip)
	}
	return uint16(skip), nil
}
