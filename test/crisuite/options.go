package crisuite

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/network/netns"
)

var optionSpecs = []Spec{
	{"a host port of one address; one number in three protocols", true, hostPorts},
	{"host ports carry TCP, UDP and SCTP", true, hostPortTraffic},
	{"mounts propagate as asked", true, propagation},
	{"read-only reaches the mounts below only if asked recursively", true, recursiveReadOnly},
	{"a seccomp profile of the node's", true, localSeccomp},
	{"the OOM score is what may be set", true, oomScore},
	{"runtime handlers", false, runtimeHandlers},
	{"settings of the kubelet's are taken", false, kubeletSettings},
	{"CDI devices", true, cdiDevices},
}

func hostPorts(b *Bench) {
	port, udp := freePort(b), freePort(b)
	pc := b.PodConfig(func(c *runtimeapi.PodSandboxConfig) {
		c.PortMappings = []*runtimeapi.PortMapping{
			{ContainerPort: 8080, HostPort: port, HostIp: "127.0.0.1"},
			{Protocol: runtimeapi.Protocol_UDP, ContainerPort: 5353, HostPort: udp},
			{Protocol: runtimeapi.Protocol_SCTP, ContainerPort: 9, HostPort: udp}, // the same number in another protocol is another port
		}
	})
	id := b.StartIn(b.RunPod(pc), pc, b.ContainerConfig(`mkdir -p /w; echo page > /w/index.html; httpd -p 8080 -h /w && echo up; exec sleep 100000`))
	b.awaitLog(id, "up")
	if got := b.page(fmt.Sprintf("127.0.0.1:%d", port)); got != "page\n" {
		b.Errorf("by the address: %q", got)
	}
	other, err := net.InterfaceAddrs()
	if err != nil {
		b.Fatal(err)
	}
	for _, a := range other {
		ip, ok := a.(*net.IPNet)
		if !ok || ip.IP.IsLoopback() || ip.IP.To4() == nil {
			continue
		}
		if c, err := net.Dial("tcp", net.JoinHostPort(ip.IP.String(), fmt.Sprint(port))); err == nil {
			_ = c.Close()
			b.Errorf("the port of 127.0.0.1 answers at %s", ip.IP)
		}
		break
	}
}

// hostPortTraffic has one number in every protocol that the kernel speaks, and
// each answers with its own name.
func hostPortTraffic(b *Bench) {
	port := freePort(b)
	protocols := []struct {
		name       runtimeapi.Protocol
		kind, code int
	}{
		{runtimeapi.Protocol_TCP, unix.SOCK_STREAM, unix.IPPROTO_TCP}, {runtimeapi.Protocol_UDP, unix.SOCK_DGRAM, unix.IPPROTO_UDP}, {runtimeapi.Protocol_SCTP, unix.SOCK_STREAM, unix.IPPROTO_SCTP},
	}
	pc := b.PodConfig(func(c *runtimeapi.PodSandboxConfig) {
		for _, p := range protocols {
			c.PortMappings = append(c.PortMappings, &runtimeapi.PortMapping{Protocol: p.name, ContainerPort: 7, HostPort: port})
		}
	})
	id := b.StartIn(b.RunPod(pc), pc, b.ContainerConfig("exec sleep 1000"))
	// Found by what its processes see, so that any runtime can be asked.
	ns := filepath.Join(b.hostProc(id), "ns", "net")
	for _, p := range protocols {
		b.Run(p.name.String(), func(t *testing.T) {
			server, err := listenIn(ns, p.kind, p.code, 7)
			if errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.ESOCKTNOSUPPORT) {
				t.Skipf("needs %v in the kernel: %v", p.name, err)
			}
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- answerOnce(server, p.kind, "this is "+p.name.String()) }() // ends after one answer, or its time
			got, err := ask(p.kind, p.code, int(port))
			if want := "this is " + p.name.String(); got != want || err != nil {
				t.Errorf("the host port says %q, %v; want %q", got, err, want)
			}
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}

// hostProc is the folder in /proc of a container's process, found by its
// namespace of PIDs.
func (b *Bench) hostProc(id string) string {
	b.Helper()
	ns := strings.TrimSpace(b.Sh(id, "readlink /proc/1/ns/pid"))
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		if link, err := os.Readlink(filepath.Join(dir, "ns", "pid")); err == nil && link == ns {
			return dir
		}
	}
	b.Fatalf("no process on the node is in %s", ns)
	return ""
}

// patience bounds one step of a socket that may get no answer.
var patience = unix.Timeval{Sec: 20}

func socket(kind, code int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, code)
	if err != nil {
		return -1, err
	}
	for _, o := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, o, &patience); err != nil {
			return -1, errors.Join(err, unix.Close(fd))
		}
	}
	return fd, nil
}

