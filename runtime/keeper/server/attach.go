package server

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"keelson.dev/keelson/runtime/keeper"
	"keelson.dev/keelson/runtime/logfile"
)

// attachment is somebody who watches a container's output through pipes. It
// never holds the container up for long: a reader that takes nothing for
// attachPatience while its pipe is full is let go.
type attachment struct {
	id      string
	session *session
	out     map[logfile.Stream]*os.File
}

// attachPipe is the size in bytes that an attachment's pipes are given, as far
// as the kernel lets us: how far a reader may fall behind.
const attachPipe = 1 << 20

// attachPatience is how long a full pipe may hold up the container.
const attachPatience = 100 * time.Millisecond

func newAttachment(req keeper.Attach, from *session, files []*os.File) (*attachment, error) {
	if len(files) != len(req.Stdio) {
		return nil, fmt.Errorf("attach to %s: %d files for stdio %q", req.ID, len(files), req.Stdio)
	}
	a := &attachment{id: req.AttachID, session: from, out: map[logfile.Stream]*os.File{}}
	for i, which := range req.Stdio {
		var fd int
		raw, err := files[i].SyscallConn()
		if err == nil {
			err = raw.Control(func(n uintptr) { fd = int(n) })
		}
		if err == nil {
			err = unix.SetNonblock(fd, true)
		}
		if err != nil {
			return nil, fmt.Errorf("attach to %s: %w", req.ID, err)
		}
		_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, attachPipe)
		switch which {
		case 'o':
			a.out[logfile.Stdout] = files[i]
		case 'e':
			a.out[logfile.Stderr] = files[i]
		default:
			return nil, fmt.Errorf("attach to %s: stdio %q", req.ID, req.Stdio)
		}
	}
	return a, nil
}

var errSlow = errors.New("the reader did not keep up with the container's output")

// write hands data on; an error ends the attachment.
func (a *attachment) write(stream logfile.Stream, data []byte) error {
	f, ok := a.out[stream]
	if !ok {
		return nil
	}
	fd := int(f.Fd()) // these Files are made from descriptors in blocking mode: Fd changes nothing
	for len(data) > 0 {
		n, err := unix.Write(fd, data)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			set := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
			if n, _ := unix.Poll(set, int(attachPatience.Milliseconds())); n == 0 {
				return errSlow
			}
		case err != nil:
			return err
		default:
			data = data[n:]
		}
	}
	return nil
}

func (a *attachment) close() {
	for _, f := range a.out {
		f.Close()
	}
}

// live is the sink function of a box: every attachment gets the bytes; one
// that fails is taken off.
func (s *Server) live(b *box) func(logfile.Stream, []byte) {
	if len(b.attached) == 0 {
		return nil
	}
	return func(stream logfile.Stream, data []byte) {
		var stay []*attachment
		for _, a := range b.attached {
			err := a.write(stream, data)
			if err == nil {
				stay = append(stay, a)
				continue
			}
			cause := ""
			if errors.Is(err, errSlow) {
				cause = err.Error()
			}
			s.detach(b, a, cause)
		}
		b.attached = stay
	}
}

// detach closes an attachment and tells its owner.
func (s *Server) detach(b *box, a *attachment, cause string) {
	a.close()
	a.session.send(keeper.Header{Op: keeper.OpDetached}, keeper.Detached{ID: b.run.ID, AttachID: a.id, Cause: cause})
}

// attach adds an attachment; the loop calls it.
func (s *Server) attach(b *box, a *attachment) error {
	if b.phase == ended {
		return errEnded
	}
	b.attached = append(b.attached, a)
	return nil
}
