package crisuite

import (
	"archive/tar"
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/client-go/tools/remotecommand"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/image/imagetest"
)

// hostile serves and pulls an image that is busybox with one more layer.
func (n *Node) hostile(b *Bench, name string, cfg v1.Config, more ...imagetest.Entry) (ref string) {
	b.Helper()
	base, err := imagetest.Base()
	if err != nil {
		b.Fatal(err)
	}
	img, err := imagetest.Build(imagetest.Spec{Layers: []imagetest.Layer{base, more}, Config: cfg})
	if err != nil {
		b.Fatal(err)
	}
	ref = "registry.test/" + name + ":1"
	if _, err := n.Registry.Add(ref, img); err != nil {
		b.Fatal(err)
	}
	if _, err := b.Images.PullImage(b.Context(), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: ref}}); err != nil {
		b.Fatal(err)
	}
	return ref
}

// from is a container of that image.
func from(ref string) func(*runtimeapi.ContainerConfig) {
	return func(c *runtimeapi.ContainerConfig) { c.Image.Image = ref }
}

// TestHostileImages runs images that were made to reach the node.
func TestHostileImages(t *testing.T) {
	n := NewNode(t, logOf(t))
	for name, run := range map[string]func(*Node, *Bench){
		"TestHostile_IM24": hostileIM24, "TestHostile_IM25": hostileIM25, "TestHostile_IM26": hostileIM26,
		"TestHostile_IM27": hostileIM27, "TestHostile_IM28": hostileIM28, "TestHostile_IM29": hostileIM29,
		"TestHostile_IM31": hostileIM31, "TestHostile_IM32": hostileIM32,
		"TestHostile_OC10": hostileOC10, "TestHostile_OC25": hostileOC25, "TestHostile_ST10": hostileST10,
	} {
		t.Run(name, func(t *testing.T) { run(n, NewBench(t, n.target())) })
	}
}

// hostileIM24: an image's VOLUME brings nothing of the node into the container.
func hostileIM24(n *Node, b *Bench) {
	ref := n.hostile(b, "im24", v1.Config{Volumes: map[string]struct{}{"/../../etc": {}, "/../../../root": {}, "/data": {}}})
	pod := b.PodConfig()
	id := b.StartIn(b.RunPod(pod), pod, b.ContainerConfig("sleep 1000", from(ref)))
	host, err := os.ReadFile("/etc/passwd")
	if err != nil {
		b.Fatal(err)
	}
	if got := b.Sh(id, "cat /etc/passwd; ls /root"); got == string(host) || !strings.Contains(got, "default-user") {
		b.Errorf("/etc/passwd and /root in the container: %q", got)
	}
	if got := b.Sh(id, "grep -cE ' /(etc|root|data) ' /proc/self/mountinfo || true"); strings.TrimSpace(got) != "0" {
		b.Errorf("%s mounts on the image's volumes", got)
	}
}

// hostileIM25: an image's labels never become the container's or the image's
// identity.
func hostileIM25(n *Node, b *Bench) {
	ref := n.hostile(b, "im25", v1.Config{Labels: map[string]string{
		"io.kubernetes.pod.namespace": "kube-system", "io.kubernetes.pod.name": "etcd", "io.cri-containerd.kind": "sandbox", "io.cri-containerd.pinned": "pinned"}})
	pod := b.PodConfig()
	cfg := b.ContainerConfig("sleep 1000", from(ref))
	st := b.Status(b.CreateIn(b.RunPod(pod), pod, cfg))
	for k := range st.Labels {
		if _, asked := cfg.Labels[k]; !asked {
			b.Errorf("label %s is not the client's", k)
		}
	}
	if len(st.Labels) != len(cfg.Labels) || len(st.Annotations) != len(cfg.Annotations) {
		b.Errorf("labels %v, annotations %v", st.Labels, st.Annotations)
	}
	img, err := b.Images.ImageStatus(b.Context(), &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: ref}})
	if err != nil || img.GetImage().GetPinned() {
		b.Errorf("an image pinned itself: %v, %v", img, err)
	}
}

