package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

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
		<-e.code
		return -1, err
	}
	select {
	case code := <-e.code:
		io.finish()
		return code, nil
	case <-ctx.Done():
		killTree(e.pid, e.pidfd)
		<-e.code
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
	execID, code := m.expectExec()
	path := filepath.Join(c.dir, "exec-"+execID+".json")
	defer os.Remove(path)
	if err := bundle.WriteJSON(path, cfg.Process); err != nil {
		m.execExited(execID, -1)
		return nil, err
	}
	client, err := m.link.get(ctx)
	if err != nil {
		m.execExited(execID, -1)
		return nil, err
	}
	req := keeper.Exec{ID: c.id, ExecID: execID, Process: path, TTY: cfg.TTY, Stdio: io.stdio}
	// Not under ctx: a process that was started must be known to be killed.
	var r keeper.Running
	files, err := client.Call(m.ctx, keeper.OpExec, req, &r, io.theirs...)
	io.closeTheirs()
	if err != nil || len(files) == 0 {
		m.execExited(execID, -1)
		return nil, execError(err)
	}
	return &runningExec{pid: r.Pid, pidfd: files[0], code: code}, nil
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

func (m *Manager) expectExec() (string, <-chan int32) {
	code := make(chan int32, 1)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.serial++
	id := strconv.Itoa(os.Getpid()) + "-" + strconv.FormatUint(m.serial, 10)
	m.execs[id] = code
	return id, code
}

func (m *Manager) execExited(id string, code int32) {
	m.mu.Lock()
	ch, ok := m.execs[id]
	delete(m.execs, id)
	m.mu.Unlock()
	if ok {
		ch <- code // buffered, and only the first one gets here
	}
}

// loseExecs ends the waiting for execs whose keeper is gone: their codes are
// lost, and with them their streams' owner.
func (m *Manager) loseExecs() {
	m.mu.Lock()
	lost := m.execs
	m.execs = map[string]chan int32{}
	gone := m.attached
	m.attached = map[string]chan string{}
	m.mu.Unlock()
	for _, ch := range lost {
		ch <- CodeUnknown
	}
	for _, ch := range gone {
		ch <- "the keeper was killed"
	}
}
