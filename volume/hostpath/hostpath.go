package hostpath

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// Check opens what path leads to and compares it with the type; the OrCreate types make what is missing (its parents only for
// a directory). The path is the node's own: symlinks in it are followed.
func Check(path string, typ corev1.HostPathType) error {
	kind, err := look(path)
	if typ == corev1.HostPathUnset {
		if errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ESTALE) || errors.Is(err, unix.EIO) { // nothing that a container could mount
			return fmt.Errorf("hostPath: look at %s: its filesystem's server is gone: %w", path, err)
		}
		return nil
	}
	if errors.Is(err, unix.ENOENT) {
		switch typ {
		case corev1.HostPathDirectoryOrCreate:
			if err := os.MkdirAll(path, 0o755); err != nil {
				return fmt.Errorf("hostPath: make directory: %w", err)
			}
		case corev1.HostPathFileOrCreate:
			f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
			if err == nil {
				f.Close()
			} else if !errors.Is(err, os.ErrExist) {
				return fmt.Errorf("hostPath: make file: %w", err)
			}
		}
		kind, err = look(path)
	}
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) {
		return fmt.Errorf("hostPath: look at %s: %w", path, err)
	}
	want, name := wanted(typ)
	if want == 0 {
		return fmt.Errorf("hostPath: unknown type %q", typ)
	}
	if err != nil || kind != want {
		return fmt.Errorf("hostPath type check failed: %s is not a %s", path, name)
	}
	return nil
}

func look(path string) (uint32, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, err
	}
	return st.Mode & unix.S_IFMT, nil
}

func wanted(typ corev1.HostPathType) (uint32, string) {
	switch typ {
	case corev1.HostPathDirectory, corev1.HostPathDirectoryOrCreate:
		return unix.S_IFDIR, "directory"
	case corev1.HostPathFile, corev1.HostPathFileOrCreate:
		return unix.S_IFREG, "file"
	case corev1.HostPathSocket:
		return unix.S_IFSOCK, "socket file"
	case corev1.HostPathCharDev:
		return unix.S_IFCHR, "character device"
	case corev1.HostPathBlockDev:
		return unix.S_IFBLK, "block device"
	}
	return 0, ""
}
