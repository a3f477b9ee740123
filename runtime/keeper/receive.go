package keeper

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// ReceiveFile waits for one descriptor, such as the master of a terminal, on a
// stream socket. It ends with an error when the other ends are closed.
// The file is made non-blocking, for all who share it.
func ReceiveFile(from *os.File) (*os.File, error) {
	conn, err := net.FileConn(from)
	if err != nil {
		return nil, fmt.Errorf("receive file: %w", err)
	}
	defer conn.Close()
	name, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	_, oobn, _, _, err := conn.(*net.UnixConn).ReadMsgUnix(name, oob)
	if err != nil {
		return nil, fmt.Errorf("receive file: %w", err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(msgs) != 1 {
		return nil, fmt.Errorf("receive file: %d control messages: %w", len(msgs), errNoFile)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		return nil, fmt.Errorf("receive file: %d descriptors: %w", len(fds), errNoFile)
	}
	unix.CloseOnExec(fds[0])
	if err := unix.SetNonblock(fds[0], true); err != nil {
		unix.Close(fds[0])
		return nil, fmt.Errorf("receive file: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "received"), nil
}

var errNoFile = errors.New("no descriptor was sent")
