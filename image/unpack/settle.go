package unpack

import (
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Settle joins a fresh layer with the layers below it (open directories, the
// topmost first), as if it had been unpacked on top of them:
//
//   - a directory that it uses without an entry gets the owner, mode and xattrs it
//     has below (overlayfs shows the topmost layer's, and /tmp would lose 1777);
//     where a symlink lies below, the files move to where that leads;
//   - a hard link to a file of a lower layer gets a copy of that file.
//
// It changes rep's usage where files were added.
func Settle(ctx context.Context, dir *os.File, lowers []*os.File, rep *Report) error {
	s := settler{ctx: ctx, root: int(dir.Fd())}
	for _, l := range lowers {
		s.lowers = append(s.lowers, int(l.Fd()))
	}
	slices.Sort(rep.implied) // parents before children
	for _, p := range rep.implied {
		if err := s.inherit(p, 0); err != nil {
			return fmt.Errorf("settle directory /%s: %w", p, err)
		}
	}
	w := newWriter(ctx, s.root, NewBudget(Limits{}))
	defer w.close()
	delete(w.implied, "") // the root was dealt with above
	for _, l := range rep.links {
		if err := s.copyUp(w, l); err != nil {
			return fmt.Errorf("%w: hard link %.120q to /%s: %w", ErrInvalid, l.name, l.target, err)
		}
	}
	if len(rep.links) == 0 && !s.moved {
		return nil
	}
	if err := w.finish(); err != nil {
		return err
	}
	rep.Bytes, rep.Inodes = w.rep.Bytes, w.rep.Inodes
	return nil
}

type settler struct {
	ctx    context.Context
	root   int
	lowers []int
	moved  bool
}

// lower finds p in the layers below as overlayfs would: the topmost layer that
// has it, unless something above hides it. The O_PATH fd is the caller's; -1
// when there is none.
func (s *settler) lower(p string) (int, unix.Stat_t, error) {
	for _, l := range s.lowers {
		fd, st, hides, err := lookup(l, p)
		if err != nil || fd >= 0 || hides {
			return fd, st, err
		}
	}
	return -1, unix.Stat_t{}, nil
}

// lookup walks p in one layer. hides says that layers further down are not seen
// at p: a whiteout, a non-directory or an opaque directory is in the way.
func lookup(layer int, p string) (fd int, st unix.Stat_t, hides bool, err error) {
	cur, err := unix.Openat(layer, ".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, st, false, err
	}
	if err := unix.Fstat(cur, &st); err != nil || p == "" {
		return cur, st, false, err
	}
	for comp := range strings.SplitSeq(p, "/") {
		hides = hides || isOpaque(cur)
		next := -1
		isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
		if isDir {
			next, err = unix.Openat(cur, comp, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		}
		unix.Close(cur)
		if !isDir {
			return -1, st, true, nil
		}
		if err == unix.ENOENT {
			return -1, st, hides, nil
		}
		if err == nil {
			err = unix.Fstat(next, &st)
		}
		if err != nil {
			return -1, st, false, err
		}
		if isWhiteout(&st) {
			unix.Close(next)
			return -1, st, true, nil
		}
		cur = next
	}
	return cur, st, false, nil
}

func isOpaque(dirfd int) bool {
	var v [4]byte
	n, err := unix.Getxattr(procPath(dirfd), opaqueXattr, v[:])
	return err == nil && n == 1 && v[0] == 'y'
}

func procPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// inherit gives the implied directory p what it has below.
func (s *settler) inherit(p string, hops int) error {
	low, st, err := s.lower(p)
	if err != nil || low < 0 {
		return err
	}
	defer unix.Close(low)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		return s.follow(p, low, hops)
	case unix.S_IFDIR:
		fd, err := openIn(s.root, orDot(p), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, unix.RESOLVE_NO_SYMLINKS)
		if err == unix.ENOENT {
			return nil // moved by follow
		}
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return copyMetadata(fd, low, &st)
	}
	return nil // a file below: the directory replaces it
}

// copyMetadata copies owner, mode, allowed xattrs and the time from an O_PATH fd.
func copyMetadata(fd, from int, st *unix.Stat_t) error {
	if err := unix.Fchown(fd, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, st.Mode&0o7777); err != nil {
		return err
	}
	names := make([]byte, 64<<10)
	n, err := unix.Listxattr(procPath(from), names)
	if err != nil && err != unix.ENOTSUP {
		return err
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names[:max(n, 0)]), "\x00"), "\x00") {
		if !xattrAllowed(name) {
			continue
		}
		v := make([]byte, 64<<10)
		n, err := unix.Getxattr(procPath(from), name, v)
		if err == nil {
			err = unix.Fsetxattr(fd, name, v[:n], 0)
		}
		if err != nil && err != unix.ENOTSUP && err != unix.ENODATA {
			return err
		}
	}
	return setTimes(fd, time.Unix(st.Mtim.Sec, st.Mtim.Nsec))
}

