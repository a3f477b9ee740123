package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Conn sends and receives frames on a SEQPACKET socket. Send may be called
// from several goroutines; Receive from one.
type Conn struct {
	sock *net.UnixConn
	in   []byte
	oob  []byte
}

// NewConn wraps a connected socket after checking that the other side is root
// (or the user that we are): nobody else may command containers.
func NewConn(sock *net.UnixConn) (*Conn, error) {
	raw, err := sock.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("keeper socket: %w", err)
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(err, credErr); err != nil {
		return nil, fmt.Errorf("keeper socket: peer credentials: %w", err)
	}
	if cred.Uid != 0 && int(cred.Uid) != os.Geteuid() {
		return nil, fmt.Errorf("keeper socket: peer is uid %d: %w", cred.Uid, os.ErrPermission)
	}
	return &Conn{
		sock: sock,
		in:   make([]byte, MaxFrame+1),
		oob:  make([]byte, unix.CmsgSpace(4*MaxFiles)),
	}, nil
}

// Send sends one frame with files beside it. The files stay the caller's.
func (c *Conn) Send(h Header, body any, files ...*os.File) error {
	if len(files) > MaxFiles {
		return fmt.Errorf("send keeper frame: %d files exceed %d", len(files), MaxFiles)
	}
	h.Version = Version
	msg, err := EncodeFrame(h, body)
	if err != nil {
		return err
	}
	var oob []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			if fds[i], err = rawFD(f); err != nil {
				return fmt.Errorf("send keeper frame: %w", err)
			}
		}
		oob = unix.UnixRights(fds...)
	}
	_, _, err = c.sock.WriteMsgUnix(msg, oob, nil)
	runtime.KeepAlive(files)
	if err != nil {
		return fmt.Errorf("send keeper frame: %w", err)
	}
	return nil
}

// Receive waits for the next frame. The body is valid until the next call; the
// files are the caller's. io.EOF says that the other side is gone.
func (c *Conn) Receive() (Header, json.RawMessage, []*os.File, error) {
	n, oobn, flags, _, err := c.sock.ReadMsgUnix(c.in, c.oob)
	if err != nil {
		if errors.Is(err, syscall.ECONNRESET) {
			err = io.EOF
		}
		return Header{}, nil, nil, err
	}
	files, err := parseFiles(c.oob[:oobn])
	if err != nil {
		return Header{}, nil, nil, err
	}
	if n == 0 && oobn == 0 {
		return Header{}, nil, nil, io.EOF
	}
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		closeAll(files)
		return Header{}, nil, nil, fmt.Errorf("%w: truncated message", ErrFrame)
	}
	h, body, err := DecodeFrame(c.in[:n])
	if err != nil {
		closeAll(files)
		return Header{}, nil, nil, err
	}
	return h, body, files, nil
}

// Close closes the socket; a waiting Receive returns.
func (c *Conn) Close() error { return c.sock.Close() }

// rawFD is f's descriptor as it is. File.Fd would make it blocking, and that
// for everybody who shares the open file, such as a terminal's master.
func rawFD(f *os.File) (int, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	err = raw.Control(func(n uintptr) { fd = int(n) })
	return fd, err
}

func parseFiles(oob []byte) ([]*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("%w: control message: %v", ErrFrame, err)
	}
	var files []*os.File
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			continue // not descriptors: nothing to own
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
