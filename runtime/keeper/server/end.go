package server

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"keelson.dev/keelson/runtime/bundle"
	"keelson.dev/keelson/runtime/cgroup"
	"keelson.dev/keelson/runtime/keeper"
)

// watchEnd waits for the container's process to end.
func (s *Server) watchEnd(b *box) {
	w, err := s.loop.watch(int(b.pidfd.Fd()), unix.EPOLLIN, func(events uint32) { s.processEnded(b, events) })
	if err != nil {
		s.cfg.Log.Error("watch container", "container", b.run.ID, "err", err)
		return
	}
	b.pidWatch = w
}

// processEnded learns how. Our own child tells at once. Another's tells once
// its parent has reaped it, which the pidfd shows as a hang-up; until then
// only that is waited for.
func (s *Server) processEnded(b *box, events uint32) {
	pidfd := int(b.pidfd.Fd())
	if b.child {
		status, err := peek(pidfd)
		switch {
		case err == nil:
			s.end(b, status, false)
			return
		case errors.Is(err, errNotEnded):
			return
		}
		b.child = false // ECHILD: reaped behind our back, or never ours
	}
	if events&unix.EPOLLHUP == 0 {
		s.loop.change(b.pidWatch, 0)
		return
	}
	status, ok := exitOf(pidfd)
	if !ok {
		status = waitStatus{code: unknownCode}
	}
	s.end(b, status, !ok)
}

// unknownCode is the exit code of a container whose own is lost.
const unknownCode = 255

// end begins a container's end: whatever it left running is killed beside the
// loop, then the loop drains, records, reaps and reports.
func (s *Server) end(b *box, status waitStatus, unknown bool) {
	if b.phase != running {
		return
	}
	atEndSeen.Reach()
	b.phase = ending
	s.loop.drop(b.pidWatch)
	exit := &keeper.Exit{
		ID: b.run.ID, Pid: b.pid, Code: int32(status.code), Signal: status.signal, At: time.Now(), Unknown: unknown,
	}
	told, before := b.oom.kills > 0, b.oom.before
	s.launches++
	s.work.Go(func() {
		killed := s.clearGroup(b, before, exit.Signal == int(unix.SIGKILL))
		exit.OOM = told || killed
		hooks := b.poststop(s.cfg.Log.Error)
		s.loop.post(func() { s.record(b, exit) })
		if hooks != nil {
			hooks()
		}
		s.loop.post(func() {
			s.launches--
			s.sweep()
		})
	})
}

// clearGroup kills what is left in the container's cgroup, if its pid
// namespace did not do so, and says whether the kernel killed for memory. What
// others of the pod suffered (before) is told from it by how it ended.
func (s *Server) clearGroup(b *box, before uint64, killed bool) (oom bool) {
	h, err := cgroup.Detect()
	if err != nil || b.cgroup == "" {
		return false
	}
	group := h.Group(b.cgroup)
	if b.sharedPID {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := group.Kill(ctx); err != nil {
			s.cfg.Log.Error("clear container", "container", b.run.ID, "err", err)
		}
	}
	if !killed {
		return group.OOMKills() > 0
	}
	return group.KilledForMemory(before)
}

// record ends the end. The order is what makes it survive a kill: a code is
// on record before the zombie that tells it is let go, and before anybody is
// told.
func (s *Server) record(b *box, exit *keeper.Exit) {
	atEndCleared.Reach()
	s.drain(b)
	atEndDrained.Reach()
	err := bundle.WriteJSON(filepath.Join(b.run.Dir, bundle.ExitName), exit)
	if err != nil {
		s.cfg.Log.Error("record exit", "container", b.run.ID, "code", exit.Code, "err", err)
	}
	atEndRecorded.Reach()
	if b.child {
		reap(int(b.pidfd.Fd()))
	}
	atEndReaped.Reach()
	b.exit, b.phase = exit, ended
	if exit.OOM {
		s.podKilled(b)
	}
	s.unpump(b)
	b.release()
	s.broadcast(keeper.OpExited, exit)
}

func (s *Server) broadcast(op keeper.Op, body any) {
	for session := range s.sessions {
		session.send(keeper.Header{Op: op}, body)
	}
}

// sweep reaps the zombies that nobody waits for: orphans that came to us as
// their subreaper. While a process is being started, unknown children may be
// the engine's helpers, so they are left until that is done.
func (s *Server) sweep() {
	for s.launches == 0 {
		status, err := waitid(unix.P_ALL, 0, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT)
		if err != nil || s.knows(status.pid) {
			return
		}
		_, _ = waitid(unix.P_PID, status.pid, unix.WEXITED|unix.WNOHANG)
	}
}

func (s *Server) knows(pid int) bool {
	if _, ok := s.execs[pid]; ok || s.cfg.Engine.Owns(pid) {
		return true
	}
	for _, b := range s.boxes {
		if b.pid == pid && b.phase != ended {
			return true
		}
	}
	return false
}
