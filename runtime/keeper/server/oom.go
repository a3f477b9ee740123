package server

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"keelson.dev/keelson/runtime/cgroup"
	"keelson.dev/keelson/runtime/keeper"
)

// oomWatch tells that the kernel killed a process of a container for memory:
// under v1 by an eventfd, under v2 by inotify on memory.events.
type oomWatch struct {
	fd    int
	watch *watch
	group cgroup.Group
	kills uint64

	unified bool
}

// watchOOM begins to tell. Without a memory controller there is nothing to.
func (s *Server) watchOOM(b *box) {
	h, err := cgroup.Detect()
	if err != nil || b.cgroup == "" {
		return
	}
	group := h.Group(b.cgroup)
	fd, err := group.NotifyOOM()
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	o := &oomWatch{fd: fd, group: group, unified: h.Unified()}
	if err == nil {
		o.watch, err = s.loop.watch(fd, unix.EPOLLIN, func(uint32) { s.oomHappened(b, o) })
	}
	if err != nil {
		s.cfg.Log.Warn("kills for memory will be told at the end only", "container", b.run.ID, "err", err)
		return
	}
	b.oom = o
}

func (s *Server) oomHappened(b *box, o *oomWatch) {
	var drop [4096]byte
	_, _ = unix.Read(o.fd, drop[:])
	// Under v2 the file changes for other reasons too. Under v1 the event comes
	// before the kill that it tells of, so the count does not show it yet.
	kills := o.group.OOMKills()
	if o.unified && kills <= o.kills {
		return
	}
	o.kills = kills
	s.broadcast(keeper.OpOOM, keeper.Target{ID: b.run.ID})
}

func (s *Server) unwatchOOM(b *box) {
	if b.oom != nil {
		s.loop.drop(b.oom.watch)
		unix.Close(b.oom.fd)
		b.oom = nil
	}
}