// hostileIM26: where the kernel's filesystems belong, the image has links and
// files.
func hostileIM26(n *Node, b *Bench) {
	pod := b.PodConfig()
	podID := b.RunPod(pod)
	for i, entry := range []imagetest.Entry{
		{Name: "proc", Type: tar.TypeSymlink, Link: "/elsewhere"}, {Name: "sys", Type: tar.TypeSymlink, Link: "/elsewhere"},
		{Name: "dev", Type: tar.TypeSymlink, Link: "/elsewhere"}, {Name: "dev", Type: tar.TypeSymlink, Link: "../../dev"},
		{Name: "proc", Type: tar.TypeSymlink, Link: "."}, {Name: "dev", Data: []byte("a file")}, {Name: "proc", Data: []byte("a file")},
	} {
		ref := n.hostile(b, fmt.Sprint("im26-", i), v1.Config{}, imagetest.Entry{Name: ".wh." + entry.Name}, imagetest.Entry{Name: "elsewhere/", Type: tar.TypeDir}, entry)
		resp, err := b.CreateContainer(b.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: podID, SandboxConfig: pod, Config: b.ContainerConfig("sleep 1000", from(ref))})
		if err == nil {
			_, err = b.StartContainer(b.Context(), &runtimeapi.StartContainerRequest{ContainerId: resp.ContainerId})
		}
		if err == nil || !strings.Contains(err.Error(), "/"+entry.Name) {
			b.Errorf("an image whose /%s is no directory (%q): %v", entry.Name, entry.Link, err)
		}
	}
}

// hostileIM27: what masks is the null device, not what the image calls so.
func hostileIM27(n *Node, b *Bench) {
	ref := n.hostile(b, "im27", v1.Config{}, imagetest.Entry{Name: "dev/null", Type: tar.TypeSymlink, Link: "/proc/sys/kernel/core_pattern"})
	pod := b.PodConfig()
	id := b.StartIn(b.RunPod(pod), pod, b.ContainerConfig("sleep 1000", from(ref), func(c *runtimeapi.ContainerConfig) {
		c.Linux.SecurityContext.MaskedPaths = []string{"/proc/timer_list", "/proc/version"}
	}))
	for _, path := range []string{"/dev/null", "/proc/timer_list", "/proc/version"} {
		if got := b.Sh(id, "stat -c '%F %t:%T' "+path); strings.TrimSpace(got) != "character special file 1:3" {
			b.Errorf("%s is a %q", path, got)
		}
	}
}

// hostileIM28: a terminal is bound by descriptor, whatever the image has there.
func hostileIM28(n *Node, b *Bench) {
	outside := filepath.Join(b.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("untouched"), 0o666); err != nil {
		b.Fatal(err)
	}
	ref := n.hostile(b, "im28", v1.Config{}, imagetest.Entry{Name: "dev/console", Type: tar.TypeSymlink, Link: outside},
		imagetest.Entry{Name: "dev/pts", Type: tar.TypeSymlink, Link: filepath.Dir(outside)}, imagetest.Entry{Name: "dev/ptmx", Type: tar.TypeSymlink, Link: outside})
	pod := b.PodConfig()
	id := b.StartIn(b.RunPod(pod), pod, b.ContainerConfig("echo said; sleep 1000", from(ref), func(c *runtimeapi.ContainerConfig) { c.Tty = true }))
	if got := b.Sh(id, "stat -c %F /dev/console"); strings.TrimSpace(got) != "character special file" {
		b.Errorf("/dev/console is a %q", got)
	}
	if text, err := os.ReadFile(outside); string(text) != "untouched" {
		b.Errorf("a file of the node now holds %q, %v", text, err)
	}
}

// hostileIM29: what the runtime writes to /proc goes to the kernel's.
func hostileIM29(n *Node, b *Bench) {
	ref := n.hostile(b, "im29", v1.Config{}, imagetest.Entry{Name: "proc/self", Type: tar.TypeSymlink, Link: "/tmp"},
		imagetest.Entry{Name: "proc/sys/net/ipv4/ip_unprivileged_port_start", Data: []byte("fake")})
	pod := b.PodConfig(func(c *runtimeapi.PodSandboxConfig) {
		c.Linux.Sysctls = map[string]string{"net.ipv4.ip_unprivileged_port_start": "77"}
	})
	id := b.StartIn(b.RunPod(pod), pod, b.ContainerConfig("sleep 1000", from(ref)))
	if got := b.Sh(id, "stat -f -c %T /proc; cat /proc/sys/net/ipv4/ip_unprivileged_port_start"); got != "proc\n77\n" {
		b.Errorf("/proc and the parameter: %q", got)
	}
}

