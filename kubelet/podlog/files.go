package podlog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// segment is one open log file.
type segment struct {
	*os.File
	name string
	ino  uint64
}

// rewind steps back n bytes: they were read ahead or belong to an incomplete line.
func (s *segment) rewind(n int64) error {
	if n == 0 {
		return nil
	}
	_, err := s.Seek(-n, io.SeekCurrent)
	return err
}

// chain is a log's files, oldest first, and the one that is being read.
type chain struct {
	dir  *os.File
	name string
	open []*segment
	at   int
}

// openAll opens a log with its rotated predecessors ("name.<time>", uncompressed ones).
func openAll(root, dir, name string) (*chain, error) {
	top, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open log root %s: %w", root, err)
	}
	defer unix.Close(top)
	fd, err := openStrict(top, dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, fmt.Errorf("open log directory %s: %w", dir, err)
	}
	c := &chain{dir: os.NewFile(uintptr(fd), dir), name: name}
	if c.open, err = c.all(); err != nil {
		c.close()
		return nil, err
	}
	if len(c.open) == 0 {
		c.close()
		return nil, fmt.Errorf("open log %s/%s: %w", dir, name, os.ErrNotExist)
	}
	return c, nil
}

// all opens the log's files, oldest first. A rotation between listing and opening would hide a file from us, so the
// list must be the same before and after.
func (c *chain) all() ([]*segment, error) {
	before, err := c.names()
	if err != nil {
		return nil, err
	}
	for {
		out, err := c.openNames(before)
		if err != nil {
			return nil, err
		}
		after, err := c.names()
		if err == nil && slices.Equal(before, after) {
			return out, nil
		}
		for _, s := range out {
			s.Close()
		}
		if err != nil {
			return nil, err
		}
		before = after
	}
}

func (c *chain) openNames(names []string) ([]*segment, error) {
	var out []*segment
	for _, n := range names {
		s, err := c.openFile(n)
		if errors.Is(err, os.ErrNotExist) {
			continue // removed by rotation since it was listed
		}
		if err != nil {
			for _, o := range out {
				o.Close()
			}
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// openStrict opens a path below dir in which no part is a link.
func openStrict(dir int, path string, flags uint64) (int, error) {
	for {
		fd, err := unix.Openat2(dir, path, &unix.OpenHow{
			Flags:   flags | unix.O_CLOEXEC | unix.O_NOFOLLOW | unix.O_NONBLOCK,
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
		})
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		return fd, err
	}
}

// names lists the log's files, oldest first; times in names sort as text.
func (c *chain) names() ([]string, error) {
	if _, err := c.dir.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	all, err := c.dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list log directory %s: %w", c.dir.Name(), err)
	}
	var out []string
	here := false
	for _, n := range all {
		here = here || n == c.name
		if strings.HasPrefix(n, c.name+".") && !strings.HasSuffix(n, ".gz") && !strings.HasSuffix(n, ".tmp") {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	if here {
		out = append(out, c.name)
	}
	return out, nil
}

func (c *chain) openFile(name string) (*segment, error) {
	fd, err := openStrict(int(c.dir.Fd()), name, unix.O_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("open log %s: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		f.Close()
		return nil, fmt.Errorf("stat log %s: %w", name, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		f.Close()
		return nil, fmt.Errorf("log %s is not a regular file: refused", name)
	}
	return &segment{File: f, name: name, ino: st.Ino}, nil
}

func (c *chain) dirFD() int { return int(c.dir.Fd()) }

func (c *chain) current() *segment { return c.open[c.at] }

// next steps to the following open file.
func (c *chain) next() bool {
	if c.at+1 >= len(c.open) {
		return false
	}
	c.at++
	return true
}

// advance opens what rotation has put after the last open file, if anything.
func (c *chain) advance() (moved bool, err error) {
	last := c.open[len(c.open)-1]
	var st unix.Stat_t
	err = unix.Fstatat(int(c.dir.Fd()), c.name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) || err == nil && st.Ino == last.ino {
		return false, nil // not rotated, or in the middle of it: the new file's creation wakes us
	}
	files, err := c.all()
	if err != nil {
		return false, err
	}
	i := slices.IndexFunc(files, func(s *segment) bool { return s.ino == last.ino })
	// Not found: it was removed, and since the oldest go first, all that are left come after it.
	for _, s := range files[:i+1] {
		s.Close()
	}
	files = files[i+1:]
	if len(files) == 0 {
		return false, nil
	}
	for _, s := range c.open[:c.at] {
		s.Close()
	}
	// The last file stays: it may have grown between our last read and its rotation.
	c.open = append([]*segment{last}, files...)
	c.at = 0
	return true, nil
}

func (c *chain) close() {
	for _, s := range c.open {
		s.Close() // closing twice is harmless
	}
	c.dir.Close()
}

// tail positions the chain so that n logical lines are left; negative n leaves all. Lines of another stream do not
// count when one is asked for.
func (c *chain) tail(n int64, stream string) error {
	if n < 0 {
		return nil
	}
	for i := len(c.open) - 1; i >= 0; i-- {
		seen, err := c.open[i].seekTail(n, stream)
		if err != nil {
			return err
		}
		c.at = i
		if seen >= n {
			return nil
		}
		n -= seen
	}
	return nil
}

// seekTail positions the file before its last n full lines and says how many there were, at most n.
func (s *segment) seekTail(n int64, stream string) (seen int64, err error) {
	end, err := s.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	if n == 0 {
		return 0, nil
	}
	const block = 64 << 10
	var rest []byte // the beginning of a line whose front is in the block before
	// first is where the earliest line counted so far begins, parts of it included.
	first, pos := end, end
	for pos > 0 {
		size := min(pos, block)
		pos -= size
		buf := make([]byte, size, int(size)+len(rest))
		if _, err := s.ReadAt(buf, pos); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		buf = append(buf, rest...)
		cut := len(buf)
		for cut > 0 {
			nl := bytes.LastIndexByte(buf[:cut-1], '\n')
			if nl < 0 && pos > 0 {
				break // this line begins in an earlier block
			}
			l, ok := parse(buf[nl+1 : cut])
			counts := ok && (stream == "" || l.stream == stream)
			if counts && !l.partial {
				if seen == n {
					_, err = s.Seek(first, io.SeekStart)
					return seen, err
				}
				seen++
			}
			if counts {
				first = pos + int64(nl) + 1
			}
			cut = nl + 1
		}
		rest = append([]byte(nil), buf[:cut]...)
		if len(rest) > maxLine {
			return 0, fmt.Errorf("log %s: a line is longer than %d bytes", s.name, maxLine)
		}
	}
	_, err = s.Seek(0, io.SeekStart)
	return seen, err
}
