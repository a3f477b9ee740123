package launcher

/*
// launcher.c is compiled and linked by being here; nothing calls it.
*/
import "C"

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Launcher starts processes from programs. It may be used from several
// goroutines.
type Launcher struct {
	mu   sync.Mutex // one request at a time; held over the launcher's answer, some 100 µs
	sock *os.File
	cmd  *exec.Cmd
}

// Files are what a process is started with. A nil one is not given.
type Files struct {
	Program               *os.File // the image
	PidNS, Cgroup, Status *os.File
	In, Out, Err, Console *os.File
	Target                *os.File // pidfd of the process whose container is joined
}

// Launch clones a process that runs the program. It is this process's child,
// and its pidfd the caller's.
func (l *Launcher) Launch(cloneFlags uint64, length int, files Files) (pid int, pidfd *os.File, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for range 2 {
		if l.sock == nil {
			if err := l.start(); err != nil {
				return 0, nil, fmt.Errorf("start launcher: %w", err)
			}
		}
		pid, pidfd, err = l.ask(cloneFlags, length, files)
		if !errors.Is(err, errDied) {
			return pid, pidfd, err
		}
		l.stop() // nothing was started; try another
	}
	return pid, pidfd, err
}

var errDied = errors.New("the launcher died")

func (l *Launcher) ask(cloneFlags uint64, length int, files Files) (int, *os.File, error) {
	msg, fds, err := request(cloneFlags, length, files)
	if err != nil {
		return 0, nil, err
	}
	sock := int(l.sock.Fd())
	if err := unix.Sendmsg(sock, msg, unix.UnixRights(fds...), nil, unix.MSG_NOSIGNAL); err != nil {
		return 0, nil, fmt.Errorf("%w: %v", errDied, err)
	}
	answer, oob := make([]byte, 8), make([]byte, unix.CmsgSpace(4))
	var n, oobn int
	for {
		n, oobn, _, _, err = unix.Recvmsg(sock, answer, oob, unix.MSG_CMSG_CLOEXEC)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil || n != len(answer) {
		return 0, nil, fmt.Errorf("%w (%d bytes, %v)", errDied, n, err)
	}
	if errno := binary.LittleEndian.Uint32(answer[4:]); errno != 0 {
		return 0, nil, fmt.Errorf("clone: %w", syscall.Errno(errno))
	}
	pid := int(binary.LittleEndian.Uint32(answer))
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(msgs) != 1 {
		return pid, nil, fmt.Errorf("launcher sent no pidfd: %w", err)
	}
	passed, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(passed) != 1 {
		return pid, nil, fmt.Errorf("launcher sent no pidfd: %w", err)
	}
	return pid, os.NewFile(uintptr(passed[0]), "pidfd"), nil
}

// request is struct request of launcher.c.
func request(cloneFlags uint64, length int, files Files) ([]byte, []int, error) {
	le := binary.LittleEndian
	msg := le.AppendUint64(nil, cloneFlags)
	msg = le.AppendUint64(msg, uint64(length))
	var fds []int
	for _, f := range []*os.File{
		files.Program, files.PidNS, files.Cgroup, files.Status, files.In, files.Out, files.Err, files.Console, files.Target,
	} {
		place := int32(-1)
		if f != nil {
			fd := -1
			raw, err := f.SyscallConn()
			if err == nil {
				err = raw.Control(func(n uintptr) { fd = int(n) })
			}
			if err != nil {
				return nil, nil, err
			}
			place = int32(len(fds))
			fds = append(fds, fd)
		}
		msg = le.AppendUint32(msg, uint32(place))
	}
	return le.AppendUint32(msg, 0), fds, nil
}

// start executes this program in the launcher's mode, as this process's child.
func (l *Launcher) start() error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	ours := os.NewFile(uintptr(pair[0]), "launcher")
	theirs := os.NewFile(uintptr(pair[1]), "launcher")
	defer theirs.Close()
	cmd := &exec.Cmd{
		Path: "/proc/self/exe", Args: []string{"keelson-launcher"}, Dir: "/", Env: []string{},
		ExtraFiles: []*os.File{theirs}, SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	if err := cmd.Start(); err != nil {
		ours.Close()
		return err
	}
	l.sock, l.cmd = ours, cmd
	return nil
}

// Pid is the launcher's, 0 if there is none: a child that is not to be reaped
// by others.
func (l *Launcher) Pid() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cmd == nil {
		return 0
	}
	return l.cmd.Process.Pid
}

func (l *Launcher) stop() {
	l.sock.Close()
	_ = l.cmd.Process.Kill()
	_ = l.cmd.Wait()
	l.sock, l.cmd = nil, nil
}
