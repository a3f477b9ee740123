package stats

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/kubelet/criclient"
	"keelson.dev/keelson/kubelet/observe"
	"keelson.dev/keelson/volume"
)

// Config of a Source; all required but Volumes.
type Config struct {
	Node string
	Root string // filesystem of pods' volumes and logs
	CRI  *criclient.Client
	Pods func() []*corev1.Pod
	// Volumes tells what pods' volumes hold. It may take a moment, never long.
	Volumes func(ctx context.Context) map[types.UID][]volume.Measurement
}

// Source reads statistics.
type Source struct {
	cfg   Config
	began time.Time

	mu   sync.Mutex
	last map[string]sample // by container or sandbox ID, "" for the node; guarded by mu
}

// sample is a cpu counter at a time.
type sample struct {
	at   time.Time
	nano uint64
	rate uint64 // thousand-millionths of a core, when last computed
}

func (s *Source) measure(ctx context.Context) map[types.UID][]volume.Measurement {
	if s.cfg.Volumes == nil {
		return nil
	}
	return s.cfg.Volumes(ctx)
}

// New makes a Source.
func New(cfg Config) *Source {
	return &Source{cfg: cfg, began: time.Now(), last: map[string]sample{}}
}

// usage is what one container, pod or the node uses.
type usage struct {
	id                       string
	at                       time.Time
	cpuNano, cpuRate         uint64
	memory, working, rss     uint64
	faults, majorFaults      uint64
	disk, inodes             uint64
	pids                     uint64
	rx, tx, rxErrs, txErrs   uint64
	iface                    string
	hasNet, hasDisk, hasPids bool
}

// container is one running container's usage.
type container struct {
	name, image string
	started     time.Time
	usage
}

// pod is a pod's usage with its containers'.
type pod struct {
	namespace, name, uid string
	object               *corev1.Pod // nil when the kubelet does not know it
	usage
	containers []container
}

// read asks the runtime for everything.
func (s *Source) read(ctx context.Context) ([]pod, error) {
	byUID := map[string]*corev1.Pod{}
	for _, p := range s.cfg.Pods() {
		byUID[string(p.UID)] = p
	}
	list, err := s.cfg.CRI.Runtime.ListPodSandboxStats(ctx, &runtimeapi.ListPodSandboxStatsRequest{})
	if status.Code(err) == codes.Unimplemented {
		return s.readContainers(ctx, byUID)
	}
	if err != nil {
		return nil, fmt.Errorf("read pod statistics: %w", err)
	}
	var out []pod
	for _, b := range list.GetStats() {
		meta, lin := b.GetAttributes().GetMetadata(), b.GetLinux()
		p := pod{namespace: meta.GetNamespace(), name: meta.GetName(), uid: meta.GetUid(), object: byUID[meta.GetUid()]}
		p.usage = s.usage(b.GetAttributes().GetId(), lin.GetCpu(), lin.GetMemory())
		if n := lin.GetNetwork().GetDefaultInterface(); n != nil {
			p.hasNet, p.iface = true, n.GetName()
			p.rx, p.tx = n.GetRxBytes().GetValue(), n.GetTxBytes().GetValue()
			p.rxErrs, p.txErrs = n.GetRxErrors().GetValue(), n.GetTxErrors().GetValue()
		}
		if n := lin.GetProcess(); n != nil {
			p.hasPids, p.pids = true, n.GetProcessCount().GetValue()
		}
		for _, c := range lin.GetContainers() {
			p.containers = append(p.containers, s.container(c, p.object))
		}
		if p.cpuNano == 0 && p.working == 0 {
			p.sum()
		}
		out = append(out, p)
	}
	s.forget(out)
	return out, nil
}

// readContainers is for runtimes that have no statistics of pods: theirs are the sums of their containers'.
func (s *Source) readContainers(ctx context.Context, byUID map[string]*corev1.Pod) ([]pod, error) {
	list, err := s.cfg.CRI.Runtime.ListContainerStats(ctx, &runtimeapi.ListContainerStatsRequest{})
	if err != nil {
		return nil, fmt.Errorf("read container statistics: %w", err)
	}
	pods := map[string]*pod{}
	for _, c := range list.GetStats() {
		l := c.GetAttributes().GetLabels()
		uid := l[observe.LabelPodUID]
		p := pods[uid]
		if p == nil {
			p = &pod{namespace: l[observe.LabelPodNamespace], name: l[observe.LabelPodName], uid: uid, object: byUID[uid]}
			pods[uid] = p
		}
		p.containers = append(p.containers, s.container(c, p.object))
	}
	var out []pod
	for _, p := range pods {
		p.sum()
		out = append(out, *p)
	}
	s.forget(out)
	return out, nil
}

// sum makes a pod's usage out of its containers'.
func (p *pod) sum() {
	for _, c := range p.containers {
		p.cpuNano += c.cpuNano
		p.cpuRate += c.cpuRate
		p.memory += c.memory
		p.working += c.working
		p.rss += c.rss
		p.at = c.at
	}
}

func (s *Source) container(c *runtimeapi.ContainerStats, object *corev1.Pod) container {
	out := container{name: c.GetAttributes().GetLabels()[observe.LabelContainerName]}
	if out.name == "" {
		out.name = c.GetAttributes().GetMetadata().GetName()
	}
	out.usage = s.usage(c.GetAttributes().GetId(), c.GetCpu(), c.GetMemory())
	if d := c.GetWritableLayer(); d != nil {
		out.hasDisk, out.disk, out.inodes = true, d.GetUsedBytes().GetValue(), d.GetInodesUsed().GetValue()
	}
	if object != nil {
		for _, list := range [][]corev1.ContainerStatus{object.Status.ContainerStatuses, object.Status.InitContainerStatuses} {
			for _, st := range list {
				if st.Name == out.name && st.State.Running != nil {
					out.image, out.started = st.Image, st.State.Running.StartedAt.Time
				}
			}
		}
	}
	return out
}

func (s *Source) usage(id string, cpu *runtimeapi.CpuUsage, mem *runtimeapi.MemoryUsage) usage {
	u := usage{
		id: id, at: time.Unix(0, cpu.GetTimestamp()),
		cpuNano: cpu.GetUsageCoreNanoSeconds().GetValue(), cpuRate: cpu.GetUsageNanoCores().GetValue(),
		working: mem.GetWorkingSetBytes().GetValue(), memory: mem.GetUsageBytes().GetValue(),
		rss: mem.GetRssBytes().GetValue(), faults: mem.GetPageFaults().GetValue(), majorFaults: mem.GetMajorPageFaults().GetValue(),
	}
	if cpu.GetTimestamp() == 0 {
		u.at = time.Now()
	}
	if u.cpuRate == 0 {
		u.cpuRate = s.rate(id, u.at, u.cpuNano)
	}
	return u
}

// rate is the usage per second since the last scrape; scrapes closer than a second share one answer.
func (s *Source) rate(id string, at time.Time, nano uint64) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, known := s.last[id]
	if !known || nano < old.nano {
		s.last[id] = sample{at: at, nano: nano}
		return 0
	}
	dt := at.Sub(old.at)
	if dt < time.Second {
		return old.rate
	}
	rate := uint64(float64(nano-old.nano) / dt.Seconds())
	s.last[id] = sample{at: at, nano: nano, rate: rate}
	return rate
}

// forget drops the samples of what is gone.
func (s *Source) forget(have []pod) {
	keep := map[string]bool{"": true}
	for _, p := range have {
		keep[p.id] = true
		for _, c := range p.containers {
			keep[c.id] = true
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.last {
		if !keep[id] {
			delete(s.last, id)
		}
	}
}
