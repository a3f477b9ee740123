package kubelet_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/kubelet"
)

// A container's status says whom it runs as, even an ID beyond 2^31 (PS19's second half), and how deep its read-only
// mounts are so.
func TestContainerStatusDetails(t *testing.T) {
	n := startWith(t, func(*kubelet.Config, *kubelet.Deps) {})
	n.stop()
	n.runtime.Recursive = true
	n.runtime.User = &runtimeapi.ContainerUser{Linux: &runtimeapi.LinuxContainerUser{Uid: 1<<31 + 5, Gid: 7, SupplementalGroups: []int64{7, 9}}}
	n.run()
	p := pod("told", corev1.Container{Name: "c", Image: "nginx:1", VolumeMounts: []corev1.VolumeMount{
		{Name: "v", MountPath: "/deep", ReadOnly: true, RecursiveReadOnly: ptr.To(corev1.RecursiveReadOnlyIfPossible)},
		{Name: "v", MountPath: "/flat", ReadOnly: true}, {Name: "v", MountPath: "/open"},
	}})
	p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	n.create(p)
	got := n.until("told", "Running", running).Status.ContainerStatuses[0]
	if u := got.User; u == nil || u.Linux == nil || u.Linux.UID != 1<<31+5 || u.Linux.GID != 7 || len(u.Linux.SupplementalGroups) != 2 {
		t.Errorf("user = %+v, want the runtime's", got.User)
	}
	want := map[string]string{"/deep": "Enabled", "/flat": "Disabled", "/open": ""}
	for _, m := range got.VolumeMounts {
		mode := string(ptr.Deref(m.RecursiveReadOnly, ""))
		if mode != want[m.MountPath] || m.Name != "v" || m.ReadOnly != (m.MountPath != "/open") {
			t.Errorf("mount status %+v (recursively read-only %q), want %q", m, mode, want[m.MountPath])
		}
		delete(want, m.MountPath)
	}
	if len(want) > 0 {
		t.Errorf("no status for the mounts at %v", want)
	}
}

// A pod that insists on what the runtime cannot do does not start without it.
func TestRecursiveReadOnlyIsNotPretended(t *testing.T) {
	n := start(t, nil)
	p := pod("strict", corev1.Container{Name: "c", Image: "nginx:1", VolumeMounts: []corev1.VolumeMount{
		{Name: "v", MountPath: "/deep", ReadOnly: true, RecursiveReadOnly: ptr.To(corev1.RecursiveReadOnlyEnabled)}}})
	p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	n.create(p)
	n.until("strict", "refused", func(p *corev1.Pod) bool {
		return p != nil && len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].State.Waiting != nil &&
			p.Status.ContainerStatuses[0].State.Waiting.Reason == "CreateContainerConfigError"
	})
}

// The runtime's word on the cgroup driver counts, not the configuration's (KEP-4033).
func TestCgroupDriverIsTheRuntimes(t *testing.T) {
	n := start(t, func(c *kubelet.Config) { c.SystemdCgroups = true }) // there is no systemd to make a slice
	n.create(pod("driven", corev1.Container{Name: "c", Image: "nginx:1"}))
	n.until("driven", "Running", running)
	if got := n.runtime.Sandbox("driven").GetLinux().GetCgroupParent(); got == "" || strings.Contains(got, ".slice") {
		t.Errorf("the pod's cgroup is %q, want one of the runtime's driver, cgroupfs", got)
	}
}
