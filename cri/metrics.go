package cri

import (
	"context"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/cri/podstore"
	"keelson.dev/keelson/runtime/cgroup"
)

// metric is one row of the table of metrics, under cAdvisor's names, which
// dashboards know. The API carries whole numbers only: times are in seconds,
// rounded down.
type metric struct {
	name, help string
	kind       runtimeapi.MetricType
	value      func(cgroup.Stats) uint64
}

const (
	counter = runtimeapi.MetricType_COUNTER
	gauge   = runtimeapi.MetricType_GAUGE
)

// containerLabels and podLabels are the keys of every metric's labels, sorted as
// the values are.
var (
	containerLabels = []string{"container", "id", "image", "name", "namespace", "pod"}
	podLabels       = []string{"id", "name", "namespace", "pod"}
	networkLabels   = []string{"id", "interface", "name", "namespace", "pod"}
)

func secs(ns uint64) uint64 { return ns / 1e9 }

var cgroupMetrics = []metric{
	{"container_cpu_usage_seconds_total", "CPU time consumed, in seconds.", counter, func(s cgroup.Stats) uint64 { return secs(s.CPU.UsageNs) }},
	{"container_cpu_user_seconds_total", "User CPU time consumed, in seconds.", counter, func(s cgroup.Stats) uint64 { return secs(s.CPU.UserNs) }},
	{"container_cpu_system_seconds_total", "System CPU time consumed, in seconds.", counter, func(s cgroup.Stats) uint64 { return secs(s.CPU.SystemNs) }},
	{"container_cpu_cfs_periods_total", "Enforcement intervals that have elapsed.", counter, func(s cgroup.Stats) uint64 { return s.CPU.Periods }},
	{"container_cpu_cfs_throttled_periods_total", "Throttled intervals.", counter, func(s cgroup.Stats) uint64 { return s.CPU.ThrottledPeriods }},
	{"container_cpu_cfs_throttled_seconds_total", "Time throttled, in seconds.", counter, func(s cgroup.Stats) uint64 { return secs(s.CPU.Throttle) }},
	{"container_memory_usage_bytes", "Memory in use, including all of the page cache.", gauge, func(s cgroup.Stats) uint64 { return s.Memory.Usage }},
	{"container_memory_working_set_bytes", "Memory in use that cannot be reclaimed at once.", gauge, func(s cgroup.Stats) uint64 { return s.Memory.WorkingSet }},
	{"container_memory_rss", "Anonymous memory in bytes.", gauge, func(s cgroup.Stats) uint64 { return s.Memory.RSS }},
	{"container_memory_cache", "Page cache in bytes.", gauge, func(s cgroup.Stats) uint64 { return s.Memory.Cache }},
	{"container_memory_swap", "Swap in use in bytes.", gauge, func(s cgroup.Stats) uint64 { return s.Memory.Swap }},
	{"container_spec_memory_limit_bytes", "Memory limit in bytes, 0 for none.", gauge, func(s cgroup.Stats) uint64 { return s.Memory.Limit }},
	{"container_memory_page_faults_total", "Page faults.", counter, func(s cgroup.Stats) uint64 { return s.Memory.PageFaults }},
	{"container_memory_major_page_faults_total", "Page faults that read from disk.", counter, func(s cgroup.Stats) uint64 { return s.Memory.MajorFaults }},
	{"container_oom_events_total", "Processes killed for want of memory.", counter, func(s cgroup.Stats) uint64 { return s.Memory.OOMKills }},
	{"container_processes", "Tasks in the cgroup.", gauge, func(s cgroup.Stats) uint64 { return s.Pids.Current }},
	{"container_threads_max", "Most tasks allowed, 0 for no limit.", gauge, func(s cgroup.Stats) uint64 { return s.Pids.Limit }},
}

