package nri

import (
	"fmt"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// editor makes the single changes of a spec that the library's Generator is
// composed of (generate.UnderlyingGenerator). The spec is one of translate's:
// its process, its Linux part and its resources are there.
type editor struct{ spec *specs.Spec }

func (e editor) Spec() *specs.Spec { return e.spec }

func (e editor) AddAnnotation(key, value string) {
	if e.spec.Annotations == nil {
		e.spec.Annotations = map[string]string{}
	}
	e.spec.Annotations[key] = value
}
func (e editor) RemoveAnnotation(key string) { delete(e.spec.Annotations, key) }

func (e editor) AddDevice(d specs.LinuxDevice) {
	e.RemoveDevice(d.Path)
	e.spec.Linux.Devices = append(e.spec.Linux.Devices, d)
}

func (e editor) RemoveDevice(path string) {
	e.spec.Linux.Devices = slices.DeleteFunc(e.spec.Linux.Devices, func(d specs.LinuxDevice) bool { return d.Path == path })
}

func (e editor) AddOrReplaceLinuxNamespace(kind, path string) error {
	if err := e.RemoveLinuxNamespace(kind); err != nil {
		return err
	}
	e.spec.Linux.Namespaces = append(e.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.LinuxNamespaceType(kind), Path: path})
	return nil
}

func (e editor) RemoveLinuxNamespace(kind string) error {
	switch specs.LinuxNamespaceType(kind) {
	case specs.PIDNamespace, specs.NetworkNamespace, specs.MountNamespace, specs.IPCNamespace, specs.UTSNamespace,
		specs.UserNamespace, specs.CgroupNamespace, specs.TimeNamespace:
	default:
		return fmt.Errorf("%q is no kind of namespace", kind)
	}
	e.spec.Linux.Namespaces = slices.DeleteFunc(e.spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return string(n.Type) == kind })
	return nil
}

func (e editor) hooks() *specs.Hooks {
	if e.spec.Hooks == nil {
		e.spec.Hooks = &specs.Hooks{}
	}
	return e.spec.Hooks
}

func (e editor) AddPreStartHook(h specs.Hook) {
	e.hooks().Prestart = append(e.hooks().Prestart, h) //nolint:staticcheck // deprecated in the OCI spec, still in NRI's
}
func (e editor) AddPostStartHook(h specs.Hook) { e.hooks().Poststart = append(e.hooks().Poststart, h) }
func (e editor) AddPostStopHook(h specs.Hook)  { e.hooks().Poststop = append(e.hooks().Poststop, h) }

func (e editor) AddProcessEnv(name, value string) {
	env := slices.DeleteFunc(e.spec.Process.Env, func(kv string) bool { return strings.HasPrefix(kv, name+"=") })
	e.spec.Process.Env = append(env, name+"="+value)
}

// ClearProcessEnv leaves the old list to whoever reads it.
func (e editor) ClearProcessEnv()            { e.spec.Process.Env = nil }
func (e editor) SetProcessArgs(a []string)   { e.spec.Process.Args = a }
func (e editor) SetProcessOOMScoreAdj(n int) { e.spec.Process.OOMScoreAdj = &n }
func (e editor) Mounts() []specs.Mount       { return e.spec.Mounts }
func (e editor) AddMount(m specs.Mount)      { e.spec.Mounts = append(e.spec.Mounts, m) }
func (e editor) ClearMounts()                { e.spec.Mounts = nil }
func (e editor) RemoveMount(dst string) {
	e.spec.Mounts = slices.DeleteFunc(e.spec.Mounts, func(m specs.Mount) bool { return m.Destination == dst })
}

func (e editor) AddLinuxSysctl(key, value string) {
	if e.spec.Linux.Sysctl == nil {
		e.spec.Linux.Sysctl = map[string]string{}
	}
	e.spec.Linux.Sysctl[key] = value
}
func (e editor) RemoveLinuxSysctl(key string)    { delete(e.spec.Linux.Sysctl, key) }
func (e editor) SetLinuxCgroupsPath(path string) { e.spec.Linux.CgroupsPath = path }

func (e editor) SetLinuxRootPropagation(p string) error {
	e.spec.Linux.RootfsPropagation = p
	return nil
}

func (e editor) AddLinuxResourcesDevice(allow bool, kind string, major, minor *int64, access string) {
	r := e.spec.Linux.Resources
	r.Devices = append(r.Devices, specs.LinuxDeviceCgroup{Allow: allow, Type: kind, Major: major, Minor: minor, Access: access})
}

func (e editor) AddLinuxResourcesHugepageLimit(size string, limit uint64) {
	r := e.spec.Linux.Resources
	r.HugepageLimits = slices.DeleteFunc(r.HugepageLimits, func(l specs.LinuxHugepageLimit) bool { return l.Pagesize == size })
	r.HugepageLimits = append(r.HugepageLimits, specs.LinuxHugepageLimit{Pagesize: size, Limit: limit})
}

func (e editor) AddLinuxResourcesUnified(key, value string) {
	if e.spec.Linux.Resources.Unified == nil {
		e.spec.Linux.Resources.Unified = map[string]string{}
	}
	e.spec.Linux.Resources.Unified[key] = value
}

func (e editor) cpu() *specs.LinuxCPU {
	if e.spec.Linux.Resources.CPU == nil {
		e.spec.Linux.Resources.CPU = &specs.LinuxCPU{}
	}
	return e.spec.Linux.Resources.CPU
}

func (e editor) SetLinuxResourcesCPUCpus(s string)           { e.cpu().Cpus = s }
func (e editor) SetLinuxResourcesCPUMems(s string)           { e.cpu().Mems = s }
func (e editor) SetLinuxResourcesCPUPeriod(n uint64)         { e.cpu().Period = &n }
func (e editor) SetLinuxResourcesCPUQuota(n int64)           { e.cpu().Quota = &n }
func (e editor) SetLinuxResourcesCPURealtimePeriod(n uint64) { e.cpu().RealtimePeriod = &n }
func (e editor) SetLinuxResourcesCPURealtimeRuntime(n int64) { e.cpu().RealtimeRuntime = &n }
func (e editor) SetLinuxResourcesCPUShares(n uint64)         { e.cpu().Shares = &n }

func (e editor) memory() *specs.LinuxMemory {
	if e.spec.Linux.Resources.Memory == nil {
		e.spec.Linux.Resources.Memory = &specs.LinuxMemory{}
	}
	return e.spec.Linux.Resources.Memory
}

func (e editor) SetLinuxResourcesMemoryLimit(n int64) { e.memory().Limit = &n }
func (e editor) SetLinuxResourcesMemorySwap(n int64)  { e.memory().Swap = &n }
