package podlog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// notifier waits for anything to happen in a log directory.
type notifier struct{ f *os.File }

// newNotifier watches the directory behind an open descriptor.
func newNotifier(dir int) (*notifier, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("follow log: %w (is fs.inotify.max_user_instances used up?)", err)
	}
	path := "/proc/self/fd/" + strconv.Itoa(dir)
	if _, err := unix.InotifyAddWatch(fd, path, unix.IN_MODIFY|unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_DELETE_SELF); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("follow log: %w", err)
	}
	return &notifier{os.NewFile(uintptr(fd), "inotify")}, nil
}

func (n *notifier) close() { n.f.Close() }

// wait returns when something happened, ended was closed, or ctx ended (with its error). The helper goroutine ends
// with the read, which the deadline cuts short.
func (n *notifier) wait(ctx context.Context, ended <-chan struct{}) error {
	read := make(chan error, 1)
	go func() {
		buf := make([]byte, 16<<10) // a burst of events is taken in one go: they only say "look"
		_, err := n.f.Read(buf)
		read <- err
	}()
	select {
	case err := <-read:
		return err
	case <-ctx.Done():
	case <-ended:
	}
	if err := n.f.SetReadDeadline(past); err != nil {
		n.f.Close()
	}
	<-read
	if err := n.f.SetReadDeadline(never); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return ctx.Err()
}

// past and never are read deadlines: give up now, do not give up.
var past, never = time.Unix(1, 0), time.Time{}
