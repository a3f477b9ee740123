package crisuite

import (
	"path/filepath"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

var identitySpecs = []Spec{
	{"user, group and supplemental groups", true, userAndGroups},
	{"capabilities", true, capabilities},
	{"TestHostile_OC4: an exec has no inheritable capability", true, execCapabilities},
	{"namespaces of pod, container, node and target", true, namespaces},
	{"TestHostile_OC6, TestHostile_OC7: paths are masked and read-only", true, kernelPaths},
	{"TestHostile_OC8: a device that was made cannot be opened", true, devices},
	{"TestHostile_OC9: seccomp refuses what no container needs", true, seccomp},
	{"TestHostile_OC11: a seccomp profile that is not there stops the container", false, seccompMissing},
	{"mounts", true, mounts},
	{"image volumes", true, imageVolumes},
	{"privileged", false, privileged},
}

func secure(f func(*runtimeapi.LinuxContainerSecurityContext)) func(*runtimeapi.ContainerConfig) {
	return func(c *runtimeapi.ContainerConfig) { f(c.Linux.SecurityContext) }
}

func userAndGroups(b *Bench) {
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	for name, c := range map[string]struct {
		set  func(*runtimeapi.LinuxContainerSecurityContext)
		want string
	}{
		"root":     {func(*runtimeapi.LinuxContainerSecurityContext) {}, "0 0 0"},
		"number":   {func(s *runtimeapi.LinuxContainerSecurityContext) { s.RunAsUser = &runtimeapi.Int64Value{Value: 4242} }, "4242 0 0"},
		"username": {func(s *runtimeapi.LinuxContainerSecurityContext) { s.RunAsUsername = "www-data" }, "33 33 33"},
		"merge": {func(s *runtimeapi.LinuxContainerSecurityContext) {
			s.RunAsUser, s.SupplementalGroups = &runtimeapi.Int64Value{Value: 1000}, []int64{7}
		}, "1000 1000 1000 7 50000"},
		"strict": {func(s *runtimeapi.LinuxContainerSecurityContext) {
			s.RunAsUser, s.SupplementalGroups, s.SupplementalGroupsPolicy = &runtimeapi.Int64Value{Value: 1000}, []int64{7}, runtimeapi.SupplementalGroupsPolicy_Strict
		}, "1000 1000 1000 7"},
		"group": {func(s *runtimeapi.LinuxContainerSecurityContext) {
			s.RunAsUser, s.RunAsGroup = &runtimeapi.Int64Value{Value: 5}, &runtimeapi.Int64Value{Value: 6}
		}, "5 6 6"},
	} {
		id := b.StartIn(pod, pc, b.ContainerConfig("exec sleep 1000", secure(c.set)))
		if got := strings.Join(strings.Fields(b.Sh(id, "id -u; id -g; id -G")), " "); got != c.want {
			b.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func capSet(b *Bench, id, set string) string {
	return strings.Fields(b.Sh(id, "grep "+set+" /proc/self/status"))[1]
}

func capabilities(b *Bench) {
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	for name, c := range map[string]struct {
		caps *runtimeapi.Capability
		want string
	}{
		"default":        {nil, "00000000a80425fb"},
		"none":           {&runtimeapi.Capability{DropCapabilities: []string{"ALL"}}, "0000000000000000"},
		"only one":       {&runtimeapi.Capability{DropCapabilities: []string{"ALL"}, AddCapabilities: []string{"NET_BIND_SERVICE"}}, "0000000000000400"},
		"one more":       {&runtimeapi.Capability{AddCapabilities: []string{"NET_ADMIN"}}, "00000000a80435fb"},
		"default less 1": {&runtimeapi.Capability{DropCapabilities: []string{"CAP_CHOWN"}}, "00000000a80425fa"},
	} {
		id := b.StartIn(pod, pc, b.ContainerConfig("exec sleep 1000", secure(func(s *runtimeapi.LinuxContainerSecurityContext) { s.Capabilities = c.caps })))
		if got := capSet(b, id, "CapEff"); got != c.want {
			b.Errorf("%s: effective %s, want %s", name, got, c.want)
		}
		if got := capSet(b, id, "CapBnd"); got != c.want {
			b.Errorf("%s: bounding %s, want %s", name, got, c.want)
		}
	}
	// Ambient ones reach a process that is not root.
	id := b.StartIn(pod, pc, b.ContainerConfig("grep Cap /proc/self/status", secure(func(s *runtimeapi.LinuxContainerSecurityContext) {
		s.RunAsUser = &runtimeapi.Int64Value{Value: 1000}
		s.Capabilities = &runtimeapi.Capability{AddAmbientCapabilities: []string{"NET_BIND_SERVICE"}}
	})))
	b.Await(id)
	if log := b.log(id); !strings.Contains(log, "CapAmb:\t0000000000000400") || !strings.Contains(log, "CapEff:\t0000000000000400") {
		b.Errorf("ambient capability: %s", log)
	}
	for name, c := range map[string]string{"unknown": "FLY"} {
		cfg := b.ContainerConfig("x", secure(func(s *runtimeapi.LinuxContainerSecurityContext) {
			s.Capabilities = &runtimeapi.Capability{AddCapabilities: []string{c}}
		}))
		if _, err := b.CreateContainer(b.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: cfg, SandboxConfig: pc}); status.Code(err) != codes.InvalidArgument {
			b.Errorf("%s: %v", name, err)
		}
	}
}

func execCapabilities(b *Bench) {
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	id := b.StartIn(pod, pc, b.ContainerConfig("exec sleep 1000"))
	for _, set := range []string{"CapInh", "CapAmb"} {
		if got := capSet(b, id, set); strings.Trim(got, "0") != "" {
			b.Errorf("%s of an exec is %s", set, got)
		}
	}
}

func pidMode(m runtimeapi.NamespaceMode, target string) func(*runtimeapi.ContainerConfig) {
	return secure(func(s *runtimeapi.LinuxContainerSecurityContext) {
		s.NamespaceOptions.Pid, s.NamespaceOptions.TargetId = m, target
	})
}

func namespaces(b *Bench) {
	ns := func(id, kind string) string { return strings.TrimSpace(b.Sh(id, "readlink /proc/self/ns/"+kind)) }
	pc := b.PodConfig(func(c *runtimeapi.PodSandboxConfig) {
		c.Linux.SecurityContext.NamespaceOptions.Pid = runtimeapi.NamespaceMode_POD
	})
	pod := b.RunPod(pc)
	own := b.StartIn(pod, pc, b.ContainerConfig("exec sleep 1000"))
	target := b.StartIn(pod, pc, b.ContainerConfig("exec sleep 1000", pidMode(runtimeapi.NamespaceMode_TARGET, own)))
	one := b.StartIn(pod, pc, b.ContainerConfig("exec sleep 1000", pidMode(runtimeapi.NamespaceMode_POD, "")))
	two := b.StartIn(pod, pc, b.ContainerConfig("exec sleep 1000", pidMode(runtimeapi.NamespaceMode_POD, "")))
	for _, kind := range []string{"net", "ipc", "uts"} {
		if a, c := ns(own, kind), ns(two, kind); a != c {
			b.Errorf("containers of one pod have the %s namespaces %s and %s", kind, a, c)
		}
	}
	if ns(own, "pid") != ns(target, "pid") || ns(one, "pid") != ns(two, "pid") || ns(own, "pid") == ns(one, "pid") {
		b.Errorf("pid namespaces: own %s, its target %s, pod %s and %s", ns(own, "pid"), ns(target, "pid"), ns(one, "pid"), ns(two, "pid"))
	}
	if ns(own, "mnt") == ns(two, "mnt") {
		b.Error("two containers share a mount namespace")
	}
	if got := strings.TrimSpace(b.Sh(own, "hostname")); got != "suite-host" {
		b.Errorf("host name %q", got)
	}
	// What one container writes to /dev/shm another reads.
	b.Sh(own, "echo shared > /dev/shm/x")
	if got := b.Sh(two, "cat /dev/shm/x"); got != "shared\n" {
		b.Errorf("/dev/shm: %q", got)
	}

	hc := b.PodConfig(HostNetwork, func(c *runtimeapi.PodSandboxConfig) {
		c.Linux.SecurityContext.NamespaceOptions.Ipc = runtimeapi.NamespaceMode_NODE
		c.Linux.SecurityContext.NamespaceOptions.Pid = runtimeapi.NamespaceMode_NODE
	})
	host := b.RunPod(hc)
	h := b.StartIn(host, hc, b.ContainerConfig("exec sleep 1000", secure(func(s *runtimeapi.LinuxContainerSecurityContext) {
		s.NamespaceOptions = hc.Linux.SecurityContext.NamespaceOptions
	})))
	for _, kind := range []string{"net", "ipc", "uts", "pid"} {
		if ns(h, kind) == ns(own, kind) {
			b.Errorf("a pod of the node shares the %s namespace of another pod", kind)
		}
	}
	if got := b.Sh(h, "ls /proc | grep -c '^[0-9]'"); got == "1\n" || got == "2\n" {
		b.Errorf("the node's PID namespace shows %s processes", got)
	}
}

func kernelPaths(b *Bench) {
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	id := b.StartIn(pod, pc, b.ContainerConfig("exec sleep 1000"))
	for _, w := range []string{"/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/sys/kernel/uevent_helper", "/sys/fs/cgroup/x", "/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/memory/cgroup.procs"} {
		if r := b.ShCode(id, "echo 1 > "+w); r.GetExitCode() == 0 {
			b.Errorf("%s could be written; mounts:\n%s", w, b.Sh(id, "grep cgroup /proc/self/mountinfo"))
		}
	}
	for _, r := range []string{"/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug"} {
		if got := b.ShCode(id, "head -c 1 "+r+" | wc -c"); strings.TrimSpace(string(got.GetStdout())) == "1" {
			b.Errorf("%s could be read", r)
		}
	}
	for _, d := range []string{"/sys/firmware", "/proc/scsi", "/proc/acpi", "/sys/devices/virtual/powercap"} {
		if got := b.ShCode(id, "ls "+d+" 2>/dev/null | wc -l"); strings.TrimSpace(string(got.GetStdout())) != "0" {
			b.Errorf("%s shows %s entries", d, got.GetStdout())
		}
	}
}

func devices(b *Bench) {
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	id := b.StartIn(pod, pc, b.ContainerConfig("exec sleep 1000"))
	// mknod may be granted; what counts is that the device is dead.
	for _, node := range []string{"b 8 0", "b 254 0", "b 259 0", "c 1 1", "c 10 237"} {
		if r := b.ShCode(id, "rm -f /tmp/d; mknod /tmp/d "+node+" && head -c 1 /tmp/d"); r.GetExitCode() == 0 && len(r.GetStdout()) > 0 {
			b.Errorf("device %s could be read", node)
		}
	}
	b.Sh(id, "head -c 1 /dev/zero > /dev/null && head -c 1 /dev/urandom > /dev/null && test -c /dev/full -a -c /dev/tty")
	disk := blockDevice()
	if disk == "" {
		b.Log("no block device to lend to a container")
		return
	}
	with := b.StartIn(pod, pc, b.ContainerConfig("exec sleep 1000", func(c *runtimeapi.ContainerConfig) {
		c.Devices = []*runtimeapi.Device{{HostPath: disk, ContainerPath: "/dev/lent", Permissions: "r"}}
	}))
	b.Sh(with, "test -b /dev/lent && head -c 1 /dev/lent | wc -c")
	if r := b.ShCode(with, ": >> /dev/lent"); r.GetExitCode() == 0 {
		b.Error("a device allowed for reading could be written")
	}
}

// blockDevice is one of the node's, "" if it has none. It is read only.
func blockDevice() string {
	for _, pattern := range []string{"/dev/vd?", "/dev/sd?", "/dev/nvme?n?", "/dev/loop?", "/dev/ram?"} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return found[0]
		}
	}
	return ""
}

func seccomp(b *Bench) {
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	id := b.StartIn(pod, pc, b.ContainerConfig("exec sleep 1000"))
	if got := strings.Fields(b.Sh(id, "grep ^Seccomp: /proc/1/status"))[1]; got != "2" {
		b.Errorf("seccomp mode %s, want 2", got)
	}
	if got := strings.Fields(b.Sh(id, "grep ^Seccomp: /proc/self/status"))[1]; got != "2" {
		b.Errorf("seccomp mode of an exec %s, want 2", got)
	}
	for _, cmd := range []string{"unshare -U true", "mount -t tmpfs x /mnt", "hostname x", "swapoff -a /x", "insmod /x", "nsenter -t 1 -n true", "unshare -n true"} {
		if r := b.ShCode(id, cmd); r.GetExitCode() == 0 {
			b.Errorf("%q succeeded", cmd)
		}
	}
	free := b.StartIn(pod, pc, b.ContainerConfig("exec sleep 1000", secure(func(s *runtimeapi.LinuxContainerSecurityContext) {
		s.Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}
	})))
	if got := strings.Fields(b.Sh(free, "grep ^Seccomp: /proc/1/status"))[1]; got != "0" {
		b.Errorf("unconfined has seccomp mode %s", got)
	}
}

