package kubelet_test

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// The daemon dies right after each step of a pod's start. A new one finishes the work: the pod runs, in one sandbox,
// with every container running once.
func TestHostile_ND1(t *testing.T) {
	for _, step := range []string{"RunPodSandbox", "PullImage", "CreateContainer", "StartContainer"} {
		for nth := 1; nth <= 2; nth++ {
			if step == "RunPodSandbox" && nth > 1 {
				continue // there is only one
			}
			t.Run(fmt.Sprintf("%s/%d", step, nth), func(t *testing.T) {
				n := start(t, nil)
				dieAfter(n, step, nth)
				n.create(pod("web", corev1.Container{Name: "a", Image: "nginx:1"}, corev1.Container{Name: "b", Image: "redis:1"}))
				n.until("web", "the daemon's death", func(*corev1.Pod) bool { return n.dead() })
				n.stop()
				n.run()
				for _, c := range n.until("web", "Running after the restart", running).Status.ContainerStatuses {
					if c.RestartCount != 0 {
						t.Errorf("%s counts %d restarts; it ran once", c.Name, c.RestartCount)
					}
				}
				boxes := 0
				for _, call := range n.runtime.Journal() {
					if strings.HasPrefix(call, "RunPodSandbox") {
						boxes++
					}
				}
				if boxes != 1 || n.runtime.Running("web", "a") != 1 || n.runtime.Running("web", "b") != 1 {
					t.Errorf("%d sandboxes, a runs %d times, b %d times; want one of each: %q",
						boxes, n.runtime.Running("web", "a"), n.runtime.Running("web", "b"), n.runtime.Journal())
				}
			})
		}
	}
}

// A restart of the daemon is not the pod's: what was ready stays ready while the probes begin anew.
func TestRestartKeepsReadiness(t *testing.T) {
	n := start(t, nil)
	c := corev1.Container{Name: "a", Image: "nginx:1"}
	exec := corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"true"}}}
	c.StartupProbe = &corev1.Probe{ProbeHandler: exec, PeriodSeconds: 1}
	c.ReadinessProbe = &corev1.Probe{ProbeHandler: exec, PeriodSeconds: 1}
	var second atomic.Bool
	answer := make(chan struct{})
	n.runtime.OnExec = func(string, []string) (string, int32) {
		if second.Load() {
			<-answer
		}
		return "", 0
	}
	n.create(pod("web", c))
	n.until("web", "Ready", running)
	n.stop()
	second.Store(true)
	n.run()
	defer close(answer)
	// The second daemon's probes have no answer yet. By the time that another pod runs it has said of the first what it has to say.
	n.create(pod("next", corev1.Container{Name: "n", Image: "nginx:1"}))
	n.until("next", "Running", running)
	if p := n.until("web", "still ready", func(*corev1.Pod) bool { return true }); !running(p) {
		t.Errorf("the pod's status in between: %+v", p.Status)
	}
}

// The daemon dies right after each step of a pod's end. A new one finishes the work: nothing is left anywhere.
func TestHostile_ND2(t *testing.T) {
	for _, step := range []string{"StopContainer", "StopPodSandbox", "RemoveContainer", "RemovePodSandbox"} {
		t.Run(step, func(t *testing.T) {
			n := start(t, nil)
			n.create(pod("web", corev1.Container{Name: "a", Image: "nginx:1"}, corev1.Container{Name: "b", Image: "redis:1"}))
			n.until("web", "Running", running)
			dieAfter(n, step, 1)
			n.delete("web", 5)
			n.until("web", "the daemon's death", func(*corev1.Pod) bool { return n.dead() })
			n.stop()
			n.run()
			n.until("web", "gone after the restart", isGone)
			if !n.runtime.Empty() {
				t.Errorf("the runtime still holds something: %q", n.runtime.Journal())
			}
		})
	}
}

// While the daemon is dead the runtime loses track of a pod's container. The pod goes when it is deleted, and the container is
// stopped once, not over and over.
func TestUnknownContainerGoes(t *testing.T) {
	n := start(t, nil)
	n.create(pod("web", corev1.Container{Name: "a", Image: "nginx:1"}))
	n.until("web", "Running", running)
	n.stop()
	n.runtime.Lose("web")
	n.delete("web", 5)
	n.run()
	n.until("web", "gone", isGone)
	stops := 0
	for _, call := range n.runtime.Journal() {
		if strings.HasPrefix(call, "StopContainer") {
			stops++
		}
	}
	if stops != 1 || !n.runtime.Empty() {
		t.Errorf("%d stops, nothing left %v: %q", stops, n.runtime.Empty(), n.runtime.Journal())
	}
}

// dieAfter ends the kubelet after the nth success of a call, before it hears of it.
func dieAfter(n *node, method string, nth int) {
	var mu sync.Mutex
	seen := 0
	n.runtime.OnCall(func(m string) {
		mu.Lock()
		defer mu.Unlock()
		if m != method {
			return
		}
		if seen++; seen == nth {
			n.kill()
			n.died.Store(true)
		}
	})
}
