package metric

import (
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/runtime/cgroup"
)

// Labels are whose metrics these are. A pod's own have no container, image and
// name.
type Labels struct{ Container, ID, Image, Name, Namespace, Pod string }

// Sample is what was read of one pod or container.
type Sample struct {
	Labels  Labels
	Stats   cgroup.Stats
	Extra   Extra
	Started time.Time // zero for what has not started
	Limits  *runtimeapi.LinuxContainerResources
	Disk    *Disk // nil for a pod
	Network []Interface
	Seen    time.Time
}

// Extra is what the cgroup and its processes say beyond cgroup.Stats.
type Extra struct {
	MemoryPeak, MemoryFails, MemoryKernel, MemoryMapped uint64
	Processes, Threads, Descriptors, Sockets            uint64
	OpenFilesSoft                                       uint64 // of the first process
	Hugetlb                                             []Hugetlb
	Devices                                             []Device
}

// Hugetlb is the use of huge pages of one size, in bytes.
type Hugetlb struct {
	Size        string
	Usage, Peak uint64
}

// Device is what went to and from one block device.
type Device struct {
	Major, Minor                             string
	ReadBytes, WriteBytes, ReadOps, WriteOps uint64
}

// Disk is the filesystem under the writable layer, and the layer's share.
type Disk struct {
	Device                           string
	Usage, Limit, Inodes, InodesFree uint64
}

// Interface counts one network interface of a pod.
type Interface struct {
	Name                                    string
	RxBytes, RxPackets, RxErrors, RxDropped uint64
	TxBytes, TxPackets, TxErrors, TxDropped uint64
}

const (
	counter = runtimeapi.MetricType_COUNTER
	gauge   = runtimeapi.MetricType_GAUGE
)

// point is one value with the labels that come beside the common ones.
type point struct {
	value uint64
	more  []string
}

type row struct {
	name, help string
	kind       runtimeapi.MetricType
	more       []string // further label keys
	points     func(Sample) []point
}

// one is a row whose value every sample has.
func one(name, help string, kind runtimeapi.MetricType, value func(Sample) uint64) row {
	return row{name, help, kind, nil, func(s Sample) []point { return []point{{value: value(s)}} }}
}

func (l Labels) values(more []string) []string {
	return append([]string{l.Container, l.ID, l.Image, l.Name, l.Namespace, l.Pod}, more...)
}

var commonKeys = []string{"container", "id", "image", "name", "namespace", "pod"}

func table() []row {
	var all []row
	for _, part := range [][]row{cpuRows, memoryRows, processRows, diskRows, networkRows, pressureRows} {
		all = append(all, part...)
	}
	return all
}

// Descriptors names every metric that Collect may give.
func Descriptors() []*runtimeapi.MetricDescriptor {
	var out []*runtimeapi.MetricDescriptor
	for _, r := range table() {
		keys := append(append([]string(nil), commonKeys...), r.more...)
		out = append(out, &runtimeapi.MetricDescriptor{Name: r.name, Help: r.help, LabelKeys: keys})
	}
	return out
}

// Collect gives the metrics of a sample.
func Collect(s Sample) []*runtimeapi.Metric {
	var out []*runtimeapi.Metric
	for _, r := range table() {
		for _, p := range r.points(s) {
			out = append(out, &runtimeapi.Metric{
				Name: r.name, MetricType: r.kind, LabelValues: s.Labels.values(p.more), Value: &runtimeapi.UInt64Value{Value: p.value},
			})
		}
	}
	return out
}

func seconds(ns uint64) uint64 { return ns / uint64(time.Second) }

var cpuRows = []row{
	one("container_cpu_usage_seconds_total", "CPU time consumed, in seconds.", counter, func(s Sample) uint64 { return seconds(s.Stats.CPU.UsageNs) }),
	one("container_cpu_user_seconds_total", "CPU time consumed in user mode, in seconds.", counter, func(s Sample) uint64 { return seconds(s.Stats.CPU.UserNs) }),
	one("container_cpu_system_seconds_total", "CPU time consumed in the kernel, in seconds.", counter, func(s Sample) uint64 { return seconds(s.Stats.CPU.SystemNs) }),
	one("container_cpu_cfs_periods_total", "Enforcement periods that have elapsed.", counter, func(s Sample) uint64 { return s.Stats.CPU.Periods }),
	one("container_cpu_cfs_throttled_periods_total", "Periods in which the limit was hit.", counter, func(s Sample) uint64 { return s.Stats.CPU.ThrottledPeriods }),
	one("container_cpu_cfs_throttled_seconds_total", "Time throttled, in seconds.", counter, func(s Sample) uint64 { return seconds(s.Stats.CPU.Throttle) }),
	one("container_spec_cpu_period", "CPU period in microseconds.", gauge, func(s Sample) uint64 { return orDefault(s.Limits.GetCpuPeriod(), 100000) }),
	one("container_spec_cpu_shares", "CPU shares.", gauge, func(s Sample) uint64 { return orDefault(s.Limits.GetCpuShares(), 1024) }),
	{"container_spec_cpu_quota", "CPU quota in microseconds per period.", gauge, nil, func(s Sample) []point {
		if s.Limits.GetCpuQuota() <= 0 {
			return nil // no quota
		}
		return []point{{value: uint64(s.Limits.GetCpuQuota())}}
	}},
}

