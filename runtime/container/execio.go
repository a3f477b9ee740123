package container

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"keelson.dev/keelson/runtime/keeper"
)

// execIO is the streams of an exec: pipes, or a terminal that the process
// makes and whose master comes to us by a socket.
type execIO struct {
	stdio   string     // which of theirs is what
	theirs  []*os.File // the process's ends
	stdin   *os.File
	outputs []*os.File
	sinks   []io.Writer
	console *os.File // socket, then master
	done    chan struct{}
	copies  sync.WaitGroup
}

func newExecIO(cfg ExecConfig) (*execIO, error) {
	x := &execIO{done: make(chan struct{})}
	if cfg.TTY {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("console socket: %w", err)
		}
		x.console = os.NewFile(uintptr(pair[0]), "console")
		x.theirs = []*os.File{os.NewFile(uintptr(pair[1]), "console")}
		return x, nil
	}
	if cfg.Stdin != nil {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		x.stdio, x.theirs, x.stdin = "i", []*os.File{r}, w
	}
	for _, out := range []struct {
		tag  string
		sink io.Writer
	}{{"o", cfg.Stdout}, {"e", cfg.Stderr}} {
		if out.sink == nil {
			continue
		}
		r, w, err := os.Pipe()
		if err != nil {
			x.close()
			return nil, err
		}
		x.stdio += out.tag
		x.theirs = append(x.theirs, w)
		x.outputs = append(x.outputs, r)
		x.sinks = append(x.sinks, out.sink)
	}
	for _, f := range x.theirs {
		_ = f.Fd() // makes the process's ends blocking, as programs expect
	}
	return x, nil
}

// begin starts copying once the process runs.
func (x *execIO) begin(cfg ExecConfig) error {
	if cfg.TTY {
		master, err := keeper.ReceiveFile(x.console)
		x.console.Close()
		x.console = nil
		if err != nil {
			return err
		}
		x.console = master
		if cfg.Stdout != nil {
			x.outputs, x.sinks = []*os.File{master}, []io.Writer{cfg.Stdout}
		}
		x.stdin = master
	}
	for i, f := range x.outputs {
		x.copies.Go(func() { copyOutput(x.sinks[i], f) })
	}
	if cfg.Stdin != nil {
		stdin, tty := x.stdin, cfg.TTY
		go func() { // ends with the caller's reader, or with our end of the pipe
			_, _ = io.Copy(stdin, cfg.Stdin)
			if !tty {
				stdin.Close()
			}
		}()
	}
	if cfg.Resize != nil && cfg.TTY {
		go x.resize(cfg.Resize) // ends with done or the channel
	}
	return nil
}

func (x *execIO) resize(sizes <-chan Size) {
	for {
		select {
		case size, ok := <-sizes:
			if !ok {
				return
			}
			_ = setSize(x.console, size)
		case <-x.done:
			return
		}
	}
}

func setSize(master *os.File, size Size) error {
	return onFD(master, func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: size.Height, Col: size.Width})
	})
}

// lingering is how long the output of an ended exec may stay open, held by a
// process that it left behind, before it is cut off.
const lingering = 50 * time.Millisecond

// finish delivers what the ended process wrote.
func (x *execIO) finish() {
	for _, f := range x.outputs {
		_ = f.SetReadDeadline(time.Now().Add(lingering))
	}
	x.copies.Wait()
}

// copyOutput copies until the other end is closed. At the deadline that finish
// sets it takes what is there already and leaves.
func copyOutput(to io.Writer, from *os.File) {
	_, err := io.Copy(onlyWriter{to}, onlyReader{from})
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return
	}
	_ = from.SetReadDeadline(time.Time{})
	raw, err := from.SyscallConn()
	if err != nil {
		return
	}
	buf := make([]byte, 64<<10)
	for {
		n := 0
		err := raw.Read(func(fd uintptr) bool {
			n, _ = unix.Read(int(fd), buf)
			return true
		})
		if err != nil || n <= 0 {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// onlyReader and onlyWriter keep io.Copy from splicing, which would leave
// bytes in between at a deadline.
type (
	onlyReader struct{ io.Reader }
	onlyWriter struct{ io.Writer }
)

func (x *execIO) closeTheirs() {
	for _, f := range x.theirs {
		f.Close()
	}
	x.theirs = nil
}

func (x *execIO) close() {
	x.closeTheirs()
	close(x.done)
	for _, f := range append([]*os.File{x.stdin, x.console}, x.outputs...) {
		if f != nil {
			f.Close()
		}
	}
}
