package unpack

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// create runs make (one syscall that fails with EEXIST) and, when the name is
// taken by an earlier entry of this layer, removes that and tries again. over
// tells that it was a whiteout.
func (w *writer) create(dirfd int, base string, make func() error) (over bool, err error) {
	if err = make(); err != unix.EEXIST {
		return false, err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(dirfd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, err
	}
	w.forgetOthers(dirfd)
	if err := removeAt(dirfd, base); err != nil {
		return false, err
	}
	return isWhiteout(&st), make()
}

// forgetOthers closes all open parents but the one in use.
func (w *writer) forgetOthers(keep int) {
	for p, fd := range w.dirs {
		if fd != keep {
			unix.Close(fd)
			delete(w.dirs, p)
		}
	}
}

func (w *writer) mkdir(dirfd int, name, base string, hdr *tar.Header) error {
	opaque := false
	err := unix.Mkdirat(dirfd, base, 0o700)
	if err == unix.EEXIST {
		var st unix.Stat_t
		if err = unix.Fstatat(dirfd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
			opaque, err = w.create(dirfd, base, func() error { return unix.Mkdirat(dirfd, base, 0o700) })
		}
	}
	if err != nil {
		return fmt.Errorf("mkdir: %w", err)
	}
	fd, err := openDir(dirfd, base)
	if err != nil {
		return fmt.Errorf("open directory: %w", err)
	}
	defer unix.Close(fd)
	if opaque {
		if err := setOpaque(fd); err != nil {
			return err
		}
	}
	real := name
	if len(w.implied) > 1 || strings.Contains(name, "/") {
		if real, err = w.realPath(fd); err != nil {
			return err
		}
	}
	delete(w.implied, real)
	w.dirTimes = append(w.dirTimes, dirTime{real, hdr.ModTime})
	return w.metadata(fd, hdr)
}

func (w *writer) file(dirfd int, base string, hdr *tar.Header, r io.Reader) error {
	fd := -1
	_, err := w.create(dirfd, base, func() (err error) {
		fd, err = unix.Openat(dirfd, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		return err
	})
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	defer unix.Close(fd)
	if isSparse(hdr) {
		if err := w.budget.spend(w.root, hdr.Size); err != nil {
			return err
		}
		err = w.copySparse(fd, r, hdr.Size)
	} else {
		err = w.copy(fd, r)
	}
	if err != nil {
		return err
	}
	if err := w.metadata(fd, hdr); err != nil {
		return err
	}
	return setTimes(fd, hdr.ModTime)
}

func isSparse(hdr *tar.Header) bool {
	if hdr.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for k := range hdr.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return true
		}
	}
	return false
}

