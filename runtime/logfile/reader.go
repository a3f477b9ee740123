package logfile

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Options say which records to read.
type Options struct {
	Since  time.Time // only records from then on; zero: all
	Tail   int       // only the last so many records of the file; negative: all
	Follow bool      // go on with what is written later, across rotations
	// Until, if not nil, ends a following when it is closed, after what was
	// written by then: the end of the container.
	Until <-chan struct{}
}

// maxLine is how long a line of a log file may be in bytes: a record's content
// and its head, with room for other writers' larger ones.
const maxLine = 1 << 20

// Read calls fn for each record of the log at path, in order. It returns nil
// at the end of the file or of the following, fn's error, or ctx's. The
// record's content is valid during the call only. Lines that are no records
// are passed over: one bad line must not hide the others.
func Read(ctx context.Context, path string, opt Options, fn func(Record) error) error {
	r := &reader{path: path, opt: opt, fn: fn}
	if opt.Follow {
		// Before the file is read, so that no change falls in between.
		w, err := watchDir(path)
		if err != nil {
			return fmt.Errorf("follow log: %w", err)
		}
		defer w.close()
		r.watch = w
	}
	err := r.run(ctx)
	if err != nil {
		return fmt.Errorf("read log %s: %w", path, err)
	}
	return nil
}

type reader struct {
	path  string
	opt   Options
	fn    func(Record) error
	watch *dirWatch
	file  *os.File
	rest  []byte // the start of a line whose end is not written yet
}

func (r *reader) run(ctx context.Context) error {
	file, err := r.openFirst(ctx)
	if err != nil {
		return err
	}
	r.file = file
	defer func() { r.file.Close() }()
	if r.opt.Tail >= 0 {
		start, err := tailOffset(r.file, r.opt.Tail)
		if err != nil {
			return err
		}
		if _, err := r.file.Seek(start, io.SeekStart); err != nil {
			return err
		}
	}
	last := false
	for {
		if err := r.drain(ctx); err != nil {
			return err
		}
		moved, err := r.next()
		if err != nil {
			return err
		}
		if moved {
			continue
		}
		if !r.opt.Follow || last {
			return nil
		}
		if last, err = r.watch.wait(ctx, r.opt.Until); err != nil {
			return err
		}
	}
}

