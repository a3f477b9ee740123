package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"keelson.dev/keelson/runtime/bundle"
	"keelson.dev/keelson/runtime/keeper"
)

// Exec runs a further process in a running container and waits for its end.
// What it wrote before its end is delivered; what a process that it left
// behind writes later is not waited for. If ctx ends or Timeout passes, the
// process and all its descendants are killed, and the error is ctx's or
// context.DeadlineExceeded. ErrStart says that the command cannot be run.
func (m *Manager) Exec(ctx context.Context, id string, cfg ExecConfig) (int32, error) {
	code, err := m.exec(ctx, id, cfg)
	if err != nil {
		return code, fmt.Errorf("exec in container %s: %w", id, err)
	}
	return code, nil
}

func (m *Manager) exec(ctx context.Context, id string, cfg ExecConfig) (int32, error) {
	c, err := m.get(id)
	if err != nil {
		return -1, err
	}
	if c.record().Phase != phaseRunning {
		return -1, ErrNotRunning
	}
	if cfg.Process == nil || len(cfg.Process.Args) == 0 {
		return -1, errors.New("no command was given")
	}
	if cfg.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, cfg.Timeout)
		defer cancel()
	}
	io, err := newExecIO(cfg)
	if err != nil {
		return -1, err
	}
	defer io.close()
	e, err := m.launchExec(ctx, c, cfg, io)
	if err != nil {
		return -1, err
	}
	defer e.pidfd.Close()
	if err := io.begin(cfg); err != nil {
		killTree(e.pid, e.pidfd)
		_, _ = e.wait()
		return -1, err
	}
	var code int32
	ended := make(chan struct{})
	go func() { code, err = e.wait(); close(ended) }() // ends with the exec, which ctx ends
	select {
	case <-ended:
		io.finish()
		return code, err
	case <-ctx.Done():
		killTree(e.pid, e.pidfd)
		<-ended
		io.finish()
		return -1, context.Cause(ctx)
	}
}

// running is an exec that was started: its exit code will come, whatever
// happens to the keeper.
type runningExec struct {
	pid   int
	pidfd *os.File
	code  <-chan int32
}

func (m *Manager) launchExec(ctx context.Context, c *container, cfg ExecConfig, io *execIO) (*runningExec, error) {
	cfg.Process.Terminal = cfg.TTY
	execID := m.streamID()
	path := filepath.Join(c.dir, "exec-"+execID)
	defer os.Remove(path)
	if err := m.writeExec(ctx, c, path, cfg); err != nil {
		return nil, err
	}
	atExecWritten.Reach()
	req := keeper.Exec{ID: c.id, ExecID: execID, Process: path, TTY: cfg.TTY, Stdio: io.stdio}
	var code <-chan int32
	asked := func(k *keeper.Client) { code = expect(m, m.execs, execID, k) }
	// Not under ctx: a process that was started must be known to be killed.
	var r keeper.Running
	files, err := m.link.callTelling(m.ctx, false, asked, keeper.OpExec, req, &r, io.theirs...)
	io.closeTheirs()
	if err != nil || len(files) == 0 {
		m.execExited(execID, -1)
		return nil, m.outOfProcesses(c, execError(err))
	}
	atExecLaunched.Reach()
	pidfd, err := pollable(files[0])
	if err != nil {
		return nil, err
	}
	return &runningExec{pid: r.Pid, pidfd: pidfd, code: code}, nil
}

// writeExec writes what the keeper is to start: a program, or a description
// for libcontainer.
func (m *Manager) writeExec(ctx context.Context, c *container, path string, cfg ExecConfig) error {
	image, err := m.execImage(ctx, c, cfg.Process, cfg.Stdin != nil)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrStart, err)
	}
	if image == nil {
		return bundle.WriteJSON(path, cfg.Process)
	}
	return os.WriteFile(path, image, 0o600)
}

// outOfProcesses adds to an error what a library does not say: that the container has as many processes as it may.
func (m *Manager) outOfProcesses(c *container, err error) error {
	if !errors.Is(err, ErrStart) || errors.Is(err, unix.EAGAIN) {
		return err
	}
	if st, statErr := m.Stats(c.id, true); statErr == nil && st.Pids.Limit > 0 && st.Pids.Current >= st.Pids.Limit {
		return fmt.Errorf("%w (the container has %d of %d processes: %w)", err, st.Pids.Current, st.Pids.Limit, unix.EAGAIN)
	}
	return err
}

func execError(err error) error {
	switch keeper.KindOf(err) {
	case keeper.KindStart:
		return fmt.Errorf("%w: %w", ErrStart, err)
	case keeper.KindNotRunning, keeper.KindNotFound:
		return fmt.Errorf("%w: %w", ErrNotRunning, err)
	}
	if err == nil {
		return errors.New("the keeper sent no process")
	}
	return err
}

// awaited is what a keeper is to tell, over the connection on which it was
// asked.
type awaited[T any] struct {
	from *keeper.Client
	told chan T
}

// streamID names an exec or an attachment.
func (m *Manager) streamID() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.serial++
	return strconv.Itoa(os.Getpid()) + "-" + strconv.FormatUint(m.serial, 10)
}

// expect is called before each keeper that is asked: what one that is lost was
// to tell does not end what the next one will.
func expect[T any](m *Manager, in map[string]awaited[T], id string, from *keeper.Client) <-chan T {
	told := make(chan T, 1)
	m.mu.Lock()
	defer m.mu.Unlock()
	in[id] = awaited[T]{from, told}
	return told
}

// tell gives a value to who expects it: to the first caller's only.
func tell[T any](m *Manager, in map[string]awaited[T], id string, value T) {
	m.mu.Lock()
	a, ok := in[id]
	delete(in, id)
	m.mu.Unlock()
	if ok {
		a.told <- value // buffered
	}
}

func (m *Manager) execExited(id string, code int32) { tell(m, m.execs, id, code) }

// loseStreams is for when a keeper is gone: attachments end with it. Execs go
// on, but how they end is to be learnt from their pidfds.
func (m *Manager) loseStreams() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, a := range m.execs {
		if a.from.Lost() {
			delete(m.execs, id)
			close(a.told)
		}
	}
	for id, a := range m.attached {
		if a.from.Lost() {
			delete(m.attached, id)
			a.told <- "the keeper was killed" // buffered
		}
	}
}

// wait waits for an exec's end and says its exit code, or ErrUnknown.
func (e *runningExec) wait() (int32, error) {
	if code, ok := <-e.code; ok {
		return code, nil
	}
	raw, err := e.pidfd.SyscallConn()
	if err != nil {
		return CodeUnknown, fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	code, err := int32(CodeUnknown), ErrUnknown
	readErr := raw.Read(func(fd uintptr) bool { // woken by each change of the pidfd
		set := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(set, 0); err != nil || n == 0 {
			return false
		}
		// Asked after the poll: once it says that the process was reaped, there is
		// nothing more to come.
		word, ok := keeper.WaitStatusOf(int(fd))
		if !ok { // before Linux 6.15 it comes to us, see orphans.go
			var waitErr error
			word, waitErr = keeper.Wait(int(fd))
			ok = waitErr == nil
		}
		if ok {
			code, err = keeper.ExitCode(word), nil
		}
		return ok || set[0].Revents&unix.POLLHUP != 0
	})
	return code, errors.Join(err, readErr)
}
