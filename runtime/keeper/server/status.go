package server

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
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

// pidfdInfo is struct pidfd_info of linux/pidfd.h, its first published size.
type pidfdInfo struct {
	Mask, CgroupID  uint64
	Pid, Tgid, Ppid uint32
	_               [8]uint32 // credentials
	ExitCode        int32
	_               [2]uint32
}

// exitOf asks the kernel how a process that somebody else reaped ended. It
// works from Linux 6.15 on, for a pidfd opened before the reaping.
func exitOf(pidfd int) (waitStatus, bool) {
	const (
		infoExit = 1 << 3 // PIDFD_INFO_EXIT
		size     = 64     // PIDFD_INFO_SIZE_VER0
		request  = 3<<30 | size<<16 | 0xFF<<8 | 11
	)
	info := pidfdInfo{Mask: infoExit}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(pidfd), request, uintptr(unsafe.Pointer(&info)))
	if errno != 0 || info.Mask&infoExit == 0 {
		return waitStatus{}, false
	}
	return statusFromWait(int(info.ExitCode)), true
}
