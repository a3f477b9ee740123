package cri

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"keelson.dev/keelson/cri/podstore"
)

// recover brings records and reality together after a start: what a dead daemon
// left half made is taken back, what has no record is removed, and a pod whose
// namespaces are gone is stopped. It runs before the first call is answered. A
// failure is logged and costs its own object only; what no call will come for is
// tried again.
func (s *Server) recover(ctx context.Context) {
	for _, rec := range s.containers.Unfinished() {
		s.settle("take back a half-made container", rec.ID, func(ctx context.Context) error { return s.dismantle(ctx, rec) })
	}
	for _, rec := range s.containers.List() {
		if _, err := s.deps.Containers.State(rec.ID); missing(err) {
			s.complain("finish the removal of a container", rec.ID, s.dismantle(ctx, rec))
		}
	}
	for _, rec := range s.sandboxes.Unfinished() {
		s.settle("take back a half-made sandbox", rec.ID, func(ctx context.Context) error { return s.discardSandbox(ctx, rec.ID) })
	}
	for _, st := range s.deps.Containers.List() {
		if _, err := s.containers.Get(st.ID); err != nil {
			orphan := &podstore.Container{ID: st.ID, SandboxID: st.SandboxID}
			s.settle("remove a container without a record", st.ID, func(ctx context.Context) error { return s.dismantle(ctx, orphan) })
		}
	}
	for _, sb := range s.deps.Sandboxes.List() {
		if _, err := s.sandboxes.Get(sb.ID); err != nil {
			s.settle("remove a sandbox without a record", sb.ID, func(ctx context.Context) error { return s.discardSandbox(ctx, sb.ID) })
		}
	}
	for _, rec := range s.sandboxes.List() {
		if _, err := s.deps.Sandboxes.Get(rec.ID); missing(err) && rec.State == podstore.Created {
			s.complain("stop a sandbox whose namespaces are gone", rec.ID, s.stopSandbox(ctx, rec))
		}
	}
	s.sweepPodDirs()
	s.keepPodLabels()
}

func (s *Server) complain(what, id string, err error) {
	if err != nil {
		s.log.Error("cannot "+what, "id", id, "err", err)
		return
	}
	s.log.Info("recovery: "+what, "id", id)
}

// settle does what no call asks for: now, or again later.
func (s *Server) settle(what, id string, do func(context.Context) error) {
	err := do(s.life)
	s.complain(what, id, err)
	if err != nil {
		s.again(what, id, do)
	}
}

// again tries until it works: an address or a mount that could not be given back
// is not lost until the next start. It ends with the server.
func (s *Server) again(what, id string, do func(context.Context) error) {
	s.readers.Go(func() {
		for pause := 500 * time.Millisecond; ; pause = min(2*pause, time.Minute) {
			select {
			case <-s.life.Done():
				return
			case <-time.After(pause):
			}
			err := do(s.life)
			s.complain(what, id, err)
			if err == nil {
				return
			}
		}
	})
}

func (s *Server) discardSandbox(ctx context.Context, id string) error {
	return errors.Join(
		ignoreMissing(s.deps.Sandboxes.Remove(ctx, id)),
		s.deps.Network.Teardown(ctx, id),
		os.RemoveAll(s.podDir(id)),
		s.sandboxes.Delete(id),
	)
}

// sweepPodDirs removes the files of pods that nobody remembers.
func (s *Server) sweepPodDirs() {
	entries, err := os.ReadDir(s.podDir(""))
	if err != nil {
		s.log.Error("look for forgotten pod files", "err", err)
		return
	}
	for _, e := range entries {
		if _, err := s.sandboxes.Get(e.Name()); err != nil {
			_ = os.RemoveAll(filepath.Join(s.podDir(""), e.Name()))
		}
	}
}
