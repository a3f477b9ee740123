package kubelet_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Pods with users of their own have blocks of IDs that do not meet, keep them over a restart of the daemon, and give them back. A runtime that
// cannot do it gets no such pod.
func TestUserNamespaces(t *testing.T) {
	n := start(t, nil)
	own := false
	make := func(name string) {
		p := pod(name, corev1.Container{Name: "a", Image: "nginx:1"})
		p.Spec.HostUsers = &own
		n.create(p)
	}
	first := func(name string) uint32 {
		t.Helper()
		box := n.runtime.Sandbox(name)
		u := box.GetLinux().GetSecurityContext().GetNamespaceOptions().GetUsernsOptions()
		if u.GetMode() != runtimeapi.NamespaceMode_POD || len(u.GetUids()) != 1 || u.GetUids()[0].GetLength() != 65536 || u.GetUids()[0].GetHostId() != u.GetGids()[0].GetHostId() {
			t.Fatalf("%s: %v", name, u)
		}
		return u.GetUids()[0].GetHostId()
	}
	make("early")
	if got := n.event("early", "FailedCreatePodSandBox"); !strings.Contains(got, "no user namespaces") {
		t.Errorf("the event says %q", got)
	}
	n.delete("early", 0)
	n.until("early", "gone", isGone)
	n.stop()
	n.runtime.Userns = true
	n.run()
	make("one")
	make("two")
	n.until("one", "Running", running)
	n.until("two", "Running", running)
	a, b := first("one"), first("two")
	if a == b || a < 65536 || b < 65536 || a%65536 != 0 {
		t.Errorf("the blocks begin at %d and %d", a, b)
	}
	n.stop()
	n.run()
	make("three")
	n.until("three", "Running", running)
	if c := first("three"); c == a || c == b {
		t.Errorf("the third pod's block begins at %d, which another has", c)
	}
	n.delete("one", 0)
	n.until("one", "gone", isGone)
	make("four")
	n.until("four", "Running", running)
	if d := first("four"); d != a {
		t.Logf("the fourth pod's block begins at %d; %d is not free yet", d, a)
	}
}
