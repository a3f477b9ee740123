package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"keelson.dev/keelson/runtime/bundle"
	"keelson.dev/keelson/runtime/cgroup"
)

// Manager makes and removes sandboxes. All methods may be called from several
// goroutines. Only one Manager may be open for a StateDir.
type Manager struct {
	cfg    ManagerConfig
	groups cgroup.Hierarchy

	mu        sync.Mutex
	sandboxes map[string]*slot
}

// slot is a sandbox in memory. op is held (by receiving from it) by whoever
// creates or removes it.
type slot struct {
	op  chan struct{} // capacity 1, full when free
	box *Sandbox      // set once, before the slot is in the map as ready
}

// record is sandbox.json.
type record struct {
	Sandbox
	Phase      string `json:"Phase"`
	OwnsCgroup bool   `json:"OwnsCgroup"` // the pod's cgroup was not there before
}

const (
	creating = "creating"
	made     = "made"
	removing = "removing"
)

// New finds the sandboxes that are there. What a Create or Remove that was
// killed left is taken away.
func New(cfg ManagerConfig) (*Manager, error) {
	if !filepath.IsAbs(cfg.StateDir) {
		return nil, errors.New("open sandboxes: StateDir (absolute) is required")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	groups, err := cgroup.Detect()
	if err != nil {
		return nil, fmt.Errorf("open sandboxes: %w", err)
	}
	groups.Systemd = cfg.Systemd
	if err := os.MkdirAll(cfg.StateDir, 0o711); err != nil {
		return nil, fmt.Errorf("open sandboxes: %w", err)
	}
	m := &Manager{cfg: cfg, groups: groups, sandboxes: map[string]*slot{}}
	entries, err := os.ReadDir(cfg.StateDir)
	if err != nil {
		return nil, fmt.Errorf("open sandboxes: %w", err)
	}
	for _, entry := range entries {
		if !entry.IsDir() || !validID.MatchString(entry.Name()) {
			continue
		}
		if err := m.load(places{filepath.Join(cfg.StateDir, entry.Name())}); err != nil {
			cfg.Log.Error("sandbox is left alone", "id", entry.Name(), "err", err)
		}
	}
	return m, nil
}

func (m *Manager) load(p places) error {
	var r record
	err := bundle.ReadJSON(p.record(), &r)
	if errors.Is(err, os.ErrNotExist) {
		return os.RemoveAll(p.dir) // nothing was done before its record was written
	}
	if err != nil {
		return err
	}
	if r.Phase != made {
		return m.undo(p, r)
	}
	m.sandboxes[r.ID] = newSlot(&r.Sandbox)
	return nil
}

// Remains is what somebody who takes everything away must know of a pod when no
// runtime lives.
type Remains struct {
	ID         string
	CgroupPath string // the cgroups of its containers and of its first process are below it, by their ids
	OwnsCgroup bool   // it was made for the pod
}

// Left lists the pods on record in a manager's StateDir. A missing folder has none.
func Left(stateDir string) ([]Remains, error) {
	entries, err := os.ReadDir(stateDir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("list sandboxes: %w", err)
	}
	var out []Remains
	for _, entry := range entries {
		var r record
		err := bundle.ReadJSON(places{filepath.Join(stateDir, entry.Name())}.record(), &r)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return out, fmt.Errorf("list sandboxes: %w", err)
		}
		out = append(out, Remains{r.ID, r.CgroupPath, r.OwnsCgroup})
	}
	return out, nil
}

func newSlot(s *Sandbox) *slot {
	slot := &slot{op: make(chan struct{}, 1), box: s}
	slot.op <- struct{}{}
	return slot
}

func (m *Manager) places(id string) places { return places{filepath.Join(m.cfg.StateDir, id)} }

// Create makes a sandbox. On an error, or when ctx ends, nothing is left.
func (m *Manager) Create(ctx context.Context, cfg Config) (*Sandbox, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("create sandbox: %w", err)
	}
	s := describe(cfg, m.places(cfg.ID), time.Now())
	mine := newSlot(nil)
	<-mine.op
	m.mu.Lock()
	_, taken := m.sandboxes[cfg.ID]
	if !taken {
		m.sandboxes[cfg.ID] = mine
	}
	m.mu.Unlock()
	if taken {
		return nil, fmt.Errorf("create sandbox %s: %w", cfg.ID, ErrExists)
	}
	defer func() { mine.op <- struct{}{} }()
	err := m.make(ctx, &s)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		delete(m.sandboxes, cfg.ID)
		return nil, fmt.Errorf("create sandbox %s: %w", cfg.ID, err)
	}
	atMade.Reach()
	s.Ready = true
	mine.box = &s
	return clone(&s), nil
}

