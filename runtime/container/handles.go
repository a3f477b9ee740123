package container

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"keelson.dev/keelson/runtime/bundle"
	"keelson.dev/keelson/runtime/keeper"
)

// openFIFOs opens our own ends of a container's FIFOs: what is in one would be
// lost with its last opener, and a container's input would end.
func openFIFOs(dir string, r record) (handles, error) {
	var h handles
	if r.TTY {
		return h, nil
	}
	for _, name := range []string{bundle.StdoutName, bundle.StderrName} {
		f, err := openFIFO(filepath.Join(dir, name))
		if err != nil {
			h.close()
			return h, err
		}
		h.output = append(h.output, f)
	}
	if r.Stdin {
		f, err := openFIFO(filepath.Join(dir, bundle.StdinName))
		if err != nil {
			h.close()
			return h, err
		}
		h.stdin = f
	}
	return h, nil
}

// openFIFO opens for reading and writing, which never waits. The file is only
// held; opened blocking, it costs no place in the poller.
func openFIFO(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// take adds what the keeper handed over: the pidfd and, for a terminal, its
// master.
func (h *handles) take(files []*os.File) {
	for i, f := range files {
		switch {
		case i == 0 && h.pidfd == nil:
			h.pidfd = f
		case i == 1 && h.console == nil:
			h.console = f
		default:
			f.Close()
		}
	}
}

// keep stores handles with the container, unless it has ended meanwhile.
func (c *container) keep(h handles) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone || c.rec.Phase == phaseExited {
		h.close()
		return
	}
	c.handles.close()
	c.handles = h
}

// take adds handles that the keeper handed over, unless the container has
// ended meanwhile.
func (c *container) take(files []*os.File) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone || c.rec.Phase != phaseStarting && c.rec.Phase != phaseRunning {
		for _, f := range files {
			f.Close()
		}
		return
	}
	c.handles.take(files)
}

// made takes the handles of a process that may run as soon as they are ours.
func (m *Manager) made(id string, files []*os.File) {
	if c, err := m.get(id); err == nil {
		c.take(files)
		return
	}
	for _, f := range files {
		f.Close()
	}
}

// holds says that we have a pidfd of the container's process.
func (c *container) holds() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.handles.pidfd != nil
}

// signal sends sig to the container's process by its pidfd, so never to
// another one. It needs no lock of the keeper.
func (c *container) signal(sig unix.Signal) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rec.Phase != phaseRunning || c.handles.pidfd == nil {
		return ErrNotRunning
	}
	err := onFD(c.handles.pidfd, func(fd int) error { return unix.PidfdSendSignal(fd, sig, nil, 0) })
	if err == unix.ESRCH {
		return ErrNotRunning
	}
	if err != nil {
		return fmt.Errorf("signal %d to process %d: %w", int(sig), c.rec.Pid, err)
	}
	return nil
}

// onFD calls fn with f's descriptor, which stays open meanwhile and keeps its
// mode (File.Fd would make it blocking for all who share it).
func onFD(f *os.File, fn func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var fnErr error
	if err := raw.Control(func(fd uintptr) { fnErr = fn(int(fd)) }); err != nil {
		return err
	}
	return fnErr
}

// pidfdOf opens a pidfd of the process that started at ticks; false says that
// it is gone.
func pidfdOf(pid int, ticks uint64) (*os.File, bool) {
	if pid <= 0 {
		return nil, false
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, false
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	// The pidfd is of whoever had the number when it was opened: only now is
	// the start time of a process that cannot change.
	if now, err := keeper.StartTicks(pid); err != nil || now != ticks {
		f.Close()
		return nil, false
	}
	return f, true
}

// duplicate is a second descriptor of f's open file.
func duplicate(f *os.File) (*os.File, error) {
	dup := -1
	err := onFD(f, func(fd int) (err error) {
		dup, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("duplicate %s: %w", f.Name(), err)
	}
	return os.NewFile(uintptr(dup), f.Name()), nil
}

// pollable is f in a form that Go's poller waits for; f is closed.
func pollable(f *os.File) (*os.File, error) {
	defer f.Close()
	if err := onFD(f, func(fd int) error { return unix.SetNonblock(fd, true) }); err != nil {
		return nil, fmt.Errorf("make %s pollable: %w", f.Name(), err)
	}
	return duplicate(f)
}
