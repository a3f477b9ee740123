package crisuite

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

var lsmSpecs = []Spec{
	{"AppArmor where the kernel has none", true, absentLSM},
	{"AppArmor where the kernel has it", true, func(b *Bench) { appArmor(b, Privileged) }},
	{"AppArmor in a user namespace", true, func(b *Bench) { b.needUserns(); appArmor(b, Userns) }},
	{"SELinux where it is off", false, absentSELinux},
	{"SELinux where it is on", true, selinuxLabels},
}

func absentLSM(b *Bench) {
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	if _, err := os.Stat("/sys/module/apparmor/parameters/enabled"); err != nil {
		cfg := b.ContainerConfig("x", secure(func(s *runtimeapi.LinuxContainerSecurityContext) {
			s.Apparmor = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: "some-profile"}
		}))
		_, err := b.CreateContainer(b.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: cfg, SandboxConfig: pc})
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "some-profile") || !strings.Contains(err.Error(), "AppArmor") {
			b.Errorf("an AppArmor profile without AppArmor: %v", err)
		}
	}
	// The default asks for what there is.
	id := b.StartIn(pod, pc, b.ContainerConfig("exec sleep 1000", secure(func(s *runtimeapi.LinuxContainerSecurityContext) {
		s.Apparmor = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
		s.SelinuxOptions = &runtimeapi.SELinuxOption{}
	})))
	b.Sh(id, "true")
}

// absentSELinux: a pod or a container that asks for what is off is refused, with the option's name and what to do.
func absentSELinux(b *Bench) {
	if _, err := os.Stat("/sys/fs/selinux/enforce"); err == nil {
		b.Skip("this host has SELinux")
	}
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	for _, o := range []*runtimeapi.SELinuxOption{{Type: "container_t"}, {Level: "s0:c1,c2"}, {User: "system_u"}, {Role: "system_r"}} {
		cfg := b.ContainerConfig("x", secure(func(s *runtimeapi.LinuxContainerSecurityContext) { s.SelinuxOptions = o }))
		_, err := b.CreateContainer(b.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: cfg, SandboxConfig: pc})
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "SELinux") || !strings.Contains(err.Error(), o.GetType()+o.GetLevel()+o.GetUser()+o.GetRole()) {
			b.Errorf("a container with %v without SELinux: %v", o, err)
		}
		other := b.PodConfig(func(c *runtimeapi.PodSandboxConfig) { c.Linux.SecurityContext.SelinuxOptions = o })
		if _, err := b.RunPodSandbox(b.Context(), &runtimeapi.RunPodSandboxRequest{Config: other}); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "SELinux") {
			b.Errorf("a pod with %v without SELinux: %v", o, err)
		}
	}
}

// appArmor: the default profile is every container's that is not privileged, another must be loaded, and what is started
// later in a container is confined as it is.
func appArmor(b *Bench, set func(*runtimeapi.PodSandboxConfig)) {
	if _, err := os.ReadFile("/sys/kernel/security/apparmor/profiles"); err != nil {
		b.Skip("no AppArmor here: " + err.Error())
	}
	if _, err := exec.LookPath("apparmor_parser"); err != nil {
		b.Skip("needs apparmor_parser")
	}
	parse := func(arg string) {
		cmd := exec.Command("apparmor_parser", arg, "--skip-cache", "--quiet")
		cmd.Stdin = strings.NewReader("profile keelson-test-deny flags=(attach_disconnected) { file, signal, ptrace, deny /** w, }")
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Errorf("apparmor_parser %s: %v: %s", arg, err, out)
		}
	}
	parse("--replace")
	b.Cleanup(func() { parse("--remove") })
	profile := func(kind runtimeapi.SecurityProfile_ProfileType, name string) *runtimeapi.SecurityProfile {
		return &runtimeapi.SecurityProfile{ProfileType: kind, LocalhostRef: name}
	}
	pc := b.PodConfig(set)
	pod := b.RunPod(pc)
	for _, c := range []struct {
		profile    *runtimeapi.SecurityProfile
		privileged bool
		want       string
		writes     bool
	}{
		{nil, false, "keelson-default (enforce)", true},
		{nil, true, "unconfined", true},
		{profile(runtimeapi.SecurityProfile_RuntimeDefault, ""), false, "keelson-default (enforce)", true},
		{profile(runtimeapi.SecurityProfile_Unconfined, ""), false, "unconfined", true},
		{profile(runtimeapi.SecurityProfile_Localhost, "localhost/keelson-test-deny"), false, "keelson-test-deny (enforce)", false},
	} {
		if c.privileged && !pc.GetLinux().GetSecurityContext().GetPrivileged() {
			continue
		}
		cfg := b.ContainerConfig("trap 'exit 3' TERM; echo up; while :; do sleep 1; done", secure(func(s *runtimeapi.LinuxContainerSecurityContext) {
			s.Apparmor, s.Privileged = c.profile, c.privileged
			s.NoNewPrivs = c.profile != nil
		}))
		id := b.StartIn(pod, pc, cfg)
		b.awaitLog(id, "up")
		for _, file := range []string{"/proc/1/attr/current", "/proc/self/attr/current"} {
			if got := strings.TrimSpace(b.Sh(id, "cat "+file)); got != c.want {
				b.Errorf("%v: %s is %q, want %q", c.profile, file, got, c.want)
			}
		}
		if r := b.ShCode(id, "echo x > /file"); (r.GetExitCode() == 0) != c.writes {
			b.Errorf("%v: a file is written: %d %s", c.profile, r.GetExitCode(), r.GetStderr())
		}
		if _, err := b.StopContainer(b.Context(), &runtimeapi.StopContainerRequest{ContainerId: id, Timeout: 60}); err != nil {
			b.Errorf("%v: stop: %v", c.profile, err)
		}
		if got := b.Status(id).GetExitCode(); got != 3 {
			b.Errorf("%v: stopped with code %d: the signal did not arrive", c.profile, got)
		}
	}
	cfg := b.ContainerConfig("x", secure(func(s *runtimeapi.LinuxContainerSecurityContext) {
		s.Apparmor = profile(runtimeapi.SecurityProfile_Localhost, "keelson-no-such-profile")
	}))
	_, err := b.CreateContainer(b.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: cfg, SandboxConfig: pc})
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "keelson-no-such-profile") {
		b.Errorf("a profile that is not loaded: %v", err)
	}
}