func orDefault(v int64, def uint64) uint64 {
	if v <= 0 {
		return def
	}
	return uint64(v)
}

var memoryRows = []row{
	one("container_memory_usage_bytes", "Memory in use, all of the page cache with it.", gauge, func(s Sample) uint64 { return s.Stats.Memory.Usage }),
	one("container_memory_working_set_bytes", "Memory in use that cannot be reclaimed at once.", gauge, func(s Sample) uint64 { return s.Stats.Memory.WorkingSet }),
	one("container_memory_max_usage_bytes", "Most memory that was in use.", gauge, func(s Sample) uint64 { return s.Extra.MemoryPeak }),
	one("container_memory_rss", "Anonymous memory.", gauge, func(s Sample) uint64 { return s.Stats.Memory.RSS }),
	one("container_memory_cache", "Page cache.", gauge, func(s Sample) uint64 { return s.Stats.Memory.Cache }),
	one("container_memory_swap", "Swap in use.", gauge, func(s Sample) uint64 { return s.Stats.Memory.Swap }),
	one("container_memory_mapped_file", "Mapped files.", gauge, func(s Sample) uint64 { return s.Extra.MemoryMapped }),
	one("container_memory_kernel_usage", "Memory that the kernel uses for the container.", gauge, func(s Sample) uint64 { return s.Extra.MemoryKernel }),
	one("container_memory_failcnt", "Times that the memory limit was hit.", counter, func(s Sample) uint64 { return s.Extra.MemoryFails }),
	{"container_memory_failures_total", "Page faults.", counter, []string{"failure_type", "scope"}, func(s Sample) []point {
		m := s.Stats.Memory
		return []point{{m.PageFaults, []string{"pgfault", "hierarchy"}}, {m.MajorFaults, []string{"pgmajfault", "hierarchy"}}}
	}},
	one("container_oom_events_total", "Processes killed for want of memory.", counter, func(s Sample) uint64 { return s.Stats.Memory.OOMKills }),
	one("container_spec_memory_limit_bytes", "Memory limit, 0 for none.", gauge, func(s Sample) uint64 { return s.Stats.Memory.Limit }),
	one("container_spec_memory_reservation_limit_bytes", "Memory reservation, 0 for none.", gauge, func(Sample) uint64 { return 0 }),
	one("container_spec_memory_swap_limit_bytes", "Limit of memory and swap, 0 for none.", gauge, func(s Sample) uint64 { return orDefault(s.Limits.GetMemorySwapLimitInBytes(), 0) }),
	{"container_hugetlb_usage_bytes", "Huge pages in use.", gauge, []string{"pagesize"}, func(s Sample) []point {
		return each(s.Extra.Hugetlb, func(h Hugetlb) point { return point{h.Usage, []string{h.Size}} })
	}},
	{"container_hugetlb_max_usage_bytes", "Most huge pages that were in use.", gauge, []string{"pagesize"}, func(s Sample) []point {
		return each(s.Extra.Hugetlb, func(h Hugetlb) point { return point{h.Peak, []string{h.Size}} })
	}},
}

func each[T any](in []T, f func(T) point) []point {
	var out []point
	for _, v := range in {
		out = append(out, f(v))
	}
	return out
}

var processRows = []row{
	one("container_processes", "Processes.", gauge, func(s Sample) uint64 { return s.Extra.Processes }),
	one("container_threads", "Threads.", gauge, func(s Sample) uint64 { return s.Extra.Threads }),
	one("container_threads_max", "Most threads allowed, 0 for no limit.", gauge, func(s Sample) uint64 { return s.Stats.Pids.Limit }),
	one("container_file_descriptors", "Open file descriptors.", gauge, func(s Sample) uint64 { return s.Extra.Descriptors }),
	one("container_sockets", "Open sockets.", gauge, func(s Sample) uint64 { return s.Extra.Sockets }),
	{"container_ulimits_soft", "Soft limits of the first process.", gauge, []string{"ulimit"}, func(s Sample) []point {
		if s.Extra.OpenFilesSoft == 0 {
			return nil
		}
		return []point{{s.Extra.OpenFilesSoft, []string{"max_open_files"}}}
	}},
	one("container_start_time_seconds", "When it started, in seconds since 1970.", gauge, func(s Sample) uint64 { return unixSeconds(s.Started) }),
	one("container_last_seen", "When it was looked at, in seconds since 1970.", gauge, func(s Sample) uint64 { return unixSeconds(s.Seen) }),
}

func unixSeconds(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(t.Unix())
}
