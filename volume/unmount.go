package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"k8s.io/apimachinery/pkg/types"

	"keelson.dev/keelson/volume/mount"
)

// Unmount removes all volumes of a pod, whose containers must be gone. Idempotent, safe for a pod that never was. With a nil error
// nothing is mounted below the pod's folder by us, and its volumes' folders are deleted; other files of the pod stay.
func (m *Manager) Unmount(ctx context.Context, uid types.UID) error {
	done, err := m.turn(ctx, uid)
	if err != nil {
		return err
	}
	defer done()
	m.forget(uid)
	sub := filepath.Join(m.podDir(uid), "volume-subpaths")
	paths, err := filepath.Glob(filepath.Join(escape(sub), "*", "*", "*"))
	if err != nil {
		return fmt.Errorf("volume: %w", err)
	}
	var errs []error
	for _, p := range paths {
		errs = append(errs, mount.Unmount(p))
	}
	errs = append(errs, mount.RemoveTree(sub))
	vols := filepath.Join(m.podDir(uid), "volumes")
	plugins, err := os.ReadDir(vols)
	if err != nil && !os.IsNotExist(err) {
		errs = append(errs, err)
	}
	for _, p := range plugins {
		errs = append(errs, m.unmountAll(ctx, uid, filepath.Join(vols, p.Name()), p.Name()))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("volume: pod %s: %w", uid, err)
	}
	m.tokens.forget(uid)
	if err := mount.RemoveTree(vols); err != nil {
		return fmt.Errorf("volume: pod %s: %w", uid, err)
	}
	// The pod's folder itself belongs to the kubelet; empty it is of no use to anybody.
	_ = os.Remove(m.podDir(uid))
	return nil
}

// unmountAll takes down the volumes of one plugin's folder. A folder of a plugin that is no more is only unmounted.
func (m *Manager) unmountAll(ctx context.Context, uid types.UID, dir, plugin string) error {
	vols, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, v := range vols {
		path, served := filepath.Join(dir, v.Name()), false
		for _, p := range m.plugins {
			if p.Name() == plugin {
				served = true
				errs = append(errs, p.Unmount(ctx, uid, v.Name(), path))
			}
		}
		if !served {
			errs = append(errs, mount.Unmount(path))
		}
	}
	return errors.Join(errs...)
}

// escape keeps a path from being a pattern.
func escape(path string) string {
	var out []rune
	for _, r := range path {
		if r == '*' || r == '?' || r == '[' || r == '\\' {
			out = append(out, '\\')
		}
		out = append(out, r)
	}
	return string(out)
}

// List names the pods that have a folder: after a start, those that should not exist any more are to be unmounted.
func (m *Manager) List() ([]types.UID, error) {
	entries, err := os.ReadDir(filepath.Join(m.cfg.Root, "pods"))
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("volume: %w", err)
	}
	var out []types.UID
	for _, e := range entries {
		if e.IsDir() {
			out = append(out, types.UID(e.Name()))
		}
	}
	return out, nil
}