func (m *Manager) make(ctx context.Context, s *Sandbox) (err error) {
	p := m.places(s.ID)
	group := m.groups.Group(s.CgroupPath)
	r := record{Sandbox: *s, Phase: creating, OwnsCgroup: s.CgroupPath != "" && !group.Exists()}
	if err := os.MkdirAll(p.pins(), 0o711); err != nil {
		return err
	}
	if err := bundle.WriteJSON(p.record(), r); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.undo(p, r))
		}
	}()
	atRecorded.Reach()
	if s.CgroupPath != "" {
		if err := group.Create(s.Resources); err != nil {
			return err
		}
	}
	atGrouped.Reach()
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if err := m.makeNamespaces(s, p); err != nil {
		return err
	}
	atPinned.Reach()
	if !s.HostIPC {
		if err := mountShm(p, s.Config); err != nil {
			return err
		}
	}
	atShared.Reach()
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	r.Phase = made
	return bundle.WriteJSON(p.record(), r)
}

// undo takes away all that a sandbox may have. Each step is safe without its
// do, so a second undo goes on where a first one failed.
func (m *Manager) undo(p places, r record) error {
	var errs []error
	if r.SharedPID {
		errs = append(errs, m.endPause(&r.Sandbox, p))
	}
	atUnpaused.Reach()
	for _, target := range []string{p.shm(), p.pin("ipc"), p.pin("uts"), p.pin("pid"), p.pin("net"), p.pin("user")} {
		errs = append(errs, unmount(target))
	}
	atUnpinned.Reach()
	if r.OwnsCgroup {
		errs = append(errs, m.groups.Group(r.CgroupPath).Prune())
	}
	atUngrouped.Reach()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return os.RemoveAll(p.dir)
}

// Remove takes a sandbox away: with a shared PID namespace also every process
// in it. It is idempotent; an unknown id is no error. The pod's cgroup goes
// too if Create made it and nothing is left in it.
func (m *Manager) Remove(ctx context.Context, id string) error {
	m.mu.Lock()
	slot, ok := m.sandboxes[id]
	m.mu.Unlock()
	if !ok {
		return nil
	}
	select {
	case <-slot.op:
	case <-ctx.Done():
		return fmt.Errorf("remove sandbox %s: it is busy: %w", id, context.Cause(ctx))
	}
	defer func() { slot.op <- struct{}{} }()
	p := m.places(id)
	var r record
	err := bundle.ReadJSON(p.record(), &r)
	if err == nil {
		r.Phase = removing
		if err = bundle.WriteJSON(p.record(), r); err == nil {
			atRemoving.Reach()
			err = m.undo(p, r)
		}
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove sandbox %s: %w", id, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.sandboxes[id] == slot {
		delete(m.sandboxes, id)
	}
	return nil
}

// Get finds a sandbox and looks whether it is ready.
func (m *Manager) Get(id string) (*Sandbox, error) {
	m.mu.Lock()
	slot, ok := m.sandboxes[id]
	var s *Sandbox
	if ok && slot.box != nil {
		s = clone(slot.box)
	}
	m.mu.Unlock()
	if s == nil {
		return nil, fmt.Errorf("sandbox %s: %w", id, ErrNotFound)
	}
	s.Ready = m.look(s)
	return s, nil
}

// List finds all sandboxes, oldest first.
func (m *Manager) List() []*Sandbox {
	m.mu.Lock()
	var all []*Sandbox
	for _, slot := range m.sandboxes {
		if slot.box != nil {
			all = append(all, clone(slot.box))
		}
	}
	m.mu.Unlock()
	for _, s := range all {
		s.Ready = m.look(s)
	}
	slices.SortFunc(all, func(a, b *Sandbox) int {
		if d := a.CreatedAt.Compare(b.CreatedAt); d != 0 {
			return d
		}
		return strings.Compare(a.ID, b.ID)
	})
	return all
}

// look says whether all that keeps the sandbox is in place.
func (m *Manager) look(s *Sandbox) bool {
	for kind, path := range s.Namespaces {
		if !pinned(path) {
			return false
		}
		if kind == specs.PIDNamespace {
			if pid, err := firstProcess(path); err != nil || pid == 0 || exiting(pid) {
				return false
			}
		}
	}
	return true
}

func clone(s *Sandbox) *Sandbox {
	out := *s
	out.Namespaces = map[specs.LinuxNamespaceType]string{}
	for k, v := range s.Namespaces {
		out.Namespaces[k] = v
	}
	return &out
}
