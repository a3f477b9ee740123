package server

import (
	"errors"
	"os"
	"path/filepath"

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
	// before are the kills in its pod that are none of its own.
	before uint64

	unified bool
}

// podKills counts the kills for memory in the container's pod. See cgroup.KilledForMemory.
func (b *box) podKills() uint64 {
	h, err := cgroup.Detect()
	if err != nil || b.cgroup == "" {
		return 0
	}
	return h.Group(b.cgroup).Above().OOMKills()
}

// podKilled notes a kill that is this container's, so that it is not taken for
// one of another in its pod.
func (s *Server) podKilled(b *box) {
	kills := b.podKills()
	for _, other := range s.boxes {
		if other != b && other.phase == running && filepath.Dir(other.cgroup) == filepath.Dir(b.cgroup) {
			other.oom.before = kills
		}
	}
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
	o := b.oom
	o.fd, o.group, o.unified = fd, group, h.Unified()
	if err == nil {
		o.watch, err = s.loop.watch(fd, unix.EPOLLIN, func(uint32) { s.oomHappened(b, o) })
	}
	if err != nil {
		s.cfg.Log.Warn("kills for memory will be told at the end only", "container", b.run.ID, "err", err)
	}
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
	s.podKilled(b)
	s.broadcast(keeper.OpOOM, keeper.Target{ID: b.run.ID})
}

func (s *Server) unwatchOOM(b *box) {
	if b.oom != nil && b.oom.watch != nil {
		s.loop.drop(b.oom.watch)
		unix.Close(b.oom.fd)
		b.oom = nil
	}
}
