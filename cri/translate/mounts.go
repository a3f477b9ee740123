package translate

import (
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// systemMounts are the kernel's filesystems that every container has.
func systemMounts(in Input) []specs.Mount {
	sys := []string{"nosuid", "noexec", "nodev", "ro"}
	cgroup := []string{"nosuid", "noexec", "nodev", "relatime", "ro"}
	if privileged(in) {
		sys[3], cgroup[4] = "rw", "rw"
	}
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: sys},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: cgroup},
	}
}

// podMounts are the files that the sandbox keeps for its containers.
func podMounts(in Input) []specs.Mount {
	var out []specs.Mount
	readonly := in.Config.GetLinux().GetSecurityContext().GetReadonlyRootfs()
	bind := func(src, dst string) {
		if src == "" {
			return
		}
		mode := "rw"
		if readonly {
			mode = "ro"
		}
		out = append(out, specs.Mount{Destination: dst, Type: "bind", Source: src, Options: []string{"rbind", "rprivate", mode}})
	}
	bind(in.Sandbox.HostnameFile, "/etc/hostname")
	bind(in.Sandbox.HostsFile, "/etc/hosts")
	bind(in.Sandbox.ResolvConf, "/etc/resolv.conf")
	if in.Sandbox.ShmPath != "" {
		out = append(out, specs.Mount{Destination: "/dev/shm", Type: "bind", Source: in.Sandbox.ShmPath, Options: []string{"rbind", "nosuid", "noexec", "nodev"}})
	}
	return out
}

func setMounts(in Input, s *specs.Spec) error {
	var asked []specs.Mount
	taken := map[string]bool{}
	for _, m := range in.Mounts {
		sm, err := requestedMount(m)
		if err != nil {
			return err
		}
		s.Linux.RootfsPropagation = strongest(s.Linux.RootfsPropagation, m.Request.GetPropagation())
		asked = append(asked, sm)
		taken[sm.Destination] = true
	}
	// A requested mount stands in for the runtime's own on the same path.
	for _, m := range append(systemMounts(in), podMounts(in)...) {
		if !taken[m.Destination] {
			s.Mounts = append(s.Mounts, m)
		}
	}
	// Parents first, or a later parent would hide its child. Stable: of two on
	// one path the later request is on top.
	slices.SortStableFunc(asked, func(a, b specs.Mount) int {
		return strings.Count(path.Clean(a.Destination), "/") - strings.Count(path.Clean(b.Destination), "/")
	})
	s.Mounts = append(s.Mounts, asked...)
	return nil
}

// allowedOptions are what the CRI lets a client add to a bind mount
// (Mount.mount_options).
var allowedOptions = []string{"noexec", "nodev", "nosuid", "noatime", "nodiratime", "relatime", "nosymfollow"}

func requestedMount(m Mount) (specs.Mount, error) {
	r := m.Request
	dst := r.GetContainerPath()
	if strings.ContainsRune(dst, 0) || dst == "" {
		return specs.Mount{}, invalid("mount with host path %q has no usable container path", r.GetHostPath())
	}
	dst = path.Clean("/" + dst)
	if dst == "/" {
		return specs.Mount{}, invalid("a mount may not replace the container's root directory")
	}
	if err := checkRecursiveReadOnly(r); err != nil {
		return specs.Mount{}, err
	}
	opts := []string{"rbind"}
	switch r.GetPropagation() {
	case runtimeapi.MountPropagation_PROPAGATION_PRIVATE:
		opts = append(opts, "rprivate")
	case runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER:
		if m.Peer == PeerPrivate {
			return specs.Mount{}, invalid("mount %s asks for propagation from the host, but %s is on a private mount; make it shared (mount --make-rshared)", dst, m.Source)
		}
		opts = append(opts, "rslave")
	case runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL:
		if m.Peer != PeerShared {
			return specs.Mount{}, invalid("mount %s asks for bidirectional propagation, but %s is not on a shared mount; make it so (mount --make-rshared)", dst, m.Source)
		}
		opts = append(opts, "rshared")
	default:
		return specs.Mount{}, invalid("mount %s has the unknown propagation %d", dst, r.GetPropagation())
	}
	switch {
	case r.GetRecursiveReadOnly():
		opts = append(opts, "rro")
	case r.GetReadonly() || r.GetImage().GetImage() != "":
		opts = append(opts, "ro")
	default:
		opts = append(opts, "rw")
	}
	for _, o := range r.GetMountOptions() {
		if !slices.Contains(allowedOptions, o) {
			return specs.Mount{}, invalid("mount %s has the option %q, which is not one of %s", dst, o, strings.Join(allowedOptions, ", "))
		}
		opts = append(opts, o)
	}
	out := specs.Mount{Destination: dst, Type: "bind", Source: m.Source, Options: opts}
	if r.GetImage().GetImage() == "" { // an image is mounted with its ids shifted, and overlayfs does not take a second shift
		out.UIDMappings, out.GIDMappings = idMappings(r.GetUidMappings()), idMappings(r.GetGidMappings())
	}
	return out, nil
}

func checkRecursiveReadOnly(r *runtimeapi.Mount) error {
	if !r.GetRecursiveReadOnly() {
		return nil
	}
	if !r.GetReadonly() {
		return invalid("mount %s is recursive_read_only but not readonly", r.GetContainerPath())
	}
	if r.GetPropagation() != runtimeapi.MountPropagation_PROPAGATION_PRIVATE {
		return invalid("mount %s is recursive_read_only, which goes with private propagation only", r.GetContainerPath())
	}
	return nil
}

// strongest gives the root's propagation that lets the mounts' own work: runc
// makes the root a slave of the host's for rslave and shared for rshared.
func strongest(have string, p runtimeapi.MountPropagation) string {
	switch {
	case p == runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL:
		return "rshared"
	case p == runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER && have != "rshared":
		return "rslave"
	}
	return have
}