// selinuxLabels: who asks has the labels, of processes and of files, also what is started and mounted later; two pods have
// different categories, one pod's containers the same.
func selinuxLabels(b *Bench) {
	if _, err := os.Stat("/sys/fs/selinux/enforce"); err != nil {
		b.Skip("no SELinux here")
	}
	ask := func(o *runtimeapi.SELinuxOption) func(*runtimeapi.PodSandboxConfig) {
		return func(c *runtimeapi.PodSandboxConfig) { c.Linux.SecurityContext.SelinuxOptions = o }
	}
	volume := filepath.Join(b.Target.LogDir, name("volume"))
	if err := os.MkdirAll(volume, 0o755); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(volume, "file"), nil, 0o644); err != nil {
		b.Fatal(err)
	}
	label := func(id string) string {
		first := strings.Trim(b.Sh(id, "cat /proc/1/attr/current"), "\x00\n")
		if later := strings.Trim(b.Sh(id, "cat /proc/self/attr/current"), "\x00\n"); later != first {
			b.Errorf("the first process is %s, a later one %s", first, later)
		}
		return first
	}
	var seen []string
	for range 2 { // the type alone: the categories are the pod's own
		pc := b.PodConfig(Privileged, ask(&runtimeapi.SELinuxOption{Type: "container_t"}))
		pod := b.RunPod(pc)
		var own []string
		for range 2 {
			own = append(own, label(b.StartIn(pod, pc, b.ContainerConfig("exec sleep 1000"))))
		}
		if own[0] != own[1] || !strings.Contains(own[0], ":container_t:s0:c") || slices.Contains(seen, own[0]) {
			b.Errorf("a pod's containers are %q, an earlier one's %q", own, seen)
		}
		seen = append(seen, own[0])
		free := b.StartIn(pod, pc, b.ContainerConfig("exec sleep 1000", secure(func(s *runtimeapi.LinuxContainerSecurityContext) { s.Privileged = true })))
		if got := label(free); !strings.HasSuffix(got, ":spc_t:s0") {
			b.Errorf("a privileged container is %s", got)
		}
	}
	pc := b.PodConfig(ask(&runtimeapi.SELinuxOption{Level: "s0:c4,c5"}))
	pod := b.RunPod(pc)
	id := b.StartIn(pod, pc, b.ContainerConfig("exec sleep 1000", func(c *runtimeapi.ContainerConfig) {
		c.Mounts = []*runtimeapi.Mount{
			{HostPath: volume, ContainerPath: "/volume", SelinuxRelabel: true},
			{Image: &runtimeapi.ImageSpec{Image: b.Target.Image}, ContainerPath: "/image", Readonly: true},
		}
	}))
	if got := label(id); !strings.HasSuffix(got, ":container_t:s0:c4,c5") {
		b.Errorf("the process is %s", got)
	}
	const want = "system_u:object_r:container_file_t:s0:c4,c5"
	for _, path := range []string{"/", "/bin/sh", "/etc/hosts", "/etc/resolv.conf", "/dev", "/dev/shm", "/dev/mqueue", "/dev/null", "/volume", "/volume/file", "/image"} {
		if got := b.fileLabel(id, path); got != want {
			b.Errorf("%s is %q, want %s", path, got, want)
		}
	}
	for _, o := range []*runtimeapi.SELinuxOption{{Type: "no_such_type_t"}, {Level: "s0,c4,c5"}, {User: "a b"}} {
		cfg := b.ContainerConfig("x", secure(func(s *runtimeapi.LinuxContainerSecurityContext) { s.SelinuxOptions = o }))
		if _, err := b.CreateContainer(b.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: cfg, SandboxConfig: pc}); status.Code(err) != codes.InvalidArgument {
			b.Errorf("%v: %v", o, err)
		}
	}
}

// fileLabel is the label of a file that a container sees.
func (b *Bench) fileLabel(id, path string) string {
	b.Helper()
	st, err := b.ContainerStatus(b.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: id, Verbose: true})
	if err != nil {
		b.Fatal(err)
	}
	var info struct{ Pid int }
	if err := json.Unmarshal([]byte(st.GetInfo()["info"]), &info); err != nil {
		b.Fatal(err)
	}
	label := make([]byte, 256)
	n, err := unix.Lgetxattr(fmt.Sprintf("/proc/%d/root%s", info.Pid, path), "security.selinux", label)
	if err != nil {
		return err.Error()
	}
	return strings.Trim(string(label[:n]), "\x00")
}
