package server

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"keelson.dev/keelson/runtime/cgroup"
	"keelson.dev/keelson/runtime/keeper"
	"keelson.dev/keelson/runtime/logfile"
)

// handleRun starts a container. It runs beside the loop and hands the box over
// at three points: as a name that is taken, as output to pump, as a process.
func (s *Server) handleRun(from *session, h keeper.Header, body json.RawMessage) {
	req, err := decode[keeper.Run](body)
	if err != nil {
		from.reply(h, nil, err)
		return
	}
	b := &box{run: req, launched: make(chan struct{})}
	taken := false
	s.loop.do(func() {
		if _, taken = s.boxes[req.ID]; !taken {
			s.boxes[req.ID] = b
		}
	})
	if taken {
		from.reply(h, nil, &keeper.Failure{Kind: keeper.KindExists, Message: "container " + req.ID + " was started before"})
		return
	}
	atRunTaken.Reach()
	err = s.launch(b, from)
	atRunStarted.Reach()
	s.loop.do(func() {
		defer close(b.launched)
		if err != nil {
			s.unpump(b)
			delete(s.boxes, req.ID)
			b.release()
			from.reply(h, nil, err)
			return
		}
		b.phase = running
		from.reply(h, b.running(), nil, b.handles()...)
		s.watchEnd(b)
		s.watchOOM(b)
	})
}

func (s *Server) launch(b *box, from *session) error {
	spec, err := b.readSpec()
	if err != nil {
		return err
	}
	b.oom = &oomWatch{before: b.podKills()}
	if err := b.openLog(); err != nil {
		return err
	}
	stdio, console, err := b.prepareStdio()
	if err != nil {
		return err
	}
	defer stdio.close()
	if console != nil {
		defer console.Close()
	}
	return s.cfg.Engine.Start(Start{ID: b.run.ID, Dir: b.run.Dir, Stdio: stdio}, func(pid int) error {
		if err := b.own(pid); err != nil {
			return err
		}
		if err := b.scope(pid, spec.Linux.Resources); err != nil {
			return err
		}
		if console != nil {
			stdio.Console.Close()
			if b.console, err = keeper.ReceiveFile(console); err != nil {
				return err
			}
		}
		var watchErr error
		s.loop.do(func() { watchErr = s.pumpFrom(b) })
		if watchErr != nil {
			return watchErr
		}
		atRunWatched.Reach()
		if b.run.Made {
			from.made(b)
		}
		// Last: what is recorded may have run. A process whose keeper dies
		// before that never does.
		if err := b.recordInit(); err != nil {
			return err
		}
		atRunRecorded.Reach()
		return nil
	})
}

// scope has systemd own the container's cgroup, if that is how the machine is
// run. The process does not run its program yet.
func (b *box) scope(pid int, limits *specs.LinuxResources) error {
	if !b.run.Systemd {
		return nil
	}
	h, err := cgroup.Detect()
	if err != nil {
		return err
	}
	h.Systemd = true
	return h.Group(b.cgroup).Scope(pid, limits)
}

// prepareStdio opens both sides of the container's output and input.
func (b *box) prepareStdio() (Stdio, *os.File, error) {
	if b.run.TTY {
		ours, theirs, err := consoleSocket()
		return Stdio{Console: theirs}, ours, err
	}
	if err := b.openFIFOs(); err != nil {
		return Stdio{}, nil, err
	}
	stdio, err := b.childStdio()
	return stdio, nil, err
}

// pumpFrom has the loop look after the container's output from now on.
func (s *Server) pumpFrom(b *box) error {
	if b.console != nil {
		t := &ttyFlow{fd: -1}
		raw, err := b.console.SyscallConn()
		if err == nil {
			err = raw.Control(func(fd uintptr) { t.fd = int(fd) })
		}
		if err != nil {
			return fmt.Errorf("terminal of %s: %w", b.run.ID, err)
		}
		b.tty = t
		t.watch, err = s.loop.watch(t.fd, unix.EPOLLIN, func(uint32) { s.pumpTTY(b) })
		return err
	}
	for _, f := range b.streams {
		w, err := s.loop.watch(f.fd, unix.EPOLLIN|unix.EPOLLET, func(uint32) { s.wake(b, f) })
		if err != nil {
			return err
		}
		f.watch = w
		s.wake(b, f) // what came before the watch
	}
	return nil
}

// wake pumps a flow for one round, and again in the loop's next rounds while
// there is more, so that one loud container does not silence the others.
func (s *Server) wake(b *box, f *flow) {
	if f.queue || f.watch == nil {
		return
	}
	f.queue = true
	s.loop.ready = append(s.loop.ready, func() bool {
		f.queue = f.watch != nil && s.pump.step(&f.stream, s.sinkOf(b), false)
		return f.queue
	})
}

func (s *Server) sinkOf(b *box) sink {
	return sink{dir: b.run.Dir, log: b.log, live: s.live(b)}
}

func (s *Server) pumpTTY(b *box) {
	if b.tty == nil {
		return
	}
	more, err := b.tty.step(s.sinkOf(b))
	if err != nil {
		s.cfg.Log.Error("container output is lost", "container", b.run.ID, "stream", logfile.Stdout, "err", err)
	}
	if !more {
		s.loop.drop(b.tty.watch)
		b.tty = nil
	}
}

// drain takes what is left of the output of a container that has ended.
func (s *Server) drain(b *box) {
	const most = 1024 // rounds; a FIFO holds at most 1 MiB, so this is ample
	for _, f := range b.streams {
		for range most {
			if !s.pump.step(&f.stream, s.sinkOf(b), true) {
				break
			}
		}
	}
	for range most {
		if b.tty == nil || !ready(b.tty.fd) {
			break
		}
		s.pumpTTY(b)
	}
	if b.tty != nil {
		_ = b.tty.write(s.sinkOf(b), true)
	}
}

func ready(fd int) bool {
	set := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(set, 0)
	return err == nil && n > 0
}

// unpump takes the container's output off the loop.
func (s *Server) unpump(b *box) {
	s.unwatchOOM(b)
	for _, f := range b.streams {
		s.loop.drop(f.watch)
		f.watch = nil
	}
	if b.tty != nil {
		s.loop.drop(b.tty.watch)
		b.tty = nil
	}
	for _, a := range b.attached {
		s.detach(b, a, "")
	}
	b.attached = nil
}
