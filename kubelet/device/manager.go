package device

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// callLimit bounds one question to a plugin, so that a stuck one holds up admissions for no longer.
const callLimit = 30 * time.Second

// Config of a Manager; all fields but Grace are required.
type Config struct {
	// Dir is where plugins put their sockets and find ours, "kubelet.sock": /var/lib/kubelet/device-plugins.
	Dir string
	// Changed is called when the node's devices or their health have changed. It must not block.
	Changed func()
	// Wake is called for a pod whose devices' health has changed. It must not block.
	Wake func(types.UID)
	Log  *slog.Logger
	// Grace is how long the resource of a plugin that went away stays in the node's capacity. Default 5 minutes.
	Grace time.Duration
}

// Manager gives devices to containers. It is safe for concurrent use.
type Manager struct {
	api.UnimplementedRegistrationServer
	cfg    Config
	turn   chan struct{} // capacity 1: held by the allocation whose turn it is
	saving chan struct{} // capacity 1: held while the checkpoint is written
	wg     sync.WaitGroup

	mu      sync.Mutex
	ctx     context.Context    // of Run; guarded by mu
	book    ledger             // guarded by mu
	plugins map[string]*plugin // by resource; guarded by mu
	old     map[string]bool    // resources of the checkpoint whose plugins have not come back; guarded by mu
}

// New makes a Manager with what the checkpoint says was given. A damaged checkpoint is put aside: pods that run keep
// their devices, but the kubelet no longer knows of them.
func New(cfg Config) *Manager {
	if cfg.Grace == 0 {
		cfg.Grace = 5 * time.Minute
	}
	m := &Manager{cfg: cfg, turn: make(chan struct{}, 1), saving: make(chan struct{}, 1), book: newLedger(),
		plugins: map[string]*plugin{}, old: map[string]bool{}}
	b, err := load(m.checkpoint())
	if err != nil {
		cfg.Log.Error("devices given before are not known: put aside", "file", m.checkpoint(), "err", err)
		_ = os.Rename(m.checkpoint(), m.checkpoint()+".damaged") // if it fails, the next allocation overwrites it
	}
	for _, e := range b.Gifts {
		m.book.gifts[e.key] = e.gift
	}
	for _, r := range b.Resources {
		m.old[r] = true
	}
	return m
}

func (m *Manager) checkpoint() string { return filepath.Join(m.cfg.Dir, "given.json") }

// Extended tells whether a resource name is one that a device plugin may bring: of a domain that is not Kubernetes' own.
func Extended(name corev1.ResourceName) bool {
	domain, _, has := strings.Cut(string(name), "/")
	return has && !strings.HasSuffix(domain, "kubernetes.io") && !strings.HasPrefix(domain, "requests.") &&
		len(validation.IsQualifiedName("requests."+string(name))) == 0
}

// Run serves registrations until ctx ends. A folder that cannot be used costs the node its device plugins, nothing else.
// As documented, a new kubelet deletes all sockets in the folder: plugins watch for that and register again.
func (m *Manager) Run(ctx context.Context) error {
	m.mu.Lock()
	m.ctx = ctx
	for r := range m.old { // plugins that do not come back
		time.AfterFunc(m.cfg.Grace, func() { m.expire(r, nil) })
	}
	m.mu.Unlock()
	lis, err := m.listen(ctx)
	if err != nil {
		m.cfg.Log.Warn("device plugins cannot register", "err", err)
		<-ctx.Done()
		return nil
	}
	s := grpc.NewServer()
	api.RegisterRegistrationServer(s, m)
	stop := context.AfterFunc(ctx, s.Stop)
	defer stop()
	err = s.Serve(lis)
	m.mu.Lock()
	for _, p := range m.plugins {
		p.close()
	}
	m.mu.Unlock()
	m.wg.Wait()
	if ctx.Err() != nil || errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return fmt.Errorf("serve device plugins: %w", err)
}

