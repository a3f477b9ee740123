package qos

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

func TestParents(t *testing.T) {
	for _, c := range []struct{ root, class, fs, slice string }{
		{"/", "", "/kubepods/pod1-2", "/kubepods.slice/kubepods-pod1_2.slice"},
		{"/", "burstable", "/kubepods/burstable/pod1-2", "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice"},
		{"/my-root/x", "besteffort", "/my-root/x/kubepods/besteffort/pod1-2",
			"/my_root.slice/my_root-x.slice/my_root-x-kubepods.slice/my_root-x-kubepods-besteffort.slice/my_root-x-kubepods-besteffort-pod1_2.slice"},
	} {
		for systemd, want := range map[bool]string{false: c.fs, true: c.slice} {
			tree := NewTree(Config{Root: c.root, Systemd: systemd})
			got := tree.pod(c.class, "1-2")
			if got != want {
				t.Errorf("systemd %v, %s in %s: %s, want %s", systemd, c.class, c.root, got, want)
			}
			if uid, is := tree.uidOf(c.class, got[len(tree.group(c.class))+1:]); !is || uid != "1-2" {
				t.Errorf("systemd %v: %s is read as the pod %q, %v", systemd, got, uid, is)
			}
		}
	}
	tree := NewTree(Config{Systemd: true})
	for _, other := range []string{"kubepods-burstable.slice", "kubepods-pod1.scope", "kubepods-pod1", "pod1"} {
		if uid, is := tree.uidOf("", other); is {
			t.Errorf("%s is taken for the pod %s", other, uid)
		}
	}
	pod := &corev1.Pod{}
	pod.UID = types.UID("a-b")
	if got := tree.Parent(pod); got != "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-poda_b.slice" {
		t.Errorf("a pod without requests is at %s", got)
	}
}