// openFirst opens the log; a following waits for it to come.
func (r *reader) openFirst(ctx context.Context) (*os.File, error) {
	for {
		f, err := os.OpenFile(r.path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
		if err == nil || !r.opt.Follow || !errors.Is(err, os.ErrNotExist) {
			return f, err
		}
		last, err := r.watch.wait(ctx, r.opt.Until)
		if err != nil {
			return nil, err
		}
		if last {
			return os.OpenFile(r.path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
		}
	}
}

// drain reads to the present end of the file.
func (r *reader) drain(ctx context.Context) error {
	buf := make([]byte, 64<<10)
	for {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		n, err := r.file.Read(buf)
		if lineErr := r.lines(buf[:n]); lineErr != nil {
			return lineErr
		}
		if errors.Is(err, io.EOF) || (err == nil && n == 0) {
			return r.rewound()
		}
		if err != nil {
			return err
		}
	}
}

// rewound starts over if the file was cut shorter than what was read of it.
func (r *reader) rewound() error {
	at, err := r.file.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	st, err := r.file.Stat()
	if err != nil {
		return err
	}
	if st.Size() < at {
		r.rest = nil
		_, err = r.file.Seek(0, io.SeekStart)
	}
	return err
}

func (r *reader) lines(data []byte) error {
	r.rest = append(r.rest, data...)
	text := r.rest
	for {
		end := bytes.IndexByte(text, '\n')
		if end < 0 {
			break
		}
		if err := r.line(text[:end]); err != nil {
			return err
		}
		text = text[end+1:]
	}
	if len(text) > maxLine {
		text = text[:0] // not a log of records
	}
	r.rest = append(r.rest[:0], text...)
	return nil
}

func (r *reader) line(line []byte) error {
	rec, err := Parse(line)
	if err != nil || rec.Time.Before(r.opt.Since) {
		return nil
	}
	return r.fn(rec)
}

// next goes over to the file that came after the one being read, if that was
// renamed and another has taken its place.
func (r *reader) next() (bool, error) {
	if !r.opt.Follow {
		return false, nil
	}
	st, err := r.file.Stat()
	if err != nil {
		return false, err
	}
	if now, err := os.Lstat(r.path); err != nil || os.SameFile(st, now) {
		return false, nil // or renamed, and the new one is still to come
	}
	now, err := r.successor(st)
	if err != nil {
		return false, err
	}
	// What was written to the old one between its last read and its
	// successor's coming is read first: the writer has left it by now.
	if err := r.drain(context.Background()); err != nil {
		now.Close()
		return false, err
	}
	r.file.Close()
	r.file, r.rest = now, nil
	return true, nil
}

// successor opens the file that follows the one with st: the next younger of
// the rotated ones, whose names order by time, or the one at path. That one is
// opened first: whatever a rotation puts before it is then found.
func (r *reader) successor(st os.FileInfo) (*os.File, error) {
	now, err := os.OpenFile(r.path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	earlier, err := r.rotated(st)
	if err != nil || earlier != nil {
		now.Close()
		return earlier, err
	}
	return now, nil
}

// rotated opens the next younger of the rotated files, nil if there is none.
// Compressed ones are passed over: a reader that far behind has lost them.
func (r *reader) rotated(st os.FileInfo) (*os.File, error) {
	names, err := filepath.Glob(globEscape(r.path) + ".*")
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	found := false
	for _, name := range names {
		if now, err := os.Lstat(name); err == nil && os.SameFile(st, now) {
			found = true
			continue
		}
		if !found || strings.HasSuffix(name, ".gz") || strings.HasSuffix(name, ".tmp") {
			continue
		}
		if f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW, 0); err == nil {
			return f, nil
		}
	}
	return nil, nil
}

// tailOffset is where the last n lines of f begin.
func tailOffset(f *os.File, n int) (int64, error) {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil || n == 0 {
		return size, err
	}
	const block = 64 << 10
	buf := make([]byte, block)
	seen := 0
	for end := size; end > 0; {
		start := max(end-block, 0)
		part := buf[:end-start]
		if _, err := f.ReadAt(part, start); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		for i := len(part) - 1; i >= 0; i-- {
			if part[i] != '\n' || start+int64(i) == size-1 {
				continue
			}
			if seen++; seen == n {
				return start + int64(i) + 1, nil
			}
		}
		end = start
	}
	return 0, nil
}

// dirWatch tells of changes of files in a directory.
type dirWatch struct {
	file *os.File
	more chan error // capacity 1
}

// watchDir watches the directory of path. Its goroutine ends with close.
func watchDir(path string) (*dirWatch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("inotify: %w (fs.inotify.max_user_instances may be used up)", err)
	}
	file := os.NewFile(uintptr(fd), "inotify")
	const mask = unix.IN_MODIFY | unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE
	if _, err := unix.InotifyAddWatch(fd, filepath.Dir(path), mask); err != nil {
		file.Close()
		return nil, &os.PathError{Op: "watch", Path: filepath.Dir(path), Err: err}
	}
	w := &dirWatch{file: file, more: make(chan error, 1)}
	go func() {
		r := bufio.NewReaderSize(file, 16<<10)
		for {
			// What changed does not matter: the reader looks at the files.
			_, err := r.Peek(1)
			_, _ = r.Discard(r.Buffered())
			select {
			case w.more <- err:
			default:
			}
			if err != nil {
				return
			}
		}
	}()
	return w, nil
}

func (w *dirWatch) close() { w.file.Close() }

// wait waits for a change; last says that until was closed.
func (w *dirWatch) wait(ctx context.Context, until <-chan struct{}) (last bool, err error) {
	select {
	case err := <-w.more:
		return false, err
	case <-until:
		return true, nil
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
}
