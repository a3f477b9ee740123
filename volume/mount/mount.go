package mount

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Is tells whether something is mounted at path itself. A missing path is none. A filesystem whose server hangs is not asked.
func Is(path string) (bool, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st)
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

// Listed tells the same by the mount table: no filesystem is asked, where Is may have to wait for the server of an NFS mount.
func Listed(path string) (bool, error) {
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	var found []*mountinfo.Info
	if err == nil {
		found, err = mountinfo.GetMounts(mountinfo.SingleEntryFilter(filepath.Join(dir, filepath.Base(path))))
	}
	if err != nil {
		return false, fmt.Errorf("mount: look for %s: %w", path, err)
	}
	return len(found) > 0, nil
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

// Share makes the directory a shared mount of its own, unless what it is on is shared: mounts that a container makes below it then appear
// in all others that see it. ErrMounted if there are mounts below it already: they would be doubled.
func Share(dir string) error {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	all, err := mountinfo.GetMounts(nil)
	if err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	var on *mountinfo.Info
	below := false
	for _, m := range all {
		switch {
		case m.Mountpoint == dir || m.Mountpoint == "/" || strings.HasPrefix(dir, m.Mountpoint+"/"):
			if on == nil || len(m.Mountpoint) >= len(on.Mountpoint) {
				on = m
			}
		case strings.HasPrefix(m.Mountpoint, dir+"/"):
			below = true
		}
	}
	switch {
	case on != nil && strings.Contains(on.Optional, "shared:"):
		return nil
	case on != nil && on.Mountpoint == dir:
	case below:
		return fmt.Errorf("mount: share %s: %w", dir, ErrMounted)
	default:
		if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount: bind %s on itself: %w", dir, err)
		}
	}
	if err := unix.Mount("", dir, "", unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("mount: share %s: %w", dir, err)
	}
	return nil
}

// Unmount removes all mounts at path itself; without one it does nothing. A mount in use is detached: it ends with its last user. No server is
// asked, as Is may have to.
func Unmount(path string) error {
	for {
		err := unix.Unmount(path, unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EBUSY) {
			err = unix.Unmount(path, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
		}
		switch {
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR): // no mount
			return nil
		case err != nil:
			return fmt.Errorf("mount: unmount %s: %w", path, err)
		}
	}
}