var networkMetrics = []struct {
	name, help string
	value      func(*runtimeapi.NetworkInterfaceUsage) uint64
}{
	{"container_network_receive_bytes_total", "Bytes received.", func(i *runtimeapi.NetworkInterfaceUsage) uint64 { return i.GetRxBytes().GetValue() }},
	{"container_network_receive_errors_total", "Errors while receiving.", func(i *runtimeapi.NetworkInterfaceUsage) uint64 { return i.GetRxErrors().GetValue() }},
	{"container_network_transmit_bytes_total", "Bytes sent.", func(i *runtimeapi.NetworkInterfaceUsage) uint64 { return i.GetTxBytes().GetValue() }},
	{"container_network_transmit_errors_total", "Errors while sending.", func(i *runtimeapi.NetworkInterfaceUsage) uint64 { return i.GetTxErrors().GetValue() }},
}

// podPrefix tells a pod's own numbers from its containers': one name may have
// one set of labels only.
const podPrefix = "pod_"

// ListMetricDescriptors names every metric that ListPodSandboxMetrics gives.
func (s *Server) ListMetricDescriptors(context.Context, *runtimeapi.ListMetricDescriptorsRequest) (*runtimeapi.ListMetricDescriptorsResponse, error) {
	var out []*runtimeapi.MetricDescriptor
	for _, m := range cgroupMetrics {
		out = append(out,
			&runtimeapi.MetricDescriptor{Name: m.name, Help: m.help, LabelKeys: containerLabels},
			&runtimeapi.MetricDescriptor{Name: podPrefix + m.name, Help: "Of the whole pod: " + m.help, LabelKeys: podLabels})
	}
	for _, m := range networkMetrics {
		out = append(out, &runtimeapi.MetricDescriptor{Name: m.name, Help: m.help, LabelKeys: networkLabels})
	}
	return &runtimeapi.ListMetricDescriptorsResponse{Descriptors: out}, nil
}

// ListPodSandboxMetrics gives the metrics of the running pods.
func (s *Server) ListPodSandboxMetrics(context.Context, *runtimeapi.ListPodSandboxMetricsRequest) (*runtimeapi.ListPodSandboxMetricsResponse, error) {
	return &runtimeapi.ListPodSandboxMetricsResponse{PodMetrics: s.listMetrics()}, nil
}

func (s *Server) listMetrics() []*runtimeapi.PodSandboxMetrics {
	var out []*runtimeapi.PodSandboxMetrics
	for _, rec := range s.filterSandboxes("", nil) {
		if rec.State == podstore.Created {
			out = append(out, s.podMetrics(rec))
		}
	}
	return out
}

func (s *Server) podMetrics(rec *podstore.Sandbox) *runtimeapi.PodSandboxMetrics {
	m := rec.Config.GetMetadata()
	out := &runtimeapi.PodSandboxMetrics{PodSandboxId: rec.ID}
	if st, err := s.podUsage(rec); err == nil {
		out.Metrics = measured(st, podPrefix, []string{rec.ID, m.GetName(), m.GetNamespace(), m.GetName()})
	}
	if n, err := podNetwork(rec); err == nil && n.GetDefaultInterface() != nil {
		i := n.GetDefaultInterface()
		for _, nm := range networkMetrics {
			out.Metrics = append(out.Metrics, &runtimeapi.Metric{
				Name: nm.name, MetricType: counter, Value: num(nm.value(i)),
				LabelValues: []string{rec.ID, i.GetName(), m.GetName(), m.GetNamespace(), m.GetName()},
			})
		}
	}
	for _, c := range s.containersOf(rec.ID) {
		st, err := s.deps.Containers.Stats(c.ID)
		if err != nil {
			continue // it does not run
		}
		labels := []string{c.Config.GetMetadata().GetName(), c.ID, c.ImageRef, c.Config.GetMetadata().GetName(), m.GetNamespace(), m.GetName()}
		out.ContainerMetrics = append(out.ContainerMetrics, &runtimeapi.ContainerMetrics{ContainerId: c.ID, Metrics: measured(st, "", labels)})
	}
	return out
}

func measured(st cgroup.Stats, prefix string, labels []string) []*runtimeapi.Metric {
	out := make([]*runtimeapi.Metric, 0, len(cgroupMetrics))
	for _, m := range cgroupMetrics {
		out = append(out, &runtimeapi.Metric{Name: prefix + m.name, MetricType: m.kind, Value: num(m.value(st)), LabelValues: labels})
	}
	return out
}
