package kubelet_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/kubelet"
)

// using makes the runtime say how many bytes a pod's container has written into its layer.
type using struct {
	mu   sync.Mutex
	disk map[string]uint64 // by UID
}

func (u *using) stats() (out []*runtimeapi.PodSandboxStats) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for uid, bytes := range u.disk {
		out = append(out, &runtimeapi.PodSandboxStats{
			Attributes: &runtimeapi.PodSandboxAttributes{Id: uid, Metadata: &runtimeapi.PodSandboxMetadata{Uid: uid, Name: uid, Namespace: "default"}},
			Linux: &runtimeapi.LinuxPodSandboxStats{
				Cpu: &runtimeapi.CpuUsage{Timestamp: time.Now().UnixNano(), UsageCoreNanoSeconds: &runtimeapi.UInt64Value{Value: 1}},
				Containers: []*runtimeapi.ContainerStats{{
					Attributes:    &runtimeapi.ContainerAttributes{Metadata: &runtimeapi.ContainerMetadata{Name: "c"}},
					WritableLayer: &runtimeapi.FilesystemUsage{UsedBytes: &runtimeapi.UInt64Value{Value: bytes}},
				}},
			},
		})
	}
	return out
}

func (u *using) set(uid string, disk uint64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.disk[uid] = disk
}

