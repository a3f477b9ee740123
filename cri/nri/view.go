package nri

import (
	"maps"
	"slices"

	"github.com/containerd/nri/pkg/api"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/cri/podstore"
	"keelson.dev/keelson/runtime/container"
	"keelson.dev/keelson/runtime/sandbox"
)

// Pod describes a pod to plugins. box is nil once its namespaces are gone.
func Pod(rec *podstore.Sandbox, box *sandbox.Sandbox) *api.PodSandbox {
	m, linux := rec.Config.GetMetadata(), rec.Config.GetLinux()
	out := &api.PodSandbox{
		Id: rec.ID, Name: m.GetName(), Uid: m.GetUid(), Namespace: m.GetNamespace(),
		Labels: maps.Clone(rec.Config.GetLabels()), Annotations: maps.Clone(rec.Config.GetAnnotations()), RuntimeHandler: rec.Handler,
		Linux: &api.LinuxPodSandbox{
			CgroupParent: linux.GetCgroupParent(), PodOverhead: Limits(linux.GetOverhead()), PodResources: Limits(linux.GetResources()),
		},
	}
	for _, ip := range rec.IPs {
		out.Ips = append(out.Ips, ip.String())
	}
	if box == nil {
		return out
	}
	out.Linux.CgroupsPath = box.CgroupPath
	for _, kind := range []specs.LinuxNamespaceType{specs.UserNamespace, specs.NetworkNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.PIDNamespace} {
		if path := box.Namespaces[kind]; path != "" {
			out.Linux.Namespaces = append(out.Linux.Namespaces, &api.LinuxNamespace{Type: string(kind), Path: path})
		}
	}
	return out
}

// Container describes a container to plugins: as it was asked for, as the spec
// has it, and what became of it. A nil spec is one that is gone. Nothing of it
// is shared with rec or spec: plugins' answers are merged into it.
func Container(rec *podstore.Container, spec *specs.Spec, st container.State) *api.Container {
	out := &api.Container{
		Id: rec.ID, PodSandboxId: rec.SandboxID, Name: rec.Config.GetMetadata().GetName(), State: stateOf(st),
		Labels: maps.Clone(rec.Config.GetLabels()), Annotations: maps.Clone(rec.Config.GetAnnotations()), Pid: uint32(st.Pid),
		CreatedAt: rec.CreatedAt.UnixNano(), ExitCode: st.ExitCode, StatusReason: st.Reason, StatusMessage: st.Message,
		Image: &api.Image{Name: imageName(rec.Config), ConfigDigest: rec.ImageID}, Linux: &api.LinuxContainer{},
	}
	if !st.StartedAt.IsZero() {
		out.StartedAt = st.StartedAt.UnixNano()
	}
	if !st.FinishedAt.IsZero() {
		out.FinishedAt = st.FinishedAt.UnixNano()
	}
	for _, d := range rec.Config.GetCDIDevices() {
		out.CDIDevices = append(out.CDIDevices, &api.CDIDevice{Name: d.GetName()})
	}
	if spec != nil {
		describe(out, spec)
	}
	return out
}

// describe fills in what the spec tells.
func describe(out *api.Container, s *specs.Spec) {
	if p := s.Process; p != nil {
		out.Args, out.Env = slices.Clone(p.Args), slices.Clone(p.Env)
		out.User = &api.User{Uid: p.User.UID, Gid: p.User.GID, AdditionalGids: p.User.AdditionalGids}
		out.Linux.OomScoreAdj = api.Int(p.OOMScoreAdj)
		for _, l := range p.Rlimits {
			out.Rlimits = append(out.Rlimits, &api.POSIXRlimit{Type: l.Type, Hard: l.Hard, Soft: l.Soft})
		}
	}
	out.Mounts, out.Hooks = api.FromOCIMounts(s.Mounts), api.FromOCIHooks(s.Hooks)
	if l := s.Linux; l != nil {
		out.Linux.Namespaces = api.FromOCILinuxNamespaces(l.Namespaces)
		out.Linux.Devices = api.FromOCILinuxDevices(l.Devices)
		out.Linux.Resources = api.FromOCILinuxResources(l.Resources, nil)
		if l.Seccomp != nil {
			out.Linux.SeccompPolicy = api.FromOCILinuxSeccomp(l.Seccomp)
		}
		out.Linux.CgroupsPath, out.Linux.Sysctl = l.CgroupsPath, maps.Clone(l.Sysctl)
	}
}

func imageName(c *runtimeapi.ContainerConfig) string {
	if name := c.GetImage().GetUserSpecifiedImage(); name != "" {
		return name
	}
	return c.GetImage().GetImage()
}

func stateOf(st container.State) api.ContainerState {
	switch st.Status {
	case container.Created:
		return api.ContainerState_CONTAINER_CREATED
	case container.Running:
		return api.ContainerState_CONTAINER_RUNNING
	case container.Exited:
		return api.ContainerState_CONTAINER_STOPPED
	}
	return api.ContainerState_CONTAINER_UNKNOWN
}

// Limits are a CRI message's resources; fields that are zero are not set.
func Limits(r *runtimeapi.LinuxContainerResources) *api.LinuxResources {
	if r == nil {
		return nil
	}
	out := &api.LinuxResources{
		Cpu:     &api.LinuxCPU{Cpus: r.GetCpusetCpus(), Mems: r.GetCpusetMems()},
		Memory:  &api.LinuxMemory{},
		Unified: maps.Clone(r.GetUnified()),
	}
	if v := r.GetCpuShares(); v != 0 {
		out.Cpu.Shares = api.UInt64(uint64(v))
	}
	if v := r.GetCpuQuota(); v != 0 {
		out.Cpu.Quota = api.Int64(v)
	}
	if v := r.GetCpuPeriod(); v != 0 {
		out.Cpu.Period = api.UInt64(uint64(v))
	}
	if v := r.GetMemoryLimitInBytes(); v != 0 {
		out.Memory.Limit = api.Int64(v)
	}
	if v := r.GetMemorySwapLimitInBytes(); v != 0 {
		out.Memory.Swap = api.Int64(v)
	}
	for _, h := range r.GetHugepageLimits() {
		out.HugepageLimits = append(out.HugepageLimits, &api.HugepageLimit{PageSize: h.GetPageSize(), Limit: h.GetLimit()})
	}
	return out
}

// Asked is the CRI message of what a plugin wants: the part of it that a status
// can show.
func Asked(r *api.LinuxResources) *runtimeapi.LinuxContainerResources {
	c, m := r.GetCpu(), r.GetMemory()
	out := &runtimeapi.LinuxContainerResources{
		CpuShares: int64(c.GetShares().GetValue()), CpuQuota: c.GetQuota().GetValue(), CpuPeriod: int64(c.GetPeriod().GetValue()),
		CpusetCpus: c.GetCpus(), CpusetMems: c.GetMems(),
		MemoryLimitInBytes: m.GetLimit().GetValue(), MemorySwapLimitInBytes: m.GetSwap().GetValue(), Unified: r.GetUnified(),
	}
	for _, h := range r.GetHugepageLimits() {
		out.HugepageLimits = append(out.HugepageLimits, &runtimeapi.HugepageLimit{PageSize: h.GetPageSize(), Limit: h.GetLimit()})
	}
	return out
}