func seccompMissing(b *Bench) {
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	for _, ref := range []string{"/no/such/profile.json", "", "/dev/zero", "/etc"} {
		cfg := b.ContainerConfig("x", secure(func(s *runtimeapi.LinuxContainerSecurityContext) {
			s.Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: ref}
		}))
		if _, err := b.CreateContainer(b.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: cfg, SandboxConfig: pc}); status.Code(err) != codes.InvalidArgument {
			b.Errorf("profile %q: %v, want InvalidArgument", ref, err)
		}
	}
}

func mounts(b *Bench) {
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	dir := b.TempDir()
	id := b.StartIn(pod, pc, b.ContainerConfig("exec sleep 1000", func(c *runtimeapi.ContainerConfig) {
		c.Mounts = []*runtimeapi.Mount{
			{HostPath: dir, ContainerPath: "/rw"}, {HostPath: dir, ContainerPath: "/ro", Readonly: true},
			{HostPath: dir + "/made", ContainerPath: "/made"}, {HostPath: dir, ContainerPath: "/rro", Readonly: true, RecursiveReadOnly: true},
			{HostPath: dir, ContainerPath: "/noexec", MountOptions: []string{"noexec", "nosuid", "nodev"}},
		}
		c.Linux.SecurityContext.ReadonlyRootfs = true
	}))
	b.Sh(id, "echo x > /rw/file && test $(cat /ro/file) = x && test -d /made")
	for _, path := range []string{"/ro/y", "/rro/y", "/y"} {
		if r := b.ShCode(id, "touch "+path); r.GetExitCode() == 0 {
			b.Errorf("%s could be written", path)
		}
	}
	b.Sh(id, "grep ' /noexec ' /proc/self/mountinfo | grep noexec | grep nosuid | grep -q nodev")
}