// listenIn makes a server's socket in a network namespace.
func listenIn(ns string, kind, code, port int) (fd int, err error) {
	err = netns.Do(ns, func() error {
		if fd, err = socket(kind, code); err != nil {
			return err
		}
		err := unix.Bind(fd, &unix.SockaddrInet4{Port: port})
		if err == nil && kind == unix.SOCK_STREAM {
			err = unix.Listen(fd, 1)
		}
		return err
	})
	return fd, err
}

func answerOnce(fd, kind int, text string) error {
	defer unix.Close(fd)
	if kind == unix.SOCK_STREAM {
		conn, _, err := unix.Accept(fd)
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		defer unix.Close(conn)
		_, err = unix.Write(conn, []byte(text))
		return err
	}
	_, from, err := unix.Recvfrom(fd, make([]byte, 64), 0)
	if err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	return unix.Sendto(fd, []byte(text), 0, from)
}

// ask says something to a port of this node and gives the answer.
func ask(kind, code, port int) (string, error) {
	fd, err := socket(kind, code)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return "", fmt.Errorf("connect: %w", err)
	}
	if kind == unix.SOCK_DGRAM {
		if _, err := unix.Write(fd, []byte("hello")); err != nil {
			return "", err
		}
	}
	answer := make([]byte, 64)
	n, err := unix.Read(fd, answer)
	return string(answer[:max(n, 0)]), err
}

// shared is a directory that is a shared mount of its own.
func (b *Bench) shared() string {
	b.Helper()
	dir := b.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	if err := unix.Mount("", dir, "", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
		b.Fatal(err)
	}
	return dir
}

// mountBelow mounts a tmpfs with a file at dir/name.
func (b *Bench) mountBelow(dir, name string) {
	b.Helper()
	at := filepath.Join(dir, name)
	if err := os.MkdirAll(at, 0o755); err != nil {
		b.Fatal(err)
	}
	if err := unix.Mount("tmpfs", at, "tmpfs", 0, ""); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	if err := os.WriteFile(filepath.Join(at, "file"), nil, 0o644); err != nil {
		b.Fatal(err)
	}
}

func propagation(b *Bench) {
	dir := b.shared()
	pc := b.PodConfig(Privileged)
	pod := b.RunPod(pc)
	id := b.StartIn(pod, pc, b.ContainerConfig("exec sleep 1000", secure(func(s *runtimeapi.LinuxContainerSecurityContext) { s.Privileged = true }), func(c *runtimeapi.ContainerConfig) {
		c.Mounts = []*runtimeapi.Mount{
			{HostPath: dir, ContainerPath: "/private"},
			{HostPath: dir, ContainerPath: "/slave", Propagation: runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER},
			{HostPath: dir, ContainerPath: "/shared", Propagation: runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL},
		}
	}))
	b.mountBelow(dir, "late")
	b.Sh(id, "test ! -e /private/late/file && test -e /slave/late/file && test -e /shared/late/file")
	b.Sh(id, "mkdir /shared/mine /slave/own && mount -t tmpfs x /shared/mine && touch /shared/mine/file && mount -t tmpfs x /slave/own && touch /slave/own/file")
	b.Cleanup(func() { _ = unix.Unmount(filepath.Join(dir, "mine"), unix.MNT_DETACH) })
	if _, err := os.Stat(filepath.Join(dir, "mine", "file")); err != nil {
		b.Errorf("a mount of the container's did not reach the node: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "own", "file")); err == nil {
		b.Error("a mount below a slave reached the node")
	}
}

func recursiveReadOnly(b *Bench) {
	dir := b.TempDir()
	b.mountBelow(dir, "below")
	pc := b.PodConfig()
	id := b.StartIn(b.RunPod(pc), pc, b.ContainerConfig("exec sleep 1000", func(c *runtimeapi.ContainerConfig) {
		c.Mounts = []*runtimeapi.Mount{
			{HostPath: dir, ContainerPath: "/ro", Readonly: true}, {HostPath: dir, ContainerPath: "/rro", Readonly: true, RecursiveReadOnly: true},
		}
	}))
	b.Sh(id, "touch /ro/below/x")
	for _, path := range []string{"/ro/x", "/rro/x", "/rro/below/y"} {
		if r := b.ShCode(id, "touch "+path); r.GetExitCode() == 0 {
			b.Errorf("%s could be written", path)
		}
	}
}

func localSeccomp(b *Bench) {
	profile := filepath.Join(b.TempDir(), "no-mkdir.json")
	text := `{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]}`
	if err := os.WriteFile(profile, []byte(text), 0o644); err != nil {
		b.Fatal(err)
	}
	pc := b.PodConfig()
	id := b.StartIn(b.RunPod(pc), pc, b.ContainerConfig("exec sleep 1000", secure(func(s *runtimeapi.LinuxContainerSecurityContext) {
		s.Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: profile}
	})))
	if r := b.ShCode(id, "touch /tmp-file && mkdir /x"); r.GetExitCode() == 0 || !strings.Contains(string(r.GetStderr()), "not supported") {
		b.Errorf("mkdir under the profile: %q", r.GetStderr())
	}
}

