package kubelet_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/kubelet"
	"keelson.dev/keelson/kubelet/criclient"
)

// boxImage is the image of these tests: busybox from the machine, as a docker archive. Its command sleeps, so that it
// serves as containerd's pause image too.
const boxImage = "keelson.test/box:1"

func boxArchive(t *testing.T, busybox string) string {
	t.Helper()
	raw, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	pack := func(files map[string][]byte, links map[string]string) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for name, content := range files {
			if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(content)), Typeflag: tar.TypeReg}); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(content); err != nil {
				t.Fatal(err)
			}
		}
		for name, to := range links {
			if err := w.WriteHeader(&tar.Header{Name: name, Linkname: to, Typeflag: tar.TypeSymlink}); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	layer := pack(map[string][]byte{"bin/busybox": raw}, map[string]string{"bin/sh": "busybox", "bin/sleep": "busybox", "bin/cat": "busybox", "bin/echo": "busybox"})
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux", "config": map[string]any{"Cmd": []string{"/bin/sleep", "1000000"}, "Env": []string{"PATH=/bin"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer))}},
	})
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := json.Marshal([]map[string]any{{"Config": "config.json", "RepoTags": []string{boxImage}, "Layers": []string{"layer.tar"}}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "box.tar")
	if err := os.WriteFile(path, pack(map[string][]byte{"config.json": config, "layer.tar": layer, "manifest.json": manifest}, nil), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// containerd starts one with everything in a directory of its own and returns its socket.
func containerd(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: runs containerd")
	}
	busybox := "/usr/bin/busybox"
	for _, tool := range []string{"containerd", "ctr", "runc", busybox} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s: %v", tool, err)
		}
	}
	dir, err := os.MkdirTemp("/tmp", "keelson-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for path, content := range map[string]string{
		"cni/conf/10-none.conf": `{"cniVersion":"0.4.0","name":"none","type":"none"}`,
		"cni/bin/none":          "#!/bin/sh\necho '{\"cniVersion\":\"0.4.0\"}'\n", // only host network pods here
		"config.toml": fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ndisabled_plugins = []\n[grpc]\naddress = %q\n"+
			"[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = %q\nrestrict_oom_score_adj = true\ndisable_apparmor = true\n"+
			"[plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = %q\nconf_dir = %q\n", dir+"/root", dir+"/state", dir+"/c.sock", boxImage, dir+"/cni/bin", dir+"/cni/conf"),
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, path), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var log bytes.Buffer
	cmd := exec.Command("containerd", "--config", filepath.Join(dir, "config.toml"))
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
		if t.Failed() {
			all := log.String()
			t.Logf("the end of containerd's log:\n%s", all[max(0, len(all)-4000):])
		}
	})
	sock := filepath.Join(dir, "c.sock")
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		out, err := exec.Command("ctr", "-a", sock, "version").CombinedOutput()
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("containerd did not answer within 20 s: %s", out)
		}
	}
	if out, err := exec.Command("ctr", "-a", sock, "-n", "k8s.io", "images", "import", boxArchive(t, busybox)).CombinedOutput(); err != nil {
		t.Fatalf("import image: %v: %s", err, out)
	}
	return sock
}

// Our kubelet drives somebody else's runtime: a pod with init container, environment, hooks, termination message and
// restart runs under containerd, survives a restart of the daemon and leaves nothing.
func TestPeerContainerd(t *testing.T) {
	sock := containerd(t)
	cri, err := criclient.Dial(sock, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cri.Close() })
	n := startWith(t, func(c *kubelet.Config, d *kubelet.Deps) { c.CRIEndpoint, d.CRI = "unix://"+sock, nil })
	t.Cleanup(func() { removeAll(t, cri) })
	p := pod("peer", corev1.Container{
		Name: "c", Image: boxImage, ImagePullPolicy: corev1.PullIfNotPresent,
		Command: []string{"sh", "-c", "echo hello from $WHO; echo last words > /dev/termination-log; while [ ! -e /stop ]; do sleep 0.1; done; exit 3"},
		Env:     []corev1.EnvVar{{Name: "WHO", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}}},
	})
	p.Spec.HostNetwork = true
	p.Spec.InitContainers = []corev1.Container{{Name: "i", Image: boxImage, ImagePullPolicy: corev1.PullIfNotPresent, Command: []string{"sh", "-c", "exit 0"}}}
	n.create(p)
	got := n.until("peer", "Running and Ready", running)
	id := strings.TrimPrefix(got.Status.ContainerStatuses[0].ContainerID, "containerd://")
	log := filepath.Join(n.cfg.Paths.PodLogs, "default_peer_"+string(p.UID), "c", "0.log")
	n.until("peer", "log", func(*corev1.Pod) bool {
		b, err := os.ReadFile(log)
		return err == nil && strings.Contains(string(b), "stdout F hello from peer")
	})
	n.stop()
	n.run()
	again := n.until("peer", "Running after the restart", running)
	if now := again.Status.ContainerStatuses[0]; now.ContainerID != got.Status.ContainerStatuses[0].ContainerID || now.RestartCount != 0 {
		t.Errorf("after the daemon's restart: %+v", now)
	}
	if _, err := cri.Runtime.ExecSync(t.Context(), &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: []string{"sh", "-c", "echo > /stop"}, Timeout: 10}); err != nil {
		t.Fatal(err)
	}
	got = n.until("peer", "restarted", func(p *corev1.Pod) bool { return running(p) && p.Status.ContainerStatuses[0].RestartCount == 1 })
	last := got.Status.ContainerStatuses[0].LastTerminationState.Terminated
	if last == nil || last.ExitCode != 3 || last.Message != "last words\n" {
		t.Errorf("last state = %+v, want exit code 3 with its last words", last)
	}
	n.delete("peer", 2)
	n.until("peer", "gone", isGone)
	boxes, err := cri.Runtime.ListPodSandbox(t.Context(), &runtimeapi.ListPodSandboxRequest{})
	if err != nil || len(boxes.GetItems()) != 0 {
		t.Errorf("containerd still holds %v (%v)", boxes.GetItems(), err)
	}
}

// removeAll removes what a failed test left, so that no process outlives it.
func removeAll(t *testing.T, cri *criclient.Client) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	boxes, err := cri.Runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		t.Logf("clean up containerd: %v", err)
		return
	}
	for _, b := range boxes.GetItems() {
		_, _ = cri.Runtime.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: b.GetId()})
		_, _ = cri.Runtime.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: b.GetId()})
	}
}