func imageVolumes(b *Bench) {
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	pulled, err := b.Images.PullImage(b.Context(), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: b.Target.Image}})
	if err != nil {
		b.Fatal(err)
	}
	volume := func(m *runtimeapi.Mount) *runtimeapi.ContainerConfig {
		m.Image, m.ContainerPath = &runtimeapi.ImageSpec{Image: b.Target.Image}, "/image"
		return b.ContainerConfig("exec sleep 1000", func(c *runtimeapi.ContainerConfig) { c.Mounts = []*runtimeapi.Mount{m} })
	}
	whole := b.StartIn(pod, pc, volume(&runtimeapi.Mount{Readonly: true}))
	b.Sh(whole, "test -f /image/etc/passwd && /image/bin/busybox true")
	part := b.StartIn(pod, pc, volume(&runtimeapi.Mount{Readonly: true, ImageSubPath: "etc"}))
	b.Sh(part, "test -f /image/passwd")
	for _, id := range []string{whole, part} {
		if r := b.ShCode(id, "touch /image/y"); r.GetExitCode() == 0 {
			b.Error("an image could be written to")
		}
		if m := b.Status(id).GetMounts(); len(m) != 1 || m[0].GetImage().GetImageRef() != pulled.GetImageRef() {
			b.Errorf("the status tells of the mounts %v, want the image %s", m, pulled.GetImageRef())
		}
	}
	for why, m := range map[string]*runtimeapi.Mount{"writable": {}, "nothing there": {Readonly: true, ImageSubPath: "no/such"}, "out of it": {Readonly: true, ImageSubPath: "../../../etc/hostname"}} {
		cfg := volume(m)
		if r, err := b.CreateContainer(b.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: cfg, SandboxConfig: pc}); err == nil {
			b.Errorf("%s: container %s was made", why, r.GetContainerId())
		}
	}
}

func privileged(b *Bench) {
	plain := b.PodConfig()
	pod := b.RunPod(plain)
	cfg := b.ContainerConfig("exec sleep 1000", secure(func(s *runtimeapi.LinuxContainerSecurityContext) { s.Privileged = true }))
	if _, err := b.CreateContainer(b.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: cfg, SandboxConfig: plain}); status.Code(err) != codes.InvalidArgument {
		b.Errorf("a privileged container in an unprivileged pod: %v", err)
	}
	pc := b.PodConfig(Privileged)
	pod = b.RunPod(pc)
	id := b.StartIn(pod, pc, cfg)
	if !b.Target.Processes {
		return
	}
	b.Sh(id, "mkdir -p /mnt && mount -t tmpfs x /mnt && umount /mnt && test -e /dev/kmsg && grep -q '^Seccomp:.0' /proc/self/status")
}
