package csi

import (
	"slices"
	"strings"
	"testing"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/controller"
	"keelson.dev/keelson/controlplane/controller/provision"
)

// asking is a claim of a class that its provisioner is to serve, on the node if that is not empty.
func asking(class, node string) *corev1.PersistentVolumeClaim {
	c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "claim", UID: "claim", Annotations: map[string]string{
		"volume.kubernetes.io/storage-provisioner": driverName}}, Spec: corev1.PersistentVolumeClaimSpec{StorageClassName: &class,
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("10Mi")}}}}
	if node != "" {
		c.Annotations[provision.SelectedNode] = node
	}
	return c
}

var provisioning = []func(controller.Deps, Drivers) (*controller.Loop, error){NewProvisioner}

// told waits for an event that has all parts.
func told(t *testing.T, events *record.FakeRecorder, parts ...string) {
	t.Helper()
	eventually(t, "told: "+strings.Join(parts, ", "), func() bool {
		select {
		case e := <-events.Events:
			return !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(e, p) })
		default:
			return false
		}
	})
}

func volume(t *testing.T, client kubernetes.Interface, name string) *corev1.PersistentVolume {
	t.Helper()
	var pv *corev1.PersistentVolume
	eventually(t, "volume "+name, func() bool {
		var err error
		pv, err = client.CoreV1().PersistentVolumes().Get(t.Context(), name, metav1.GetOptions{})
		return err == nil
	})
	return pv
}

// TestProvision: the driver hears what class and claim say, and its volume's object says it too.
func TestProvision(t *testing.T) {
	m := start(t)
	c := class("fast", true)
	c.MountOptions, c.ReclaimPolicy = []string{"noatime", "ro"}, ptr.To(corev1.PersistentVolumeReclaimRetain)
	c.Parameters = map[string]string{"color": "blue", "csi.storage.k8s.io/fstype": "xfs", "csi.storage.k8s.io/provisioner-secret-name": "key",
		"csi.storage.k8s.io/provisioner-secret-namespace": "${pvc.namespace}", "csi.storage.k8s.io/node-stage-secret-name": "stage", "csi.storage.k8s.io/node-stage-secret-namespace": "ns"}
	key := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "key"}, Data: map[string][]byte{"word": []byte("open")}}
	client, events := run(t, m, provisioning, append(append(on("a", "node"), on("b", "node")...), c, key, asking("fast", "b"))...)
	pv := volume(t, client, "pvc-claim")
	told(t, events, "Normal ProvisioningSucceeded", "pvc-claim")
	defer m.lock()()
	r := m.made
	if r.Name != "pvc-claim" || r.CapacityRange.RequiredBytes != 10<<20 || len(r.Parameters) != 1 || r.Parameters["color"] != "blue" || r.Secrets["word"] != "open" {
		t.Errorf("asked for %v", r)
	}
	if n := len(r.VolumeCapabilities); n != 1 || r.VolumeCapabilities[0].GetMount().GetFsType() != "xfs" || !slices.Equal(r.VolumeCapabilities[0].GetMount().GetMountFlags(), c.MountOptions) {
		t.Errorf("capabilities %v", r.VolumeCapabilities)
	}
	if top := r.AccessibilityRequirements.GetRequisite(); len(top) != 1 || top[0].Segments["node"] != "b" {
		t.Errorf("topology %v: not of the chosen node alone", top)
	}
	s := pv.Spec
	if !slices.Equal(s.MountOptions, c.MountOptions) || s.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimRetain || s.ClaimRef.UID != "claim" || s.StorageClassName != "fast" ||
		s.CSI.FSType != "xfs" || s.CSI.NodeStageSecretRef == nil || s.CSI.NodeStageSecretRef.Name != "stage" || s.CSI.VolumeHandle != "pvc-claim" {
		t.Errorf("volume %+v", s)
	}
	if pv.Annotations[provision.ProvisionedBy] != driverName || pv.Annotations[deletionSecret+"name"] != "key" || !slices.Contains(pv.Finalizers, provision.Finalizer) {
		t.Errorf("volume %+v", pv.ObjectMeta)
	}
}

