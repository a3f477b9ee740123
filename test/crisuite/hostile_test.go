package crisuite

import (
	"archive/tar"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
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

// hostileIM26: where the kernel's filesystems belong, the image has links.
func hostileIM26(n *Node, b *Bench) {
	for _, dir := range []string{"proc", "sys", "dev"} {
		ref := n.hostile(b, "im26-"+dir, v1.Config{},
			imagetest.Entry{Name: ".wh." + dir}, imagetest.Entry{Name: "elsewhere/", Type: tar.TypeDir},
			imagetest.Entry{Name: dir, Type: tar.TypeSymlink, Link: "/elsewhere"})
		pod := b.PodConfig()
		podID := b.RunPod(pod)
		resp, err := b.CreateContainer(b.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: podID, SandboxConfig: pod, Config: b.ContainerConfig("sleep 1000", from(ref))})
		if err == nil {
			_, err = b.StartContainer(b.Context(), &runtimeapi.StartContainerRequest{ContainerId: resp.ContainerId})
		}
		switch {
		case err == nil && dir != "dev":
			b.Errorf("an image whose /%s is a link was started", dir)
		case err == nil: // it leads to a folder of the image's own root: what is mounted there is ours
			if got := b.Sh(resp.ContainerId, "stat -c '%F %t:%T' /elsewhere/null; stat -f -c %T /elsewhere"); got != "character special file 1:3\ntmpfs\n" {
				b.Errorf("the devices of an image whose /dev is a link: %q", got)
			}
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