// hostileIM31: a checkpoint archive cannot be brought in at all.
func hostileIM31(_ *Node, b *Bench) {
	_, checkpoint := b.CheckpointContainer(b.Context(), &runtimeapi.CheckpointContainerRequest{ContainerId: "x", Location: filepath.Join(b.TempDir(), "c.tar")})
	if status.Code(checkpoint) != codes.Unimplemented {
		b.Errorf("checkpoint: %v", checkpoint)
	}
	archive := filepath.Join(b.TempDir(), "checkpoint.tar")
	if err := os.WriteFile(archive, nil, 0o644); err != nil {
		b.Fatal(err)
	}
	pod := b.PodConfig()
	_, err := b.CreateContainer(b.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: b.RunPod(pod), SandboxConfig: pod, Config: b.ContainerConfig("true", from(archive))})
	if err == nil {
		b.Error("a container was made from an archive on the node")
	}
}

// hostileIM32: an archive's name makes no image.
func hostileIM32(_ *Node, b *Bench) {
	before, err := b.Images.ListImages(b.Context(), &runtimeapi.ListImagesRequest{})
	if err != nil {
		b.Fatal(err)
	}
	archive := filepath.Join(b.TempDir(), "nginx:latest")
	if err := os.WriteFile(archive, nil, 0o644); err != nil {
		b.Fatal(err)
	}
	if _, err := b.Images.PullImage(b.Context(), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: archive}}); err == nil {
		b.Error("a file's path was pulled as an image")
	}
	after, err := b.Images.ListImages(b.Context(), &runtimeapi.ListImagesRequest{})
	if err != nil || len(after.Images) != len(before.Images) {
		b.Errorf("%d images, were %d; %v", len(after.Images), len(before.Images), err)
	}
}

// calls32 is a program that makes one system call by another ABI than its own,
// with one argument, and exits with the error's number.
func calls32(call []byte, nr, arg uint32) []byte {
	le := binary.LittleEndian
	code := append([]byte{0xb8}, le.AppendUint32(nil, nr)...)       // mov eax, nr
	code = append(append(code, 0xbb), le.AppendUint32(nil, arg)...) // mov ebx, arg
	code = append(append(code, 0xbf), le.AppendUint32(nil, arg)...) // mov edi, arg
	code = append(code, call...)
	code = append(code, 0xf7, 0xd8, 0x89, 0xc7, 0xb8, 60, 0, 0, 0, 0x0f, 0x05) // neg eax; mov edi, eax; mov eax, 60; syscall
	const base, head = 0x400000, 64 + 56
	elf := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 9)...)
	elf = le.AppendUint16(le.AppendUint16(elf, 2), 62) // an executable for x86-64
	elf = le.AppendUint64(le.AppendUint64(le.AppendUint64(le.AppendUint32(elf, 1), base+head), 64), 0)
	elf = le.AppendUint32(elf, 0)
	for _, v := range []uint16{64, 56, 1, 0, 0, 0} {
		elf = le.AppendUint16(elf, v)
	}
	elf = le.AppendUint32(le.AppendUint32(elf, 1), 5) // loaded, to be read and executed
	for _, v := range []uint64{0, base, base, uint64(head + len(code)), uint64(head + len(code)), 4096} {
		elf = le.AppendUint64(elf, v)
	}
	return append(elf, code...)
}

// hostileOC10: what seccomp refuses it refuses by every ABI of the machine. The
// known limit is socketcall of i386: one number for all calls of sockets, whose
// arguments a filter cannot see.
func hostileOC10(n *Node, b *Bench) {
	if runtime.GOARCH != "amd64" {
		b.Skip("needs x86-64 with its older ABIs")
	}
	int80, syscall64 := []byte{0xcd, 0x80}, []byte{0x0f, 0x05}
	const newUser, x32 = 0x10000000, 0x40000000
	ref := n.hostile(b, "oc10", v1.Config{},
		imagetest.Entry{Name: "getuid32", Mode: 0o755, Data: calls32(int80, 24, 0)},
		imagetest.Entry{Name: "unshare64", Mode: 0o755, Data: calls32(syscall64, 272, newUser)},
		imagetest.Entry{Name: "unshare32", Mode: 0o755, Data: calls32(int80, 310, newUser)},
		imagetest.Entry{Name: "keyctl32", Mode: 0o755, Data: calls32(int80, 288, 0)},
		imagetest.Entry{Name: "bpf32", Mode: 0o755, Data: calls32(int80, 357, 0)},
		imagetest.Entry{Name: "unsharex32", Mode: 0o755, Data: calls32(syscall64, x32|272, newUser)})
	pod := b.PodConfig()
	id := b.StartIn(b.RunPod(pod), pod, b.ContainerConfig("sleep 1000", from(ref)))
	code := func(program string) int32 { return b.ShCode(id, "/"+program).GetExitCode() }
	if got := code("unshare64"); got != int32(unix.EPERM) {
		b.Errorf("unshare of a user namespace: %d, want EPERM", got)
	}
	if got := code("unsharex32"); got != int32(unix.EPERM) && got != int32(unix.ENOSYS) {
		b.Errorf("unshare by x32: %d, want EPERM or ENOSYS", got)
	}
	if got := code("getuid32"); got != 0 {
		b.Logf("i386's ABI is off altogether: %d", got)
		return
	}
	for _, program := range []string{"unshare32", "keyctl32", "bpf32"} {
		if got := code(program); got != int32(unix.EPERM) {
			b.Errorf("%s by i386's ABI: %d, want EPERM", program, got)
		}
	}
}

