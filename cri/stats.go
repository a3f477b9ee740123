package cri

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/cri/podstore"
	"keelson.dev/keelson/runtime/cgroup"
	"keelson.dev/keelson/runtime/container"
)

// cpuRates turns growing counters into rates: each reading is compared with the
// one before. Nothing is read in the background, so a first reading has no rate.
type cpuRates struct {
	mu   sync.Mutex
	last map[string]sample
}

type sample struct {
	at    time.Time
	usage uint64 // ns of CPU
	rate  uint64 // ns of CPU per second
}

// minInterval keeps two readings close together from giving a rate of noise.
const minInterval = 100 * time.Millisecond

// rate gives nanocores since the reading before, or false.
func (c *cpuRates) rate(id string, at time.Time, usage uint64) (uint64, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	prev, ok := c.last[id]
	if ok && at.Sub(prev.at) < minInterval {
		return prev.rate, prev.rate != 0
	}
	next := sample{at: at, usage: usage}
	if ok && usage >= prev.usage {
		next.rate = uint64(float64(usage-prev.usage) / at.Sub(prev.at).Seconds())
	}
	if c.last == nil {
		c.last = map[string]sample{}
	}
	c.last[id] = next
	return next.rate, ok
}

func (c *cpuRates) forget(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.last, id)
}

// ContainerStats gives what one container uses.
func (s *Server) ContainerStats(_ context.Context, req *runtimeapi.ContainerStatsRequest) (*runtimeapi.ContainerStatsResponse, error) {
	rec, err := s.container(req.GetContainerId())
	if err != nil {
		return nil, err
	}
	st, err := s.usage(rec)
	if err != nil {
		return nil, fmt.Errorf("stats of container %s: %w", rec.ID, err)
	}
	return &runtimeapi.ContainerStatsResponse{Stats: st}, nil
}

// ListContainerStats gives what the running containers use.
func (s *Server) ListContainerStats(_ context.Context, req *runtimeapi.ListContainerStatsRequest) (*runtimeapi.ListContainerStatsResponse, error) {
	return &runtimeapi.ListContainerStatsResponse{Stats: s.listStats(req.GetFilter())}, nil
}

func (s *Server) listStats(f *runtimeapi.ContainerStatsFilter) []*runtimeapi.ContainerStats {
	var out []*runtimeapi.ContainerStats
	for _, rec := range s.filterContainers(f.GetId(), f.GetPodSandboxId(), f.GetLabelSelector()) {
		if state := s.state(rec); state.Status != container.Running && state.Status != container.Created {
			continue
		}
		st, err := s.usage(rec)
		if err != nil {
			continue // it ended between the look and the reading
		}
		out = append(out, st)
	}
	return out
}

func (s *Server) usage(rec *podstore.Container) (*runtimeapi.ContainerStats, error) {
	st, err := s.deps.Containers.Stats(rec.ID, false)
	if err != nil {
		return nil, err
	}
	out := &runtimeapi.ContainerStats{
		Attributes: &runtimeapi.ContainerAttributes{
			Id: rec.ID, Metadata: rec.Config.GetMetadata(), Labels: rec.Config.GetLabels(), Annotations: rec.Config.GetAnnotations(),
		},
		Cpu: s.cpuUsage(rec.ID, st), Memory: memoryUsage(st), Swap: swapUsage(st), Io: ioUsage(st),
	}
	if u, err := s.deps.Rootfs.RootfsUsage(rec.ID); err == nil {
		// The directory goes with the container; what is asked for is the filesystem.
		u.Path = s.imageRoot
		u.Bytes += s.grown(rec.SandboxID)
		out.WritableLayer = filesystem(u)
	}
	return out, nil
}

// grown is what containers have written into the files that the runtime lends the pod, in bytes: it is on their account. As
// the files were made they are small, and nobody's.
func (s *Server) grown(pod string) (n uint64) {
	const asMade = 64 << 10
	for _, name := range []string{resolvFile, hostsFile, hostnameFile} {
		var st unix.Stat_t
		if unix.Lstat(s.podFile(pod, name), &st) == nil && st.Blocks*512 > asMade {
			n += uint64(st.Blocks) * 512
		}
	}
	return n
}

func (s *Server) cpuUsage(id string, st cgroup.Stats) *runtimeapi.CpuUsage {
	out := &runtimeapi.CpuUsage{Timestamp: st.At.UnixNano(), UsageCoreNanoSeconds: num(st.CPU.UsageNs), Psi: psi(st, "cpu")}
	if rate, ok := s.cpu.rate(id, st.At, st.CPU.UsageNs); ok {
		out.UsageNanoCores = num(rate)
	}
	return out
}

func memoryUsage(st cgroup.Stats) *runtimeapi.MemoryUsage {
	m := st.Memory
	out := &runtimeapi.MemoryUsage{
		Timestamp: st.At.UnixNano(), WorkingSetBytes: num(m.WorkingSet), UsageBytes: num(m.Usage), RssBytes: num(m.RSS),
		PageFaults: num(m.PageFaults), MajorPageFaults: num(m.MajorFaults), Psi: psi(st, "memory"),
	}
	if m.Limit > 0 {
		out.AvailableBytes = num(m.Limit - min(m.WorkingSet, m.Limit))
	}
	return out
}

func swapUsage(st cgroup.Stats) *runtimeapi.SwapUsage {
	out := &runtimeapi.SwapUsage{Timestamp: st.At.UnixNano(), SwapUsageBytes: num(st.Memory.Swap)}
	if free := st.Memory.SwapFree; free != nil {
		out.SwapAvailableBytes = num(*free)
	}
	return out
}

func ioUsage(st cgroup.Stats) *runtimeapi.IoUsage {
	p := psi(st, "io")
	if p == nil {
		return nil
	}
	return &runtimeapi.IoUsage{Timestamp: st.At.UnixNano(), Psi: p}
}

// psi is nil where the kernel has none. The kernel counts microseconds, the API
// nanoseconds.
func psi(st cgroup.Stats, resource string) *runtimeapi.PsiStats {
	p, ok := st.PSI[resource]
	if !ok {
		return nil
	}
	data := func(v cgroup.Pressure) *runtimeapi.PsiData {
		return &runtimeapi.PsiData{Total: v.Total * 1000, Avg10: v.Avg10, Avg60: v.Avg60, Avg300: v.Avg300}
	}
	return &runtimeapi.PsiStats{Full: data(p.Full), Some: data(p.Some)}
}
