package snapshot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// overlay mounts rec at base/rootfs.
//
// Layers are immutable and the writable layer is never used again, so "volatile"
// is right: overlayfs then skips its syncs (an unmount without it takes
// milliseconds, up to hundreds under load).
func (s *Store) overlay(base string, rec Record) error {
	if s.inOneString.Load() && s.oldest(base, rec) == nil {
		return nil
	}
	lower, closeLower, err := s.lowerFDs(rec)
	if err != nil {
		return err
	}
	defer closeLower()
	err = newMount(base, lower, rec, true)
	if errors.Is(err, unix.EINVAL) && !rec.ReadOnly {
		err = newMount(base, lower, rec, false)
	}
	if err == nil || !(errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM)) {
		return err
	}
	switch old := s.oldest(base, rec); {
	case old == nil:
		s.inOneString.Store(true) // each attempt with the new API is a line in the kernel's log
		return nil
	case errors.Is(old, errors.ErrUnsupported):
		return err
	default:
		return fmt.Errorf("%w (with the new mount API: %w)", old, err)
	}
}

// oldest mounts with mount(2), for kernels that do not take layers one by one. Shifted layers have no path that it could take.
func (s *Store) oldest(base string, rec Record) error {
	if len(rec.UIDs) > 0 {
		return errors.ErrUnsupported
	}
	err := s.oldMount(base, rec, true)
	if errors.Is(err, unix.EINVAL) && !rec.ReadOnly {
		err = s.oldMount(base, rec, false)
	}
	return err
}

// lowerFDs opens the layers, topmost first, shifted if rec has id maps. A lone
// read-only layer gets an empty one below: overlayfs wants two.
func (s *Store) lowerFDs(rec Record) (fds []int, closeAll func(), err error) {
	closeAll = func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}
	userns := -1
	if len(rec.UIDs) > 0 {
		f, err := userNamespace(rec.UIDs, rec.GIDs)
		if err != nil {
			return nil, closeAll, err
		}
		defer f.Close()
		userns = int(f.Fd())
	}
	for _, name := range s.layerNames(rec) {
		p := filepath.Join(s.dir, "layers", name)
		var fd int
		if userns < 0 {
			fd, err = unix.Open(p, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		} else {
			fd, err = shifted(p, userns)
		}
		if err != nil {
			closeAll()
			return nil, func() {}, fmt.Errorf("open layer %s: %w", name, err)
		}
		fds = append(fds, fd)
	}
	return fds, closeAll, nil
}

const emptyLayer = "empty"

func (s *Store) layerNames(rec Record) []string {
	if len(rec.Layers) > 1 || len(rec.Layers) == 1 && !rec.ReadOnly {
		return rec.Layers
	}
	names := append([]string(nil), rec.Layers...)
	for i := 0; len(names) < 2; i++ {
		name := fmt.Sprintf("%s-%d", emptyLayer, i)
		os.Mkdir(filepath.Join(s.dir, "layers", name), 0o755) // there already, or the mount fails with the reason
		names = append(names, name)
	}
	return names
}

// shifted is a detached mount of directory p on which ids are as userns maps them.
func shifted(p string, userns int) (int, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, p, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("open_tree: %w", err)
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(userns)}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("id-mapped mount (needs a kernel and filesystem that support it): %w", err)
	}
	return fd, nil
}

// newMount uses fsopen: each layer is passed by descriptor (kernel 6.13) or, where
// that is unknown, by a path through that descriptor (6.7), so nothing limits
// their number but overlayfs.
func newMount(base string, lower []int, rec Record, volatile bool) error {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("fsopen overlay: %w", err)
	}
	defer unix.Close(fs)
	for _, fd := range lower {
		err := unix.FsconfigSetFd(fs, "lowerdir+", fd)
		if err != nil {
			err = unix.FsconfigSetString(fs, "lowerdir+", fmt.Sprintf("/proc/self/fd/%d", fd))
		}
		if err != nil {
			return explain(fs, "fsconfig lowerdir+", err)
		}
	}
	if rec.Label != "" {
		if err := unix.FsconfigSetString(fs, "context", rec.Label); err != nil {
			return explain(fs, "fsconfig context", err)
		}
	}
	if !rec.ReadOnly {
		for key, dir := range map[string]string{"upperdir": "upper", "workdir": "work"} {
			if err := setDir(fs, key, filepath.Join(base, dir)); err != nil {
				return explain(fs, "fsconfig "+key, err)
			}
		}
		if volatile {
			if err := unix.FsconfigSetFlag(fs, "volatile"); err != nil {
				return explain(fs, "fsconfig volatile", err)
			}
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return explain(fs, "create overlay", err)
	}
	attrs := 0
	if rec.ReadOnly {
		attrs = unix.MOUNT_ATTR_RDONLY
	}
	mnt, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return explain(fs, "fsmount overlay", err)
	}
	defer unix.Close(mnt)
	if err := unix.MoveMount(mnt, "", unix.AT_FDCWD, filepath.Join(base, "rootfs"), unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("move_mount overlay: %w", err)
	}
	return nil
}

// setDir passes a directory by a short path through a descriptor: an fsconfig
// string is at most 255 bytes, and upperdir knows escapes.
func setDir(fs int, key, dir string) error {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.FsconfigSetString(fs, key, fmt.Sprintf("/proc/self/fd/%d", fd))
}

// explain adds what the kernel logged into the fs context ("e ..." lines).
func explain(fs int, op string, err error) error {
	buf := make([]byte, 1024)
	var words []string
	for len(words) < 4 {
		n, rerr := unix.Read(fs, buf)
		if rerr != nil || n <= 0 {
			break
		}
		words = append(words, strings.TrimSpace(string(buf[:n])))
	}
	if len(words) > 0 {
		return fmt.Errorf("%s: %w (%s)", op, err, strings.Join(words, "; "))
	}
	return fmt.Errorf("%s: %w", op, err)
}

// oldMount is mount(2), for kernels before 6.7. All options must fit a page, so
// it works from inside layers/ with relative names; the working directory is a
// thread's own, and that thread ends afterwards.
func (s *Store) oldMount(base string, rec Record, volatile bool) error {
	up := filepath.Join("..", filepath.Base(filepath.Dir(base)), filepath.Base(base))
	opts := "lowerdir=" + strings.Join(s.layerNames(rec), ":")
	flags := uintptr(unix.MS_RDONLY)
	if !rec.ReadOnly {
		flags = 0
		opts += ",upperdir=" + filepath.Join(up, "upper") + ",workdir=" + filepath.Join(up, "work")
		if volatile {
			opts += ",volatile"
		}
	}
	if rec.Label != "" {
		opts += fmt.Sprintf(",context=%q", rec.Label) // a level has commas
	}
	if len(opts) >= os.Getpagesize() {
		return fmt.Errorf("mount overlay: %d layers are more than this kernel's mount takes", len(rec.Layers))
	}
	done := make(chan error)
	go func() { // ended by its own work; the caller waits
		runtime.LockOSThread() // never unlocked: the thread has its own working directory
		err := unix.Unshare(unix.CLONE_FS)
		if err == nil {
			err = unix.Chdir(filepath.Join(s.dir, "layers"))
		}
		if err == nil {
			err = unix.Mount("overlay", filepath.Join(up, "rootfs"), "overlay", flags, opts)
		}
		done <- err
	}()
	if err := <-done; err != nil {
		return fmt.Errorf("mount overlay at %s: %w", filepath.Join(base, "rootfs"), err)
	}
	return nil
}
