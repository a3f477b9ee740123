package crisuite

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/client-go/tools/remotecommand"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/runtime/cgroup"
)

var limitSpecs = []Spec{
	{"TestHostile_OC3: what is too much for one process is refused or works", true, tooMuch},
	{"TestHostile_OC12: a profile that the node cannot enforce stops the container", false, profileAbsent},
	{"TestHostile_OC15: the node's network does not lead to the runtime's sockets", true, noSocketReached},
	{"TestHostile_OC20: a fork bomb stays in its pod", true, forkBomb},
	{"TestHostile_ST7: an exec's bytes pass as they are", true, bytesPass},
}

// tooMuch asks for more than a process can be given: an answer must come, and
// the next container must start.
func tooMuch(b *Bench) {
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	try := func(what string, change func(*runtimeapi.ContainerConfig)) {
		b.Helper()
		resp, err := b.CreateContainer(b.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, SandboxConfig: pc, Config: b.ContainerConfig("exec sleep 1000", change)})
		if err == nil {
			_, err = b.StartContainer(b.Context(), &runtimeapi.StartContainerRequest{ContainerId: resp.GetContainerId()})
		}
		if err == nil {
			b.Sh(resp.GetContainerId(), "true") // it is as good as any other
			_, err = b.RemoveContainer(b.Context(), &runtimeapi.RemoveContainerRequest{ContainerId: resp.GetContainerId()})
			if err != nil {
				b.Errorf("%s: remove: %v", what, err)
			}
			return
		}
		b.Logf("%s: %.200v", what, err)
	}
	dir := filepath.Join(b.Target.LogDir, name("many"))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		b.Fatal(err)
	}
	try("a variable of 64 KB", func(c *runtimeapi.ContainerConfig) {
		c.Envs = []*runtimeapi.KeyValue{{Key: "BIG", Value: bytes.Repeat([]byte("x"), 64<<10)}}
	})
	try("3 MB of environment", func(c *runtimeapi.ContainerConfig) {
		for i := range 3000 {
			c.Envs = append(c.Envs, &runtimeapi.KeyValue{Key: fmt.Sprint("V", i), Value: bytes.Repeat([]byte("x"), 1<<10)})
		}
	})
	try("an argument of 200 KB", func(c *runtimeapi.ContainerConfig) { c.Args = []string{strings.Repeat("x", 200<<10)} })
	try("10000 mounts", func(c *runtimeapi.ContainerConfig) {
		for i := range 10_000 {
			c.Mounts = append(c.Mounts, &runtimeapi.Mount{HostPath: dir, ContainerPath: fmt.Sprintf("/m/%d", i)})
		}
	})
	_, err := b.RunPodSandbox(b.Context(), &runtimeapi.RunPodSandboxRequest{Config: b.PodConfig(func(c *runtimeapi.PodSandboxConfig) {
		var many []*runtimeapi.IDMapping
		for i := range uint32(10_000) {
			many = append(many, &runtimeapi.IDMapping{ContainerId: 2 * i, HostId: 1<<20 + 2*i, Length: 1})
		}
		c.Linux.SecurityContext.NamespaceOptions.UsernsOptions = &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD, Uids: many, Gids: many}
	})})
	if err == nil {
		b.Error("a user namespace of 10000 ranges was made")
	}
	id := b.StartIn(pod, pc, b.ContainerConfig("exec sleep 1000"))
	if got := b.Sh(id, "echo alive"); got != "alive\n" {
		b.Errorf("after that, a container says %q", got)
	}
}

func profileAbsent(b *Bench) {
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	for what, change := range map[string]func(*runtimeapi.LinuxContainerSecurityContext){
		"AppArmor": func(sc *runtimeapi.LinuxContainerSecurityContext) {
			sc.Apparmor = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: "keelson-no-such-profile"}
		},
		"AppArmor, the old way": func(sc *runtimeapi.LinuxContainerSecurityContext) {
			sc.ApparmorProfile = "localhost/keelson-no-such-profile"
		},
	} {
		resp, err := b.CreateContainer(b.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, SandboxConfig: pc,
			Config: b.ContainerConfig("true", func(c *runtimeapi.ContainerConfig) { change(c.Linux.SecurityContext) })})
		if err == nil && b.Target.Processes {
			_, err = b.StartContainer(b.Context(), &runtimeapi.StartContainerRequest{ContainerId: resp.GetContainerId()})
		}
		if err == nil || !strings.Contains(err.Error(), "AppArmor") && !strings.Contains(err.Error(), "apparmor") {
			b.Errorf("%s: %v", what, err)
		}
	}
}

