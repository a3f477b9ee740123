package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// translatePid turns a process number inside the PID namespace that fd is of
// into ours; 0 if there is no such process. Linux 6.11 answers an ioctl;
// before, the processes are looked through.
func translatePid(fd, inside int) (int, error) {
	const nsGetPidFromPidns = 0x8004b706 // NS_GET_PID_FROM_PIDNS: _IOR(0xb7, 6, int)
	pid, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), nsGetPidFromPidns, uintptr(inside))
	switch errno {
	case 0:
		return int(pid), nil
	case unix.ESRCH:
		return 0, nil
	case unix.ENOTTY:
	default:
		return 0, fmt.Errorf("find process %d of PID namespace: %w", inside, errno)
	}
	var ns unix.Stat_t
	if err := unix.Fstat(fd, &ns); err != nil {
		return 0, fmt.Errorf("stat PID namespace: %w", err)
	}
	return searchPid(ns.Ino, inside)
}

func searchPid(ns uint64, inside int) (int, error) {
	names, err := filepath.Glob("/proc/[0-9]*/ns/pid")
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		var st unix.Stat_t
		if unix.Stat(name, &st) != nil || st.Ino != ns {
			continue
		}
		dir := filepath.Dir(filepath.Dir(name))
		if innermostPid(dir) == inside {
			return strconv.Atoi(filepath.Base(dir))
		}
	}
	return 0, nil
}

// innermostPid is a process's number in its own namespace: the last word of
// NSpid in its status.
func innermostPid(dir string) int {
	text, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return 0
	}
	return lastNSpid(string(text))
}

// lastNSpid reads the last number of the NSpid line of a /proc status text.
func lastNSpid(status string) int {
	for line := range strings.Lines(status) {
		text, ok := strings.CutPrefix(line, "NSpid:")
		if !ok {
			continue
		}
		fields := strings.Fields(text)
		if len(fields) == 0 {
			return 0
		}
		n, err := strconv.Atoi(fields[len(fields)-1])
		if err != nil {
			return 0
		}
		return n
	}
	return 0
}
