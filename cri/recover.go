package cri

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"keelson.dev/keelson/cri/podstore"
)

// recover brings records and reality together after a start: what a dead daemon
// left half made is taken back, what has no record is removed, and a pod whose
// namespaces are gone is stopped. It runs before the first call is answered. A
// failure is logged and costs its own object only.
func (s *Server) recover(ctx context.Context) {
	for _, rec := range s.containers.Unfinished() {
		s.complain("take back a half-made container", rec.ID, s.dismantle(ctx, rec))
	}
	for _, rec := range s.containers.List() {
		if _, err := s.deps.Containers.State(rec.ID); missing(err) {
			s.complain("finish the removal of a container", rec.ID, s.dismantle(ctx, rec))
		}
	}
	for _, rec := range s.sandboxes.Unfinished() {
		s.complain("take back a half-made sandbox", rec.ID, s.discardSandbox(ctx, rec.ID))
	}
	for _, st := range s.deps.Containers.List() {
		if _, err := s.containers.Get(st.ID); err != nil {
			orphan := &podstore.Container{ID: st.ID, SandboxID: st.SandboxID}
			s.complain("remove a container without a record", st.ID, s.dismantle(ctx, orphan))
		}
	}
	for _, sb := range s.deps.Sandboxes.List() {
		if _, err := s.sandboxes.Get(sb.ID); err != nil {
			s.complain("remove a sandbox without a record", sb.ID, s.discardSandbox(ctx, sb.ID))
		}
	}
	for _, rec := range s.sandboxes.List() {
		if _, err := s.deps.Sandboxes.Get(rec.ID); missing(err) && rec.State == podstore.Created {
			s.complain("stop a sandbox whose namespaces are gone", rec.ID, s.stopSandbox(ctx, rec))
		}
	}
	s.sweepPodDirs()
}

func (s *Server) complain(what, id string, err error) {
	if err != nil {
		s.log.Error("cannot "+what, "id", id, "err", err)
		return
	}
	s.log.Info("recovery: "+what, "id", id)
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