// noSocketReached looks from a pod of the node's network: what it shares with
// the node are abstract sockets, of which the runtime must have none, and its
// files are its own.
func noSocketReached(b *Bench) {
	pc := b.PodConfig(HostNetwork)
	id := b.StartIn(b.RunPod(pc), pc, b.ContainerConfig("exec sleep 1000"))
	dir := filepath.Dir(b.Target.Socket)
	for line := range strings.Lines(b.Sh(id, "cat /proc/net/unix")) {
		fields := strings.Fields(line)
		path := fields[len(fields)-1]
		if strings.HasPrefix(path, "@") && strings.Contains(path, dir) || strings.HasPrefix(path, "@keelson/") {
			b.Errorf("an abstract socket of the runtime: %s", line)
		}
	}
	if got := b.Sh(id, "ls "+b.Target.Socket+" 2>/dev/null | wc -l"); got != "0\n" {
		b.Error("the runtime's socket is in the container")
	}
}

// forkBomb runs in a pod whose tasks are limited as the kubelet limits them: on
// the pod's cgroup.
func forkBomb(b *Bench) {
	h, err := cgroup.Detect()
	if err != nil {
		b.Fatal(err)
	}
	at, ok := h.Mounts["pids"]
	if h.Unified() {
		at, ok = h.Mounts[""]
	}
	if !ok {
		b.Skip("needs the pids controller")
	}
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	const most = 100
	if err := os.WriteFile(filepath.Join(at, pc.Linux.CgroupParent, "pids.max"), []byte(fmt.Sprint(most)), 0); err != nil {
		b.Skip("the pod's cgroup takes no limit of tasks: ", err)
	}
	id := b.StartIn(pod, pc, b.ContainerConfig("bomb() { bomb | bomb & }; echo lit; trap : TERM; while :; do bomb 2>/dev/null; done"))
	b.awaitLog(id, "lit")
	count := func() string {
		text, err := os.ReadFile(filepath.Join(at, pc.Linux.CgroupParent, "pids.current"))
		if err != nil {
			b.Fatal(err)
		}
		return strings.TrimSpace(string(text))
	}
	var n int
	if _, err := fmt.Sscan(count(), &n); err != nil || n > most {
		b.Errorf("%d tasks, limit %d; %v", n, most, err)
	}
	oc := b.PodConfig()
	other := b.StartIn(b.RunPod(oc), oc, b.ContainerConfig("exec sleep 1000"))
	if got := b.Sh(other, "echo alive"); got != "alive\n" {
		b.Errorf("another pod says %q", got)
	}
	if _, err := b.StopContainer(b.Context(), &runtimeapi.StopContainerRequest{ContainerId: id}); err != nil {
		b.Errorf("stop: %v", err)
	}
	b.eventually("no task to be left", func() bool { return count() == "0" })
}

// bytesPass has a container that answers as a hostile tar would: the server
// looks at none of it.
func bytesPass(b *Bench) {
	pc := b.PodConfig()
	id := b.StartIn(b.RunPod(pc), pc, b.ContainerConfig("exec sleep 1000"))
	b.Sh(id, `cd /tmp; mkdir d; ln -s /etc d/link; echo owned > d/file; (tar cf - d/../d/file d/link; head -c 70000 /dev/zero | tr '\0' '\377'; printf '\0\r\n\033[2J'; cat /bin/busybox) > sent 2>/dev/null`)
	want := strings.Fields(b.Sh(id, "sha256sum /tmp/sent"))[0]
	for transport, dial := range dialers {
		ex, err := dial(b.execURL(&runtimeapi.ExecRequest{ContainerId: id, Cmd: []string{"cat", "/tmp/sent"}, Stdout: true}))
		if err != nil {
			b.Fatal(err)
		}
		var out bytes.Buffer
		if err := ex.StreamWithContext(b.Context(), remotecommand.StreamOptions{Stdout: &out}); err != nil {
			b.Errorf("%s: %v", transport, err)
		}
		if got := fmt.Sprintf("%x", sha256.Sum256(out.Bytes())); got != want {
			b.Errorf("%s: %d bytes came with the sum %s, want %s", transport, out.Len(), got, want)
		}
	}
}