func (w *writer) copy(fd int, r io.Reader) error {
	for {
		n, err := r.Read(w.buf)
		if werr := writeAll(fd, w.buf[:n]); werr != nil {
			return fmt.Errorf("write: %w", werr)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

var zeros [4096]byte

// copySparse leaves blocks of zeros out, so that a sparse file stays one.
func (w *writer) copySparse(fd int, r io.Reader, size int64) error {
	for at := int64(0); at < size; {
		if w.ctx.Err() != nil {
			return context.Cause(w.ctx)
		}
		n, err := io.ReadFull(r, w.buf[:min(int64(len(w.buf)), size-at)])
		for i := 0; i < n; i += len(zeros) {
			b := w.buf[i:min(i+len(zeros), n)]
			if bytes.Equal(b, zeros[:len(b)]) {
				continue
			}
			if _, werr := unix.Pwrite(fd, b, at+int64(i)); werr != nil {
				return fmt.Errorf("write: %w", werr)
			}
		}
		at += int64(n)
		if err != nil {
			return err
		}
	}
	if err := unix.Ftruncate(fd, size); err != nil {
		return fmt.Errorf("truncate: %w", err)
	}
	return nil
}

func writeAll(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// link makes a hard link to a file of this layer; one to a lower layer's file is
// left to Settle.
func (w *writer) link(dirfd int, name, base, to string) error {
	if rel := path.Clean(to); rel == ".." || strings.HasPrefix(rel, "../") {
		return fmt.Errorf("%w: hard link to %.120q, outside the layer", ErrInvalid, to)
	}
	target, err := w.cleanName(to)
	if err != nil {
		return err
	}
	if target == "" || target == name {
		return fmt.Errorf("%w: hard link to %.120q", ErrInvalid, to)
	}
	tdir := w.root
	if up := path.Dir(target); up != "." {
		tdir, err = openIn(w.root, up, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err == nil {
			defer unix.Close(tdir)
		}
	}
	var st unix.Stat_t
	if err == nil {
		err = unix.Fstatat(tdir, path.Base(target), &st, unix.AT_SYMLINK_NOFOLLOW)
	}
	if errors.Is(err, unix.ENOENT) {
		w.rep.links = append(w.rep.links, link{name, target})
		return nil
	}
	if err != nil {
		return fmt.Errorf("hard link to /%s: %w", target, err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR || isWhiteout(&st) {
		return fmt.Errorf("%w: hard link to /%s: not a file", ErrInvalid, target)
	}
	_, err = w.create(dirfd, base, func() error { return unix.Linkat(tdir, path.Base(target), dirfd, base, 0) })
	if err != nil {
		return fmt.Errorf("hard link to /%s: %w", target, err)
	}
	return nil
}

func (w *writer) symlink(dirfd int, base string, hdr *tar.Header) error {
	if len(hdr.Linkname) > maxPath || hdr.Linkname == "" || strings.IndexByte(hdr.Linkname, 0) >= 0 {
		return fmt.Errorf("%w: symlink target of %d bytes", ErrInvalid, len(hdr.Linkname))
	}
	if _, err := w.create(dirfd, base, func() error { return unix.Symlinkat(hdr.Linkname, dirfd, base) }); err != nil {
		return fmt.Errorf("symlink: %w", err)
	}
	w.forgetOthers(dirfd) // a name may now resolve
	if err := unix.Fchownat(dirfd, base, hdr.Uid, hdr.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("chown: %w", err)
	}
	if err := w.xattrsAt(dirfd, base, hdr); err != nil {
		return err
	}
	return setTimesAt(dirfd, base, hdr.ModTime)
}

func (w *writer) node(dirfd int, base string, hdr *tar.Header) error {
	kind := map[byte]uint32{tar.TypeChar: unix.S_IFCHR, tar.TypeBlock: unix.S_IFBLK, tar.TypeFifo: unix.S_IFIFO}[hdr.Typeflag]
	dev := 0
	if kind != unix.S_IFIFO {
		if hdr.Devmajor < 0 || hdr.Devminor < 0 || hdr.Devmajor >= 1<<12 || hdr.Devminor >= 1<<20 {
			return fmt.Errorf("%w: device %d:%d", ErrInvalid, hdr.Devmajor, hdr.Devminor)
		}
		dev = int(unix.Mkdev(uint32(hdr.Devmajor), uint32(hdr.Devminor)))
		if dev == 0 {
			return fmt.Errorf("%w: device 0:0 is overlayfs's whiteout", ErrInvalid)
		}
	}
	if _, err := w.create(dirfd, base, func() error { return unix.Mknodat(dirfd, base, kind|0o600, dev) }); err != nil {
		return fmt.Errorf("mknod: %w", err)
	}
	if err := unix.Fchownat(dirfd, base, hdr.Uid, hdr.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("chown: %w", err)
	}
	// No symlink can be here: we made the node and the directory is ours alone.
	if err := unix.Fchmodat(dirfd, base, uint32(hdr.Mode)&0o7777, 0); err != nil {
		return fmt.Errorf("chmod: %w", err)
	}
	if err := w.xattrsAt(dirfd, base, hdr); err != nil {
		return err
	}
	return setTimesAt(dirfd, base, hdr.ModTime)
}

// metadata sets owner, mode and xattrs of an open file or directory, in this
// order: chown clears set-uid bits and file capabilities.
func (w *writer) metadata(fd int, hdr *tar.Header) error {
	if err := unix.Fchown(fd, hdr.Uid, hdr.Gid); err != nil {
		return fmt.Errorf("chown: %w", err)
	}
	if err := unix.Fchmod(fd, uint32(hdr.Mode)&0o7777); err != nil {
		return fmt.Errorf("chmod: %w", err)
	}
	return eachXattr(hdr, func(k string, v []byte) error { return unix.Fsetxattr(fd, k, v, 0) })
}

func (w *writer) xattrsAt(dirfd int, base string, hdr *tar.Header) error {
	return eachXattr(hdr, func(k string, v []byte) error {
		return unix.Lsetxattr("/proc/self/fd/"+strconv.Itoa(dirfd)+"/"+base, k, v, 0)
	})
}

const paxXattr = "SCHILY.xattr."

// eachXattr gives the xattrs that an image may set: file capabilities, ACLs and
// user attributes. Overlayfs's own would redirect lookups, security labels are
// the host's to give; both are dropped. A filesystem without support is no error.
func eachXattr(hdr *tar.Header, set func(k string, v []byte) error) error {
	for key, v := range hdr.PAXRecords {
		k, ok := strings.CutPrefix(key, paxXattr)
		if !ok || !xattrAllowed(k) {
			continue
		}
		if err := set(k, []byte(v)); err != nil && err != unix.ENOTSUP && err != unix.EPERM {
			return fmt.Errorf("set xattr %.80q: %w", k, err)
		}
	}
	return nil
}

func xattrAllowed(k string) bool {
	switch {
	case len(k) > maxName, strings.HasPrefix(k, "user.overlay."):
		return false
	case k == "security.capability", k == "system.posix_acl_access", k == "system.posix_acl_default":
		return true
	}
	return strings.HasPrefix(k, "user.")
}

// setTimes is futimens: utimensat without a path, for which x/sys has no wrapper.
func setTimes(fd int, at time.Time) error {
	ts := timespecs(at)
	if _, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&ts[0])), 0, 0, 0); errno != 0 {
		return fmt.Errorf("set times: %w", errno)
	}
	return nil
}

func setTimesAt(dirfd int, base string, at time.Time) error {
	ts := timespecs(at)
	if err := unix.UtimesNanoAt(dirfd, base, ts[:], unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set times: %w", err)
	}
	return nil
}

func timespecs(at time.Time) [2]unix.Timespec {
	t := unix.Timespec{Sec: at.Unix(), Nsec: int64(at.Nanosecond())}
	return [2]unix.Timespec{t, t}
}

// removeAt removes base in dirfd with all below it, never through a symlink.
func removeAt(dirfd int, base string) error {
	err := unix.Unlinkat(dirfd, base, 0)
	if err == nil || err == unix.ENOENT {
		return nil
	}
	if err != unix.EISDIR && err != unix.EPERM {
		return err
	}
	fd, err := openDir(dirfd, base)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := eachName(fd, func(name string) error { return removeAt(fd, name) }); err != nil {
		return err
	}
	return unix.Unlinkat(dirfd, base, unix.AT_REMOVEDIR)
}
