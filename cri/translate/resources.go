package translate

import (
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func setResources(in Input, s *specs.Spec) error {
	res, err := Resources(in.Config.GetLinux().GetResources(), in.Host)
	if err != nil {
		return err
	}
	s.Linux.Resources = res
	return nil
}

// Resources translates a CRI resources message; zero fields stay unset. A nil
// request gives empty resources.
func Resources(r *runtimeapi.LinuxContainerResources, host Host) (*specs.LinuxResources, error) {
	out := &specs.LinuxResources{}
	if err := checkResources(r); err != nil {
		return nil, err
	}
	out.CPU = cpu(r)
	out.Memory = memory(r, host)
	if host.Hugetlb {
		for _, h := range r.GetHugepageLimits() {
			out.HugepageLimits = append(out.HugepageLimits, specs.LinuxHugepageLimit{Pagesize: h.GetPageSize(), Limit: h.GetLimit()})
		}
	}
	if host.Unified && len(r.GetUnified()) > 0 {
		out.Unified = map[string]string{}
		for k, v := range r.GetUnified() {
			if k == "" || strings.ContainsAny(k, "/\x00") || !strings.Contains(k, ".") {
				return nil, invalid("unified resource %q is not the name of a cgroup file", k)
			}
			out.Unified[k] = v
		}
	}
	return out, nil
}

func checkResources(r *runtimeapi.LinuxContainerResources) error {
	for name, v := range map[string]int64{
		"cpu_period": r.GetCpuPeriod(), "cpu_shares": r.GetCpuShares(), "memory_limit_in_bytes": r.GetMemoryLimitInBytes(),
	} {
		if v < 0 {
			return invalid("%s is negative (%d)", name, v)
		}
	}
	if q := r.GetCpuQuota(); q < -1 {
		return invalid("cpu_quota is %d; it is -1 for none, or microseconds per period", q)
	}
	if s := r.GetMemorySwapLimitInBytes(); s < -1 {
		return invalid("memory_swap_limit_in_bytes is %d; it is -1 for none, or bytes of memory and swap", s)
	}
	return nil
}

func cpu(r *runtimeapi.LinuxContainerResources) *specs.LinuxCPU {
	c := &specs.LinuxCPU{Cpus: r.GetCpusetCpus(), Mems: r.GetCpusetMems()}
	if v := r.GetCpuShares(); v != 0 {
		c.Shares = ptr(uint64(v))
	}
	if v := r.GetCpuQuota(); v != 0 {
		c.Quota = ptr(v)
	}
	if v := r.GetCpuPeriod(); v != 0 {
		c.Period = ptr(uint64(v))
	}
	if c.Shares == nil && c.Quota == nil && c.Period == nil && c.Cpus == "" && c.Mems == "" {
		return nil
	}
	return c
}

func memory(r *runtimeapi.LinuxContainerResources, host Host) *specs.LinuxMemory {
	limit, swap := r.GetMemoryLimitInBytes(), r.GetMemorySwapLimitInBytes()
	m := &specs.LinuxMemory{}
	if limit != 0 {
		m.Limit = ptr(limit)
	}
	if host.SwapAccounting && swap != 0 {
		m.Swap = ptr(swap)
	}
	if m.Limit == nil && m.Swap == nil {
		return nil
	}
	return m
}

// Merge lays the set fields of an update over the resources that are in force,
// which is what UpdateContainerResources means by a zero field. A process gets
// its OOM score when it is started, so that one stays.
func Merge(have, update *runtimeapi.LinuxContainerResources) *runtimeapi.LinuxContainerResources {
	out := &runtimeapi.LinuxContainerResources{
		CpuPeriod: either(update.GetCpuPeriod(), have.GetCpuPeriod()), CpuQuota: either(update.GetCpuQuota(), have.GetCpuQuota()),
		CpuShares: either(update.GetCpuShares(), have.GetCpuShares()), OomScoreAdj: have.GetOomScoreAdj(),
		MemoryLimitInBytes:     either(update.GetMemoryLimitInBytes(), have.GetMemoryLimitInBytes()),
		MemorySwapLimitInBytes: either(update.GetMemorySwapLimitInBytes(), have.GetMemorySwapLimitInBytes()),
		CpusetCpus:             either(update.GetCpusetCpus(), have.GetCpusetCpus()), CpusetMems: either(update.GetCpusetMems(), have.GetCpusetMems()),
		HugepageLimits: have.GetHugepageLimits(), Unified: map[string]string{},
	}
	if len(update.GetHugepageLimits()) > 0 {
		out.HugepageLimits = update.GetHugepageLimits()
	}
	for _, m := range []map[string]string{have.GetUnified(), update.GetUnified()} {
		for k, v := range m {
			out.Unified[k] = v
		}
	}
	return out
}

func either[T comparable](a, b T) T {
	var zero T
	if a != zero {
		return a
	}
	return b
}

func ptr[T any](v T) *T { return &v }
