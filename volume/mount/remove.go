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

// maxDepth is how many descriptors one deletion holds open; deeper folders are lifted up first.
const maxDepth = 200

// removeAt deletes one name of a directory. A container may have made the tree deeper than there are descriptors or stack: what lies
// below maxDepth is renamed to the top and deleted from there.
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
	r := removal{}
	return r.dir(dir, name, 0)
}

// removal is the deletion of one tree.
type removal struct {
	top    int // the tree's own directory
	lifted int // names made so far
}

// dir deletes a directory with all that is in it.
func (r *removal) dir(parent int, name string, depth int) error {
	fd, err := openDir(parent, name)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	if depth == 0 {
		r.top = fd
	}
	for {
		names, err := f.Readdirnames(512)
		for _, n := range names {
			if err := r.entry(fd, n, depth+1); err != nil {
				return fmt.Errorf("%s/%w", name, err)
			}
		}
		if err != nil || len(names) == 0 {
			break
		}
		// What was read is deleted, and at the top more may have been lifted here: begin anew rather than trust the position.
		if _, err := f.Seek(0, 0); err != nil {
			return err
		}
	}
	return gone(unix.Unlinkat(parent, name, unix.AT_REMOVEDIR), name)
}

func (r *removal) entry(dir int, name string, depth int) error {
	err := unix.Unlinkat(dir, name, 0)
	if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EPERM) {
		if depth < maxDepth {
			return r.dir(dir, name, depth)
		}
		err = unix.Renameat2(dir, name, r.top, liftedName(r.lifted), unix.RENAME_NOREPLACE)
		r.lifted++
	}
	return gone(err, name)
}

func liftedName(i int) string { return fmt.Sprintf(".keelson-lifted-%d", i) }

// gone turns the error of a deletion into ours; a name that is not there is fine.
func gone(err error, name string) error {
	switch {
	case err == nil, errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.EBUSY):
		err = ErrMounted
	}
	return fmt.Errorf("%s: %w", name, err)
}

func openDir(parent int, name string) (int, error) {
	// NO_XDEV: a mount here, or one that appears while we look, is not entered.
	fd, err := unix.Openat2(parent, name, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_XDEV | unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS})
	if errors.Is(err, unix.EXDEV) {
		err = ErrMounted
	}
	if err != nil {
		return -1, fmt.Errorf("%s: %w", name, err)
	}
	return fd, nil
}
