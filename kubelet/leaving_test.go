package kubelet_test

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/kubelet"
	"keelson.dev/keelson/kubelet/shutdown/logindtest"
)

// The machine shuts down (HOSTILE ND18): the node is no longer ready and refuses pods, those that run end by priority and
// are told as ended, and only then is the shutdown let go on, long before logind would lose its patience. When it is
// called off, the node takes pods again.
func TestHostile_ND18(t *testing.T) {
	l := logindtest.Start(t, 5*time.Minute)
	n := start(t, func(c *kubelet.Config) {
		c.Shutdown = kubelet.Shutdown{Bus: l.Bus, Grace: 4 * time.Minute, Critical: time.Minute}
	})
	lock := <-l.Locks
	for name, priority := range map[string]int32{"web": 0, "dns": 2_000_000_000} {
		p := pod(name, corev1.Container{Name: name, Image: "nginx:1"})
		p.Spec.Priority = &priority
		n.create(p)
		n.until(name, "Running", running)
	}
	if err := l.Shutdown(true); err != nil {
		t.Fatal(err)
	}
	select {
	case <-lock.Released:
	case <-time.After(30 * time.Second):
		t.Fatalf("the machine still waits; runtime did %q", n.runtime.Journal())
	}
	for _, name := range []string{"web", "dns"} {
		got := n.until(name, "Failed", phase(corev1.PodFailed))
		if got.Status.Reason != "Terminated" || condition(got, corev1.DisruptionTarget) != corev1.ConditionTrue {
			t.Errorf("%s: %s, conditions %+v", name, got.Status.Reason, got.Status.Conditions)
		}
		if n.runtime.Running(name, name) != 0 {
			t.Errorf("%s still runs", name)
		}
	}
	if story := strings.Join(n.runtime.Journal(), ", "); strings.Index(story, "StopContainer web") > strings.Index(story, "StopContainer dns") {
		t.Errorf("the critical pod ended before the other: %s", story)
	}
	n.readiness(corev1.ConditionFalse, "shutting down")
	n.create(pod("late", corev1.Container{Name: "c", Image: "nginx:1"}))
	if got := n.until("late", "refused", phase(corev1.PodFailed)); got.Status.Reason != "NodeShutdown" {
		t.Errorf("reason %s", got.Status.Reason)
	}
	if err := l.Shutdown(false); err != nil {
		t.Fatal(err)
	}
	again := <-l.Locks
	n.readiness(corev1.ConditionTrue, "")
	n.create(pod("next", corev1.Container{Name: "c", Image: "nginx:1"}))
	n.until("next", "Running", running)

	// The end of the kubelet alone is not the machine's: pods stay.
	n.stop()
	<-again.Released
	if n.runtime.Running("next", "c") != 1 {
		t.Error("a pod ended with the kubelet")
	}
}

// readiness waits for the node's Ready condition.
func (n *node) readiness(want corev1.ConditionStatus, says string) {
	n.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		node, err := n.client.CoreV1().Nodes().Get(n.t.Context(), "node-1", metav1.GetOptions{})
		if err != nil {
			n.t.Fatal(err)
		}
		for _, c := range node.Status.Conditions {
			if c.Type == corev1.NodeReady && c.Status == want && strings.Contains(c.Message, says) {
				return
			}
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("the node is not Ready=%s (%s): %+v", want, says, node.Status.Conditions)
		}
	}
}
