package podlog

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// Options of a read, as in core/v1 PodLogOptions.
type Options struct {
	// Tail is how many lines from the end to begin with; negative for all.
	Tail int64
	// Since leaves out lines before it; zero for none.
	Since time.Time
	// Limit ends the output after that many bytes; negative for no limit.
	Limit int64
	// Timestamps puts its time before each line.
	Timestamps bool
	// Stream is "stdout", "stderr" or "" for both.
	Stream string
	// Follow goes on until Ended is closed and all that was written by then is read, or ctx ends.
	Follow bool
	Ended  <-chan struct{}
}

// maxLine bounds one line, in bytes; runtimes split content at 16 KiB, so a longer one is damage.
const maxLine = 1 << 20

// errLimit ends a read at its limit.
var errLimit = errors.New("byte limit reached")

// Copy writes the log at root/dir/name (dir relative, one or more names) and its rotated predecessors to w, as o
// says. flush, if given, is called whenever there is nothing more to write for now.
func Copy(ctx context.Context, w io.Writer, flush func(), root, dir, name string, o Options) error {
	files, err := openAll(root, dir, name)
	if err != nil {
		return err
	}
	defer func() { files.close() }()
	var grow *notifier
	if o.Follow { // before the first read, so that no growth is missed
		if grow, err = newNotifier(files.dirFD()); err != nil {
			return err
		}
		defer grow.close()
	}
	if err := files.tail(o.Tail, o.Stream); err != nil {
		return err
	}
	c := &copier{w: w, o: o, fresh: true}
	for {
		err := c.drain(ctx, files)
		if errors.Is(err, errLimit) {
			return nil
		}
		if err != nil || !o.Follow {
			return err
		}
		if flush != nil {
			flush()
		}
		ended := false
		select {
		case <-o.Ended:
			ended = true
		default:
		}
		moved, err := files.advance()
		if err != nil {
			return err
		}
		if moved {
			continue
		}
		if c.over {
			return nil
		}
		if ended { // read once more: what came between the drain and now
			c.over = true
			continue
		}
		if err := grow.wait(ctx, o.Ended); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
}

// copier turns log lines into output.
type copier struct {
	w       io.Writer
	o       Options
	written int64
	fresh   bool // at the beginning of a logical line
	over    bool
}

// drain copies all complete lines there are now, from the file being read to the last.
func (c *copier) drain(ctx context.Context, files *chain) error {
	for {
		err := c.file(ctx, files.current())
		if err != nil {
			return err
		}
		if !files.next() {
			return nil
		}
	}
}

// file copies complete lines of one file; an incomplete last line stays for the next time.
func (c *copier) file(ctx context.Context, f *segment) error {
	r := bufio.NewReaderSize(f, 64<<10)
	for {
		b, err := readLine(r)
		if errors.Is(err, io.EOF) {
			return f.rewind(int64(len(b)) + int64(r.Buffered()))
		}
		if err != nil {
			return fmt.Errorf("read log %s: %w", f.name, err)
		}
		if ctx.Err() != nil {
			return nil
		}
		if err := c.line(b); err != nil {
			return err
		}
	}
}

// readLine reads a line with its newline; with io.EOF comes what there is of an incomplete one.
func readLine(r *bufio.Reader) ([]byte, error) {
	var out []byte
	for {
		b, err := r.ReadSlice('\n')
		if out == nil && err == nil {
			return b, nil
		}
		out = append(out, b...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return out, err
		}
		if len(out) > maxLine {
			return out, fmt.Errorf("a line is longer than %d bytes", maxLine)
		}
	}
}

func (c *copier) line(b []byte) error {
	l, ok := parse(b)
	if !ok {
		return nil // damage is left out, as upstream does
	}
	if c.o.Stream != "" && l.stream != c.o.Stream || !c.o.Since.IsZero() && l.before(c.o.Since) {
		return nil
	}
	if c.o.Timestamps && c.fresh {
		if err := c.write(append(append([]byte(nil), l.at...), ' ')); err != nil {
			return err
		}
	}
	c.fresh = !l.partial
	if err := c.write(l.content); err != nil {
		return err
	}
	if l.partial {
		return nil
	}
	return c.write([]byte{'\n'})
}

func (c *copier) write(b []byte) error {
	limited := false
	if c.o.Limit >= 0 && c.written+int64(len(b)) >= c.o.Limit {
		b, limited = b[:c.o.Limit-c.written], true
	}
	n, err := c.w.Write(b)
	c.written += int64(n)
	if err == nil && limited {
		err = errLimit
	}
	return err
}
