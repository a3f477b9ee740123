package kubelet_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/kubelet"
)

// A log that has grown is moved aside and begun anew; of the old ones only the newest are kept.
func TestLogRotation(t *testing.T) {
	n := start(t, func(c *kubelet.Config) { c.Logs = kubelet.Logs{MaxBytes: 10, MaxFiles: 3} })
	p := n.create(pod("chatty", corev1.Container{Name: "c", Image: "nginx:1"}))
	n.until("chatty", "Running", running)
	log := filepath.Join(n.cfg.Paths.PodLogs, "default_chatty_"+string(p.UID), "c", "0.log")
	for i := range 5 {
		if err := os.WriteFile(log, []byte(strings.Repeat("x", 20)), 0o644); err != nil {
			t.Fatal(err)
		}
		n.kubelet.RotateLogs(t.Context())
		if st, err := os.Stat(log); err != nil || st.Size() != 0 {
			t.Fatalf("round %d: the log was not begun anew: %v, %v", i, st, err)
		}
	}
	old, err := filepath.Glob(log + ".*")
	if err != nil || len(old) != 2 {
		t.Errorf("old logs = %q (%v), want the 2 newest", old, err)
	}
}

// A runtime that does not begin a new log keeps its old one under its name.
func TestLogRotationRefused(t *testing.T) {
	n := start(t, func(c *kubelet.Config) { c.Logs.MaxBytes = 10 })
	p := n.create(pod("chatty", corev1.Container{Name: "c", Image: "nginx:1"}))
	n.until("chatty", "Running", running)
	n.runtime.Fail("ReopenContainerLog", os.ErrPermission)
	log := filepath.Join(n.cfg.Paths.PodLogs, "default_chatty_"+string(p.UID), "c", "0.log")
	if err := os.WriteFile(log, []byte(strings.Repeat("x", 20)), 0o644); err != nil {
		t.Fatal(err)
	}
	n.kubelet.RotateLogs(t.Context())
	if st, err := os.Stat(log); err != nil || st.Size() != 20 {
		t.Errorf("the log is %v (%v), want it as it was", st, err)
	}
}

// Under memory pressure the least important pod is evicted, with the reason; the node says so too.
func TestEviction(t *testing.T) {
	n := start(t, func(c *kubelet.Config) { c.Eviction.MemoryAvailable = 1 << 60 })
	low, high := int32(1), int32(1000)
	for name, prio := range map[string]*int32{"cheap": &low, "dear": &high} {
		p := pod(name, corev1.Container{Name: "c", Image: "nginx:1"})
		p.Spec.Priority = prio
		n.create(p)
		n.until(name, "Running", running)
	}
	n.kubelet.CheckPressure(t.Context())
	got := n.until("cheap", "evicted", phase(corev1.PodFailed))
	if got.Status.Reason != "Evicted" || !strings.HasPrefix(got.Status.Message, "The node was low on resource: memory.") ||
		condition(got, corev1.DisruptionTarget) != corev1.ConditionTrue {
		t.Errorf("status = %+v", got.Status)
	}
	if p := n.until("dear", "there", func(p *corev1.Pod) bool { return p != nil }); p.Status.Phase != corev1.PodRunning {
		t.Errorf("the dearer pod is %s", p.Status.Phase)
	}
}

// A pod that fills its emptyDir past its limit is evicted; a sparse file counts for what it takes (PS10).
func TestHostile_PS10(t *testing.T) {
	n := start(t, nil)
	limit := resource.MustParse("64Ki")
	for _, name := range []string{"sparse", "full"} {
		p := pod(name, corev1.Container{Name: "c", Image: "nginx:1", VolumeMounts: []corev1.VolumeMount{{Name: "v", MountPath: "/v"}}})
		p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &limit}}}}
		p = n.create(p)
		n.until(name, "Running", running)
		dir := filepath.Join(n.cfg.Paths.Root, "pods", string(p.UID), "volumes", "kubernetes.io~empty-dir", "v")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		f, err := os.Create(filepath.Join(dir, "file"))
		if err != nil {
			t.Fatal(err)
		}
		if name == "full" {
			_, err = f.Write(make([]byte, 1<<20))
		} else {
			err = f.Truncate(1 << 30)
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	n.kubelet.CheckPressure(t.Context())
	got := n.until("full", "evicted", phase(corev1.PodFailed))
	if want := `Usage of EmptyDir volume "v" exceeds the limit "64Ki". `; got.Status.Message != want {
		t.Errorf("message = %q, want %q", got.Status.Message, want)
	}
	if p := n.until("sparse", "there", func(p *corev1.Pod) bool { return p != nil }); p.Status.Phase != corev1.PodRunning {
		t.Errorf("the pod with a sparse file is %s", p.Status.Phase)
	}
}

// Of unused images the longest unused go first, none that is pinned, in use or new.
func TestRemovable(t *testing.T) {
	now := time.Now()
	uses := map[string]kubelet.ImageUse{}
	image := func(id string, used time.Duration, pinned bool) *runtimeapi.Image {
		uses[id] = kubelet.ImageUse{First: now.Add(-time.Hour), Used: now.Add(-used)}
		return &runtimeapi.Image{Id: id, Size: 100, Pinned: pinned}
	}
	all := []*runtimeapi.Image{image("recent", time.Minute, false), image("old", time.Hour, false), image("pinned", 2*time.Hour, true), image("busy", 2*time.Hour, false)}
	uses["new"] = kubelet.ImageUse{First: now}
	all = append(all, &runtimeapi.Image{Id: "new", Size: 100})
	var got []string
	for _, i := range kubelet.Removable(all, map[string]bool{"busy": true}, uses, 100, 2*time.Minute, now) {
		got = append(got, i.GetId())
	}
	if len(got) != 1 || got[0] != "old" {
		t.Errorf("for 100 bytes: %q, want [old]", got)
	}
	if n := len(kubelet.Removable(all, map[string]bool{"busy": true}, uses, 1<<40, 2*time.Minute, now)); n != 2 {
		t.Errorf("for all there is: %d images, want 2", n)
	}
}
