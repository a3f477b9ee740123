package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"keelson.dev/keelson/runtime/bundle"
	"keelson.dev/keelson/runtime/keeper"
)

// Attach connects streams to a running container until it ends, ctx ends, or
// an output fails. It sees what the container writes from now on. If the
// container was created with StdinOnce, the end of s.Stdin is the end of the
// container's; if not, it is the end of the attachment, as clients expect
// that leave a container's input open (kubectl run --leave-stdin-open).
func (m *Manager) Attach(ctx context.Context, id string, s Streams) error {
	c, err := m.get(id)
	if err != nil {
		return err
	}
	if err := m.attach(ctx, c, s); err != nil {
		return fmt.Errorf("attach to container %s: %w", id, err)
	}
	return nil
}

func (m *Manager) attach(ctx context.Context, c *container, s Streams) error {
	r := c.record()
	if r.Phase != phaseRunning {
		return ErrNotRunning
	}
	if r.TTY {
		s.Stderr = nil // a terminal has one output
	}
	out, err := newExecIO(ExecConfig{Stdout: s.Stdout, Stderr: s.Stderr})
	if err != nil {
		return err
	}
	defer out.close()
	input, err := c.input(r, s.Stdin != nil)
	if err != nil {
		return err
	}
	defer c.closeInput(input)

	cause, err := m.askAttach(ctx, c, out)
	if err != nil {
		return err
	}
	copied := make(chan struct{})
	var copies sync.WaitGroup
	for i, f := range out.outputs {
		copies.Go(func() { _, _ = io.Copy(out.sinks[i], f) })
	}
	go func() { copies.Wait(); close(copied) }() // ends when out is closed at the latest
	let := make(chan struct{}) // closed when the client lets go
	if s.Stdin != nil && r.Stdin {
		go func() { // ends with the caller's reader, or with input
			if m.feed(c, r, input, s.Stdin) {
				close(let)
			}
		}()
	}
	if s.Resize != nil && r.TTY {
		x := &execIO{console: input, done: out.done}
		go x.resize(s.Resize) // ends with out.done or the channel
	}
	if len(out.outputs) == 0 {
		copied = nil // nothing to copy does not mean that it is over
	}
	select {
	case <-copied:
	case <-let:
	case <-c.ended:
		if copied != nil {
			<-copied
		}
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case why := <-cause:
		if why != "" {
			return errors.New(why)
		}
	default:
	}
	return nil
}

// askAttach hands the output pipes to the keeper. The channel gets the reason
// if it lets go of them.
func (m *Manager) askAttach(ctx context.Context, c *container, out *execIO) (<-chan string, error) {
	defer out.closeTheirs()
	if len(out.theirs) == 0 {
		return nil, nil
	}
	id := m.streamID()
	var cause <-chan string
	asked := func(k *keeper.Client) { cause = expect(m, m.attached, id, k) }
	req := keeper.Attach{ID: c.id, AttachID: id, Stdio: out.stdio}
	if _, err := m.link.callTelling(ctx, true, asked, keeper.OpAttach, req, nil, out.theirs...); err != nil {
		m.detached(id, "")
		return nil, execError(err)
	}
	return cause, nil
}

func (m *Manager) detached(id, cause string) { tell(m, m.attached, id, cause) }

// input opens a way into the container: a copy of its terminal's master, or
// the writing end of its stdin; /dev/null if there is nothing to write to.
func (c *container) input(r record, write bool) (*os.File, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var f *os.File
	var err error
	switch {
	case r.TTY && c.handles.console == nil:
		err = ErrNotRunning
	case r.TTY:
		f, err = duplicate(c.handles.console)
	case r.Stdin && write && c.handles.stdin != nil:
		// Non-blocking, so that closing it ends a Write that waits.
		f, err = os.OpenFile(filepath.Join(c.dir, bundle.StdinName), os.O_WRONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	default:
		f, err = os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("input: %w", err)
	}
	c.inputs[f] = true
	return f, nil
}

func (c *container) closeInput(f *os.File) {
	c.mu.Lock()
	delete(c.inputs, f)
	c.mu.Unlock()
	f.Close()
}

// feed copies into the container. With StdinOnce its end is the end of the
// container's stdin, whoever else is attached to it. It tells whether the
// client has nothing more to say to a container that goes on.
func (m *Manager) feed(c *container, r record, to *os.File, from io.Reader) bool {
	_, err := io.Copy(onlyWriter{to}, from)
	if err != nil || !r.StdinOnce || r.TTY {
		return err == nil
	}
	c.mu.Lock()
	if c.handles.stdin != nil {
		c.handles.stdin.Close()
		c.handles.stdin = nil
	}
	for f := range c.inputs {
		f.Close()
	}
	c.mu.Unlock()
	if err := m.link.ask(m.ctx, keeper.OpCloseStdin, keeper.Target{ID: c.id}, nil); err != nil {
		m.cfg.Log.Warn("close stdin", "container", c.id, "err", err)
	}
	return false
}
