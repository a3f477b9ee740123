package cgroup

import (
	"fmt"
	"maps"
	"slices"

	"github.com/opencontainers/cgroups"
	_ "github.com/opencontainers/cgroups/devices" // sets DevicesSetV1 and V2
	devices "github.com/opencontainers/cgroups/devices/config"
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
	if g.isSlice() {
		if err := g.createSlice(r); err != nil {
			return fmt.Errorf("create slice %s: %w", g.path, err)
		}
		return nil
	}
	m, err := g.manager(r)
	if err != nil {
		return fmt.Errorf("create cgroup %s: %w", g.path, err)
	}
	if err := m.Apply(-1); err != nil {
		return fmt.Errorf("create cgroup %s: %w", g.path, err)
	}
	if err := g.makeDirs(); err != nil {
		return fmt.Errorf("create cgroup %s: %w", g.path, err)
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
	open := g.manager
	if g.isSlice() || g.isScope() {
		open = g.unit
	}
	m, err := open(r)
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

// AllowDevices sets which devices the group's processes may use: rules, and
// what every container may: to make any node, and to use the harmless ones.
func (g Group) AllowDevices(rules []specs.LinuxDeviceCgroup) error {
	r := &cgroups.Resources{}
	for _, rule := range append(slices.Clone(rules), usualRules()...) {
		converted, err := convertRule(rule)
		if err != nil {
			return fmt.Errorf("devices of cgroup %s: %w", g.path, err)
		}
		r.Devices = append(r.Devices, converted)
	}
	set := cgroups.DevicesSetV1
	if g.hierarchy.Unified() {
		set = cgroups.DevicesSetV2
	}
	dir := g.dir("devices")
	if dir == "" {
		return nil // v1 without that controller: nothing can be done
	}
	if err := set(dir, r); err != nil {
		return fmt.Errorf("devices of cgroup %s: %w", g.path, err)
	}
	return nil
}

// usualRules are runc's: node making, null, zero, full, random, urandom, tty,
// pseudo-terminals and tun.
func usualRules() []specs.LinuxDeviceCgroup {
	n := func(v int64) *int64 { return &v }
	rules := []specs.LinuxDeviceCgroup{
		{Allow: true, Type: "c", Access: "m"}, {Allow: true, Type: "b", Access: "m"},
		{Allow: true, Type: "c", Major: n(136), Access: "rwm"},
	}
	for _, dev := range [][2]int64{{1, 3}, {1, 5}, {1, 7}, {1, 8}, {1, 9}, {5, 0}, {5, 2}, {10, 200}} {
		rules = append(rules, specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: n(dev[0]), Minor: n(dev[1]), Access: "rwm"})
	}
	return rules
}

func convertRule(in specs.LinuxDeviceCgroup) (*devices.Rule, error) {
	kinds := map[string]devices.Type{"": devices.WildcardDevice, "a": devices.WildcardDevice, "b": devices.BlockDevice, "c": devices.CharDevice}
	kind, ok := kinds[in.Type]
	if !ok || in.Access == "" {
		return nil, fmt.Errorf("device rule of type %q with access %q", in.Type, in.Access)
	}
	rule := &devices.Rule{
		Type: kind, Major: devices.Wildcard, Minor: devices.Wildcard, Permissions: devices.Permissions(in.Access), Allow: in.Allow,
	}
	if in.Major != nil {
		rule.Major = *in.Major
	}
	if in.Minor != nil {
		rule.Minor = *in.Minor
	}
	return rule, nil
}
