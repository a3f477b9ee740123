package cgroup

import (
	"fmt"
	"maps"
	"os"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/fs"
	"github.com/opencontainers/cgroups/fs2"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Create makes the group in every hierarchy, with its parents, and sets its
// limits; nil sets none. An existing group gets the limits.
func (g Group) Create(limits *specs.LinuxResources) error {
	r, err := convert(limits, g.hierarchy.Unified())
	if err != nil {
		return fmt.Errorf("create cgroup %s: %w", g.path, err)
	}
	m, err := g.manager(r)
	if err != nil {
		return fmt.Errorf("create cgroup %s: %w", g.path, err)
	}
	if err := m.Apply(-1); err != nil {
		return fmt.Errorf("create cgroup %s: %w", g.path, err)
	}
	if !g.hierarchy.Unified() {
		// The library leaves out hierarchies that it sets nothing in.
		for _, dir := range g.dirs() {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return fmt.Errorf("create cgroup %s: %w", g.path, err)
			}
		}
	}
	if err := m.Set(r); err != nil {
		return fmt.Errorf("limit cgroup %s: %w", g.path, err)
	}
	return nil
}

// Update sets the limits that are given and leaves the others. Device rules
// are not among them.
func (g Group) Update(limits *specs.LinuxResources) error {
	r, err := convert(limits, g.hierarchy.Unified())
	if err != nil {
		return fmt.Errorf("update cgroup %s: %w", g.path, err)
	}
	m, err := g.manager(r)
	if err != nil {
		return fmt.Errorf("update cgroup %s: %w", g.path, err)
	}
	if err := m.Set(r); err != nil {
		return fmt.Errorf("update cgroup %s: %w", g.path, err)
	}
	return nil
}

func (g Group) manager(r *cgroups.Resources) (cgroups.Manager, error) {
	cg := &cgroups.Cgroup{Path: g.path, Resources: r}
	if g.hierarchy.Unified() {
		return fs2.NewManager(cg, g.dir(""))
	}
	return fs.NewManager(cg, nil)
}

// convert turns OCI limits into the library's.
func convert(in *specs.LinuxResources, unified bool) (*cgroups.Resources, error) {
	r := &cgroups.Resources{SkipDevices: true, SkipFreezeOnSet: true}
	if in == nil {
		return r, nil
	}
	convertCPU(r, in.CPU)
	convertMemory(r, in.Memory)
	convertBlockIO(r, in.BlockIO)
	if in.Pids != nil {
		r.PidsLimit = in.Pids.Limit
	}
	for _, l := range in.HugepageLimits {
		r.HugetlbLimit = append(r.HugetlbLimit, &cgroups.HugepageLimit{Pagesize: l.Pagesize, Limit: l.Limit})
	}
	if len(in.Unified) > 0 {
		if !unified {
			return nil, fmt.Errorf("unified settings (%d) need cgroup v2", len(in.Unified))
		}
		r.Unified = maps.Clone(in.Unified)
	}
	return r, nil
}

func convertCPU(r *cgroups.Resources, in *specs.LinuxCPU) {
	if in == nil {
		return
	}
	if in.Shares != nil {
		r.CpuShares = *in.Shares
		r.CpuWeight = cgroups.ConvertCPUSharesToCgroupV2Value(*in.Shares)
	}
	if in.Quota != nil {
		r.CpuQuota = *in.Quota
	}
	if in.Period != nil {
		r.CpuPeriod = *in.Period
	}
	if in.RealtimeRuntime != nil {
		r.CpuRtRuntime = *in.RealtimeRuntime
	}
	if in.RealtimePeriod != nil {
		r.CpuRtPeriod = *in.RealtimePeriod
	}
	r.CpuBurst = in.Burst
	r.CpusetCpus, r.CpusetMems = in.Cpus, in.Mems
	r.CPUIdle = in.Idle
}

func convertMemory(r *cgroups.Resources, in *specs.LinuxMemory) {
	if in == nil {
		return
	}
	if in.Limit != nil {
		r.Memory = *in.Limit
	}
	if in.Reservation != nil {
		r.MemoryReservation = *in.Reservation
	}
	if in.Swap != nil {
		r.MemorySwap = *in.Swap
	}
	if in.DisableOOMKiller != nil {
		r.OomKillDisable = *in.DisableOOMKiller
	}
	if in.CheckBeforeUpdate != nil {
		r.MemoryCheckBeforeUpdate = *in.CheckBeforeUpdate
	}
	r.MemorySwappiness = in.Swappiness
}

func convertBlockIO(r *cgroups.Resources, in *specs.LinuxBlockIO) {
	if in == nil {
		return
	}
	if in.Weight != nil {
		r.BlkioWeight = *in.Weight
	}
	throttle := func(from []specs.LinuxThrottleDevice) (to []*cgroups.ThrottleDevice) {
		for _, d := range from {
			to = append(to, cgroups.NewThrottleDevice(d.Major, d.Minor, d.Rate))
		}
		return to
	}
	r.BlkioThrottleReadBpsDevice = throttle(in.ThrottleReadBpsDevice)
	r.BlkioThrottleWriteBpsDevice = throttle(in.ThrottleWriteBpsDevice)
	r.BlkioThrottleReadIOPSDevice = throttle(in.ThrottleReadIOPSDevice)
	r.BlkioThrottleWriteIOPSDevice = throttle(in.ThrottleWriteIOPSDevice)
}
