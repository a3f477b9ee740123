package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"keelson.dev/keelson/runtime/keeper"
)

// keeperDir is the keeper's directory in the StateDir. Container ids never
// begin with a dot.
const keeperDir = ".keeper"

// link is the Manager's connection to the keeper, kept up across keepers.
type link struct {
	m   *Manager
	dir string

	mu     sync.Mutex
	client *keeper.Client
	ready  chan struct{} // closed while client is usable
	down   error         // why no keeper can be started; nil else
	closed bool
}

func newLink(m *Manager) *link {
	return &link{m: m, dir: filepath.Join(m.cfg.StateDir, keeperDir), ready: make(chan struct{})}
}

// connect reaches the keeper, starting one if none lives. It retries while a
// keeper that holds the lock is not to be reached: one that is just ending.
func (l *link) connect(ctx context.Context) (*keeper.Client, error) {
	for pause := time.Millisecond; ; pause = min(2*pause, time.Second) {
		client, err := l.try(ctx)
		if err == nil {
			return client, nil
		}
		if !errors.Is(err, keeper.ErrGone) && !errors.Is(err, keeper.ErrAlive) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-time.After(pause):
		}
	}
}

// use makes a connection the one that everybody uses.
func (l *link) use(client *keeper.Client) error {
	l.mu.Lock()
	closed := l.closed
	if !closed {
		l.client, l.down = client, nil
		close(l.ready)
	}
	l.mu.Unlock()
	if closed {
		client.Close()
		return errClosed
	}
	return nil
}

var errClosed = errors.New("the container manager is closed")

func (l *link) try(ctx context.Context) (*keeper.Client, error) {
	client, err := keeper.Dial(ctx, l.dir, l.m.onEvent)
	if err == nil {
		return l.upgrade(ctx, client)
	}
	if !errors.Is(err, keeper.ErrGone) {
		return client, err
	}
	cmd, err := keeper.Spawn(l.m.cfg.KeeperPath, l.dir)
	if err != nil {
		return nil, err
	}
	l.m.cfg.Log.Info("keeper started", "pid", cmd.Process.Pid)
	go reapKeeper(cmd) // ends with the keeper, which may outlive us
	return keeper.Dial(ctx, l.dir, l.m.onEvent)
}

// upgrade has a keeper of another build replaced. One that is busy, or that
// cannot be, stays: all builds of one protocol version can be worked with.
func (l *link) upgrade(ctx context.Context, client *keeper.Client) (*keeper.Client, error) {
	build := keeper.BuildOf(l.m.cfg.KeeperPath)
	if client.Peer().Build == build {
		return client, nil
	}
	program, err := keeper.SealedCopy(l.m.cfg.KeeperPath)
	if err != nil {
		client.Close()
		return nil, err
	}
	defer program.Close()
	_, err = client.Call(ctx, keeper.OpUpgrade, keeper.Upgrade{Build: build}, nil, program)
	if !errors.Is(err, keeper.ErrGone) {
		l.m.cfg.Log.Warn("an older keeper stays", "build", client.Peer().Build, "err", err)
		return client, nil
	}
	client.Close()
	l.m.cfg.Log.Info("keeper is being replaced in place", "from", client.Peer().Build, "to", build)
	return keeper.Dial(ctx, l.dir, l.m.onEvent)
}

// reapKeeper waits for a keeper as long as we are its parent. Nobody waits for
// this goroutine: it does nothing else, and the keeper outlives the Manager.
func reapKeeper(cmd *exec.Cmd) { _ = cmd.Wait() }

// get is the client, once there is one.
func (l *link) get(ctx context.Context) (*keeper.Client, error) {
	for {
		l.mu.Lock()
		client, ready, closed := l.client, l.ready, l.closed
		if client != nil && client.Lost() && !closed {
			// tend would do so in a moment.
			l.client, l.ready = nil, make(chan struct{})
			client, ready = nil, l.ready
		}
		l.mu.Unlock()
		if closed {
			return nil, errClosed
		}
		if client != nil {
			return client, nil
		}
		select {
		case <-ready:
		case <-ctx.Done():
			return nil, fmt.Errorf("the keeper is being started anew: %w", context.Cause(ctx))
		}
	}
}

