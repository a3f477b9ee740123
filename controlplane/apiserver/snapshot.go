package apiserver

import (
	"context"
	"time"

	"keelson.dev/keelson/controlplane/store"
	"keelson.dev/keelson/controlplane/store/snapshot"
)

// Snapshot saves the cluster into a new file in dir, while requests go on. See the package snapshot for what is in it.
func (s *Server) Snapshot(ctx context.Context, dir string) (string, snapshot.Manifest, error) {
	return snapshot.Save(ctx, snapshot.Source{Dir: s.cfg.DataDir, Backup: s.store.Backup, Version: GitVersion, Now: time.Now}, dir)
}

// RotateSecretKey encrypts every Secret with a new key.
func (s *Server) RotateSecretKey(ctx context.Context) (store.Rotation, error) {
	return s.store.RotateSecretKey(ctx)
}
