package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"keelson.dev/keelson/runtime/bundle"
	"keelson.dev/keelson/runtime/keeper"
)

// Create records a container and makes its run directory. Nothing runs yet.
// ErrExists says that the id is taken.
func (m *Manager) Create(ctx context.Context, cfg Config) error {
	if err := checkConfig(cfg); err != nil {
		return fmt.Errorf("create container: %w", err)
	}
	dir := filepath.Join(m.cfg.StateDir, cfg.ID)
	c := newContainer(dir, m.newRecord(cfg))
	c.spec = cfg.Spec
	<-c.op // ours from the start: others see it only as busy
	m.mu.Lock()
	_, taken := m.containers[cfg.ID]
	if !taken {
		m.containers[cfg.ID] = c
	}
	m.mu.Unlock()
	if taken {
		return fmt.Errorf("create container %s: %w", cfg.ID, ErrExists)
	}
	defer c.unlock()
	err := bundle.Make(dir, cfg.Spec, cfg.TTY, cfg.Stdin)
	if err == nil {
		atBundled.Reach()
		err = c.rec.save(dir)
	}
	if err != nil {
		m.forget(c)
		_ = os.RemoveAll(dir)
		return fmt.Errorf("create container %s: %w", cfg.ID, err)
	}
	atCreated.Reach()
	m.hub.publish(c.id, EventCreated, c.rec.CreatedAt)
	return nil
}

func checkConfig(cfg Config) error {
	switch {
	case !validID.MatchString(cfg.ID):
		return fmt.Errorf("id %.140q is not a name of letters, digits, '_', '.' and '-'", cfg.ID)
	case cfg.Spec == nil || cfg.Spec.Process == nil || cfg.Spec.Root == nil || cfg.Spec.Linux == nil:
		return fmt.Errorf("container %s: the spec lacks process, root or linux", cfg.ID)
	case len(cfg.Spec.Process.Args) == 0:
		return fmt.Errorf("container %s: the spec has no command", cfg.ID)
	case !filepath.IsAbs(cfg.Spec.Linux.CgroupsPath):
		return fmt.Errorf("container %s: cgroup path %q is not absolute", cfg.ID, cfg.Spec.Linux.CgroupsPath)
	}
	return nil
}

func (m *Manager) newRecord(cfg Config) record {
	cfg.Spec.Process.Terminal = cfg.TTY
	r := record{
		ID: cfg.ID, SandboxID: cfg.SandboxID, LogPath: cfg.LogPath,
		TTY: cfg.TTY, Stdin: cfg.Stdin, StdinOnce: cfg.StdinOnce,
		Cgroup: filepath.Clean(cfg.Spec.Linux.CgroupsPath), SharedPID: true,
		BootID: m.boot, Phase: phaseCreated, CreatedAt: time.Now().UTC().Round(0), // as it will be read back
	}
	for _, ns := range cfg.Spec.Linux.Namespaces {
		if ns.Type == specs.PIDNamespace && ns.Path == "" {
			r.SharedPID = false
		}
	}
	return r
}

// Start runs a created container's process. The returned State says how it
// is; with an error that is ErrStart it is Exited with Reason StartError, and
// the error carries the kernel's words. A start that outlives ctx goes on.
func (m *Manager) Start(ctx context.Context, id string) (State, error) {
	c, err := m.get(id)
	if err != nil {
		return State{}, err
	}
	if err := c.lock(ctx); err != nil {
		return State{}, err
	}
	result := make(chan error, 1)
	m.work.Go(func() { // ends with the keeper's answer, or the keeper
		defer c.unlock()
		result <- m.start(m.ctx, c)
	})
	select {
	case err = <-result:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		err = fmt.Errorf("start container %s: %w", id, err)
	}
	return c.record().state(), err
}

func (m *Manager) start(ctx context.Context, c *container) error {
	r, err := c.move(func(r record) (record, error) { return r.to(phaseStarting) })
	if err != nil {
		return err
	}
	atStarting.Reach()
	if err := m.prepareNative(ctx, c, r); err != nil {
		return m.startFailed(c, err)
	}
	atPrepared.Reach()
	held, err := openFIFOs(c.dir, r)
	if err != nil {
		return m.startFailed(c, err)
	}
	var running keeper.Running
	c.keep(held)
	req := keeper.Run{ID: r.ID, Dir: c.dir, LogPath: r.LogPath, TTY: r.TTY, Stdin: r.Stdin, Made: true, Systemd: m.cfg.Systemd}
	files, err := m.link.call(ctx, false, keeper.OpRun, req, &running)
	if err != nil {
		if errors.Is(err, keeper.ErrGone) {
			return m.startInDoubt(ctx, c)
		}
		return m.startFailed(c, err)
	}
	atAnswered.Reach()
	c.take(files)
	_, err = c.move(func(r record) (record, error) { return r.started(running) })
	var moved *moveError
	if errors.As(err, &moved) {
		return nil // it has ended already; exited told everybody
	}
	if err != nil {
		return err
	}
	atRunning.Reach()
	m.hub.publish(c.id, EventStarted, running.StartedAt)
	_ = os.Remove(filepath.Join(c.dir, bundle.ProgramName)) // it has run
	return nil
}

