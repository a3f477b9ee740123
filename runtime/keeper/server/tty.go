package server

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"keelson.dev/keelson/runtime/logfile"
)

// ttyFlow is a terminal's output on its way to log and attachments. A terminal
// cannot be looked at without taking, so what is in rest (a line that has not
// ended) dies with the keeper.
type ttyFlow struct {
	fd      int
	watch   *watch
	rest    []byte
	records []byte
}

const ttyRead = 16 << 10

// step reads once; more says that the terminal is still open.
func (t *ttyFlow) step(to sink) (more bool, err error) {
	start := len(t.rest)
	t.rest = append(t.rest, make([]byte, ttyRead)...)
	n, err := unix.Read(t.fd, t.rest[start:])
	t.rest = t.rest[:start+max(n, 0)]
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
		return true, nil
	}
	// EIO: the last process let go of the terminal.
	more = err == nil && n > 0
	if n > 0 && to.live != nil {
		to.live(logfile.Stdout, t.rest[start:])
	}
	return more, t.write(to, !more)
}

func (t *ttyFlow) write(to sink, final bool) error {
	var covered int
	t.records, covered = logfile.Format(t.records[:0], time.Now(), logfile.Stdout, t.rest, final)
	defer func() {
		t.rest = append([]byte(nil), t.rest[covered:]...)
		if len(t.rest) == 0 {
			t.rest, t.records = nil, nil
		}
	}()
	if covered == 0 || to.log == nil {
		return nil
	}
	mark, err := to.log.Mark()
	if err != nil {
		return err
	}
	return to.log.Write(t.records, mark)
}

// consoleSocket is a pair of sockets: one end goes to the process that makes
// the terminal, the other receives its master.
func consoleSocket() (ours, theirs *os.File, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("console socket: %w", err)
	}
	return os.NewFile(uintptr(pair[0]), "console"), os.NewFile(uintptr(pair[1]), "console"), nil
}
