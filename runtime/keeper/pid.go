package keeper

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// StartTicks is the start time of process pid in clock ticks since boot. With
// the pid and the boot id it names a process for good.
func StartTicks(pid int) (uint64, error) {
	name := fmt.Sprintf("/proc/%d/stat", pid)
	text, err := os.ReadFile(name)
	if err != nil {
		return 0, fmt.Errorf("start time of process %d: %w", pid, err)
	}
	// Field 2 is the program's name in parentheses and may hold anything.
	end := bytes.LastIndexByte(text, ')')
	if end < 0 {
		return 0, fmt.Errorf("start time of process %d: %s is odd", pid, name)
	}
	fields := bytes.Fields(text[end+1:])
	const at = 22 - 3 // field 22, of which two are cut off and counting is from 0
	if len(fields) <= at {
		return 0, fmt.Errorf("start time of process %d: %s is short", pid, name)
	}
	return strconv.ParseUint(string(fields[at]), 10, 64)
}

// pidfdInfo is struct pidfd_info of linux/pidfd.h, its first published size.
type pidfdInfo struct {
	Mask, CgroupID  uint64
	Pid, Tgid, Ppid uint32
	_               [8]uint32 // credentials
	ExitCode        int32
	_               [2]uint32
}

// WaitStatusOf is the wait status word of an ended process that was reaped,
// by its parent, whoever that was. It needs Linux 6.15 and a pidfd from before
// the reaping; false says that it is not to be had (yet).
func WaitStatusOf(pidfd int) (int, bool) {
	const (
		infoExit = 1 << 3 // PIDFD_INFO_EXIT
		size     = 64     // PIDFD_INFO_SIZE_VER0
		request  = 3<<30 | size<<16 | 0xFF<<8 | 11
	)
	info := pidfdInfo{Mask: infoExit}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(pidfd), request, uintptr(unsafe.Pointer(&info)))
	if errno != 0 || info.Mask&infoExit == 0 {
		return 0, false
	}
	return int(info.ExitCode), true
}

// ExitCode is the exit code that a wait status word means: the process's own,
// or 128 plus the signal.
func ExitCode(word int) int32 {
	ws := unix.WaitStatus(word)
	if ws.Signaled() {
		return 128 + int32(ws.Signal())
	}
	return int32(ws.ExitStatus())
}

// Wait reaps the ended child that pidfd is of and returns its wait status
// word. unix.ECHILD says that it is no child of this process.
func Wait(pidfd int) (int, error) {
	for {
		var info struct {
			Signo, Errno, Code, _ int32
			Pid                   int32
			UID                   uint32
			Status                int32
			_                     [100]byte
		}
		err := unix.Waitid(unix.P_PIDFD, pidfd, (*unix.Siginfo)(unsafe.Pointer(&info)), unix.WEXITED, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, err
		}
		const exited = 1 // CLD_EXITED
		if info.Code == exited {
			return int(info.Status) << 8, nil
		}
		return int(info.Status), nil
	}
}
