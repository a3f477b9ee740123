package image

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"

	"keelson.dev/keelson/image/snapshot"
)

// IDMap shifts Size ids: Container in the image's files shows as Host on the node.
type IDMap = snapshot.IDMap

// RootfsOptions of a container's root filesystem.
type RootfsOptions struct {
	// ReadOnly leaves the writable layer out: then nobody, the runtime included, can
	// make mount points in it. A container's readOnlyRootFilesystem is better done
	// by the runtime (specs.Root.Readonly).
	ReadOnly bool
	// UIDs and GIDs of the container's user namespace; empty for none.
	UIDs, GIDs []IDMap
	// Label is the SELinux label of all files in it; "" for the files' own.
	Label string
}

// ViewOptions of an image volume.
type ViewOptions struct {
	// SubPath is what of the image is mounted, a directory or file; "" is its root.
	// Symlinks resolve inside the image.
	SubPath string
	// UIDs and GIDs of the user namespace that will use it; empty for none.
	UIDs, GIDs []IDMap
	Label      string // as for a root filesystem
}

// MountRootfs mounts image imageID for a container, with a fresh writable layer,
// and returns the root filesystem's path. Called again for the same container it
// returns the same mount. The layers stay until UnmountRootfs, even if the image
// is removed. The error wraps ErrNotFound when there is no such image.
func (s *Store) MountRootfs(ctx context.Context, containerID, imageID string, opt RootfsOptions) (string, error) {
	return s.mount(ctx, containerID, imageID, func(rec snapshot.Record) (string, error) {
		rec.ReadOnly, rec.UIDs, rec.GIDs, rec.Label = opt.ReadOnly, opt.UIDs, opt.GIDs, opt.Label
		return s.snaps.Mount(containerID, rec)
	})
}

// UnmountRootfs unmounts a container's root filesystem and deletes its writable
// layer. Idempotent.
func (s *Store) UnmountRootfs(ctx context.Context, containerID string) error {
	return s.unmount(ctx, containerID, func() error { return s.snaps.Unmount(containerID) })
}

// MountImage mounts image imageID read-only and returns the path of what was asked
// for. Called again for the same mountID it returns the same mount.
func (s *Store) MountImage(ctx context.Context, mountID, imageID string, opt ViewOptions) (string, error) {
	return s.mount(ctx, viewPrefix+mountID, imageID, func(rec snapshot.Record) (string, error) {
		rec.SubPath, rec.UIDs, rec.GIDs, rec.Label = opt.SubPath, opt.UIDs, opt.GIDs, opt.Label
		return s.snaps.MountView(mountID, rec)
	})
}

// UnmountImage is MountImage's undo. Idempotent.
func (s *Store) UnmountImage(ctx context.Context, mountID string) error {
	return s.unmount(ctx, viewPrefix+mountID, func() error { return s.snaps.UnmountView(mountID) })
}

// mount records the use under key before do mounts: from then on the layers are safe.
func (s *Store) mount(ctx context.Context, key, imageID string, do func(snapshot.Record) (string, error)) (string, error) {
	end, err := s.begin()
	if err != nil {
		return "", err
	}
	defer end()
	unlock, err := s.work.mounts.lock(ctx, key)
	if err != nil {
		return "", err
	}
	defer unlock()
	s.mu.Lock()
	rec, again := s.mounted[key]
	if !again {
		var id digest.Digest
		var ok bool
		if id, ok = s.find(imageID); !ok {
			s.mu.Unlock()
			return "", fmt.Errorf("mount image %q: %w", imageID, ErrNotFound)
		}
		rec = s.layersOf(id)
		s.mounted[key] = rec
	}
	s.mu.Unlock()
	path, err := do(rec)
	if err != nil {
		s.mu.Lock()
		delete(s.mounted, key)
		s.mu.Unlock()
	}
	return path, err
}

func (s *Store) unmount(ctx context.Context, key string, do func() error) error {
	end, err := s.begin()
	if err != nil {
		return err
	}
	defer end()
	unlock, err := s.work.mounts.lock(ctx, key)
	if err != nil {
		return err
	}
	defer unlock()
	if err := do(); err != nil {
		return err
	}
	s.mu.Lock()
	rec, was := s.mounted[key]
	delete(s.mounted, key)
	orphaned := was && s.state.Images[digest.Digest(rec.Image)] == nil
	s.mu.Unlock()
	if orphaned { // the image was removed while we had it mounted
		return s.collect(nil)
	}
	return nil
}
