package server

import (
	"encoding/json"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"keelson.dev/keelson/runtime/keeper"
)

// session is one connection. Its writer is a goroutine of its own, so that a
// daemon that does not read never holds the loop up.
type session struct {
	conn *keeper.Conn

	mu     sync.Mutex
	queue  []message
	wake   chan struct{} // capacity 1
	closed bool
}

type message struct {
	header keeper.Header
	body   any
	files  []*os.File // owned by the message
}

// maxQueue is how many messages may wait for a daemon before it is given up;
// it connects again and asks for the state.
const maxQueue = 4096

func newSession(conn *keeper.Conn) *session {
	return &session{conn: conn, wake: make(chan struct{}, 1)}
}

// send queues a message. Files are duplicated: the caller keeps its own.
func (s *session) send(h keeper.Header, body any, files ...*os.File) {
	m := message{header: h, body: body}
	for _, f := range files {
		dup, err := duplicate(f)
		if err != nil {
			continue // out of descriptors: the daemon opens what it can by path
		}
		m.files = append(m.files, dup)
	}
	s.mu.Lock()
	drop := s.closed || len(s.queue) >= maxQueue
	full := len(s.queue) >= maxQueue
	if !drop {
		s.queue = append(s.queue, m)
	}
	s.mu.Unlock()
	if drop {
		m.close()
	}
	if full {
		s.close()
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// reply answers a request; err, if any, goes in place of body.
func (s *session) reply(to keeper.Header, body any, err error, files ...*os.File) {
	h := keeper.Header{Op: to.Op, Seq: to.Seq, Reply: true}
	if err != nil {
		h.Failed = true
		s.send(h, keeper.Failure{Kind: keeper.KindOf(err), Message: err.Error()})
		return
	}
	s.send(h, body, files...)
}

// made hands out a new process's handles, at once: when this returns they are
// the other side's even if we are killed. Somebody who is gone needs none.
func (s *session) made(b *box) {
	_ = s.conn.Send(keeper.Header{Op: keeper.OpMade}, b.running(), b.handles()...)
}

// write sends what is queued until the session is closed.
func (s *session) write() {
	for range s.wake {
		s.mu.Lock()
		queue, closed := s.queue, s.closed
		s.queue = nil
		s.mu.Unlock()
		for _, m := range queue {
			if !closed {
				if err := s.conn.Send(m.header, m.body, m.files...); err != nil {
					closed = true
					s.close()
				}
			}
			m.close()
		}
		if closed {
			return
		}
	}
}

// close ends the connection; the reader and the writer end by it.
func (s *session) close() {
	s.mu.Lock()
	already := s.closed
	s.closed = true
	s.mu.Unlock()
	if already {
		return
	}
	s.conn.Close()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (m message) close() {
	for _, f := range m.files {
		f.Close()
	}
}

func duplicate(f *os.File) (*os.File, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd, dupErr := -1, error(nil)
	if err := raw.Control(func(n uintptr) { fd, dupErr = unix.FcntlInt(n, unix.F_DUPFD_CLOEXEC, 3) }); err != nil {
		return nil, err
	}
	if dupErr != nil {
		return nil, dupErr
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// decode reads a request's body.
func decode[T any](body json.RawMessage) (T, error) {
	var v T
	err := json.Unmarshal(body, &v)
	return v, err
}