func oomScore(b *Bench) {
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	for asked, most := range map[int64]int{1000: 1000, 500: 500, -998: 0} {
		id := b.StartIn(pod, pc, b.ContainerConfig("exec sleep 1000", func(c *runtimeapi.ContainerConfig) {
			c.Linux.Resources = &runtimeapi.LinuxContainerResources{OomScoreAdj: asked}
		}))
		var got int
		if _, err := fmt.Sscan(b.Sh(id, "cat /proc/1/oom_score_adj"), &got); err != nil {
			b.Fatal(err)
		}
		// What a runtime without CAP_SYS_RESOURCE may not lower stays at its own.
		if got > most || got < int(asked) {
			b.Errorf("score %d for %d", got, asked)
		}
	}
}

func runtimeHandlers(b *Bench) {
	pc := b.PodConfig()
	if _, err := b.RunPodSandbox(b.Context(), &runtimeapi.RunPodSandboxRequest{Config: pc, RuntimeHandler: "no-such"}); status.Code(err) != codes.InvalidArgument {
		b.Errorf("an unknown handler: %v, want InvalidArgument", err)
	}
	st, err := b.Client.Status(b.Context(), &runtimeapi.StatusRequest{})
	if err != nil {
		b.Fatal(err)
	}
	for _, h := range st.GetRuntimeHandlers() {
		cfg := b.PodConfig()
		resp, err := b.RunPodSandbox(b.Context(), &runtimeapi.RunPodSandboxRequest{Config: cfg, RuntimeHandler: h.GetName()})
		if err != nil {
			b.Errorf("handler %q of the status: %v", h.GetName(), err)
			continue
		}
		got, err := b.PodSandboxStatus(b.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: resp.GetPodSandboxId()})
		if err != nil || got.GetStatus().GetRuntimeHandler() != h.GetName() {
			b.Errorf("the status tells of the handler %q, want %q; %v", got.GetStatus().GetRuntimeHandler(), h.GetName(), err)
		}
		b.RemovePod(resp.GetPodSandboxId())
	}
}

func kubeletSettings(b *Bench) {
	_, err := b.UpdateRuntimeConfig(b.Context(), &runtimeapi.UpdateRuntimeConfigRequest{RuntimeConfig: &runtimeapi.RuntimeConfig{NetworkConfig: &runtimeapi.NetworkConfig{PodCidr: "10.1.2.0/24"}}})
	if err != nil {
		b.Errorf("UpdateRuntimeConfig: %v", err)
	}
	pod := b.RunPod(b.PodConfig())
	res := &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 64 << 20, CpuShares: 100}
	if _, err := b.UpdatePodSandboxResources(b.Context(), &runtimeapi.UpdatePodSandboxResourcesRequest{PodSandboxId: pod, Resources: res}); err != nil {
		b.Errorf("UpdatePodSandboxResources: %v", err)
	}
	if _, err := b.UpdatePodSandboxResources(b.Context(), &runtimeapi.UpdatePodSandboxResourcesRequest{PodSandboxId: "no-such"}); status.Code(err) != codes.NotFound {
		b.Errorf("UpdatePodSandboxResources of no pod: %v, want NotFound", err)
	}
}

func cdiDevices(b *Bench) {
	if b.Target.CDIDir == "" {
		b.Skip("the target's CDI folder is not known")
	}
	dir := b.TempDir()
	spec := fmt.Sprintf(`{"cdiVersion": "0.6.0", "kind": "keelson.dev/thing", "devices": [{"name": "one", "containerEdits": {
		"env": ["THING=one"], "deviceNodes": [{"path": "/dev/thing", "hostPath": "/dev/null", "permissions": "rw"}],
		"mounts": [{"hostPath": %q, "containerPath": "/thing", "options": ["ro", "bind"]}],
		"hooks": [{"hookName": "createContainer", "path": "/bin/touch", "args": ["touch", %q]}]}}]}`, dir, filepath.Join(dir, "hooked"))
	if err := os.MkdirAll(b.Target.CDIDir, 0o755); err != nil {
		b.Fatal(err)
	}
	file := filepath.Join(b.Target.CDIDir, "thing.json")
	if err := os.WriteFile(file, []byte(spec), 0o644); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = os.Remove(file) })
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	with := func(name string) *runtimeapi.ContainerConfig {
		return b.ContainerConfig("exec sleep 1000", func(c *runtimeapi.ContainerConfig) { c.CDIDevices = []*runtimeapi.CDIDevice{{Name: name}} })
	}
	id := b.StartIn(pod, pc, with("keelson.dev/thing=one"))
	b.Sh(id, "test $THING = one && echo x > /dev/thing && test -e /thing/hooked")
	for _, name := range []string{"keelson.dev/thing=two", "nobody.example/x=y", "not a name"} {
		_, err := b.CreateContainer(b.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: with(name), SandboxConfig: pc})
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), name) {
			b.Errorf("the CDI device %q: %v, want InvalidArgument that names it", name, err)
		}
	}
}