// PS7: what a pod writes into its /etc/hosts or its termination log, as into its own root filesystem, is on its account of
// ephemeral storage, and evicts it.
func TestHostile_PS7(t *testing.T) {
	n, u := start(t, nil), &using{disk: map[string]uint64{}}
	n.runtime.SetStats(u.stats)
	limit := corev1.ResourceList{corev1.ResourceEphemeralStorage: resource.MustParse("256Ki")}
	uids := map[string]string{}
	for _, name := range []string{"hosts", "termination", "layer", "modest"} {
		p := n.create(pod(name, corev1.Container{Name: "c", Image: "nginx:1", Resources: corev1.ResourceRequirements{Limits: limit}}))
		uids[name] = string(p.UID)
		u.set(uids[name], 4096)
		n.until(name, "Running", running)
	}
	u.set(uids["layer"], 1<<20)
	files := map[string]string{"hosts": "etc-hosts", "termination": "containers/c/*"}
	for name, pattern := range files {
		found, err := filepath.Glob(filepath.Join(n.cfg.Paths.Root, "pods", uids[name], pattern))
		if err != nil || len(found) == 0 {
			t.Fatalf("the pod %s has no %s: %v", name, pattern, err)
		}
		f, err := os.OpenFile(found[0], os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	n.kubelet.CheckPressure(t.Context())
	for _, name := range []string{"hosts", "termination", "layer"} {
		got := n.until(name, "evicted", phase(corev1.PodFailed))
		if want := "Pod ephemeral local storage usage exceeds the total limit of containers 256Ki. "; got.Status.Reason != "Evicted" || got.Status.Message != want {
			t.Errorf("%s: %s, %q; want Evicted, %q", name, got.Status.Reason, got.Status.Message, want)
		}
	}
	if p := n.until("modest", "there", func(p *corev1.Pod) bool { return p != nil }); p.Status.Phase != corev1.PodRunning {
		t.Errorf("the modest pod is %s: %s", p.Status.Phase, p.Status.Message)
	}
}

// nodeCondition waits for a condition of the node to be so.
func (n *node) nodeCondition(kind corev1.NodeConditionType, want corev1.ConditionStatus) corev1.NodeCondition {
	n.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		node, err := n.client.CoreV1().Nodes().Get(n.t.Context(), "node-1", metav1.GetOptions{})
		if err == nil {
			for _, c := range node.Status.Conditions {
				if c.Type == kind && c.Status == want {
					return c
				}
			}
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("%s does not become %s: %v, %v", kind, want, err, node)
		}
	}
}

// ND6, ND5: a filesystem without inodes, without room, or turned read-only is a condition of the node with its reason; when it
// is well again so is the node. Pods that use none of it stay.
func TestHostile_ND6(t *testing.T) {
	n := startWith(t, func(c *kubelet.Config, _ *kubelet.Deps) {
		c.Eviction.PressureCondition = time.Nanosecond
		if err := os.MkdirAll(c.Paths.Root, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("small", c.Paths.Root, "tmpfs", 0, "size=8m,nr_inodes=400"); err != nil {
			t.Skipf("cannot mount a small filesystem: %v", err)
		}
		t.Cleanup(func() { _ = unix.Unmount(c.Paths.Root, unix.MNT_DETACH) })
	}, notReady)
	critical := int32(2_000_000_000) // nobody's eviction is what is tried here
	p := pod("calm", corev1.Container{Name: "c", Image: "nginx:1"})
	p.Spec.Priority, p.Spec.PriorityClassName = &critical, "system-cluster-critical"
	n.create(p)
	n.until("calm", "Running", running)
	root := n.cfg.Paths.Root
	for _, row := range []struct {
		what         string
		spoil, mend  func() error
		wantInReason string
	}{
		{"no inodes", func() error {
			for i := range 395 {
				if os.WriteFile(filepath.Join(root, fmt.Sprint("file-", i)), nil, 0o600) != nil {
					break
				}
			}
			return nil
		}, func() error {
			files, err := filepath.Glob(filepath.Join(root, "file-*"))
			for _, f := range files {
				err = os.Remove(f)
			}
			return err
		}, "nodefs.inodesFree"},
		{"no room", func() error {
			_ = os.WriteFile(filepath.Join(root, "file"), make([]byte, 8<<20), 0o600) // as much as fits
			return nil
		}, func() error { return os.Remove(filepath.Join(root, "file")) }, "nodefs.available"},
		{"read-only", func() error { return unix.Mount("", root, "", unix.MS_REMOUNT|unix.MS_RDONLY, "") },
			func() error { return unix.Mount("", root, "", unix.MS_REMOUNT, "") }, "read-only"},
	} {
		if err := row.spoil(); err != nil {
			t.Fatalf("%s: %v", row.what, err)
		}
		n.kubelet.CheckPressure(t.Context())
		if said := n.nodeCondition(corev1.NodeDiskPressure, corev1.ConditionTrue); said.Reason != "KubeletHasDiskPressure" || !strings.Contains(said.Message, row.wantInReason) {
			t.Errorf("%s: the node says %+v, want %q in it", row.what, said, row.wantInReason)
		}
		if err := row.mend(); err != nil {
			t.Fatalf("%s: %v", row.what, err)
		}
		n.kubelet.CheckPressure(t.Context())
		n.nodeCondition(corev1.NodeDiskPressure, corev1.ConditionFalse)
	}
	if p := n.until("calm", "there", func(p *corev1.Pod) bool { return p != nil }); !running(p) || p.Status.ContainerStatuses[0].RestartCount != 0 {
		t.Errorf("the pod's status is %+v", p.Status)
	}
}

// ND7: a node with too few process numbers left says so, and evicts the pod that has the most; critical ones stay.
func TestHostile_ND7(t *testing.T) {
	n := start(t, func(c *kubelet.Config) { c.Eviction.PidsAvailable = 100 })
	critical := int32(2_000_000_000)
	calm := pod("calm", corev1.Container{Name: "c", Image: "nginx:1"})
	calm.Spec.Priority, calm.Spec.PriorityClassName = &critical, "system-node-critical"
	n.create(calm)
	n.create(pod("bomb", corev1.Container{Name: "c", Image: "nginx:1"}))
	n.until("calm", "Running", running)
	n.until("bomb", "Running", running)
	n.kubelet.CheckPressure(t.Context())
	if said := n.nodeCondition(corev1.NodePIDPressure, corev1.ConditionTrue); said.Reason != "KubeletHasInsufficientPID" || !strings.Contains(said.Message, "pid.available") {
		t.Errorf("the node says %+v", said)
	}
	if got := n.until("bomb", "evicted", phase(corev1.PodFailed)); got.Status.Reason != "Evicted" || !strings.Contains(got.Status.Message, "low on resource: pids") {
		t.Errorf("status = %+v", got.Status)
	}
	if p := n.until("calm", "there", func(p *corev1.Pod) bool { return p != nil }); !running(p) {
		t.Errorf("the critical pod's status is %+v", p.Status)
	}
}

// NW10: with the API out of reach pods run on, and are restarted when they end; back in reach, what happened is told and nothing
// else is restarted. When the node's silence evicts is nodelifecycle's TestSilence and TestStay.
func TestHostile_NW10(t *testing.T) {
	n := start(t, nil)
	for _, name := range []string{"steady", "faller"} {
		n.create(pod(name, corev1.Container{Name: "c", Image: "nginx:1"}))
		n.until(name, "Running", running)
	}
	before := n.until("steady", "Running", running).Status.ContainerStatuses[0].ContainerID
	fell := n.until("faller", "Running", running).Status.ContainerStatuses[0].ContainerID
	var apart atomic.Bool
	away := apierrors.NewServerTimeout(corev1.Resource("everything"), "reach", 1)
	n.client.(*fake.Clientset).PrependReactor("*", "*", func(clienttesting.Action) (bool, runtime.Object, error) { return apart.Load(), nil, away })
	apart.Store(true)
	started := func() (times int) {
		for _, line := range n.runtime.Journal() {
			if strings.HasPrefix(line, "StartContainer") {
				times++
			}
		}
		return times
	}
	had := started()
	if err := n.runtime.Exit("faller", "c", 1); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); started() == had; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the container that ended without the API is not started again")
		}
	}
	apart.Store(false)
	got := n.until("faller", "told to have been restarted", func(p *corev1.Pod) bool {
		return running(p) && p.Status.ContainerStatuses[0].RestartCount == 1
	})
	if got.Status.ContainerStatuses[0].ContainerID == fell {
		t.Error("the container that ended has its old ID")
	}
	if s := n.until("steady", "Running", running).Status.ContainerStatuses[0]; s.ContainerID != before || s.RestartCount != 0 || started() != had+1 {
		t.Errorf("the steady one was %s and is %+v; %d starts, want one more than %d", before, s, started(), had)
	}
}
