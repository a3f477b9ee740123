package translate

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Spec computes the complete runtime spec of a container. The error wraps
// ErrInvalid when the request is at fault.
func Spec(in Input) (*specs.Spec, error) {
	sc := in.Config.GetLinux().GetSecurityContext()
	s := &specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{Path: in.Rootfs, Readonly: sc.GetReadonlyRootfs()},
		Linux:   &specs.Linux{CgroupsPath: cgroupsPath(in)},
	}
	steps := []func(Input, *specs.Spec) error{
		setProcess, setNamespaces, setCapabilities, setMounts, setResources,
		setDevices, setPaths, setLSM, setSeccomp,
	}
	for _, step := range steps {
		if err := step(in, s); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func privileged(in Input) bool {
	return in.Config.GetLinux().GetSecurityContext().GetPrivileged()
}

// cgroupsPath is below the pod's: under the systemd driver a scope's. Its prefix is the one that node agents
// (Falco, Datadog, cAdvisor) look for.
func cgroupsPath(in Input) string {
	if in.Host.Systemd {
		return in.Sandbox.CgroupPath + "/cri-containerd-" + in.ID + ".scope"
	}
	return in.Sandbox.CgroupPath + "/" + in.ID
}

func setNamespaces(in Input, s *specs.Spec) error {
	opts := in.Config.GetLinux().GetSecurityContext().GetNamespaceOptions()
	ns := []specs.LinuxNamespace{{Type: specs.MountNamespace}}
	// The order is fixed so that two calls give one result.
	for _, kind := range []specs.LinuxNamespaceType{
		specs.UserNamespace, specs.NetworkNamespace, specs.IPCNamespace, specs.UTSNamespace,
	} {
		if path := in.Sandbox.Namespaces[kind]; path != "" {
			ns = append(ns, specs.LinuxNamespace{Type: kind, Path: path})
		}
	}
	pid, err := pidNamespace(in, opts.GetPid())
	if err != nil {
		return err
	}
	ns = append(ns, pid...)
	if in.Host.Unified && !privileged(in) {
		ns = append(ns, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	s.Linux.Namespaces = ns
	if idmap := in.Pod.GetLinux().GetSecurityContext().GetNamespaceOptions().GetUsernsOptions(); in.Sandbox.Namespaces[specs.UserNamespace] != "" {
		s.Linux.UIDMappings = idMappings(idmap.GetUids())
		s.Linux.GIDMappings = idMappings(idmap.GetGids())
	}
	return nil
}

func idMappings(in []*runtimeapi.IDMapping) []specs.LinuxIDMapping {
	var out []specs.LinuxIDMapping
	for _, m := range in {
		out = append(out, specs.LinuxIDMapping{ContainerID: m.GetContainerId(), HostID: m.GetHostId(), Size: m.GetLength()})
	}
	return out
}

func pidNamespace(in Input, mode runtimeapi.NamespaceMode) ([]specs.LinuxNamespace, error) {
	switch mode {
	case runtimeapi.NamespaceMode_CONTAINER:
		return []specs.LinuxNamespace{{Type: specs.PIDNamespace}}, nil
	case runtimeapi.NamespaceMode_NODE:
		return nil, nil
	case runtimeapi.NamespaceMode_POD:
		path := in.Sandbox.Namespaces[specs.PIDNamespace]
		if path == "" {
			return nil, invalid("the container asks for the pod's PID namespace, but its sandbox was not created to share one")
		}
		return []specs.LinuxNamespace{{Type: specs.PIDNamespace, Path: path}}, nil
	case runtimeapi.NamespaceMode_TARGET:
		if in.TargetPID <= 0 {
			return nil, invalid("the container asks for the PID namespace of a target that is not running")
		}
		return []specs.LinuxNamespace{{Type: specs.PIDNamespace, Path: procNS(in.TargetPID, "pid")}}, nil
	}
	return nil, invalid("unknown PID namespace mode %d", mode)
}
