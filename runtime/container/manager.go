package container

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

	"github.com/opencontainers/runtime-spec/specs-go"

	"keelson.dev/keelson/runtime/bundle"
	"keelson.dev/keelson/runtime/cgroup"
)

// Manager keeps the containers of a node. All methods may be called from
// several goroutines.
type Manager struct {
	cfg    ManagerConfig
	boot   string
	groups cgroup.Hierarchy
	link   *link
	hub    *hub
	ctx    context.Context // ends with Close: for what outlives a call
	stop   context.CancelFunc
	work   sync.WaitGroup // goroutines that outlive a call

	pidfdTells bool // see orphans.go
	useNative  bool
	limits     bundle.Limits
	lastCap    uint
	filters    *filters

	mu         sync.Mutex
	containers map[string]*container
	execs      map[string]awaited[int32]  // by exec id: its exit code
	attached   map[string]awaited[string] // why it was let go of
	serial     uint64
}

// container is one container in memory. op is held (by receiving from it) by
// whoever creates, starts, updates or removes it.
type container struct {
	id, dir string
	op      chan struct{} // capacity 1, full when free

	mu      sync.Mutex
	rec     record
	handles handles
	inputs  map[*os.File]bool // attachments' ways in
	spec    *specs.Spec       // from Create to Start
	native  *nativeRecord
	ended   chan struct{} // closed when rec is exited
	gone    bool          // removed; this value is out of the map
}

// handles are the daemon's own references to what a running container needs
// kept open, should the keeper be killed.
type handles struct {
	pidfd, console, stdin *os.File
	output                []*os.File
}

func (h *handles) close() {
	for _, f := range append([]*os.File{h.pidfd, h.console, h.stdin}, h.output...) {
		if f != nil {
			f.Close()
		}
	}
	*h = handles{}
}

func newContainer(dir string, r record) *container {
	c := &container{id: r.ID, dir: dir, rec: r, op: make(chan struct{}, 1), ended: make(chan struct{}), inputs: map[*os.File]bool{}}
	c.op <- struct{}{}
	if r.Phase == phaseExited || r.Phase == phaseRemoving {
		close(c.ended)
	}
	return c
}

