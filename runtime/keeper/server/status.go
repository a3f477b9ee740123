package server

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"keelson.dev/keelson/runtime/keeper"
)

// childInfo is the part of siginfo_t that waitid fills in.
type childInfo struct {
	Signo, Errno, Code int32
	_                  int32
	Pid                int32
	UID                uint32
	Status             int32
	_                  [100]byte
}

// errNotEnded says that a process is still running, errNotChild that it is not
// ours to wait for.
var (
	errNotEnded = errors.New("process has not ended")
	errNotChild = errors.New("process is not our child")
)

// peek reads how our child ended and leaves it a zombie.
func peek(pidfd int) (waitStatus, error) {
	return waitid(unix.P_PIDFD, pidfd, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT)
}

// reap lets go of our ended child.
func reap(pidfd int) { _, _ = waitid(unix.P_PIDFD, pidfd, unix.WEXITED|unix.WNOHANG) }

func waitid(kind, id, options int) (waitStatus, error) {
	for {
		var info childInfo
		err := unix.Waitid(kind, id, (*unix.Siginfo)(unsafe.Pointer(&info)), options, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ECHILD):
			return waitStatus{}, errNotChild
		case err != nil:
			return waitStatus{}, fmt.Errorf("waitid: %w", err)
		case info.Pid == 0:
			return waitStatus{}, errNotEnded
		}
		return statusOf(info), nil
	}
}

// waitStatus is how a process ended: its exit code, or 128 plus signal.
type waitStatus struct {
	pid, code, signal int
}

func statusOf(info childInfo) waitStatus {
	const exited = 1 // CLD_EXITED; the others are signals
	if info.Code == exited {
		return waitStatus{pid: int(info.Pid), code: int(info.Status)}
	}
	return waitStatus{pid: int(info.Pid), code: 128 + int(info.Status), signal: int(info.Status)}
}

// statusFromWait decodes the status word of wait(2).
func statusFromWait(word int) waitStatus {
	ws := unix.WaitStatus(word)
	if ws.Signaled() {
		return waitStatus{code: 128 + int(ws.Signal()), signal: int(ws.Signal())}
	}
	return waitStatus{code: ws.ExitStatus()}
}

// exitOf asks the kernel how a process that somebody else reaped ended.
func exitOf(pidfd int) (waitStatus, bool) {
	word, ok := keeper.WaitStatusOf(pidfd)
	return statusFromWait(word), ok
}
