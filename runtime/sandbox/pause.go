package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"keelson.dev/keelson/runtime/keeper"
)

// startPause starts the first process of a new PID namespace: the keeper's
// program in mode "pause". It returns once that process sits in its own empty
// root with its rights dropped. The process stays only if it is let, which the
// caller does once the namespace is pinned; it ends if stay is closed before,
// as it is when this program is killed. It must be called from the thread
// whose other namespaces the process is to have, or it makes them with a user
// namespace.
func (m *Manager) startPause(s *Sandbox, userns bool) (p *pauseProcess, err error) {
	program, err := keeper.SealedCopy(m.cfg.KeeperPath)
	if err != nil {
		return nil, fmt.Errorf("load %s for the shared PID namespace: %w", m.cfg.KeeperPath, err)
	}
	defer program.Close()
	ready, theirs, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer ready.Close()
	told, stay, err := os.Pipe()
	if err != nil {
		theirs.Close()
		return nil, err
	}
	p = &pauseProcess{stay: stay}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	var complaint bytes.Buffer
	cmd := &exec.Cmd{
		Path:       keeper.ExecPath(program),
		Args:       []string{"pause", "pause", s.Label},
		Dir:        "/",
		Env:        []string{},
		ExtraFiles: []*os.File{theirs, told},
		SysProcAttr: &syscall.SysProcAttr{
			Setsid:     true,
			Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS,
		},
	}
	if userns {
		cmd.Path = fmt.Sprintf("/proc/self/fd/%d", program.Fd())
		s.cloneInUserns(cmd.SysProcAttr)
	}
	err = cmd.Start()
	theirs.Close()
	told.Close()
	if err != nil {
		return nil, fmt.Errorf("start the pod's first process: %w", err)
	}
	p.pid = cmd.Process.Pid
	// Reaps it if it ends while we live; otherwise whoever inherits it does.
	go func() { _ = cmd.Wait() }()
	if _, err := io.Copy(&complaint, ready); err != nil || complaint.String() != "ok" {
		_ = unix.Kill(p.pid, unix.SIGKILL)
		return nil, fmt.Errorf("start the pod's first process: it says %q", complaint.String())
	}
	if s.CgroupPath == "" || !s.SharedPID {
		return p, nil
	}
	group := m.groups.Group(path.Join(s.CgroupPath, s.ID))
	if err := group.Create(nil); err != nil {
		return nil, err
	}
	return p, group.Add(p.pid)
}

// pauseProcess is a first process that does not stay yet.
type pauseProcess struct {
	pid  int
	stay *os.File
}

// let lets it stay when its starter is gone.
func (p *pauseProcess) let() error {
	if _, err := p.stay.Write([]byte{1}); err != nil {
		return fmt.Errorf("keep the pod's first process: %w", err)
	}
	return nil
}

// close ends it, unless it was let stay.
func (p *pauseProcess) close() { p.stay.Close() }

// endPause kills the first process of the sandbox's PID namespace, and with it
// all others in it. The pin tells which namespace is meant: what is asked of a
// process is whether it is that namespace's pid 1.
func (m *Manager) endPause(s *Sandbox, p places) error {
	pid, err := firstProcess(p.pin("pid"))
	if err != nil {
		return err
	}
	if pid > 0 {
		if err := killAndWait(pid); err != nil {
			return err
		}
	}
	if s.CgroupPath == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return m.groups.Group(path.Join(s.CgroupPath, s.ID)).Remove(ctx)
}

func killAndWait(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("pidfd of %d: %w", pid, err)
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill first process %d of PID namespace: %w", pid, err)
	}
	set := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for deadline := time.Now().Add(10 * time.Second); ; {
		n, err := unix.Poll(set, 1000)
		switch {
		case n > 0:
			return nil
		case err != nil && !errors.Is(err, unix.EINTR):
			return err
		case time.Now().After(deadline):
			return fmt.Errorf("first process %d of PID namespace does not end though it was killed", pid)
		}
	}
}

// firstProcess is pid 1, as we number it, of the namespace pinned at path; 0
// if there is no pin or no process.
func firstProcess(path string) (int, error) {
	if !pinned(path) {
		return 0, nil
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	return translatePid(fd, 1)
}

// exiting says that a process is on its way out. The first of a namespace is so until all others in it have been reaped, and
// nothing can be started beside it any more.
func exiting(pid int) bool {
	const flags, pfExiting = 6, 0x4 // proc_pid_stat(5), counted from the state on; PF_EXITING of include/linux/sched.h
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	f := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(f) <= flags {
		return true
	}
	n, err := strconv.ParseUint(f[flags], 10, 64)
	return err != nil || n&pfExiting != 0
}
