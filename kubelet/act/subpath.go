package act

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// subPath opens sub inside the volume at root, without ever leaving the volume, and bind-mounts what it opened to a
// place of the kubelet's own, whose path it returns. Mounting the opened descriptor, not the path, leaves no moment
// for a container to swap a directory for a link (HOSTILE PS1, PS2; CVE-2017-1002101, CVE-2021-25741). A missing
// directory is made.
func (e *Executor) subPath(pod *corev1.Pod, container, volume string, index int, root, sub string, readOnly bool) (string, error) {
	if filepath.IsAbs(sub) {
		return "", fmt.Errorf("subPath %q of volume %q must not be an absolute path", sub, volume)
	}
	if hasDotDot(sub) {
		return "", fmt.Errorf("subPath %q of volume %q must not contain '..'", sub, volume)
	}
	fd, err := openBeneath(root, sub)
	if errors.Is(err, unix.ENOENT) {
		if readOnly {
			return "", fmt.Errorf("subPath %q does not exist in the read-only volume %q", sub, volume)
		}
		if err := mkdirBeneath(root, sub); err != nil {
			return "", fmt.Errorf("make subPath %q in volume %q: %w", sub, volume, err)
		}
		fd, err = openBeneath(root, sub)
	}
	if err != nil {
		return "", fmt.Errorf("subPath %q of volume %q leads out of the volume or cannot be opened: %w", sub, volume, err)
	}
	defer unix.Close(fd)
	target := filepath.Join(e.PodDir(pod.UID), "volume-subpaths", volume, container, strconv.Itoa(index))
	if err := mountFD(fd, target); err != nil {
		return "", fmt.Errorf("mount subPath %q of volume %q: %w", sub, volume, err)
	}
	return target, nil
}

func hasDotDot(p string) bool {
	for _, part := range strings.Split(p, "/") {
		if part == ".." {
			return true
		}
	}
	return false
}

// openBeneath opens a path as O_PATH; the kernel refuses any link or .. that would lead out of root.
func openBeneath(root, sub string) (int, error) {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(dir)
	if sub == "" || sub == "." {
		sub = "."
	}
	for {
		fd, err := unix.Openat2(dir, sub, &unix.OpenHow{
			Flags:   unix.O_PATH | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS,
		})
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) { // EAGAIN: a rename went on beside us
			return fd, err
		}
	}
}

// mkdirBeneath makes sub and its parents inside root.
func mkdirBeneath(root, sub string) error {
	r, err := os.OpenRoot(root)
	if err != nil {
		return err
	}
	defer r.Close()
	return r.MkdirAll(sub, 0o750)
}

// mountFD bind-mounts what fd refers to on target, which is made as a directory or file to fit. A mount left there
// by an earlier try is replaced.
func mountFD(fd int, target string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	_ = unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) // EINVAL and ENOENT: there was none
	if err := os.MkdirAll(filepath.Dir(target), 0o750); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		if err := os.Mkdir(target, 0o750); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	} else {
		f, err := os.OpenFile(target, os.O_CREATE|os.O_WRONLY|unix.O_NOFOLLOW, 0o640)
		if err != nil {
			return err
		}
		f.Close()
	}
	return unix.Mount("/proc/self/fd/"+strconv.Itoa(fd), target, "", unix.MS_BIND, "")
}

// UnmountSubPaths takes away all subPath mounts of a pod. It must come before the volumes are unmounted and may be
// called again.
func (e *Executor) UnmountSubPaths(dir string) error {
	top := filepath.Join(dir, "volume-subpaths")
	matches, err := filepath.Glob(filepath.Join(top, "*", "*", "*"))
	if err != nil {
		return err
	}
	for _, m := range matches {
		err := unix.Unmount(m, unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EBUSY) {
			err = unix.Unmount(m, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		}
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unmount subPath %s: %w", m, err)
		}
		// Remove, not RemoveAll: should a mount still be here, nothing behind it may be deleted (PS22).
		if err := os.Remove(m); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove subPath mount point: %w", err)
		}
	}
	for _, pattern := range []string{"*/*", "*", ""} {
		dirs, _ := filepath.Glob(filepath.Join(top, pattern))
		for _, d := range dirs {
			_ = os.Remove(d) // only empty ones go
		}
	}
	return nil
}