// TestProvisionRefused: what cannot be had is told, and goes on once it can; a node without room is not insisted on.
func TestProvisionRefused(t *testing.T) {
	m := start(t)
	m.refuse["CreateVolume"] = status.Error(codes.Unavailable, "the disks are asleep")
	client, events := run(t, m, provisioning, append(on("a", "node"), class("fast", true), asking("fast", "a"))...)
	told(t, events, "Warning ProvisioningFailed", "the disks are asleep")
	m.set(func() { m.refuse["CreateVolume"] = status.Error(codes.ResourceExhausted, "full") })
	m.comes(true)
	eventually(t, "another node is looked for", func() bool {
		c, err := client.CoreV1().PersistentVolumeClaims("ns").Get(t.Context(), "claim", metav1.GetOptions{})
		return err == nil && c.Annotations[provision.SelectedNode] == ""
	})
	m.set(func() { delete(m.refuse, "CreateVolume") })
	if _, err := client.CoreV1().PersistentVolumeClaims("ns").Update(t.Context(), asking("fast", "a"), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	volume(t, client, "pvc-claim")
}

// TestProvisionImpossible: the driver is not asked for what claim or class say wrongly.
func TestProvisionImpossible(t *testing.T) {
	for what, change := range map[string]func(*corev1.PersistentVolumeClaim, *storagev1.StorageClass){
		"csi.storage.k8s.io/secret, which is not known": func(_ *corev1.PersistentVolumeClaim, c *storagev1.StorageClass) {
			c.Parameters = map[string]string{"csi.storage.k8s.io/secret": "x"}
		},
		"claim.spec.selector is not supported": func(c *corev1.PersistentVolumeClaim, _ *storagev1.StorageClass) {
			c.Spec.Selector = &metav1.LabelSelector{}
		},
		"dataSource of the kind VolumeSnapshot": func(c *corev1.PersistentVolumeClaim, _ *storagev1.StorageClass) {
			c.Spec.DataSource = &corev1.TypedLocalObjectReference{Kind: "VolumeSnapshot", Name: "s"}
		},
		`the claim "other" to be copied is not bound`: func(c *corev1.PersistentVolumeClaim, _ *storagev1.StorageClass) {
			c.Spec.DataSource = &corev1.TypedLocalObjectReference{Kind: "PersistentVolumeClaim", Name: "other"}
		},
	} {
		m, claim, class := start(t), asking("fast", "a"), class("fast", true)
		change(claim, class)
		_, events := run(t, m, provisioning, append(on("a", "node"), class, claim)...)
		told(t, events, "Warning ProvisioningFailed", what)
		if n := m.count("CreateVolume"); n != 0 {
			t.Errorf("%s: the driver was asked %d times", what, n)
		}
	}
}

func TestVolumeFor(t *testing.T) {
	claim, class := asking("fast", ""), class("fast", false)
	for what, made := range map[string]*spec.Volume{
		"no ID":                            {CapacityBytes: 10 << 20},
		"less than the 10485760 that were": {VolumeId: "v", CapacityBytes: 5 << 20},
	} {
		if _, err := volumeFor(claim, class, parameters{}, made); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%v: %v, want %s", made, err, what)
		}
	}
	pv, err := volumeFor(claim, class, parameters{}, &spec.Volume{VolumeId: "v", CapacityBytes: 16 << 20, VolumeContext: map[string]string{"a": "b"},
		AccessibleTopology: []*spec.Topology{{Segments: map[string]string{"zone": "z", "node": "n"}}, {}}})
	if err != nil {
		t.Fatal(err)
	}
	if size := pv.Spec.Capacity[corev1.ResourceStorage]; size.Value() != 16<<20 || pv.Spec.CSI.VolumeAttributes["a"] != "b" {
		t.Errorf("%+v", pv.Spec)
	}
	terms := pv.Spec.NodeAffinity.Required.NodeSelectorTerms
	if len(terms) != 1 || len(terms[0].MatchExpressions) != 2 || terms[0].MatchExpressions[0].Key != "node" || terms[0].MatchExpressions[1].Values[0] != "z" {
		t.Errorf("%+v", terms)
	}
	if pv, err := volumeFor(claim, class, parameters{}, &spec.Volume{VolumeId: "v"}); err != nil || pv.Spec.NodeAffinity != nil {
		t.Errorf("a driver that says no size: %+v, %v", pv, err)
	}
}

// TestDeleteVolume: a volume whose claim is gone is deleted, once it is attached nowhere; one that is to be kept is not.
func TestDeleteVolume(t *testing.T) {
	released := func(name string, policy corev1.PersistentVolumeReclaimPolicy) *corev1.PersistentVolume {
		return &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{provision.ProvisionedBy: driverName}},
			Spec: corev1.PersistentVolumeSpec{PersistentVolumeReclaimPolicy: policy, PersistentVolumeSource: corev1.PersistentVolumeSource{
				CSI: &corev1.CSIPersistentVolumeSource{Driver: driverName, VolumeHandle: name}}}, Status: corev1.PersistentVolumeStatus{Phase: corev1.VolumeReleased}}
	}
	m := start(t)
	m.volumes = map[string]int64{"free": 1, "held": 1, "kept": 1}
	a := &storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Spec: storagev1.VolumeAttachmentSpec{Attacher: driverName, NodeName: "n",
		Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: ptr.To("held")}}}
	objects := []runtime.Object{released("free", corev1.PersistentVolumeReclaimDelete), released("held", corev1.PersistentVolumeReclaimDelete), released("kept", corev1.PersistentVolumeReclaimRetain), a}
	client, _ := run(t, m, provisioning, objects...)
	gone := func(name string) bool {
		_, err := client.CoreV1().PersistentVolumes().Get(t.Context(), name, metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	}
	eventually(t, "the free one is gone", func() bool { return gone("free") })
	if n := m.count("DeleteVolume"); n != 1 || gone("held") || gone("kept") {
		t.Errorf("deleted %d", n)
	}
	if err := client.StorageV1().VolumeAttachments().Delete(t.Context(), "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the other is gone once it is detached", func() bool { return gone("held") })
	if gone("kept") || m.count("DeleteVolume") != 2 {
		t.Error("the one that is to be kept was deleted")
	}
}
