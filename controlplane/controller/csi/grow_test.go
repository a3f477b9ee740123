package csi

import (
	"testing"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"keelson.dev/keelson/controlplane/controller/provision"
)

// growing is a bound claim of 10 MiB that wants 20, and its volume.
func growing() []runtime.Object {
	size := corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("10Mi")}
	claim := asking("fast", "")
	claim.Annotations[provision.BindCompleted] = "yes"
	claim.Spec.VolumeName, claim.Spec.Resources.Requests[corev1.ResourceStorage] = "pv", resource.MustParse("20Mi")
	claim.Status = corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound, Capacity: size.DeepCopy(),
		Conditions: []corev1.PersistentVolumeClaimCondition{{Type: corev1.PersistentVolumeClaimResizing, Status: corev1.ConditionTrue}}}
	return []runtime.Object{claim, &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv"}, Spec: corev1.PersistentVolumeSpec{Capacity: size,
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, PersistentVolumeSource: corev1.PersistentVolumeSource{
			CSI: &corev1.CSIPersistentVolumeSource{Driver: driverName, VolumeHandle: "h"}}}, Status: corev1.PersistentVolumeStatus{Phase: corev1.VolumeBound}}}
}

// TestGrow: the driver's part first, then, if the node has one too, the claim waits for it, else it has its room at once.
func TestGrow(t *testing.T) {
	for _, c := range []struct {
		what       string
		change     func(*model)
		expanded   bool
		node       bool
		event      string
		claimBytes int64
	}{
		{"driver and node", func(*model) {}, true, true, "FileSystemResizeRequired", 10 << 20},
		{"the driver alone", func(m *model) { m.alone = true }, true, false, "VolumeResizeSuccessful", 20 << 20},
		{"the node alone", func(m *model) {
			m.can = []spec.ControllerServiceCapability_RPC_Type{spec.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME}
		}, false, true, "FileSystemResizeRequired", 10 << 20},
	} {
		m := start(t)
		c.change(m)
		client, events := run(t, m, provisioning, growing()...)
		told(t, events, "Normal "+c.event)
		claim, err := client.CoreV1().PersistentVolumeClaims("ns").Get(t.Context(), "claim", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		size, pvSize := claim.Status.Capacity[corev1.ResourceStorage], volume(t, client, "pv").Spec.Capacity[corev1.ResourceStorage]
		if size.Value() != c.claimBytes || pvSize.Value() != 20<<20 || (m.count("ControllerExpandVolume") > 0) != c.expanded {
			t.Errorf("%s: claim %s, volume %s, the driver was asked %d times", c.what, size.String(), pvSize.String(), m.count("ControllerExpandVolume"))
		}
		waits := len(claim.Status.Conditions) == 1 && claim.Status.Conditions[0].Type == corev1.PersistentVolumeClaimFileSystemResizePending
		if waits != c.node || !c.node && len(claim.Status.Conditions) > 0 {
			t.Errorf("%s: conditions %+v", c.what, claim.Status.Conditions)
		}
		eventually(t, c.what+": the node hears of it, if it has to", func() bool {
			defer m.lock()()
			return len(m.grown) > 0 == c.node
		})
	}
}

// TestGrowRefused: a refusal is told, nothing is promised, and it is tried again.
func TestGrowRefused(t *testing.T) {
	m := start(t)
	m.refuse["ControllerExpandVolume"] = status.Error(codes.OutOfRange, "no such room")
	client, events := run(t, m, provisioning, growing()...)
	told(t, events, "Warning VolumeResizeFailed", "no such room")
	if size := volume(t, client, "pv").Spec.Capacity[corev1.ResourceStorage]; size.Value() != 10<<20 {
		t.Errorf("refused, and the volume has %s", size.String())
	}
	m.set(func() { delete(m.refuse, "ControllerExpandVolume") })
	m.comes(true)
	told(t, events, "Normal FileSystemResizeRequired")
}
