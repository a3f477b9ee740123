package bundle

import "github.com/opencontainers/runtime-spec/specs-go"

// Merge is base with every limit that change gives. Device rules are base's.
func Merge(base, change *specs.LinuxResources) *specs.LinuxResources {
	if change == nil {
		return base
	}
	out := &specs.LinuxResources{}
	if base != nil {
		*out = *base
	}
	if change.CPU != nil {
		out.CPU = mergeCPU(out.CPU, change.CPU)
	}
	if change.Memory != nil {
		out.Memory = mergeMemory(out.Memory, change.Memory)
	}
	if change.Pids != nil {
		out.Pids = change.Pids
	}
	if change.BlockIO != nil {
		out.BlockIO = change.BlockIO
	}
	if change.HugepageLimits != nil {
		out.HugepageLimits = change.HugepageLimits
	}
	if len(change.Unified) > 0 {
		merged := map[string]string{}
		for _, m := range []map[string]string{out.Unified, change.Unified} {
			for k, v := range m {
				merged[k] = v
			}
		}
		out.Unified = merged
	}
	return out
}

func mergeCPU(base, change *specs.LinuxCPU) *specs.LinuxCPU {
	out := specs.LinuxCPU{}
	if base != nil {
		out = *base
	}
	set(&out.Shares, change.Shares)
	set(&out.Quota, change.Quota)
	set(&out.Burst, change.Burst)
	set(&out.Period, change.Period)
	set(&out.RealtimeRuntime, change.RealtimeRuntime)
	set(&out.RealtimePeriod, change.RealtimePeriod)
	set(&out.Idle, change.Idle)
	if change.Cpus != "" {
		out.Cpus = change.Cpus
	}
	if change.Mems != "" {
		out.Mems = change.Mems
	}
	return &out
}

func mergeMemory(base, change *specs.LinuxMemory) *specs.LinuxMemory {
	out := specs.LinuxMemory{}
	if base != nil {
		out = *base
	}
	set(&out.Limit, change.Limit)
	set(&out.Reservation, change.Reservation)
	set(&out.Swap, change.Swap)
	set(&out.Swappiness, change.Swappiness)
	set(&out.DisableOOMKiller, change.DisableOOMKiller)
	return &out
}

func set[T any](to **T, from *T) {
	if from != nil {
		*to = from
	}
}
