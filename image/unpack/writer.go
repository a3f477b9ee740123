package unpack

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// writer holds the state of laying out one layer.
type writer struct {
	ctx    context.Context
	root   int // fd, the caller's
	budget *Budget
	buf    []byte

	dirs     map[string]int      // open parents by the name used; see dir
	implied  map[string]struct{} // directories without an entry so far; "" is the root
	dirTimes []dirTime           // set at the end: every file made in a directory changes its time
	rep      Report
}

type dirTime struct {
	path string
	at   time.Time
}

const maxOpenDirs = 64

func newWriter(ctx context.Context, root int, b *Budget) *writer {
	return &writer{ctx: ctx, root: root, budget: b, buf: make([]byte, 256<<10),
		dirs: map[string]int{}, implied: map[string]struct{}{"": {}}}
}

func (w *writer) close() { w.forgetDirs() }

// forgetDirs closes the open parents; needed whenever something was removed or
// replaced, since a name may now lead elsewhere.
func (w *writer) forgetDirs() {
	for p, fd := range w.dirs {
		unix.Close(fd)
		delete(w.dirs, p)
	}
}

// dir opens the directory p (cleaned, "" for the root), making it if need be.
// Symlinks on the way, absolute ones too, resolve inside the root. The fd stays
// the writer's.
func (w *writer) dir(p string) (int, error) {
	if p == "" {
		return w.root, nil
	}
	if fd, ok := w.dirs[p]; ok {
		return fd, nil
	}
	fd, err := w.ensureDir(p, 0)
	if err != nil {
		return -1, fmt.Errorf("directory /%s: %w", p, err)
	}
	if len(w.dirs) >= maxOpenDirs {
		w.forgetDirs()
	}
	w.dirs[p] = fd
	return fd, nil
}

const maxHops = 40 // symlinks, as in the kernel

// ensureDir opens p or makes what is missing of it. The fd is the caller's.
func (w *writer) ensureDir(p string, hops int) (int, error) {
	fd, err := openIn(w.root, p, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err == nil || (err != unix.ENOENT && err != unix.ENOTDIR) {
		return fd, err
	}
	parent := w.root
	if up := path.Dir(p); up != "." {
		if parent, err = w.ensureDir(up, hops); err != nil {
			return -1, err
		}
		defer unix.Close(parent)
	}
	base := path.Base(p)
	var st unix.Stat_t
	err = unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case err == unix.ENOENT:
		return w.implyDir(parent, base, false)
	case err != nil:
		return -1, err
	case isWhiteout(&st):
		if err := unix.Unlinkat(parent, base, 0); err != nil {
			return -1, err
		}
		return w.implyDir(parent, base, true)
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return openDir(parent, base)
	case st.Mode&unix.S_IFMT == unix.S_IFLNK:
		if hops++; hops > maxHops {
			return -1, unix.ELOOP
		}
		to, err := w.linkTarget(parent, base)
		if err != nil {
			return -1, err
		}
		if to == "" {
			return unix.FcntlInt(uintptr(w.root), unix.F_DUPFD_CLOEXEC, 0)
		}
		return w.ensureDir(to, hops)
	}
	return -1, unix.ENOTDIR
}

func (w *writer) implyDir(parent int, base string, opaque bool) (int, error) {
	if err := unix.Mkdirat(parent, base, 0o755); err != nil {
		return -1, err
	}
	fd, err := openDir(parent, base)
	if err != nil {
		return -1, err
	}
	err = unix.Fchmod(fd, 0o755) // whatever the umask
	if err == nil && opaque {
		err = setOpaque(fd)
	}
	var real string
	if err == nil {
		real, err = w.realPath(fd)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	w.implied[real] = struct{}{}
	w.dirTimes = append(w.dirTimes, dirTime{real, time.Unix(0, 0)})
	return fd, nil
}

// linkTarget resolves the symlink base in parent by one step, to a path below the root.
func (w *writer) linkTarget(parent int, base string) (string, error) {
	buf := make([]byte, maxPath+1)
	n, err := unix.Readlinkat(parent, base, buf)
	if err != nil {
		return "", err
	}
	to := string(buf[:n])
	if !path.IsAbs(to) {
		at, err := w.realPath(parent)
		if err != nil {
			return "", err
		}
		to = path.Join("/", at, to)
	}
	return w.cleanName(to)
}

// realPath is where below the root an open directory lies, as the kernel sees it.
func (w *writer) realPath(fd int) (string, error) {
	root, err := fdPath(w.root)
	if err != nil {
		return "", err
	}
	p, err := fdPath(fd)
	if err != nil {
		return "", err
	}
	if p == root {
		return "", nil
	}
	rel, ok := strings.CutPrefix(p, strings.TrimSuffix(root, "/")+"/")
	if !ok {
		return "", fmt.Errorf("%w: directory is outside the layer", ErrInvalid)
	}
	return rel, nil
}

func fdPath(fd int) (string, error) {
	buf := make([]byte, 2*maxPath)
	n, err := unix.Readlink("/proc/self/fd/"+strconv.Itoa(fd), buf)
	if err != nil {
		return "", fmt.Errorf("readlink fd: %w", err)
	}
	return string(buf[:n]), nil
}

// finish sets directory times and counts the directories.
func (w *writer) finish() error {
	for _, d := range w.dirTimes {
		fd, err := openIn(w.root, orDot(d.path), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, unix.RESOLVE_NO_SYMLINKS)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			continue // replaced later in the same layer
		}
		if err != nil {
			return fmt.Errorf("directory /%s: %w", d.path, err)
		}
		err = setTimes(fd, d.at)
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("directory /%s: %w", d.path, err)
		}
	}
	w.forgetDirs()
	var err error
	w.rep.Bytes, w.rep.Inodes, err = Usage(w.ctx, w.root)
	return err
}

func orDot(p string) string {
	if p == "" {
		return "."
	}
	return p
}

// openIn opens p below dirfd, every symlink resolved inside dirfd. EAGAIN says
// that a rename raced with the resolution.
func openIn(dirfd int, p string, flags, resolve uint64) (int, error) {
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | resolve}
	for try := 0; ; try++ {
		fd, err := unix.Openat2(dirfd, p, &how)
		if (err == unix.EAGAIN || err == unix.EINTR) && try < 64 {
			continue
		}
		return fd, err
	}
}

// openDir opens the directory base in parent, itself, never through a symlink.
func openDir(parent int, base string) (int, error) {
	return unix.Openat(parent, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}
