package metrics

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func TestUsage(t *testing.T) {
	epoch := time.Unix(1000, 0)
	at := func(s, cpu int) Counter {
		return Counter{At: epoch.Add(time.Duration(s) * time.Second), Start: epoch, CPU: uint64(cpu) * 1e9, Memory: 4096}
	}
	again := at(20, 1)
	again.Start = epoch.Add(16 * time.Second)
	before := at(10, 5)
	for name, c := range map[string]struct {
		old    *Counter
		now    Counter
		milli  int64
		window time.Duration
		known  bool
	}{
		"between two looks":         {&before, at(20, 10), 500, 10 * time.Second, true},
		"since its start":           {nil, at(20, 10), 500, 20 * time.Second, true},
		"began anew since":          {&before, again, 250, 4 * time.Second, true},
		"no time has passed":        {&before, before, 0, 0, false},
		"started when, nobody says": {nil, Counter{At: epoch, CPU: 7}, 0, 0, false},
	} {
		u, ok := between(c.old, c.now)
		if ok != c.known || u.list.Cpu().MilliValue() != c.milli || u.window != c.window {
			t.Errorf("%s: %v over %s, %v", name, u.list.Cpu(), u.window, ok)
		}
	}
}

func TestPodIsWholeOrNot(t *testing.T) {
	now := time.Unix(1000, 0)
	runs := func(name string) corev1.ContainerStatus {
		return corev1.ContainerStatus{Name: name, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}
	}
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", UID: "u"}, Status: corev1.PodStatus{Phase: corev1.PodRunning,
		ContainerStatuses:     []corev1.ContainerStatus{runs("a"), {Name: "ended"}},
		InitContainerStatuses: []corev1.ContainerStatus{runs("sidecar")}}}
	c := Counter{At: now, Start: now.Add(-time.Second), CPU: 1e9}
	half := Sample{Pods: map[types.UID]map[string]Counter{"u": {"a": c}}}
	if _, ok := OfPod(p, Sample{}, half); ok {
		t.Error("a pod was measured without its sidecar")
	}
	whole := Sample{Pods: map[types.UID]map[string]Counter{"u": {"a": c, "sidecar": c}}}
	if m, ok := OfPod(p, Sample{}, whole); !ok || len(m.Containers) != 2 {
		t.Errorf("%v, %v", m, ok)
	}
	p.Status.Phase = corev1.PodSucceeded
	if _, ok := OfPod(p, Sample{}, whole); ok {
		t.Error("an ended pod was measured")
	}
}
