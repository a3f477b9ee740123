package container

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// killTree kills a process and its descendants. The root is stopped first and
// killed last: while it lives, its children stay its children, and none of
// them can be made while their parent is stopped.
func killTree(pid int, pidfd *os.File) {
	signal := func(sig unix.Signal) error {
		return onFD(pidfd, func(fd int) error { return unix.PidfdSendSignal(fd, sig, nil, 0) })
	}
	if signal(unix.SIGSTOP) == nil {
		const rounds = 64 // a descendant may fork between being found and stopped
		seen := map[int]bool{}
		for range rounds {
			fresh := false
			for _, child := range descendants(pid) {
				if !seen[child] {
					seen[child], fresh = true, true
					_ = unix.Kill(child, unix.SIGSTOP)
				}
			}
			if !fresh {
				break
			}
		}
		for child := range seen {
			_ = unix.Kill(child, unix.SIGKILL)
		}
	}
	_ = signal(unix.SIGKILL)
}

// descendants are the processes below pid, parents first.
func descendants(pid int) []int {
	var out []int
	next := []int{pid}
	for len(next) > 0 {
		pid, next = next[0], next[1:]
		threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil {
			continue
		}
		for _, thread := range threads {
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, thread.Name()))
			if err != nil {
				continue
			}
			for _, word := range strings.Fields(string(text)) {
				if child, err := strconv.Atoi(word); err == nil {
					out = append(out, child)
					next = append(next, child)
				}
			}
		}
	}
	return out
}
