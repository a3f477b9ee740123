package cri

import (
	"context"
	"fmt"
	"os"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/cri/metric"
	"keelson.dev/keelson/cri/podstore"
	"keelson.dev/keelson/network/netns"
	"keelson.dev/keelson/runtime/cgroup"
)

// PodSandboxStats gives what one pod uses.
func (s *Server) PodSandboxStats(_ context.Context, req *runtimeapi.PodSandboxStatsRequest) (*runtimeapi.PodSandboxStatsResponse, error) {
	rec, err := s.readySandbox(req.GetPodSandboxId())
	if err != nil {
		return nil, err
	}
	st, err := s.podStats(rec)
	if err != nil {
		return nil, fmt.Errorf("stats of sandbox %s: %w", rec.ID, err)
	}
	return &runtimeapi.PodSandboxStatsResponse{Stats: st}, nil
}

// ListPodSandboxStats gives what the running pods use.
func (s *Server) ListPodSandboxStats(_ context.Context, req *runtimeapi.ListPodSandboxStatsRequest) (*runtimeapi.ListPodSandboxStatsResponse, error) {
	return &runtimeapi.ListPodSandboxStatsResponse{Stats: s.listPodStats(req.GetFilter())}, nil
}

func (s *Server) listPodStats(f *runtimeapi.PodSandboxStatsFilter) []*runtimeapi.PodSandboxStats {
	var out []*runtimeapi.PodSandboxStats
	for _, rec := range s.filterSandboxes(f.GetId(), f.GetLabelSelector()) {
		if rec.State != podstore.Created {
			continue
		}
		st, err := s.podStats(rec)
		if err != nil {
			continue // it stopped between the look and the reading
		}
		out = append(out, st)
	}
	return out
}

func (s *Server) podStats(rec *podstore.Sandbox) (*runtimeapi.PodSandboxStats, error) {
	st, err := s.podUsage(rec)
	if err != nil {
		return nil, err
	}
	linux := &runtimeapi.LinuxPodSandboxStats{
		Cpu: s.cpuUsage(rec.ID, st), Memory: memoryUsage(st), Io: ioUsage(st),
		Process:    &runtimeapi.ProcessUsage{Timestamp: st.At.UnixNano(), ProcessCount: num(st.Pids.Current)},
		Containers: s.listStats(&runtimeapi.ContainerStatsFilter{PodSandboxId: rec.ID}),
	}
	if n, err := podNetwork(rec); err == nil {
		linux.Network = n
	}
	return &runtimeapi.PodSandboxStats{
		Attributes: &runtimeapi.PodSandboxAttributes{
			Id: rec.ID, Metadata: rec.Config.GetMetadata(), Labels: rec.Config.GetLabels(), Annotations: rec.Config.GetAnnotations(),
		},
		Linux: linux,
	}, nil
}

func (s *Server) podUsage(rec *podstore.Sandbox) (cgroup.Stats, error) {
	sb, err := s.deps.Sandboxes.Get(rec.ID)
	if err != nil {
		return cgroup.Stats{}, err
	}
	h, err := cgroup.Detect()
	if err != nil {
		return cgroup.Stats{}, err
	}
	return h.Group(sb.CgroupPath).Stats(true)
}

// netDev reads the pod's interfaces where they are: in its namespace. A pod of
// the node's network has none of its own.
func netDev(rec *podstore.Sandbox) (string, error) {
	if rec.NetNSPath == "" {
		return "", nil
	}
	var text []byte
	err := netns.Do(rec.NetNSPath, func() (err error) {
		text, err = os.ReadFile("/proc/thread-self/net/dev")
		return err
	})
	return string(text), err
}

func podNetwork(rec *podstore.Sandbox) (*runtimeapi.NetworkUsage, error) {
	text, err := netDev(rec)
	if err != nil || text == "" {
		return nil, err
	}
	out := &runtimeapi.NetworkUsage{Timestamp: time.Now().UnixNano()}
	for _, i := range metric.ParseNetDev(text) {
		usage := &runtimeapi.NetworkInterfaceUsage{
			Name: i.Name, RxBytes: num(i.RxBytes), RxErrors: num(i.RxErrors), TxBytes: num(i.TxBytes), TxErrors: num(i.TxErrors),
		}
		if i.Name == "eth0" {
			out.DefaultInterface = usage
		} else {
			out.Interfaces = append(out.Interfaces, usage)
		}
	}
	return out, nil
}
