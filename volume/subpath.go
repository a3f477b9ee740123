package volume

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"keelson.dev/keelson/volume/mount"
)

// SubPath makes the part of a mounted volume that the container's index-th volume mount names usable, and returns the host path
// to bind: a bind mount of exactly what was checked, so that nothing a container renames or links afterwards matters.
// subPath is already expanded. Missing directories are made; an error of mount.ErrOutside means a path or link that leaves the volume.
func (m *Manager) SubPath(ctx context.Context, pod *corev1.Pod, container string, index int, v Mounted, volumeName, subPath string) (string, error) {
	done, err := m.turn(ctx, pod.UID)
	if err != nil {
		return "", err
	}
	defer done()
	f, err := mount.Patient(ctx, filepath.Join(v.HostPath, subPath), func() (*os.File, error) { return mount.OpenIn(v.HostPath, subPath, !v.Live) }, func(f *os.File) { f.Close() })
	if err != nil {
		return "", fmt.Errorf("volume %q: subPath: %w", volumeName, err)
	}
	defer f.Close()
	target := filepath.Join(m.podDir(pod.UID), "volume-subpaths", volumeName, container, strconv.Itoa(index))
	if err := m.bind(f, target); err != nil {
		return "", fmt.Errorf("volume %q: subPath: %w", volumeName, err)
	}
	return target, nil
}

// bind mounts f over target anew: an older mount there may be of what the path meant before.
func (m *Manager) bind(f *os.File, target string) error {
	if err := mount.Unmount(target); err != nil {
		return err
	}
	if err := mount.RemoveTree(target); err != nil {
		return err
	}
	var st unix.Statx_t // what is known already: its server may have gone since
	if err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st); err != nil {
		return err
	}
	parent := filepath.Dir(target)
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		parent = target
	}
	if err := os.MkdirAll(parent, 0o750); err != nil {
		return err
	}
	if parent != target {
		t, err := os.OpenFile(target, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o640)
		if err != nil {
			return err
		}
		t.Close()
	}
	return mount.BindFD(int(f.Fd()), target)
}
