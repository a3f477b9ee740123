package csi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"keelson.dev/keelson/volume"
	"keelson.dev/keelson/volume/mount"
	"keelson.dev/keelson/volume/turn"
)

// Config says where the plugin works.
type Config struct {
	Root string       // the kubelet's folder, /var/lib/kubelet
	Node string       // the node's name
	Log  *slog.Logger // optional
}

// Deps are the Plugin's ways to the world.
type Deps struct {
	// Client reads and writes under the node's identity.
	Client kubernetes.Interface
	// Token returns a token of the pod's service account, kept as long as it lasts. An empty audience is the API server's own.
	Token func(ctx context.Context, pod *corev1.Pod, audience string, seconds *int64) (string, time.Time, error)
}

// Plugin mounts the volumes of the registered drivers. It is a volume.PersistentPlugin, a volume.Timed and a pluginwatch.Handler.
type Plugin struct {
	cfg    Config
	deps   Deps
	client kubernetes.Interface
	log    *slog.Logger
	turns  turn.Turns[corev1.UniqueVolumeName]

	mu       sync.Mutex
	drivers  map[string]*Driver                 // by name; guarded by mu
	watchers []func(string)                     // guarded by mu
	due      map[types.UID]map[string]time.Time // when a pod's volume is to be looked at again; guarded by mu
	used     map[string]corev1.UniqueVolumeName // attached volumes in use, by their record's folder; guarded by mu
	changes  func()                             // called after used changed; guarded by mu
}

// New makes a Plugin. What volumes are in use is read from disk.
func New(cfg Config, d Deps) *Plugin {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	p := &Plugin{cfg: cfg, deps: d, client: d.Client, log: cfg.Log, drivers: map[string]*Driver{},
		due: map[types.UID]map[string]time.Time{}, used: map[string]corev1.UniqueVolumeName{}, changes: func() {}}
	p.recall()
	return p
}

var (
	_ volume.Optioned = (*Plugin)(nil)
	_ volume.Measured = (*Plugin)(nil)
)

// Name implements volume.Plugin.
func (*Plugin) Name() string { return Name }

// Serves implements volume.Plugin.
func (*Plugin) Serves(v *corev1.Volume) bool { return v.CSI != nil }

// MountsWithOptions implements volume.Optioned: drivers are told them.
func (*Plugin) MountsWithOptions() {}

// ServesPersistent implements volume.PersistentPlugin.
func (*Plugin) ServesPersistent(pv *corev1.PersistentVolume) bool { return pv.Spec.CSI != nil }

// Mount implements volume.Plugin. Of a volume that is ready it brings up to date what the driver wants repeated, and its size.
func (p *Plugin) Mount(ctx context.Context, r volume.Request) (volume.Mounted, error) {
	s := sourceOf(r, p.cfg.Node)
	if err := s.check(); err != nil {
		return volume.Mounted{}, err
	}
	done, err := p.turns.Take(ctx, key(s.record))
	if err != nil {
		return volume.Mounted{}, fmt.Errorf("waiting for another pod's use of volume %s of driver %s: %w", s.Handle, s.Driver, err)
	}
	defer done()
	at := p.paths(s.record, string(r.Pod.UID), r.Dir)
	out := volume.Mounted{HostPath: at.target, Block: s.Block, ReadOnly: s.readOnly}
	old, err := readRecord(r.Dir)
	if err != nil && !errors.Is(err, errNoRecord) {
		return volume.Mounted{}, err
	}
	job := &job{p: p, r: r, s: s, at: at}
	if old.Ready && published(at.target, s.Block) {
		return out, job.renew(ctx)
	}
	return out, job.setUp(ctx)
}

// published tells whether something usable is at a target. A filesystem whose server is dead is not.
func published(target string, block bool) bool {
	info, err := os.Stat(target)
	if err != nil {
		return false
	}
	if block {
		return info.Mode()&os.ModeDevice != 0
	}
	there, err := mount.Is(target)
	return there && err == nil
}

// Unmount implements volume.Plugin.
func (p *Plugin) Unmount(ctx context.Context, pod types.UID, name, dir string) error {
	rec, err := readRecord(dir)
	if errors.Is(err, errNoRecord) {
		p.put(dir, record{})
		return nil
	}
	if err != nil {
		return err
	}
	rec.Volume = name // what the folder is called is what the paths are made of
	done, err := p.turns.Take(ctx, key(rec))
	if err != nil {
		return err
	}
	defer done()
	if err := p.takeDown(ctx, rec, string(pod), dir); err != nil {
		return fmt.Errorf("UnmountVolume.TearDown failed for volume %q : %w", name, err)
	}
	p.mu.Lock()
	delete(p.due, pod)
	p.mu.Unlock()
	return nil
}

// RefreshAt implements volume.Timed.
func (p *Plugin) RefreshAt(pod types.UID) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	var first time.Time
	for _, at := range p.due[pod] {
		if first.IsZero() || at.Before(first) {
			first = at
		}
	}
	return first
}

// after asks for another look at a volume of a pod.
func (p *Plugin) after(pod types.UID, volume string, d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.due[pod] == nil {
		p.due[pod] = map[string]time.Time{}
	}
	p.due[pod][volume] = time.Now().Add(d)
}

// records lists the folders of all pods' volumes of this kind.
func (p *Plugin) records() ([]string, error) {
	pods, err := os.ReadDir(filepath.Join(p.cfg.Root, "pods"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var out []string
	for _, pod := range pods {
		dir := filepath.Join(p.cfg.Root, "pods", pod.Name(), "volumes", Name)
		volumes, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, errNotDir) {
			return nil, err
		}
		for _, v := range volumes {
			out = append(out, filepath.Join(dir, v.Name()))
		}
	}
	return out, nil
}
