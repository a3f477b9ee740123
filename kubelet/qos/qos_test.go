package qos

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func res(cpuReq, memReq, cpuLim, memLim string) corev1.ResourceRequirements {
	list := func(cpu, mem string) corev1.ResourceList {
		out := corev1.ResourceList{}
		if cpu != "" {
			out[corev1.ResourceCPU] = resource.MustParse(cpu)
		}
		if mem != "" {
			out[corev1.ResourceMemory] = resource.MustParse(mem)
		}
		return out
	}
	return corev1.ResourceRequirements{Requests: list(cpuReq, memReq), Limits: list(cpuLim, memLim)}
}

func podOf(all ...corev1.ResourceRequirements) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u1"}}
	for i, r := range all {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: fmt.Sprint(i), Resources: r})
	}
	return p
}

func TestClass(t *testing.T) {
	for want, pods := range map[corev1.PodQOSClass][]*corev1.Pod{
		corev1.PodQOSBestEffort: {podOf(res("", "", "", "")), podOf(res("0", "0", "", ""))},
		corev1.PodQOSBurstable:  {podOf(res("1", "", "", "")), podOf(res("1", "1Gi", "1", "1Gi"), res("", "", "", "")), podOf(res("1", "1Gi", "2", "1Gi"))},
		corev1.PodQOSGuaranteed: {podOf(res("1", "1Gi", "1", "1Gi")), podOf(res("", "", "1", "1Gi"), res("2", "2Gi", "2", "2Gi"))},
	} {
		for i, p := range pods {
			if got := Class(p); got != want {
				t.Errorf("%s, case %d: got %s", want, i, got)
			}
		}
	}
}

func TestOOMScoreAdj(t *testing.T) {
	for _, c := range []struct {
		pod  *corev1.Pod
		want int64
	}{
		{podOf(res("", "", "", "")), 1000}, {podOf(res("1", "1Gi", "1", "1Gi")), -997},
		{podOf(res("", "1Gi", "", "")), 750}, {podOf(res("", "4Gi", "", "")), 3}, {podOf(res("1", "", "", "")), 999},
	} {
		if got := OOMScoreAdj(c.pod, &c.pod.Spec.Containers[0], 4<<30); got != c.want {
			t.Errorf("%v: got %d, want %d", c.pod.Spec.Containers[0].Resources, got, c.want)
		}
	}
}

// A container out of memory ends whole where the kernel can do that, unless the node is set to end the one process.
func TestHostile_OC21(t *testing.T) {
	for _, c := range []struct {
		v2, single bool
		want       string
	}{{true, false, "1"}, {true, true, ""}, {false, false, ""}} {
		tree, p := &Tree{v2: c.v2, cfg: Config{SingleProcessOOMKill: c.single}}, podOf(res("", "", "", "64Mi"))
		if got := Container(p, &p.Spec.Containers[0], 1<<30, tree.OOMGroup()).Unified["memory.oom.group"]; got != c.want {
			t.Errorf("%+v: memory.oom.group %q", c, got)
		}
	}
}

func TestPodLimits(t *testing.T) {
	if s, q, m := Pod(podOf(res("250m", "", "500m", "64Mi"), res("250m", "", "", ""))); s != 512 || q != 0 || m != 0 {
		t.Errorf("one unlimited container: shares %d quota %d memory %d, want 512 0 0", s, q, m)
	}
	if s, q, m := Pod(podOf(res("", "", "500m", "64Mi"), res("", "", "250m", "64Mi"))); s != 2 || q != 75000 || m != 128<<20 {
		t.Errorf("all limited: shares %d quota %d memory %d, want quota 75000 memory 128Mi", s, q, m)
	}
}

func TestTree(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes cgroups")
	}
	root := fmt.Sprintf("/keelson-test-%d-qos", os.Getpid())
	tree := NewTree(Config{Root: root, AllocatableMilliCPU: 2000, AllocatableMemory: 1 << 30})
	t.Cleanup(func() {
		for _, h := range hierarchies(tree.v2) {
			if err := removeAll(filepath.Join(h, root)); err != nil {
				t.Errorf("clean up: %v", err)
			}
		}
	})
	if err := tree.Setup(); err != nil {
		t.Fatal(err)
	}
	p := podOf(res("500m", "32Mi", "1", "64Mi"))
	if err := tree.Ensure(p); err != nil {
		t.Fatal(err)
	}
	if want := root + "/kubepods/burstable/podu1"; tree.Parent(p) != want {
		t.Errorf("parent = %s, want %s", tree.Parent(p), want)
	}
	read := func(v1, v2 string) string {
		t.Helper()
		f := filepath.Join("/sys/fs/cgroup", tree.Parent(p), v2)
		if !tree.v2 {
			ctrl, _, _ := strings.Cut(v1, ".")
			f = filepath.Join("/sys/fs/cgroup", ctrl, tree.Parent(p), v1)
		}
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(b))
	}
	if got := read("memory.limit_in_bytes", "memory.max"); got != fmt.Sprint(64<<20) {
		t.Errorf("memory limit of the pod = %s, want 64Mi", got)
	}
	p.Spec.Containers[0].Resources = res("500m", "32Mi", "", "")
	if err := tree.Ensure(p); err != nil {
		t.Fatalf("take the limit off: %v", err)
	}
	if got := read("memory.limit_in_bytes", "memory.max"); got == fmt.Sprint(64<<20) {
		t.Error("the old memory limit is still in force")
	}
	if got := tree.Pods(); len(got) != 1 || got[0] != "u1" {
		t.Errorf("Pods = %v, want [u1]", got)
	}
	for range 2 { // removing is idempotent
		if err := tree.Remove(p.UID); err != nil {
			t.Fatal(err)
		}
	}
	if got := tree.Pods(); len(got) != 0 {
		t.Errorf("Pods after removal = %v", got)
	}
}
