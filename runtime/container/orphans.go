package container

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"keelson.dev/keelson/runtime/keeper"
)

// From Linux 6.15 on, a pidfd tells how its process ended, whoever reaped it.
// On older kernels only the parent learns it: so there the daemon makes itself
// the one to whom a killed keeper's children go (it is the keeper's parent, or
// it cannot help), and waits for each container that it has adopted.

// forceOrphans makes every kernel an old one: a test's.
var forceOrphans = false

// pidfdTells says whether the kernel is of the first kind.
func pidfdTells() bool {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return false
	}
	return atLeast(unix.ByteSliceToString(name.Release[:]), 6, 15)
}

func atLeast(release string, major, minor int) bool {
	var a, b int
	if n, _ := fmt.Sscanf(release, "%d.%d", &a, &b); n != 2 {
		return false
	}
	return a > major || a == major && b >= minor
}

// adoptOrphans makes this process a subreaper. It is for all of the process:
// who else starts children here waits for them by pid, as os/exec does.
func adoptOrphans() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become subreaper: %w", err)
	}
	return nil
}

// awaitOrphan waits for the end of an adopted container and tells the keeper,
// which cannot see it.
func (m *Manager) awaitOrphan(c *container, pidfd *os.File) {
	defer pidfd.Close()
	raw, err := pidfd.SyscallConn()
	if err != nil {
		return
	}
	go func() { // ends with m.ctx or the container
		select {
		case <-m.ctx.Done():
		case <-c.ended:
		}
		pidfd.Close()
	}()
	report := keeper.Reaped{ID: c.id, Unknown: true}
	err = raw.Read(func(fd uintptr) bool {
		set := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(set, 0); err != nil || n == 0 {
			return false
		}
		if word, err := keeper.Wait(int(fd)); err == nil {
			report.Status, report.Unknown = word, false
		} else if !errors.Is(err, unix.ECHILD) {
			m.cfg.Log.Error("wait for adopted container", "container", c.id, "err", err)
		}
		return true
	})
	if err != nil {
		return // closed: the container's end is known, or we are closing
	}
	if err := m.link.ask(m.ctx, keeper.OpReaped, report, nil); err != nil {
		m.cfg.Log.Error("report end of adopted container", "container", c.id, "err", err)
	}
}
