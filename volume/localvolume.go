package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"keelson.dev/keelson/volume/local"
	"keelson.dev/keelson/volume/mount"
)

// localVolume is a folder, a device or a disk image of this node, as the local persistent volume source names it.
type localVolume struct {
	m *Manager
	// detach is taken in a pod's turn: two last users would each see the other and leave the device attached.
	detach sync.Mutex
}

func (*localVolume) Name() string               { return "kubernetes.io~local-volume" }
func (*localVolume) Serves(*corev1.Volume) bool { return false }

// ServesPersistent implements PersistentPlugin.
func (*localVolume) ServesPersistent(pv *corev1.PersistentVolume) bool { return pv.Spec.Local != nil }

func (l *localVolume) Mount(_ context.Context, r Request) (Mounted, error) {
	path := r.Persistent.Spec.Local.Path
	f, err := os.OpenFile(path, unix.O_PATH, 0)
	if err != nil {
		return Mounted{}, fmt.Errorf("local volume: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return Mounted{}, fmt.Errorf("local volume: %w", err)
	}
	options, err := mount.Options(r.Persistent.Spec.MountOptions)
	if err != nil {
		return Mounted{}, fmt.Errorf("local volume: %w", err)
	}
	if wantsBlock(r.Persistent) {
		return l.block(r, path, st.Mode())
	}
	if !st.IsDir() {
		return Mounted{}, fmt.Errorf("local volume: %s is not a directory", path)
	}
	if err := os.MkdirAll(r.Dir, 0o750); err != nil {
		return Mounted{}, err
	}
	// One mount, of the folder that was opened: a restart finds it there.
	there, err := mount.Is(r.Dir)
	if err != nil {
		return Mounted{}, err
	}
	if !there {
		if err := mount.BindFD(int(f.Fd()), r.Dir); err != nil {
			return Mounted{}, err
		}
	}
	if options.Attr_set&unix.MOUNT_ATTR_RDONLY != 0 {
		r.ReadOnly = true // nothing in it can be given to a group
	}
	if err := mount.Set(r.Dir, options); err != nil {
		return Mounted{}, fmt.Errorf("local volume: %w", err)
	}
	return Mounted{HostPath: r.Dir, ReadOnly: r.ReadOnly}, SetGroup(r, r.Dir, there)
}

// MountsWithOptions implements Optioned.
func (*localVolume) MountsWithOptions() {}

// block returns the device itself, or the loop device of a disk image.
func (l *localVolume) block(r Request, path string, mode os.FileMode) (Mounted, error) {
	if mode&os.ModeDevice != 0 && mode&os.ModeCharDevice == 0 {
		return Mounted{HostPath: path, Block: true}, nil
	}
	if !mode.IsRegular() {
		return Mounted{}, fmt.Errorf("local volume: %s is no block device", path)
	}
	if err := os.MkdirAll(r.Dir, 0o750); err != nil {
		return Mounted{}, err
	}
	// The record comes before the device, so that whatever was attached is found again.
	if err := os.WriteFile(filepath.Join(r.Dir, device), []byte(path), 0o600); err != nil {
		return Mounted{}, err
	}
	dev, err := local.Attach(path)
	if err != nil {
		return Mounted{}, fmt.Errorf("local volume: %w", err)
	}
	return Mounted{HostPath: dev, Block: true}, nil
}

func (l *localVolume) Unmount(_ context.Context, _ types.UID, _, dir string) error {
	if err := mount.Unmount(dir); err != nil {
		return err
	}
	path, err := os.ReadFile(filepath.Join(dir, device))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	l.detach.Lock()
	defer l.detach.Unlock()
	if others, err := l.m.otherUsers(dir); err != nil {
		return err
	} else if !others {
		if err := local.Detach(string(path)); err != nil {
			return err
		}
	}
	return mount.RemoveTree(dir)
}
