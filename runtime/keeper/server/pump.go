package server

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"keelson.dev/keelson/runtime/bundle"
	"keelson.dev/keelson/runtime/logfile"
)

// pump moves output from FIFOs to logs. It belongs to the loop.
type pump struct {
	journal *journal
	scratch [2]int // a pipe to look at a FIFO's bytes through
	records []byte
	log     *slog.Logger
}

// stream is one FIFO of a container, opened for reading and writing without
// blocking, so that it neither ends nor hangs up.
type stream struct {
	name logfile.Stream
	fd   int
	// seen bytes at the FIFO's head were looked at and hold no complete line;
	// sent of them went to attachments.
	seen, sent int
	lost       uint64 // bytes that the log's disk did not take
}

// sink is where a stream's bytes go.
type sink struct {
	dir string
	log *logfile.Writer // nil: the container keeps no log
	// live gets every byte once, as soon as it is there; nil if nobody listens.
	live func(logfile.Stream, []byte)
}

func newPump(journalPath string, log *slog.Logger) (*pump, error) {
	j, err := openJournal(journalPath)
	if err != nil {
		return nil, err
	}
	p := &pump{journal: j, log: log}
	if err := unix.Pipe2(p.scratch[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		j.close()
		return nil, fmt.Errorf("scratch pipe: %w", err)
	}
	// A container may enlarge its FIFO; the scratch pipe must hold as many
	// buffers. Without the right to enlarge ours, long lines split earlier.
	_, _ = unix.FcntlInt(uintptr(p.scratch[1]), unix.F_SETPIPE_SZ, 1<<20)
	p.recover()
	return p, nil
}

// step logs what complete lines there are, at most dataArea bytes, and reports
// whether it took any. With final, nothing more will be written: the rest is
// logged as it is.
func (p *pump) step(st *stream, to sink, final bool) bool {
	n, err := p.look(st)
	if err != nil {
		p.log.Error("look at container output", "container", to.dir, "stream", st.name, "err", err)
		return false
	}
	data := p.journal.data[:n]
	if to.live != nil && n > st.sent {
		to.live(st.name, data[st.sent:])
	}
	st.sent = n
	if n == 0 {
		return false
	}
	fresh := data[min(st.seen, n):]
	force := final || (bytes.IndexByte(fresh, '\n') < 0 && p.full(st))
	if !force && n <= logfile.MaxContent && bytes.IndexByte(fresh, '\n') < 0 {
		st.seen = n
		return false
	}
	e := entry{dir: to.dir, stream: st.name, at: time.Now(), final: force}
	p.records, e.covered = logfile.Format(p.records[:0], e.at, e.stream, data, force)
	if e.covered == 0 {
		st.seen = n
		return false
	}
	p.append(st, to, e)
	atLogWritten.Reach()
	p.take(st, e.covered)
	st.sent -= e.covered
	st.seen = n - e.covered
	if cap(p.records) > 4*dataArea {
		p.records = nil // many short lines make long records; do not keep that
	}
	return true
}

func (p *pump) append(st *stream, to sink, e entry) {
	if to.log == nil {
		p.journal.begin(e)
		return
	}
	mark, err := to.log.Mark()
	e.mark = mark
	p.journal.begin(e)
	atLogBegun.Reach()
	if err == nil {
		err = to.log.Write(p.records, mark)
	}
	if err == nil {
		st.lost = 0
		return
	}
	// A full disk must not stop the container: what it wrote is given up.
	if st.lost == 0 {
		p.log.Error("container output is lost", "container", to.dir, "stream", st.name, "err", err)
	}
	st.lost += uint64(e.covered)
}

// take takes covered bytes, which are there, out of the FIFO.
func (p *pump) take(st *stream, covered int) {
	p.journal.take()
	atLogTaking.Reach()
	for {
		_, err := unix.Read(st.fd, p.journal.sink[:covered])
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	atLogTaken.Reach()
	p.journal.end()
}

// look copies what the FIFO holds, from its head, to the journal's data.
func (p *pump) look(st *stream) (int, error) {
	n, err := unix.Tee(st.fd, p.scratch[1], dataArea, unix.SPLICE_F_NONBLOCK)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("tee: %w", err)
	}
	for got := 0; got < int(n); {
		m, err := unix.Read(p.scratch[0], p.journal.data[got:n])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || m == 0 {
			return 0, fmt.Errorf("read scratch pipe: %w", err)
		}
		got += m
	}
	return int(n), nil
}

// full says that the FIFO takes no more, so that waiting for the end of the
// line would be for ever.
func (p *pump) full(st *stream) bool {
	set := []unix.PollFd{{Fd: int32(st.fd), Events: unix.POLLOUT}}
	n, err := unix.Poll(set, 0)
	return err == nil && n == 0
}

// recover finishes the step that a killed keeper was in, before any other
// step is made: the journal has room for one.
func (p *pump) recover() {
	e, taken, ok := p.journal.pending()
	if !ok {
		return
	}
	defer p.journal.end()
	records, covered := logfile.Format(nil, e.at, e.stream, p.journal.data[:e.covered], e.final)
	if covered != e.covered {
		p.log.Error("journal does not fit its data", "container", e.dir, "covered", e.covered, "got", covered)
		return
	}
	var rec initRecord
	if err := bundle.ReadJSON(filepath.Join(e.dir, bundle.InitName), &rec); err != nil {
		p.log.Info("the container of the journal's step is gone", "container", e.dir)
		return
	}
	if rec.LogPath != "" && e.mark.Ino != 0 {
		if err := logfile.Finish(rec.LogPath, e.mark, records); err != nil {
			p.log.Error("finish log of killed keeper", "container", e.dir, "err", err)
		}
	}
	if taken {
		return
	}
	fd, err := unix.Open(filepath.Join(e.dir, string(e.stream)), unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return // with its container
	}
	p.take(&stream{name: e.stream, fd: fd}, e.covered)
	unix.Close(fd)
}

func (p *pump) close() {
	unix.Close(p.scratch[0])
	unix.Close(p.scratch[1])
	_ = p.journal.close()
}
