package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"syscall"
	"time"

	"keelson.dev/keelson/runtime/keeper"
)

// Config is what a keeper is made from. All fields are required.
type Config struct {
	Dir      string            // the keeper's directory (socket, lock, journal)
	Listener *net.UnixListener // SEQPACKET, inherited from the daemon
	Engine   Engine
	Build    string
	Log      *slog.Logger
}

// Server is the keeper.
type Server struct {
	cfg  Config
	loop *loop
	pump *pump
	work sync.WaitGroup // requests under way

	// The rest belongs to the loop.
	boxes    map[string]*box
	execs    map[int]*execRun // by pid
	sessions map[*session]bool
	launches int  // processes being started: their helpers are the engine's to reap
	greeted  bool // a daemon has been here
	quit     bool

	trim      *time.Timer
	next      *os.File // the program to become, once Run ends
	nextBuild string
}

// New prepares a keeper. What a killed one left half done in the journal is
// finished when its container is adopted.
func New(cfg Config) (*Server, error) {
	l, err := newLoop()
	if err != nil {
		return nil, err
	}
	p, err := newPump(filepath.Join(cfg.Dir, keeper.JournalName), cfg.Log)
	if err != nil {
		return nil, err
	}
	return &Server{
		cfg: cfg, loop: l, pump: p,
		boxes: map[string]*box{}, execs: map[int]*execRun{}, sessions: map[*session]bool{},
	}, nil
}

// Run serves until ctx ends or there is nothing left to keep: no daemon is
// connected and no container runs.
func (s *Server) Run(ctx context.Context) error {
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	stopped := make(chan struct{})
	var helpers sync.WaitGroup
	helpers.Go(func() { // ends with stopped
		for {
			select {
			case <-children:
				s.loop.post(s.sweep)
			case <-ctx.Done():
				s.loop.post(func() { s.quit = true })
				return
			case <-stopped:
				return
			}
		}
	})
	helpers.Go(s.accept) // ends at the listener's deadline
	err := s.loop.run(s.idle)
	signal.Stop(children)
	close(stopped)
	// For an upgrade the socket must live on: only the accepting ends.
	_ = s.cfg.Listener.SetDeadline(time.Unix(1, 0))
	for session := range s.sessions {
		session.close()
	}
	helpers.Wait()
	s.pump.close()
	if err == nil && s.next != nil {
		return s.become()
	}
	return err
}

// idle says that the keeper has nothing to keep.
func (s *Server) idle() bool {
	if s.quit || s.next != nil && s.launches == 0 {
		return true
	}
	if !s.greeted || len(s.sessions) > 0 || s.launches > 0 {
		return false
	}
	for _, b := range s.boxes {
		if b.phase != ended {
			return false
		}
	}
	return true
}

func (s *Server) accept() {
	for {
		sock, err := s.cfg.Listener.AcceptUnix()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		if err != nil {
			s.cfg.Log.Error("accept", "err", err)
			continue
		}
		conn, err := keeper.NewConn(sock)
		if err != nil {
			s.cfg.Log.Warn("refused connection", "err", err)
			sock.Close()
			continue
		}
		session := newSession(conn)
		s.loop.post(func() { s.sessions[session] = true })
		go session.write()  // ends with the connection
		go s.serve(session) // likewise
	}
}

// serve reads a connection's requests.
func (s *Server) serve(from *session) {
	for {
		h, body, files, err := from.conn.Receive()
		if err != nil {
			break
		}
		s.handle(from, h, slices.Clone(body), files)
	}
	from.close()
	s.loop.post(func() {
		delete(s.sessions, from)
		s.greeted = true
	})
}

// handle answers one request, at once or from a goroutine. It owns files.
func (s *Server) handle(from *session, h keeper.Header, body json.RawMessage, files []*os.File) {
	switch h.Op {
	case keeper.OpRun:
		s.async(func() { s.handleRun(from, h, body) })
	case keeper.OpExec:
		s.async(func() { s.handleExec(from, h, body, files) })
		return // the exec owns files
	case keeper.OpAttach:
		s.handleAttach(from, h, body, files)
		return
	case keeper.OpAdopt:
		s.handleAdopt(from, h, body, files)
		return
	case keeper.OpUpgrade:
		s.handleUpgrade(from, h, body, files)
		return
	case keeper.OpHello:
		s.loop.do(func() {
			s.greeted = true
			from.reply(h, keeper.Hello{Version: keeper.Version, Pid: os.Getpid(), Build: s.cfg.Build}, nil)
		})
	case keeper.OpList:
		s.async(func() { s.handleList(from, h, body) })
	case keeper.OpHandles, keeper.OpReopen, keeper.OpCloseStdin, keeper.OpForget:
		s.handleTarget(from, h, body)
	case keeper.OpReaped:
		s.handleReaped(from, h, body)
	case keeper.OpSeccomp:
		s.async(func() {
			req, err := decode[keeper.Seccomp](body)
			if err == nil {
				err = s.cfg.Engine.Seccomp(req.Profile, req.Filter)
			}
			from.reply(h, nil, err)
		})
	default:
		from.reply(h, nil, fmt.Errorf("op %d is not known to keeper version %d", h.Op, keeper.Version))
	}
	for _, f := range files {
		f.Close()
	}
}

