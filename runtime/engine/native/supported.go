package native

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Supported says whether Compile knows everything that a spec asks for; the
// error is ErrUnsupported and names the first thing that it does not.
func Supported(spec *specs.Spec) error {
	l := spec.Linux
	for _, check := range []struct {
		is   bool
		what string
	}{
		{spec.Hooks != nil, "hooks"},
		{spec.Domainname != "", "domain name"},
		{len(l.UIDMappings)+len(l.GIDMappings) > 0, "user namespace"},
		{len(l.Sysctl) > 0, "sysctls"},
		{l.IntelRdt != nil, "Intel RDT"},
		{l.Personality != nil, "personality"},
		{l.MountLabel != "", "SELinux"},
		{len(l.TimeOffsets) > 0, "time namespace"},
		{len(l.NetDevices) > 0, "network devices"},
		{l.MemoryPolicy != nil, "memory policy"},
		{l.Resources != nil && l.Resources.Network != nil, "network classes"},
		{l.Resources != nil && len(l.Resources.Rdma) > 0, "RDMA limits"},
		{l.Seccomp != nil && l.Seccomp.ListenerPath != "", "seccomp listener"},
		{!filepath.IsAbs(l.CgroupsPath) || l.CgroupsPath == "/", "cgroup path that is not a path"},
		{!filepath.IsAbs(spec.Root.Path), "relative root"},
	} {
		if check.is {
			return unsupported(check.what)
		}
	}
	if err := supportedNamespaces(l.Namespaces); err != nil {
		return err
	}
	for _, m := range spec.Mounts {
		if err := supportedMount(m); err != nil {
			return err
		}
	}
	return supportedProcess(spec.Process)
}

func unsupported(what string) error { return fmt.Errorf("%s: %w", what, ErrUnsupported) }

func supportedNamespaces(list []specs.LinuxNamespace) error {
	seen := map[specs.LinuxNamespaceType]bool{}
	for _, ns := range list {
		_, known := cloneFlags[ns.Type]
		switch {
		case !known:
			return unsupported(string(ns.Type) + " namespace")
		case seen[ns.Type]:
			return unsupported("two namespaces of one type")
		case ns.Path != "" && (ns.Type == specs.MountNamespace || ns.Type == specs.CgroupNamespace):
			return unsupported("joining a " + string(ns.Type) + " namespace")
		case ns.Path == "" && ns.Type == specs.NetworkNamespace:
			return unsupported("new network namespace") // its loopback must be brought up
		}
		seen[ns.Type] = true
	}
	if !seen[specs.MountNamespace] {
		return unsupported("no mount namespace")
	}
	return nil
}

func supportedMount(m specs.Mount) error {
	if len(m.UIDMappings)+len(m.GIDMappings) > 0 {
		return unsupported("id-mapped mount")
	}
	dest := filepath.Clean("/" + m.Destination)
	if dest == "/" {
		return unsupported("mount on the root")
	}
	if (dest == "/proc" || strings.HasPrefix(dest, "/proc/")) && m.Type != "proc" {
		return unsupported("mount in /proc") // libcontainer knows what there may be replaced (CVE-2019-16884)
	}
	for _, opt := range m.Options {
		if slices.Contains(unsupportedOptions, opt) || isAtime(strings.TrimPrefix(opt, "r")) && strings.HasPrefix(opt, "rr") {
			return unsupported("mount option " + opt)
		}
	}
	if parseOptions(m.Options).bind {
		return nil
	}
	switch m.Type {
	case "bind", "proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup":
		return nil
	}
	return unsupported("filesystem " + m.Type)
}

func supportedProcess(p *specs.Process) error {
	for _, check := range []struct {
		is   bool
		what string
	}{
		{p.SelinuxLabel != "", "SELinux"},
		{p.Scheduler != nil, "scheduler"},
		{p.IOPriority != nil, "I/O priority"},
		{p.ExecCPUAffinity != nil, "CPU affinity"},
	} {
		if check.is {
			return unsupported(check.what)
		}
	}
	return nil
}
