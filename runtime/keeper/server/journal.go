package server

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"keelson.dev/keelson/runtime/logfile"
)

// journal is the pump's memory that outlives it: a mapped file that says what
// step it was in when it was killed. There is one step at a time, so there is
// one slot.
//
//	idle       nothing is under way
//	writing    the records for the first covered bytes of data are being
//	           appended to the log at mark; none of them was taken out
//	taking     they are in the log; they are being taken out of the FIFO
//
// Whether the taking happened is seen in sink: before it, sink's first byte is
// made to differ from the first byte to come. One read of bytes that are all
// there is not divided by a kill.
type journal struct {
	mem  []byte
	data []byte // what the FIFO holds, from its head
	sink []byte // where the covered bytes are taken to
}

// Sizes in bytes: a header page, then data, then sink.
const (
	headerArea = 4096
	dataArea   = 64 << 10
	journalLen = headerArea + 2*dataArea
)

const (
	stateIdle uint32 = iota
	stateWriting
	stateTaking
)

// entry is a step: which stream of the container with run directory dir, and
// what is being logged.
type entry struct {
	dir     string
	stream  logfile.Stream
	at      time.Time
	mark    logfile.Mark
	covered int
	final   bool
}

func openJournal(path string) (*journal, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	defer f.Close()
	if err := f.Truncate(journalLen); err != nil {
		return nil, fmt.Errorf("journal %s: %w", filepath.Base(path), err)
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, journalLen, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return nil, fmt.Errorf("journal %s: map: %w", filepath.Base(path), err)
	}
	return &journal{
		mem:  mem,
		data: mem[headerArea : headerArea+dataArea],
		sink: mem[headerArea+dataArea:],
	}, nil
}

// state is the first word of the file. Stores are ordered after the plain
// writes before them: a kill, unlike a power cut, keeps what was stored.
func (j *journal) state() *uint32 { return (*uint32)(unsafe.Pointer(&j.mem[0])) }

// Offsets in the header page.
const (
	offStream  = 4
	offFinal   = 5
	offAt      = 8
	offDev     = 16
	offIno     = 24
	offOffset  = 32
	offCovered = 40
	offDirLen  = 44
	offDir     = 48 // to the end of the page
)

func (j *journal) begin(e entry) {
	h := j.mem[:headerArea]
	h[offStream] = 1
	if e.stream == logfile.Stderr {
		h[offStream] = 2
	}
	h[offFinal] = 0
	if e.final {
		h[offFinal] = 1
	}
	binary.LittleEndian.PutUint32(h[offDirLen:], uint32(copy(h[offDir:], e.dir)))
	binary.LittleEndian.PutUint64(h[offAt:], uint64(e.at.UnixNano()))
	binary.LittleEndian.PutUint64(h[offDev:], e.mark.Dev)
	binary.LittleEndian.PutUint64(h[offIno:], e.mark.Ino)
	binary.LittleEndian.PutUint64(h[offOffset:], uint64(e.mark.Offset))
	binary.LittleEndian.PutUint32(h[offCovered:], uint32(e.covered))
	atomic.StoreUint32(j.state(), stateWriting)
}

func (j *journal) take() {
	j.sink[0] = ^j.data[0]
	atomic.StoreUint32(j.state(), stateTaking)
}

func (j *journal) end() { atomic.StoreUint32(j.state(), stateIdle) }

// pending is the step that a killed keeper was in. taken says that the bytes
// are out of the FIFO already.
func (j *journal) pending() (e entry, taken, ok bool) {
	state := atomic.LoadUint32(j.state())
	h := j.mem[:headerArea]
	covered := binary.LittleEndian.Uint32(h[offCovered:])
	dirLen := binary.LittleEndian.Uint32(h[offDirLen:])
	if (state != stateWriting && state != stateTaking) || covered == 0 || covered > dataArea || dirLen > headerArea-offDir {
		return entry{}, false, false
	}
	e = entry{
		dir:    string(h[offDir : offDir+dirLen]),
		stream: logfile.Stdout,
		at:     time.Unix(0, int64(binary.LittleEndian.Uint64(h[offAt:]))),
		mark: logfile.Mark{
			Dev:    binary.LittleEndian.Uint64(h[offDev:]),
			Ino:    binary.LittleEndian.Uint64(h[offIno:]),
			Offset: int64(binary.LittleEndian.Uint64(h[offOffset:])),
		},
		covered: int(covered),
		final:   h[offFinal] == 1,
	}
	if h[offStream] == 2 {
		e.stream = logfile.Stderr
	}
	taken = state == stateTaking && j.sink[0] == j.data[0]
	return e, taken, true
}

func (j *journal) close() error { return unix.Munmap(j.mem) }