// follow handles "bin/x" in a layer whose lower layers have bin -> usr/bin: what
// was laid below bin moves to usr/bin, and bin goes, so that the symlink shows.
func (s *settler) follow(p string, low, hops int) error {
	if hops++; hops > maxHops {
		return unix.ELOOP
	}
	buf := make([]byte, maxPath+1)
	n, err := unix.Readlinkat(low, "", buf)
	if err != nil {
		return err
	}
	to := string(buf[:n])
	if !path.IsAbs(to) {
		to = path.Join("/", path.Dir(p), to)
	}
	to = path.Clean(to)[1:]
	if to == p || strings.HasPrefix(to+"/", p+"/") || strings.HasPrefix(p+"/", to+"/") && to != "" {
		return unix.ELOOP // into itself, or back up through itself
	}
	w := newWriter(s.ctx, s.root, NewBudget(Limits{}))
	defer w.close()
	src, err := openIn(s.root, p, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		if err == unix.ENOENT {
			return nil
		}
		return err
	}
	defer unix.Close(src)
	dst, err := w.dir(to)
	if err != nil {
		return err
	}
	if err := moveAll(src, dst); err != nil {
		return err
	}
	up, err := openIn(s.root, orDot(parentOf(p)), unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return err
	}
	defer unix.Close(up)
	if err := unix.Unlinkat(up, path.Base(p), unix.AT_REMOVEDIR); err != nil {
		return err
	}
	s.moved = true
	var fresh []string
	for q := range w.implied {
		if q != "" {
			fresh = append(fresh, q)
		}
	}
	slices.Sort(fresh)
	for _, q := range fresh {
		if err := s.inherit(q, hops); err != nil {
			return err
		}
	}
	return nil
}

// moveAll moves src's entries into dst, directories merging.
func moveAll(src, dst int) error {
	return eachName(src, func(name string) error {
		err := unix.Renameat2(src, name, dst, name, unix.RENAME_NOREPLACE)
		if err != unix.EEXIST {
			return err
		}
		a, err := openDir(src, name)
		if err == nil {
			defer unix.Close(a)
			b, err := openDir(dst, name)
			if err == nil {
				defer unix.Close(b)
				if err := moveAll(a, b); err != nil {
					return err
				}
				return unix.Unlinkat(src, name, unix.AT_REMOVEDIR)
			}
		}
		if err := removeAt(dst, name); err != nil {
			return err
		}
		return unix.Renameat(src, name, dst, name)
	})
}

// copyUp makes l's target appear in this layer, as a copy of the lower file, and
// links to it: what overlayfs would have done.
func (s *settler) copyUp(w *writer, l link) error {
	if linked, err := s.tryLink(w, l); linked || err != nil { // an earlier link brought it up
		return err
	}
	low, st, err := s.lower(l.target)
	if err != nil {
		return err
	}
	if low < 0 {
		return unix.ENOENT
	}
	defer unix.Close(low)
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return fmt.Errorf("not a regular file")
	}
	dir, err := w.dir(parentOf(l.target))
	if err != nil {
		return err
	}
	fd, err := unix.Openat(dir, path.Base(l.target), unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	err = copyFile(fd, low, &st)
	unix.Close(fd)
	if err != nil {
		return err
	}
	for p := range w.implied {
		if err := s.inherit(p, 0); err != nil {
			return err
		}
	}
	linked, err := s.tryLink(w, l)
	if err == nil && !linked {
		err = unix.ENOENT
	}
	return err
}

// tryLink makes the hard link if its target is in this layer.
func (s *settler) tryLink(w *writer, l link) (bool, error) {
	dir, err := w.dir(parentOf(l.name))
	if err != nil {
		return false, err
	}
	err = w.link(dir, l.name, path.Base(l.name), l.target)
	missing := len(w.rep.links) > 0
	w.rep.links = nil
	return !missing, err
}

func parentOf(p string) string { return strings.TrimSuffix(path.Dir(p), ".") }

func copyFile(fd, low int, st *unix.Stat_t) error {
	src, err := os.Open(procPath(low))
	if err != nil {
		return err
	}
	defer src.Close()
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	dst := os.NewFile(uintptr(dup), "copy")
	defer dst.Close()
	if _, err := io.Copy(dst, src); err != nil {
		return err
	}
	return copyMetadata(fd, low, st)
}
