package qos

import (
	corev1 "k8s.io/api/core/v1"
	helpers "k8s.io/component-helpers/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The kernel's CFS scheduler: period in microseconds, and the least quota and shares that it takes.
const (
	cpuPeriod = 100_000
	minQuota  = 1_000
	minShares = 2
	maxShares = 262_144
)

// Shares converts a cpu request in thousandths of a core to cgroup v1 cpu.shares, the scale that CRI uses.
func Shares(milli int64) int64 {
	return min(max(milli*1024/1000, minShares), maxShares)
}

// Quota converts a cpu limit in thousandths of a core to microseconds per period; 0 means unlimited.
func Quota(milli int64) int64 {
	if milli <= 0 {
		return 0
	}
	return max(milli*cpuPeriod/1000, minQuota)
}

// Container is what the runtime is to enforce on one container. nodeMemory in bytes. whole says that one OOM kill
// takes the whole container, which only the unified cgroup hierarchy can do.
func Container(pod *corev1.Pod, c *corev1.Container, nodeMemory int64, whole bool) *runtimeapi.LinuxContainerResources {
	limits := c.Resources.Limits
	req, hasReq := c.Resources.Requests[corev1.ResourceCPU]
	if !hasReq {
		req = limits[corev1.ResourceCPU]
	}
	out := &runtimeapi.LinuxContainerResources{
		CpuShares:   Shares(req.MilliValue()),
		OomScoreAdj: OOMScoreAdj(pod, c, nodeMemory),
	}
	if q := Quota(limits.Cpu().MilliValue()); q > 0 {
		out.CpuQuota, out.CpuPeriod = q, cpuPeriod
	}
	out.MemoryLimitInBytes = limits.Memory().Value()
	if whole {
		out.Unified = map[string]string{"memory.oom.group": "1"}
	}
	return out
}

// Pod is what the pod's own cgroup is limited to: shares always, cpu and memory only where every container has a
// limit, since a sum with one unlimited member has no meaning. Zero means unlimited.
func Pod(pod *corev1.Pod) (shares, quota, memory int64) {
	req := helpers.PodRequests(pod, helpers.PodResourcesOptions{})
	lim := helpers.PodLimits(pod, helpers.PodResourcesOptions{})
	shares = Shares(req.Cpu().MilliValue())
	all := func(name corev1.ResourceName) bool {
		if pod.Spec.Resources != nil {
			if _, has := pod.Spec.Resources.Limits[name]; has {
				return true
			}
		}
		for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
			for _, c := range list {
				if _, has := c.Resources.Limits[name]; !has {
					return false
				}
			}
		}
		return true
	}
	if all(corev1.ResourceCPU) {
		quota = Quota(lim.Cpu().MilliValue())
	}
	if all(corev1.ResourceMemory) {
		memory = lim.Memory().Value()
	}
	return shares, quota, memory
}
