package mount

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Is tells whether something is mounted at path itself. A missing path is none.
func Is(path string) (bool, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_TYPE, &st)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return false, nil
	case err != nil:
		// A dead FUSE or NFS server answers so; only a mount can.
		if errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ESTALE) || errors.Is(err, unix.EIO) {
			return true, nil
		}
		return false, fmt.Errorf("mount: look at %s: %w", path, err)
	}
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}

// Tmpfs mounts a tmpfs on the directory, made if missing, unless one is there. size 0 is the kernel's default, half of
// the memory. Content never reaches swap where the kernel knows how (6.4).
func Tmpfs(dir string, size int64, mode os.FileMode) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	if there, err := Is(dir); there || err != nil {
		return err
	}
	opts := []string{"mode=" + strconv.FormatUint(uint64(mode.Perm()), 8)}
	if size > 0 {
		opts = append(opts, "size="+strconv.FormatInt(size, 10))
	}
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV)
	err := unix.Mount("tmpfs", dir, "tmpfs", flags, strings.Join(append(opts, "noswap"), ","))
	if errors.Is(err, unix.EINVAL) {
		err = unix.Mount("tmpfs", dir, "tmpfs", flags, strings.Join(opts, ","))
	}
	if err != nil {
		return fmt.Errorf("mount: tmpfs on %s: %w", dir, err)
	}
	return nil
}

// BindFD mounts what fd is open on over target, which must exist with the same kind (directory or not).
func BindFD(fd int, target string) error {
	if err := unix.Mount("/proc/self/fd/"+strconv.Itoa(fd), target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount: bind on %s: %w", target, err)
	}
	return nil
}

// Unmount removes all mounts at path itself; without one it does nothing. A mount in use is detached: it ends with its last user.
func Unmount(path string) error {
	for {
		there, err := Is(path)
		if !there || err != nil {
			return err
		}
		err = unix.Unmount(path, unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EBUSY) {
			err = unix.Unmount(path, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
		}
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("mount: unmount %s: %w", path, err)
		}
	}
}