// async runs a request beside the loop. The loop does not end while one runs
// (launches), so nobody waits for work but a test.
func (s *Server) async(fn func()) {
	s.loop.do(func() { s.launches++ })
	s.work.Go(func() {
		defer s.loop.post(func() {
			s.launches--
			s.sweep()
			s.trimLater()
		})
		fn()
	})
}

// trimDelay is how long after a burst of work its memory is given back.
const trimDelay = 3 * time.Second

// trimLater gives memory back to the system once no process was started for
// trimDelay: the keeper sits still for days after minutes of work.
func (s *Server) trimLater() {
	if s.trim == nil {
		s.trim = time.AfterFunc(trimDelay, debug.FreeOSMemory)
		return
	}
	s.trim.Reset(trimDelay)
}

// launchPatience is how long a list waits for starts under way: of one that takes longer it says nothing.
const launchPatience = 10 * time.Second

// awaitLaunches waits for the starts that are under way. Who asked for one may have been killed since, and whoever lists next must not
// take it for one that came to nothing.
func (s *Server) awaitLaunches() {
	var under []chan struct{}
	s.loop.do(func() {
		for _, b := range s.boxes {
			if b.phase == starting {
				under = append(under, b.launched)
			}
		}
	})
	limit := time.After(launchPatience)
	for _, launched := range under {
		select {
		case <-launched:
		case <-limit:
			return
		}
	}
}

func (s *Server) handleList(from *session, h keeper.Header, body json.RawMessage) {
	req, err := decode[keeper.ListAfter](body)
	if err != nil {
		from.reply(h, nil, err)
		return
	}
	s.awaitLaunches()
	const page = 100
	var out keeper.Listed
	s.loop.do(func() {
		var ids []string
		for id, b := range s.boxes {
			if id > req.After && b.phase != starting {
				ids = append(ids, id)
			}
		}
		slices.Sort(ids)
		if len(ids) > page {
			ids, out.More = ids[:page], true
		}
		for _, id := range ids {
			out.Containers = append(out.Containers, s.boxes[id].running())
		}
	})
	from.reply(h, out, nil)
}

func (s *Server) handleTarget(from *session, h keeper.Header, body json.RawMessage) {
	req, err := decode[keeper.Target](body)
	if err != nil {
		from.reply(h, nil, err)
		return
	}
	s.loop.do(func() {
		b, ok := s.boxes[req.ID]
		if !ok {
			from.reply(h, nil, notFound(req.ID))
			return
		}
		switch h.Op {
		case keeper.OpHandles:
			from.reply(h, b.running(), nil, b.handles()...)
		case keeper.OpReopen:
			err := errEnded
			if b.log != nil {
				err = b.log.Reopen()
				atLogReopened.Reach()
			}
			from.reply(h, nil, err)
		case keeper.OpCloseStdin:
			if b.stdin != nil {
				b.stdin.Close()
				b.stdin = nil
			}
			from.reply(h, nil, nil)
		case keeper.OpForget:
			if b.phase != ended {
				from.reply(h, nil, &keeper.Failure{Kind: keeper.KindBusy, Message: "container " + req.ID + " has not ended"})
				return
			}
			delete(s.boxes, req.ID)
			b.release()
			atForgotten.Reach()
			from.reply(h, nil, nil)
		}
	})
}

func (s *Server) handleAttach(from *session, h keeper.Header, body json.RawMessage, files []*os.File) {
	req, err := decode[keeper.Attach](body)
	var a *attachment
	if err == nil {
		a, err = newAttachment(req, from, files)
	}
	if err != nil {
		for _, f := range files {
			f.Close()
		}
		from.reply(h, nil, err)
		return
	}
	s.loop.do(func() {
		b, ok := s.boxes[req.ID]
		err := error(notFound(req.ID))
		if ok {
			if err = s.attach(b, a); err != nil {
				err = &keeper.Failure{Kind: keeper.KindNotRunning, Message: err.Error()}
			}
		}
		if err != nil {
			a.close()
		}
		from.reply(h, nil, err)
	})
}

func notFound(id string) *keeper.Failure {
	return &keeper.Failure{Kind: keeper.KindNotFound, Message: "the keeper has no container " + id}
}