// call asks the keeper, and the next one if that one died before it was asked.
// If again, it is also asked anew when it died before it answered: for what
// may be done twice.
func (l *link) call(ctx context.Context, again bool, op keeper.Op, in, out any, files ...*os.File) ([]*os.File, error) {
	return l.callTelling(ctx, again, func(*keeper.Client) {}, op, in, out, files...)
}

// callTelling is call, and tells which keeper is about to be asked.
func (l *link) callTelling(ctx context.Context, again bool, asked func(*keeper.Client), op keeper.Op, in, out any, files ...*os.File) ([]*os.File, error) {
	for {
		client, err := l.get(ctx)
		if err != nil {
			return nil, err
		}
		asked(client)
		got, err := client.Call(ctx, op, in, out, files...)
		retry := errors.Is(err, keeper.ErrNotSent) || again && errors.Is(err, keeper.ErrGone)
		if !retry {
			return got, err
		}
		select {
		case <-client.Done():
		case <-ctx.Done():
			return nil, err
		}
	}
}

// callAgain is call for what may be done twice.
func (l *link) callAgain(ctx context.Context, op keeper.Op, in, out any, files ...*os.File) ([]*os.File, error) {
	return l.call(ctx, true, op, in, out, files...)
}

// ask is call for what may be done twice and answers with no files.
func (l *link) ask(ctx context.Context, op keeper.Op, in, out any) error {
	files, err := l.call(ctx, true, op, in, out)
	for _, f := range files {
		f.Close()
	}
	return err
}

// tend starts a new keeper whenever one is lost and has it adopt what runs.
func (l *link) tend() {
	for {
		l.mu.Lock()
		client := l.client
		l.mu.Unlock()
		if client != nil {
			select {
			case <-client.Done():
			case <-l.m.ctx.Done():
				return
			}
		}
		l.mu.Lock()
		if l.client != nil {
			l.client, l.ready = nil, make(chan struct{})
		}
		l.mu.Unlock()
		l.m.cfg.Log.Warn("keeper lost; starting another")
		l.m.loseStreams()
		if !l.renew() {
			return
		}
	}
}

// renew brings up a new keeper; false says that the Manager is closing. A
// keeper that cannot be started is tried again: nothing else can be done, and
// the containers run meanwhile.
func (l *link) renew() bool {
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 10*time.Second) {
		client, err := l.connect(l.m.ctx)
		if err == nil {
			// First: nobody shall be told that a container is unknown.
			l.m.adoptAll(l.m.ctx, client.Call)
			err = l.use(client)
		}
		if err == nil {
			return true
		}
		if l.m.ctx.Err() != nil {
			return false
		}
		l.m.cfg.Log.Error("cannot start the keeper", "err", err)
		l.mu.Lock()
		l.down = err
		l.mu.Unlock()
		select {
		case <-l.m.ctx.Done():
			return false
		case <-time.After(pause):
		}
	}
}

// Status is an error while no container can be started, because the keeper
// cannot be. One that is lost and comes again at once is none.
func (m *Manager) Status() error {
	m.link.mu.Lock()
	defer m.link.mu.Unlock()
	if m.link.down == nil {
		return nil
	}
	return fmt.Errorf("the keeper, which is every container's parent, cannot be started: %w", m.link.down)
}

func (l *link) close() {
	l.mu.Lock()
	client := l.client
	l.closed = true
	l.mu.Unlock()
	if client != nil {
		client.Close()
	}
}

// onEvent takes the keeper's events, in order. It must not wait for the
// keeper.
func (m *Manager) onEvent(op keeper.Op, body json.RawMessage, files []*os.File) {
	if op != keeper.OpMade {
		for _, f := range files {
			f.Close()
		}
	}
	switch op {
	case keeper.OpMade:
		var p keeper.Running
		_ = json.Unmarshal(body, &p) // an odd one is of no container
		m.made(p.ID, files)
	case keeper.OpExited:
		var x keeper.Exit
		if json.Unmarshal(body, &x) == nil {
			m.exited(x)
		}
	case keeper.OpExecExited:
		var x keeper.ExecExited
		if json.Unmarshal(body, &x) == nil {
			m.execExited(x.ExecID, x.Code)
		}
	case keeper.OpDetached:
		var x keeper.Detached
		if json.Unmarshal(body, &x) == nil {
			m.detached(x.AttachID, x.Cause)
		}
	case keeper.OpOOM:
		var x keeper.Target
		if json.Unmarshal(body, &x) == nil {
			m.hub.publish(x.ID, EventOOM, time.Now())
		}
	}
}