// hostileOC25: nothing that a client says becomes a hook.
func hostileOC25(n *Node, b *Bench) {
	witness := filepath.Join(b.TempDir(), "ran")
	hook := fmt.Sprintf(`[{"path":"/usr/bin/touch","args":["touch",%q]}]`, witness)
	evil := map[string]string{}
	for _, name := range []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"} {
		for _, prefix := range []string{"", "hooks.", "run.oci.hooks.", "org.opencontainers.hooks.", "io.kubernetes.cri-o.hooks."} {
			evil[prefix+name] = hook
		}
	}
	evil["run.oci.hooks.stdout"], evil["io.containerd.cri.hooks"] = witness, hook
	ref := n.hostile(b, "oc25", v1.Config{Labels: evil})
	pod := b.PodConfig(func(c *runtimeapi.PodSandboxConfig) { c.Annotations, c.Labels = evil, evil })
	id := b.StartIn(b.RunPod(pod), pod, b.ContainerConfig("sleep 1000", from(ref), func(c *runtimeapi.ContainerConfig) { c.Annotations, c.Labels = evil, evil }))
	text, err := os.ReadFile(filepath.Join(n.Dir, "ctr", id, "config.json"))
	var spec specs.Spec
	if err == nil {
		err = json.Unmarshal(text, &spec)
	}
	if err != nil || spec.Hooks != nil {
		b.Errorf("the container's hooks: %+v, %v", spec.Hooks, err)
	}
	if _, err := b.StopContainer(b.Context(), &runtimeapi.StopContainerRequest{ContainerId: id}); err != nil {
		b.Error(err)
	}
	if _, err := os.Stat(witness); err == nil {
		b.Error("a hook ran")
	}
}

// hostileST10: the daemon is replaced under an exec, an attachment and a
// forwarded port. Each ends for its client at once; the exec's process ends, the
// container goes on.
func hostileST10(n *Node, b *Bench) {
	pod := b.PodConfig()
	podID := b.RunPod(pod)
	id := b.StartIn(podID, pod, b.ContainerConfig("echo up; sleep 1000"))
	b.awaitLog(id, "up")
	ended := make(chan error, 2*len(dialers))
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	for _, dial := range dialers {
		ex, err := dial(b.execURL(&runtimeapi.ExecRequest{ContainerId: id, Cmd: []string{"sh", "-c", "echo here; exec sleep 4321"}, Stdin: true, Stdout: true}))
		if err != nil {
			b.Fatal(err)
		}
		here, out := io.Pipe()
		in, _ := io.Pipe()                                                                                      // nothing ever comes
		go func() { ended <- ex.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: in, Stdout: out}) }() // ends with the daemon, or ctx
		if line, err := bufio.NewReader(here).ReadString('\n'); err != nil || line != "here\n" {
			b.Fatalf("%q, %v", line, err)
		}
		go func() { _, _ = io.Copy(io.Discard, here) }() // ends with the test: nothing holds it
	}
	if err := n.Stop(); err != nil {
		b.Fatal(err)
	}
	for range dialers {
		if err := <-ended; ctx.Err() != nil {
			b.Errorf("an exec's stream does not end with the daemon: %v", err)
		}
	}
	if err := n.Start(Keeper(b)); err != nil {
		b.Fatal(err)
	}
	if st := b.Status(id); st.GetState() != runtimeapi.ContainerState_CONTAINER_RUNNING {
		b.Errorf("the container is %v", st)
	}
	b.eventually("the execs' processes to end", func() bool { return b.Sh(id, "ps | grep -c '[s]leep 4321' || true") == "0\n" })
}
