package probe

import (
	"context"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"keelson.dev/keelson/kubelet/criclient"
	"keelson.dev/keelson/kubelet/observe"
	"keelson.dev/keelson/kubelet/plan"
	"keelson.dev/keelson/kubelet/podstatus"
)

// Events tells of failed probes, on one container of a pod.
type Events interface {
	ContainerEvent(pod *corev1.Pod, container, kind, reason, format string, args ...any)
}

// Config of a Manager; all required.
type Config struct {
	CRI    *criclient.Client
	Events Events
	// Wake is called, from any goroutine, when a pod's results changed. It must not block.
	Wake func(types.UID)
	// Mark (SO_MARK) of the probes' connections; 0 for none.
	Mark int
}

// kind is one of the three probes of a container.
type kind string

const (
	startup   kind = "Startup"
	liveness  kind = "Liveness"
	readiness kind = "Readiness"
)

// Manager runs the probes of all pods. It is safe for concurrent use.
type Manager struct {
	cfg Config
	wg  sync.WaitGroup

	mu   sync.Mutex
	pods map[types.UID]map[string]*subject // by container ID; guarded by mu
	sums map[sumKey]float64                // finished probes, for /metrics/probes; guarded by mu
}

// sumKey labels a count of probe results.
type sumKey struct{ Namespace, Pod, UID, Container, Type, Result string }

// subject is one container instance under probes. Its results are guarded by Manager.mu.
type subject struct {
	cancel    context.CancelFunc
	begun     chan struct{} // closed when started turned true
	started   bool
	ready     bool
	condemned string // why liveness or startup gave it up
}

// New makes a Manager.
func New(cfg Config) *Manager {
	return &Manager{cfg: cfg, pods: map[types.UID]map[string]*subject{}, sums: map[sumKey]float64{}}
}

// Wait returns when all probe goroutines have ended, which they do after the contexts given to Set ended.
func (m *Manager) Wait() { m.wg.Wait() }

// Set brings the set of probes of a pod in line with its running containers. ctx must outlive the pod. With ending,
// only readiness goes on: a container on its way out is not to be condemned.
func (m *Manager) Set(ctx context.Context, pod *corev1.Pod, ips []string, running []observe.Container, ending bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	have := m.pods[pod.UID]
	alive := map[string]bool{}
	for _, c := range running {
		spec := plan.Find(pod, c.Name)
		if c.State != observe.Running || spec == nil || !probed(spec) {
			continue
		}
		alive[c.ID] = true
		if have[c.ID] != nil || ending {
			continue
		}
		if have == nil {
			have = map[string]*subject{}
			m.pods[pod.UID] = have
		}
		have[c.ID] = m.begin(ctx, pod, spec, c, ips)
	}
	for id, s := range have {
		if !alive[id] {
			s.cancel()
			delete(have, id)
		}
	}
	if len(have) == 0 {
		delete(m.pods, pod.UID)
	}
}

func probed(c *corev1.Container) bool {
	return c.StartupProbe != nil || c.LivenessProbe != nil || c.ReadinessProbe != nil
}

// begin starts the probes of one instance. Preconditions: mu is held.
func (m *Manager) begin(ctx context.Context, pod *corev1.Pod, spec *corev1.Container, c observe.Container, ips []string) *subject {
	ctx, cancel := context.WithCancel(ctx)
	s := &subject{cancel: cancel, begun: make(chan struct{}), ready: spec.ReadinessProbe == nil}
	// What the status says of this very instance an earlier daemon found out: its restart is not the pod's, and takes no
	// endpoint out of service. The probes go on and may find otherwise.
	was := plan.PreviousStatus(pod, c.Name)
	known := was != nil && strings.HasSuffix(was.ContainerID, "://"+c.ID)
	if known && was.Ready {
		s.ready = true
	}
	if known && was.Started != nil && *was.Started && spec.StartupProbe != nil {
		s.started = true
		close(s.begun)
	}
	if spec.StartupProbe == nil {
		s.started = true
		close(s.begun)
	}
	for k, p := range map[kind]*corev1.Probe{
		startup: spec.StartupProbe, liveness: spec.LivenessProbe, readiness: spec.ReadinessProbe,
	} {
		if p == nil || k == startup && s.started {
			continue
		}
		w := &worker{m: m, pod: pod, spec: spec, con: c, ips: ips, kind: k, probe: p, subject: s}
		m.wg.Go(func() { w.run(ctx) }) // ends with ctx: the instance is gone or the daemon stops
	}
	return s
}

// Results says by container ID what the probes know, and which containers they gave up and why.
func (m *Manager) Results(uid types.UID) (probes map[string]podstatus.Probe, unhealthy map[string]string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	probes, unhealthy = map[string]podstatus.Probe{}, map[string]string{}
	for id, s := range m.pods[uid] {
		probes[id] = podstatus.Probe{Started: s.started, Ready: s.ready}
		if s.condemned != "" {
			unhealthy[id] = s.condemned
		}
	}
	return probes, unhealthy
}

// Forget stops all probes of a pod.
func (m *Manager) Forget(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.pods[uid] {
		s.cancel()
	}
	delete(m.pods, uid)
	for k := range m.sums {
		if k.UID == string(uid) {
			delete(m.sums, k)
		}
	}
}

// Each reports how often each probe ended how, for metrics.
func (m *Manager) Each(f func(namespace, pod, uid, container, kind, result string, n float64)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for k, n := range m.sums {
		f(k.Namespace, k.Pod, k.UID, k.Container, k.Type, k.Result, n)
	}
}

// seconds turns an API field into a duration, with the default for zero.
func seconds(n, otherwise int32) time.Duration {
	if n <= 0 {
		n = otherwise
	}
	return time.Duration(n) * time.Second
}
