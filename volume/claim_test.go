package volume

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// claimed is a pod with a claim that is bound to a volume.
func claimed(m *Manager, uid string, pv *corev1.PersistentVolume) *corev1.Pod {
	pv.Name, pv.Spec.ClaimRef = "pv", &corev1.ObjectReference{UID: "c"}
	bound := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "claim", UID: "c", Annotations: map[string]string{bindCompleted: "yes"}},
		Spec: corev1.PersistentVolumeClaimSpec{VolumeName: "pv"}, Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound}}
	m.deps.GetClaim = func(context.Context, string, string) (*corev1.PersistentVolumeClaim, error) { return bound, nil }
	m.deps.GetVolume = func(context.Context, string) (*corev1.PersistentVolume, error) { return pv, nil }
	p := pod(vol("v", corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "claim"}}))
	p.UID = types.UID(uid)
	return p
}

// TestOnePodOnly: the second pod of a volume that is for one pod waits, whatever kind the volume is of and who remembers, until the first has gone.
func TestOnePodOnly(t *testing.T) {
	for kind, source := range map[string]corev1.PersistentVolumeSource{
		"host":  {HostPath: &corev1.HostPathVolumeSource{Path: t.TempDir()}},
		"local": {Local: &corev1.LocalVolumeSource{Path: t.TempDir()}},
	} {
		t.Run(kind, func(t *testing.T) {
			m, _ := setup(t)
			pv := &corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{PersistentVolumeSource: source, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod}}}
			first, second := claimed(m, "uid-1", pv), claimed(m, "uid-2", pv)
			mustMount(t, m, first)
			mustMount(t, m, first) // it is not in its own way
			again := New(m.cfg, m.deps)
			for _, m := range []*Manager{m, again} {
				if _, err := m.Mount(t.Context(), second); err == nil || !strings.Contains(err.Error(), "uses the ReadWriteOncePod access mode and is already in use by another pod") {
					t.Fatalf("the second pod is told %v", err)
				}
			}
			mustMount(t, m, first) // nor is one that was refused
			if err := m.Unmount(t.Context(), first.UID); err != nil {
				t.Fatal(err)
			}
			mustMount(t, m, second)
		})
	}
	// With other modes beside it, nobody knows what the pods meant.
	m, _ := setup(t)
	pv := &corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: t.TempDir()}},
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod, corev1.ReadWriteOnce}}}
	mustMount(t, m, claimed(m, "uid-1", pv))
	mustMount(t, m, claimed(m, "uid-2", pv))
}

// TestMountOptions: a local volume has the options that a folder can have; one that it cannot have is named, and a path of the node has none.
func TestMountOptions(t *testing.T) {
	m, _ := setup(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "old"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	pv := &corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{MountOptions: []string{"ro", "noexec", "noatime"},
		PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: dir}}}}
	p := claimed(m, "uid-1", pv)
	p.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: new(int64)}
	at := mustMount(t, m, p)["v"]
	var st unix.Statfs_t
	if err := unix.Statfs(at.HostPath, &st); err != nil {
		t.Fatal(err)
	}
	if want := int64(unix.ST_RDONLY | unix.ST_NOEXEC | unix.ST_NOATIME); int64(st.Flags)&want != want || !at.ReadOnly {
		t.Errorf("the mount's flags are %#x, read-only %t", st.Flags, at.ReadOnly)
	}
	if err := os.WriteFile(filepath.Join(at.HostPath, "new"), nil, 0o600); err == nil {
		t.Error("it can be written to")
	}
	if err := os.WriteFile(filepath.Join(dir, "new"), nil, 0o600); err != nil {
		t.Errorf("the folder itself cannot: %v", err)
	}
	pv.Spec.MountOptions = []string{"noatime", "vers=4"}
	if _, err := m.Mount(t.Context(), claimed(m, "uid-2", pv)); err == nil || !strings.Contains(err.Error(), `option "vers=4"`) {
		t.Errorf("an option of another filesystem: %v", err)
	}
	pv.Spec.PersistentVolumeSource = corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: dir}}
	if _, err := m.Mount(t.Context(), claimed(m, "uid-3", pv)); err == nil || !strings.Contains(err.Error(), `mount options are not supported for this volume type (host-path)`) {
		t.Errorf("options of a path: %v", err)
	}
}

// TestGroupOnce: a volume is given to its pod's group when it comes to the pod: not when the pod's other volumes are brought up to date,
// and not once more after a restart, unless that was cut short.
func TestGroupOnce(t *testing.T) {
	m, _ := setup(t)
	dir, group := t.TempDir(), int64(3000)
	file := filepath.Join(dir, "f")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p := claimed(m, "uid-1", &corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: dir}}}})
	p.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: &group}
	mount := func() error { _, err := m.Mount(t.Context(), p); return err }
	for _, step := range []struct {
		what string
		path string // given to group 4000 before
		do   func() error
		want uint32 // the file's group
	}{
		{"mounted", file, mount, 3000},
		{"brought up to date", file, func() error { return m.Refresh(t.Context(), p) }, 4000},
		{"mounted after a restart", file, mount, 4000},
		{"mounted after a restart in between", dir, mount, 3000},
	} {
		if err := os.Chown(step.path, -1, 4000); err != nil {
			t.Fatal(err)
		}
		if err := step.do(); err != nil {
			t.Fatal(step.what, err)
		}
		var st unix.Stat_t
		if err := unix.Stat(file, &st); err != nil || st.Gid != step.want {
			t.Errorf("%s: the file's group is %d, %v; want %d", step.what, st.Gid, err, step.want)
		}
	}
}