// Open finds the containers that are there, brings their records up to date
// and connects to the keeper, starting one if there is none. Only one Manager
// may be open for a StateDir.
func Open(cfg ManagerConfig) (*Manager, error) {
	if !filepath.IsAbs(cfg.StateDir) || cfg.KeeperPath == "" {
		return nil, errors.New("open containers: StateDir (absolute) and KeeperPath are required")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(cfg.StateDir, 0o711); err != nil {
		return nil, fmt.Errorf("open containers: %w", err)
	}
	boot, err := bootID()
	if err != nil {
		return nil, fmt.Errorf("open containers: %w", err)
	}
	groups, err := cgroup.Detect()
	if err != nil {
		return nil, fmt.Errorf("open containers: %w", err)
	}
	groups.Systemd = cfg.Systemd
	m := &Manager{
		cfg: cfg, boot: boot, groups: groups, hub: newHub(),
		containers: map[string]*container{}, execs: map[string]awaited[int32]{}, attached: map[string]awaited[string]{},
	}
	if err := m.learnHost(); err != nil {
		return nil, fmt.Errorf("open containers: %w", err)
	}
	m.ctx, m.stop = context.WithCancel(context.Background())
	if m.pidfdTells = pidfdTells() && !forceOrphans; !m.pidfdTells {
		if err := adoptOrphans(); err != nil {
			return nil, fmt.Errorf("open containers: %w", err)
		}
	}
	if err := m.load(); err != nil {
		m.stop()
		return nil, fmt.Errorf("open containers: %w", err)
	}
	m.link = newLink(m)
	m.filters = &filters{dir: filepath.Join(m.link.dir, "seccomp"), link: m.link, code: map[string]*compiled{}}
	client, err := m.link.connect(m.ctx)
	if err != nil {
		m.stop()
		return nil, fmt.Errorf("open containers: %w", err)
	}
	if err := m.link.use(client); err != nil {
		return nil, fmt.Errorf("open containers: %w", err)
	}
	m.work.Go(m.link.tend) // ends with m.ctx; before the recovery, which a keeper's death must not hold up
	if err := m.recover(m.ctx); err != nil {
		m.Close()
		return nil, fmt.Errorf("open containers: %w", err)
	}
	return m, nil
}

// learnHost finds out what this process and kernel can do.
func (m *Manager) learnHost() error {
	var err error
	if m.limits, err = bundle.OwnLimits(); err != nil {
		return err
	}
	if m.lastCap, err = lastCap(); err != nil {
		return err
	}
	m.useNative = m.cfg.Engine != EngineLibcontainer && nativeWorks()
	return nil
}

// Close detaches: containers and keeper go on, and the next Open finds them.
func (m *Manager) Close() error {
	m.stop()
	m.link.close()
	m.work.Wait()
	m.mu.Lock()
	all := make([]*container, 0, len(m.containers))
	for _, c := range m.containers {
		all = append(all, c)
	}
	m.mu.Unlock()
	for _, c := range all {
		c.mu.Lock()
		c.handles.close()
		c.mu.Unlock()
	}
	return nil
}

// load reads the records. A run directory without one is what a Create that
// was killed left: nothing of it has taken effect, so it is removed. The record
// of a container that runs is made anew if it is lost or cannot be read.
func (m *Manager) load() error {
	entries, err := os.ReadDir(m.cfg.StateDir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		dir := filepath.Join(m.cfg.StateDir, entry.Name())
		if !entry.IsDir() || strings.HasPrefix(entry.Name(), ".") {
			continue
		}
		r, err := loadRecord(dir)
		if err != nil {
			made, ok := m.rebuild(dir)
			if !errors.Is(err, os.ErrNotExist) || ok {
				m.cfg.Log.Warn("a container's record is lost or damaged", "container", entry.Name(), "err", err, "made anew", ok)
			}
			if !ok {
				if err := os.RemoveAll(dir); err != nil {
					return fmt.Errorf("remove half-made container: %w", err)
				}
				continue
			}
			if err := made.save(dir); err != nil {
				return err
			}
			r = made
		}
		m.containers[r.ID] = newContainer(dir, r)
	}
	return nil
}

func (m *Manager) get(id string) (*container, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c, ok := m.containers[id]; ok {
		return c, nil
	}
	return nil, fmt.Errorf("container %s: %w", id, ErrNotFound)
}

// lock takes a container's op; the caller gives it back with unlock.
func (c *container) lock(ctx context.Context) error {
	select {
	case <-c.op:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("container %s is busy: %w", c.id, context.Cause(ctx))
	}
}

func (c *container) unlock() { c.op <- struct{}{} }

func (c *container) record() record {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rec
}

// move changes the record, on disk and then in memory. change sees the record
// as it is and may refuse.
func (c *container) move(change func(record) (record, error)) (record, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next, err := change(c.rec)
	if err != nil {
		return c.rec, err
	}
	if err := next.save(c.dir); err != nil {
		return c.rec, err
	}
	was := c.rec.Phase
	c.rec = next
	if next.Phase == phaseExited && was != phaseExited {
		close(c.ended)
		c.handles.close()
	}
	return next, nil
}

// State says what is known of a container.
func (m *Manager) State(id string) (State, error) {
	c, err := m.get(id)
	if err != nil {
		return State{}, err
	}
	return c.record().state(), nil
}

// List says what is known of all containers, oldest first.
func (m *Manager) List() []State {
	m.mu.Lock()
	all := make([]*container, 0, len(m.containers))
	for _, c := range m.containers {
		all = append(all, c)
	}
	m.mu.Unlock()
	states := make([]State, len(all))
	for i, c := range all {
		states[i] = c.record().state()
	}
	slices.SortFunc(states, func(a, b State) int {
		if d := a.CreatedAt.Compare(b.CreatedAt); d != 0 {
			return d
		}
		return strings.Compare(a.ID, b.ID)
	})
	return states
}

// Events delivers what happens from now on until ctx ends. A slow reader gets
// EventLost in place of what it missed, and holds nobody up.
func (m *Manager) Events(ctx context.Context) <-chan Event { return m.hub.subscribe(ctx) }

func (m *Manager) groupOf(r record) cgroup.Group { return m.groups.Group(r.Cgroup) }
