package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"keelson.dev/keelson/runtime/bundle"
	"keelson.dev/keelson/runtime/keeper"
)

// recover brings the records that Open loaded up to date.
func (m *Manager) recover(ctx context.Context) error {
	kept, err := m.listKept(ctx)
	if err != nil {
		return err
	}
	m.mu.Lock()
	all := make([]*container, 0, len(m.containers))
	for _, c := range m.containers {
		all = append(all, c)
	}
	m.mu.Unlock()
	for id, k := range kept {
		if _, err := m.get(id); err == nil {
			continue
		}
		m.cfg.Log.Warn("a container without a record is ended", "container", id, "pid", k.Pid)
		if err := m.endStray(ctx, k); err != nil {
			m.cfg.Log.Error("end a container without a record", "container", id, "err", err)
		}
	}
	for _, c := range all {
		var have *keeper.Running
		if k, ok := kept[c.id]; ok {
			have = &k
		}
		if err := m.settle(ctx, c, have, false); err != nil {
			m.cfg.Log.Error("recover container", "container", c.id, "err", err)
		}
	}
	return nil
}

func (m *Manager) listKept(ctx context.Context) (map[string]keeper.Running, error) {
	out := map[string]keeper.Running{}
	for after := ""; ; {
		var page keeper.Listed
		if err := m.link.ask(ctx, keeper.OpList, keeper.ListAfter{After: after}, &page); err != nil {
			return nil, fmt.Errorf("ask keeper for its containers: %w", err)
		}
		for _, k := range page.Containers {
			out[k.ID] = k
			after = k.ID
		}
		if !page.More || len(page.Containers) == 0 {
			return out, nil
		}
	}
}

// settle finds the facts about one container and does what reconcile says.
// awaited: a caller of Start waits for what comes of it.
func (m *Manager) settle(ctx context.Context, c *container, kept *keeper.Running, awaited bool) error {
	r := c.record()
	f := m.findFacts(c.dir, r, kept)
	f.held, f.awaited = c.holds(), awaited
	v := reconcile(r, f)
	if v.record != r {
		next, err := c.move(func(now record) (record, error) {
			if now != r {
				return now, &moveError{id: now.ID, from: string(now.Phase), to: string(v.record.Phase)}
			}
			return v.record, nil
		})
		var moved *moveError
		if errors.As(err, &moved) {
			return nil // the keeper's event was faster
		}
		if err != nil {
			return err
		}
		if r.Phase == phaseStarting && next.Phase != phaseCreated && next.Reason != ReasonStartError {
			m.hub.publish(c.id, EventStarted, next.StartedAt)
		}
		if next.Phase == phaseExited {
			m.hub.publish(c.id, EventExited, next.FinishedAt)
		}
	}
	atSettled.Reach()
	switch {
	case v.remove:
		return m.remove(ctx, c)
	case v.clear:
		m.clear(c)
	case v.record.Phase == phaseRunning:
		known, err := m.hold(ctx, c, v.record, !v.adopt)
		if err != nil {
			return err
		}
		atHeld.Reach()
		if !known { // or not any more: the keeper that knew it has died since
			return m.adopt(ctx, c, m.link.callAgain)
		}
	}
	return nil
}

func (m *Manager) findFacts(dir string, r record, kept *keeper.Running) facts {
	f := facts{now: time.Now(), sameBoot: r.BootID == m.boot, kept: kept}
	if kept != nil {
		f.exit = kept.Exit
	}
	var exit keeper.Exit
	if f.exit == nil && bundle.ReadJSON(filepath.Join(dir, bundle.ExitName), &exit) == nil {
		f.exit = &exit
	}
	pid, ticks := r.Pid, r.StartTicks
	var init keeper.Running
	if bundle.ReadJSON(filepath.Join(dir, bundle.InitName), &init) == nil {
		f.init = &init
		pid, ticks = init.Pid, init.StartTicks
	}
	if f.sameBoot {
		if pidfd, ok := pidfdOf(pid, ticks); ok {
			pidfd.Close()
			f.alive = true
			f.released = !runsInit(pid)
		}
	}
	return f
}