// startFailed records why a container cannot start.
func (m *Manager) startFailed(c *container, cause error) error {
	if m.ctx.Err() != nil { // it did not fail, we go: the next Open sees what came of it
		return cause
	}
	r, err := c.move(func(r record) (record, error) { return r.failed(time.Now(), cause.Error()) })
	if err != nil {
		return errors.Join(cause, err)
	}
	m.clear(c)
	m.hub.publish(c.id, EventExited, r.FinishedAt)
	var spec *specError
	if keeper.KindOf(cause) == keeper.KindStart || errors.As(cause, &spec) {
		return fmt.Errorf("%w: %w", ErrStart, cause)
	}
	return cause
}

// startInDoubt settles a start during which the keeper died.
func (m *Manager) startInDoubt(ctx context.Context, c *container) error {
	if _, err := m.link.get(ctx); err != nil {
		return err
	}
	if err := m.settle(ctx, c, nil, true); err != nil {
		return err
	}
	if r := c.record(); r.Reason == ReasonStartError {
		return fmt.Errorf("%w: %s", ErrStart, r.Message)
	}
	return nil
}

// exited takes the keeper's word that a container has ended.
func (m *Manager) exited(x keeper.Exit) {
	c, err := m.get(x.ID)
	if err != nil {
		return
	}
	atExitHeard.Reach()
	early := false
	r, err := c.move(func(r record) (record, error) {
		early = r.Phase == phaseStarting
		if early {
			r.Pid = x.Pid
		}
		return r.ended(x)
	})
	if err != nil {
		var moved *moveError
		if !errors.As(err, &moved) {
			m.cfg.Log.Error("record exit", "container", x.ID, "err", err)
		}
		return
	}
	atExitRecorded.Reach()
	if early {
		m.hub.publish(x.ID, EventStarted, r.StartedAt)
	}
	m.hub.publish(x.ID, EventExited, r.FinishedAt)
	m.work.Go(func() { m.clear(c) }) // bounded by clearPatience
}

// clearPatience is how long what is left of a container may take to die.
const clearPatience = 10 * time.Second

// clear kills what is left of an ended container and removes its cgroup.
// Remove does so again if it did not succeed.
func (m *Manager) clear(c *container) {
	ctx, cancel := context.WithTimeout(context.Background(), clearPatience)
	defer cancel()
	if err := m.groupOf(c.record()).Remove(ctx); err != nil {
		m.cfg.Log.Warn("cgroup of ended container stays for now", "container", c.id, "err", err)
	}
}

// Remove kills a container if it runs and removes all traces of it but its
// log. It is idempotent; an unknown id is no error.
func (m *Manager) Remove(ctx context.Context, id string) error {
	c, err := m.get(id)
	if err != nil {
		return nil
	}
	if err := c.lock(ctx); err != nil {
		return err
	}
	defer c.unlock()
	if err := m.remove(ctx, c); err != nil {
		return fmt.Errorf("remove container %s: %w", id, err)
	}
	return nil
}

func (m *Manager) remove(ctx context.Context, c *container) error {
	if c.isGone() {
		return nil
	}
	if c.record().Phase == phaseRunning {
		if err := m.killAll(ctx, c); err != nil {
			return err
		}
	}
	r, err := c.move(func(r record) (record, error) { return r.to(phaseRemoving) })
	if err != nil {
		return err
	}
	atRemoving.Reach()
	err = m.link.ask(ctx, keeper.OpForget, keeper.Target{ID: c.id}, nil)
	if err != nil && keeper.KindOf(err) != keeper.KindNotFound {
		return err
	}
	atForgotten.Reach()
	if err := m.groupOf(r).Remove(ctx); err != nil {
		return err
	}
	atUngrouped.Reach()
	if err := os.RemoveAll(c.dir); err != nil {
		return err
	}
	atRemoved.Reach()
	m.forget(c)
	m.hub.publish(c.id, EventRemoved, time.Now())
	return nil
}

func (c *container) isGone() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gone
}

func (m *Manager) forget(c *container) {
	m.mu.Lock()
	delete(m.containers, c.id)
	m.mu.Unlock()
	c.mu.Lock()
	c.gone = true
	c.handles.close()
	c.mu.Unlock()
}
