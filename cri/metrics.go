package cri

import (
	"context"
	"path"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/cri/metric"
	"keelson.dev/keelson/cri/podstore"
)

const cgroupRoot = "/sys/fs/cgroup"

// ListMetricDescriptors names every metric that ListPodSandboxMetrics gives.
func (s *Server) ListMetricDescriptors(context.Context, *runtimeapi.ListMetricDescriptorsRequest) (*runtimeapi.ListMetricDescriptorsResponse, error) {
	return &runtimeapi.ListMetricDescriptorsResponse{Descriptors: metric.Descriptors()}, nil
}

// ListPodSandboxMetrics gives the metrics of the running pods.
func (s *Server) ListPodSandboxMetrics(context.Context, *runtimeapi.ListPodSandboxMetricsRequest) (*runtimeapi.ListPodSandboxMetricsResponse, error) {
	return &runtimeapi.ListPodSandboxMetricsResponse{PodMetrics: s.listMetrics()}, nil
}

func (s *Server) listMetrics() []*runtimeapi.PodSandboxMetrics {
	disk := s.disk()
	var out []*runtimeapi.PodSandboxMetrics
	for _, rec := range s.filterSandboxes("", nil) {
		if rec.State == podstore.Created {
			out = append(out, s.podMetrics(rec, disk))
		}
	}
	return out
}

// disk describes the filesystem that holds all writable layers.
func (s *Server) disk() metric.Disk {
	d := metric.Disk{Device: s.imageRoot}
	var st unix.Statfs_t
	if unix.Statfs(s.imageRoot, &st) == nil {
		d.Limit, d.Inodes, d.InodesFree = st.Blocks*uint64(st.Bsize), st.Files, st.Ffree
	}
	return d
}

func (s *Server) podMetrics(rec *podstore.Sandbox, disk metric.Disk) *runtimeapi.PodSandboxMetrics {
	m := rec.Config.GetMetadata()
	out := &runtimeapi.PodSandboxMetrics{PodSandboxId: rec.ID}
	sb, err := s.deps.Sandboxes.Get(rec.ID)
	if err != nil {
		return out // it stopped meanwhile
	}
	labels := metric.Labels{ID: rec.ID, Namespace: m.GetNamespace(), Pod: m.GetName()}
	if st, err := s.podUsage(rec); err == nil {
		sample := metric.Sample{
			Labels: labels, Stats: st, Extra: metric.ReadExtra(cgroupRoot, sb.CgroupPath, s.host.Unified), Started: rec.CreatedAt,
			Limits: rec.Config.GetLinux().GetResources(), Seen: time.Now(),
		}
		if text, err := netDev(rec); err == nil {
			sample.Network = metric.ParseNetDev(text)
		}
		out.Metrics = metric.Collect(sample)
	}
	for _, c := range s.containersOf(rec.ID) {
		st, err := s.deps.Containers.Stats(c.ID, true)
		if err != nil {
			continue // it does not run
		}
		own := disk
		if u, err := s.deps.Rootfs.RootfsUsage(c.ID); err == nil {
			own.Usage = u.Bytes
		}
		labels.Container, labels.Name, labels.Image, labels.ID = c.Config.GetMetadata().GetName(), c.ID, c.ImageRef, c.ID
		out.ContainerMetrics = append(out.ContainerMetrics, &runtimeapi.ContainerMetrics{ContainerId: c.ID, Metrics: metric.Collect(metric.Sample{
			Labels: labels, Stats: st, Extra: metric.ReadExtra(cgroupRoot, path.Join(sb.CgroupPath, c.ID), s.host.Unified),
			Started: s.state(c).StartedAt, Limits: c.Resources, Disk: &own, Seen: time.Now(),
		})})
	}
	return out
}