// runsInit says that a process still is a copy of the keeper's program, that
// is, has not become the container's.
func runsInit(pid int) bool {
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	return err == nil && strings.HasPrefix(exe, "/memfd:keelson-keeper")
}

// hold takes the handles of a running container: from the keeper, or by path
// and pid. known says that the keeper has the container.
func (m *Manager) hold(ctx context.Context, c *container, r record, fromKeeper bool) (known bool, err error) {
	if !fromKeeper && c.holds() {
		return false, nil // from when it was made; by now its number may be another's
	}
	h, err := openFIFOs(c.dir, r)
	if err != nil {
		return false, err
	}
	if fromKeeper {
		files, err := m.link.call(ctx, true, keeper.OpHandles, keeper.Target{ID: c.id}, nil)
		h.take(files)
		if err != nil && keeper.KindOf(err) != keeper.KindNotFound {
			h.close()
			return false, err
		}
		known = err == nil
	}
	if h.pidfd == nil {
		h.pidfd, _ = pidfdOf(r.Pid, r.StartTicks)
	}
	c.keep(h)
	return known, nil
}

// call is how the keeper is asked: by the link, or by a connection that is not
// the link's yet.
type call func(ctx context.Context, op keeper.Op, in, out any, files ...*os.File) ([]*os.File, error)

// adopt hands a running container to a keeper that does not know it.
func (m *Manager) adopt(ctx context.Context, c *container, ask call) error {
	c.mu.Lock()
	bare := c.rec.Phase == phaseRunning && c.handles.pidfd == nil
	c.mu.Unlock()
	if bare { // the keeper died before the recovery came to this one
		if _, err := m.hold(ctx, c, c.record(), false); err != nil {
			return err
		}
	}
	c.mu.Lock()
	r, h := c.rec, c.handles
	var files []*os.File
	if r.Phase == phaseRunning && h.pidfd != nil {
		files = append(files, h.pidfd)
		if h.console != nil {
			files = append(files, h.console)
		}
	}
	c.mu.Unlock()
	if r.Phase != phaseRunning {
		return nil
	}
	if len(files) == 0 {
		m.exited(keeper.Exit{ID: r.ID, Pid: r.Pid, Code: CodeUnknown, At: time.Now(), Unknown: true})
		return nil
	}
	req := keeper.Adopt{
		Run: keeper.Run{ID: r.ID, Dir: c.dir, LogPath: r.LogPath, TTY: r.TTY, Stdin: r.Stdin},
		Pid: r.Pid, StartTicks: r.StartTicks, StartedAt: r.StartedAt,
	}
	got, err := ask(ctx, keeper.OpAdopt, req, nil, files...)
	for _, f := range got {
		f.Close()
	}
	if err != nil {
		return fmt.Errorf("have container %s adopted: %w", r.ID, err)
	}
	atAdopted.Reach()
	if !m.pidfdTells {
		m.follow(c, files[0])
	}
	return nil
}

// follow has the end of an adopted container waited for here.
func (m *Manager) follow(c *container, pidfd *os.File) {
	own, err := duplicate(pidfd)
	if err == nil {
		own, err = pollable(own)
	}
	if err != nil {
		m.cfg.Log.Error("follow adopted container", "container", c.id, "err", err)
		return
	}
	m.work.Go(func() { m.awaitOrphan(c, own) }) // ends with m.ctx or the container
}

// adoptAll hands every running container to a new keeper. An end that the old
// one recorded but could not report is taken from its record.
func (m *Manager) adoptAll(ctx context.Context, ask call) {
	m.mu.Lock()
	all := make([]*container, 0, len(m.containers))
	for _, c := range m.containers {
		all = append(all, c)
	}
	m.mu.Unlock()
	var each sync.WaitGroup
	for _, c := range all {
		if c.record().Phase != phaseRunning {
			continue
		}
		each.Go(func() {
			var exit keeper.Exit
			if bundle.ReadJSON(filepath.Join(c.dir, bundle.ExitName), &exit) == nil {
				m.exited(exit)
				return
			}
			if err := m.adopt(ctx, c, ask); err != nil {
				m.cfg.Log.Error("adopt container", "container", c.id, "err", err)
			}
		})
	}
	each.Wait()
}
