package mount

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrOutside means that a path would leave its volume.
var ErrOutside = errors.New("path leaves the volume")

// OpenIn opens the relative path below root as a handle (O_PATH). Symlinks are followed as long as every step stays below
// root; absolute ones and magic links are refused. With create, missing directories are made with root's mode.
// The caller closes the file.
func OpenIn(root, path string, create bool) (*os.File, error) {
	if strings.HasPrefix(path, "/") {
		return nil, fmt.Errorf("mount: %q: %w: it is absolute", path, ErrOutside)
	}
	for _, part := range strings.Split(path, "/") {
		if part == ".." {
			return nil, fmt.Errorf("mount: %q: %w: it contains '..'", path, ErrOutside)
		}
	}
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("mount: open %s: %w", root, err)
	}
	defer unix.Close(dir)
	fd, err := beneath(dir, path)
	if errors.Is(err, unix.ENOENT) && create {
		if err := makeDirs(dir, path); err != nil {
			return nil, err
		}
		fd, err = beneath(dir, path)
	}
	if err != nil {
		return nil, fmt.Errorf("mount: open %q in %s: %w", path, root, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

func beneath(dir int, path string) (int, error) {
	if path == "" {
		path = "."
	}
	for {
		fd, err := unix.Openat2(dir, path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS})
		switch {
		case errors.Is(err, unix.EAGAIN): // a rename raced with a ".." of a symlink
			continue
		case errors.Is(err, unix.EXDEV), errors.Is(err, unix.ELOOP):
			return -1, ErrOutside
		}
		return fd, err
	}
}

// makeDirs makes the missing directories of path, each inside a directory that was opened below dir.
func makeDirs(dir int, path string) error {
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	done := ""
	for _, part := range strings.Split(path, "/") {
		if part == "" || part == "." {
			continue
		}
		parent, err := beneath(dir, done)
		if err != nil {
			return fmt.Errorf("mount: open %q: %w", done, err)
		}
		err = unix.Mkdirat(parent, part, st.Mode&0o777)
		if err == nil {
			err = unix.Fchmodat(parent, part, st.Mode&0o7777, 0) // whatever the umask
		} else if errors.Is(err, unix.EEXIST) {
			err = nil
		}
		unix.Close(parent)
		if err != nil {
			return fmt.Errorf("mount: make %q: %w", part, err)
		}
		done = strings.TrimPrefix(done+"/"+part, "/")
	}
	return nil
}

// Owner gives everything below dir to the group and lets the group in, following no symlink and entering no other mount: read
// (and write unless readOnly) on files, also search and set-group-ID on directories.
func Owner(dir string, gid int64, readOnly bool) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("mount: group of %s: %w", dir, err)
	}
	if err := ownDir(fd, int(gid), readOnly); err != nil {
		return fmt.Errorf("mount: group of %s: %w", dir, err)
	}
	return nil
}

// Owned tells whether Owner has been here: the directory itself is the group's and lets it in.
func Owned(dir string, gid int64) (bool, error) {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return false, fmt.Errorf("mount: group of %s: %w", dir, err)
	}
	return int64(st.Gid) == gid && st.Mode&0o2770 == 0o2770, nil
}

// ownDir does what is in a directory that is open, then itself, and closes it.
func ownDir(fd, gid int, readOnly bool) error {
	f := os.NewFile(uintptr(fd), "")
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, n := range names {
		// Nothing is opened for reading that is not a directory: a FIFO would block, a device would act.
		h, err := unix.Openat2(fd, n, &unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_NO_XDEV | unix.RESOLVE_BENEATH})
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EXDEV) {
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", n, err)
		}
		err = ownEntry(fd, h, n, gid, readOnly)
		unix.Close(h)
		if err != nil {
			return fmt.Errorf("%s: %w", n, err)
		}
	}
	// Last, so that a root that has the group tells that all was done (Owned).
	add := uint32(0o2770)
	if readOnly {
		add = 0o2550
	}
	return own(fd, gid, add)
}

func ownEntry(dir, h int, name string, gid int, readOnly bool) error {
	var st unix.Stat_t
	if err := unix.Fstat(h, &st); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		fd, err := unix.Openat2(dir, name, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_NO_XDEV | unix.RESOLVE_BENEATH})
		if err != nil {
			return err
		}
		return ownDir(fd, gid, readOnly)
	case unix.S_IFLNK:
		return unix.Fchownat(h, "", -1, gid, unix.AT_EMPTY_PATH)
	}
	add := uint32(0o660)
	if readOnly {
		add = 0o440
	}
	return own(h, gid, add)
}

// own works on a handle: chown by the descriptor, chmod through /proc, which names the descriptor's own object.
func own(h, gid int, add uint32) error {
	if err := unix.Fchownat(h, "", -1, gid, unix.AT_EMPTY_PATH); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(h, &st); err != nil {
		return err
	}
	if st.Mode&add == add {
		return nil
	}
	return unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", h), st.Mode&0o7777|add)
}
