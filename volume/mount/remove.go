package mount

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ErrMounted means that a tree was not deleted since something is mounted in it.
var ErrMounted = errors.New("something is still mounted in it")

// RemoveTree deletes path and everything below it, by descriptors, following no symlink and stopping at every mount with
// ErrMounted. A missing path is fine. What went before a stop is gone.
func RemoveTree(path string) error {
	parent, name := split(path)
	fd, err := unix.Open(parent, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("mount: delete %s: %w", path, err)
	}
	defer unix.Close(fd)
	if err := removeAt(fd, name); err != nil {
		return fmt.Errorf("mount: delete %s: %w", path, err)
	}
	return nil
}

func split(path string) (dir, name string) {
	for len(path) > 1 && path[len(path)-1] == '/' {
		path = path[:len(path)-1]
	}
	for i := len(path) - 1; i >= 0; i-- {
		if path[i] == '/' {
			return path[:i+1], path[i+1:]
		}
	}
	return ".", path
}

// removeAt deletes one name of a directory. Recursion is as deep as the tree, which a container may have made deep: each level holds
// one descriptor and a page of names, and the kernel refuses depths beyond what descriptors allow, as an error.
func removeAt(dir int, name string) error {
	err := unix.Unlinkat(dir, name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("%s: %w", name, ErrMounted)
	}
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%s: %w", name, err)
	}
	// NO_XDEV: a mount here, or one that appears while we look, is not entered.
	fd, err := unix.Openat2(dir, name, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_XDEV | unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS})
	if errors.Is(err, unix.EXDEV) {
		return fmt.Errorf("%s: %w", name, ErrMounted)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	for {
		names, err := f.Readdirnames(512)
		for _, n := range names {
			if err := removeAt(fd, n); err != nil {
				return fmt.Errorf("%s/%w", name, err)
			}
		}
		if err != nil || len(names) == 0 {
			break
		}
		if _, err := f.Seek(0, 0); err != nil { // what was read is deleted: begin anew rather than trust the position
			return err
		}
	}
	if err := unix.Unlinkat(dir, name, unix.AT_REMOVEDIR); err != nil && !errors.Is(err, unix.ENOENT) {
		if errors.Is(err, unix.EBUSY) {
			err = ErrMounted
		}
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