func (m *Manager) listen(ctx context.Context) (net.Listener, error) {
	if err := os.MkdirAll(m.cfg.Dir, 0o750); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(m.cfg.Dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.Type()&fs.ModeSocket != 0 {
			if err := os.Remove(filepath.Join(m.cfg.Dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
		}
	}
	return (&net.ListenConfig{}).Listen(ctx, "unix", filepath.Join(m.cfg.Dir, "kubelet.sock"))
}

// Register implements the registration service: the plugin's stream is followed from then on.
func (m *Manager) Register(_ context.Context, q *api.RegisterRequest) (*api.Empty, error) {
	if !slices.Contains(api.SupportedVersions[:], q.GetVersion()) {
		return nil, status.Errorf(codes.InvalidArgument, "device plugin API version %q is not supported, use one of %v", q.GetVersion(), api.SupportedVersions)
	}
	if !Extended(corev1.ResourceName(q.GetResourceName())) {
		return nil, status.Errorf(codes.InvalidArgument, "resource name %q is not one of an extended resource: give it a domain of your own, as in example.com/name", q.GetResourceName())
	}
	p, err := connect(m.cfg.Dir, q)
	if err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "connect to the device plugin: %v", err)
	}
	m.mu.Lock()
	if m.ctx.Err() != nil {
		m.mu.Unlock()
		_ = p.conn.Close()
		return nil, status.Error(codes.Unavailable, "the kubelet is stopping")
	}
	ctx, cancel := context.WithCancel(m.ctx)
	p.cancel = cancel
	if was := m.plugins[p.resource]; was != nil {
		was.close()
	}
	m.plugins[p.resource] = p
	delete(m.old, p.resource)
	m.wg.Go(func() { // ends with the stream, and with ctx
		err := p.follow(ctx, func(list []*api.Device) { m.list(p, list) })
		m.lost(p, err)
	})
	m.mu.Unlock()
	m.cfg.Log.Info("device plugin registered", "resource", p.resource, "endpoint", q.GetEndpoint())
	if err := m.save(); err != nil {
		m.cfg.Log.Warn("device plugin's resource would not be known after a restart", "err", err)
	}
	return &api.Empty{}, nil
}

// list takes over what a plugin says there is.
func (m *Manager) list(p *plugin, list []*api.Device) {
	units := make(map[string]unit, len(list))
	for _, d := range list {
		u := unit{healthy: d.GetHealth() == api.Healthy}
		for _, n := range d.GetTopology().GetNodes() {
			u.numa = append(u.numa, n.GetID())
		}
		units[d.GetID()] = u
	}
	m.mu.Lock()
	if m.plugins[p.resource] != p {
		m.mu.Unlock()
		return
	}
	m.book.units[p.resource] = units
	holders := m.book.holders(p.resource)
	m.mu.Unlock()
	m.tell(holders)
}

func (m *Manager) tell(holders []types.UID) {
	m.cfg.Changed()
	for _, uid := range holders {
		m.cfg.Wake(uid)
	}
}

// lost notes that a plugin's stream has ended.
func (m *Manager) lost(p *plugin, why error) {
	m.mu.Lock()
	if m.plugins[p.resource] != p || m.ctx.Err() != nil {
		m.mu.Unlock()
		return
	}
	m.book.losing(p.resource)
	holders := m.book.holders(p.resource)
	p.gone = time.AfterFunc(m.cfg.Grace, func() { m.expire(p.resource, p) })
	m.mu.Unlock()
	m.cfg.Log.Warn("device plugin went away: its devices count as unhealthy", "resource", p.resource, "err", why)
	m.tell(holders)
}

// expire takes the resource of a plugin that stayed away out of the node's capacity. p is nil for one that never came
// back after a restart.
func (m *Manager) expire(resource string, p *plugin) {
	m.mu.Lock()
	if m.ctx.Err() != nil || m.plugins[resource] != p {
		m.mu.Unlock()
		return
	}
	if p != nil {
		p.close()
	}
	delete(m.plugins, resource)
	delete(m.old, resource)
	delete(m.book.units, resource)
	m.mu.Unlock()
	m.cfg.Log.Warn("device plugin stayed away: its resource is no longer offered", "resource", resource)
	if err := m.save(); err != nil {
		m.cfg.Log.Warn("record the devices given", "err", err)
	}
	m.cfg.Changed()
}

// save writes the checkpoint. Writers take turns, so that an older picture never replaces a newer one.
func (m *Manager) save() error {
	m.saving <- struct{}{}
	defer func() { <-m.saving }()
	var b body
	m.mu.Lock()
	for k, g := range m.book.gifts {
		b.Gifts = append(b.Gifts, entry{k, g})
	}
	for r := range m.plugins {
		b.Resources = append(b.Resources, r)
	}
	for r := range m.old {
		b.Resources = append(b.Resources, r)
	}
	m.mu.Unlock()
	slices.Sort(b.Resources)
	return save(m.checkpoint(), b)
}
