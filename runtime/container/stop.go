package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Stop asks a container to end with sig, waits up to grace, then kills all of
// it. It returns once the container has ended; one that is not running is no
// error. Several Stops may run at once: the shortest grace counts. If even a
// kill does not end it (a process in the kernel, state D), the error says so.
func (m *Manager) Stop(ctx context.Context, id string, sig syscall.Signal, grace time.Duration) error {
	c, err := m.get(id)
	if err != nil {
		return err
	}
	if c.record().Phase != phaseRunning {
		return nil
	}
	if grace > 0 {
		if err := c.signal(sig); err != nil {
			return ignoreNotRunning(err)
		}
		atSignalled.Reach()
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-c.ended:
			return nil
		case <-timer.C:
		case <-ctx.Done():
			return fmt.Errorf("stop container %s: %w", id, context.Cause(ctx))
		}
	}
	if err := m.killAll(ctx, c); err != nil {
		return fmt.Errorf("stop container %s: %w", id, err)
	}
	return nil
}

// Kill sends a signal to a container's first process.
func (m *Manager) Kill(_ context.Context, id string, sig syscall.Signal) error {
	c, err := m.get(id)
	if err != nil {
		return err
	}
	if err := c.signal(sig); err != nil {
		return fmt.Errorf("kill container %s: %w", id, err)
	}
	if sig == unix.SIGKILL {
		m.thaw(c.record())
	}
	return nil
}

// killPatience is how long a killed container may take to end.
const killPatience = 30 * time.Second

// killAll kills a running container: its first process, with which the kernel
// kills its pid namespace, or each process of its cgroup if it shares that
// namespace. The keeper clears the rest when it reports the end.
func (m *Manager) killAll(ctx context.Context, c *container) error {
	if err := c.signal(unix.SIGKILL); err != nil {
		return ignoreNotRunning(err)
	}
	r := c.record()
	m.thaw(r)
	timer := time.NewTimer(killPatience)
	defer timer.Stop()
	select {
	case <-c.ended:
		return nil
	case <-timer.C:
		return fmt.Errorf("process %d (state %s) does not end, %s after it was killed", r.Pid, processState(r.Pid), killPatience)
	case <-ctx.Done():
		return fmt.Errorf("process %d (state %s) has not ended yet: %w", r.Pid, processState(r.Pid), context.Cause(ctx))
	}
}

// thaw lets a frozen container die: under v1 a frozen process does not see
// even a kill.
func (m *Manager) thaw(r record) {
	if !m.groups.Unified() {
		_ = m.groupOf(r).Freeze(false)
	}
}

func ignoreNotRunning(err error) error {
	if errors.Is(err, ErrNotRunning) {
		return nil
	}
	return err
}

// processState is the letter of /proc/<pid>/stat, for messages.
func processState(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "gone"
	}
	_, after, ok := strings.Cut(string(text), ") ")
	if !ok || after == "" {
		return "unknown"
	}
	return after[:1]
}
