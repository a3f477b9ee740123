package csi

import (
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"keelson.dev/keelson/controlplane/controller"
)

// using is a pod on a node with a claim, bound to a volume of the driver.
func using(node string) []runtime.Object {
	return []runtime.Object{
		&corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv"}, Spec: corev1.PersistentVolumeSpec{AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			ClaimRef:               &corev1.ObjectReference{Namespace: "ns", Name: "claim", UID: "claim"},
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: driverName, VolumeHandle: "h"}}}},
		&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "claim", UID: "claim"}, Spec: corev1.PersistentVolumeClaimSpec{VolumeName: "pv"}},
		podOn(node),
	}
}

func podOn(node string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "pod-" + node}, Spec: corev1.PodSpec{NodeName: node, Volumes: []corev1.Volume{{Name: "v",
		VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "claim"}}}}}}
}

// attachment is the one that is there; nil for none.
func attachment(t *testing.T, client kubernetes.Interface) *storagev1.VolumeAttachment {
	t.Helper()
	list, err := client.StorageV1().VolumeAttachments().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(list.Items) > 1 {
		t.Fatalf("%d attachments", len(list.Items))
	}
	if len(list.Items) == 0 {
		return nil
	}
	return &list.Items[0]
}

// inUse is a node that is ready and has the volume in use.
func inUse(n *corev1.Node) *corev1.Node {
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	n.Status.VolumesInUse = []corev1.UniqueVolumeName{"kubernetes.io/csi/" + driverName + "^h"}
	return n
}

// state writes what a node says of itself.
func state(t *testing.T, client kubernetes.Interface, node string, ready, used bool, taints ...corev1.Taint) {
	t.Helper()
	n, err := client.CoreV1().Nodes().Get(t.Context(), node, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	status := corev1.ConditionUnknown
	if ready {
		status = corev1.ConditionTrue
	}
	n.Spec.Taints, n.Status.VolumesInUse = taints, nil
	if used {
		n = inUse(n)
	}
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: status}}
	if _, err := client.CoreV1().Nodes().Update(t.Context(), n, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func dropPod(t *testing.T, client kubernetes.Interface, node string) {
	t.Helper()
	if err := client.CoreV1().Pods("ns").Delete(t.Context(), "pod-"+node, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

// TestAttach: a pod's volume is attached by the driver, whose refusal is written down and tried again; what is attached to one node is not to
// another; it stays while the node has it in use.
func TestAttach(t *testing.T) {
	m := start(t)
	m.refuse["ControllerPublishVolume"] = errors.New("no such disk")
	objects := append(append(on("a"), on("b")...), append(using("a"), driverObject(false))...)
	inUse(objects[0].(*corev1.Node))
	client, events := run(t, m, []func(controller.Deps, Drivers) (*controller.Loop, error){NewAttachDetach, NewAttacher}, objects...)
	eventually(t, "the refusal is written down", func() bool {
		a := attachment(t, client)
		return a != nil && a.Status.AttachError != nil && strings.Contains(a.Status.AttachError.Message, "no such disk")
	})
	m.set(func() { delete(m.refuse, "ControllerPublishVolume") })
	m.comes(true)
	eventually(t, "it is attached", func() bool {
		a := attachment(t, client)
		return a.Status.Attached && a.Status.AttachmentMetadata["on"] == "id-a" && a.Status.AttachError == nil && slices.Contains(a.Finalizers, attacherFinalizer(driverName))
	})
	if pv, err := client.CoreV1().PersistentVolumes().Get(t.Context(), "pv", metav1.GetOptions{}); err != nil || !slices.Contains(pv.Finalizers, attacherFinalizer(driverName)) {
		t.Errorf("the volume's finalizers: %v %v", pv.Finalizers, err)
	}
	if _, err := client.CoreV1().Pods("ns").Create(t.Context(), podOn("b"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the second pod is told", func() bool {
		select {
		case e := <-events.Events:
			return strings.Contains(e, "Multi-Attach error")
		default:
			return false
		}
	})
	dropPod(t, client, "b")
	dropPod(t, client, "a")
	state(t, client, "a", true, true, corev1.Taint{Key: "anything", Effect: corev1.TaintEffectNoExecute})
	if attachment(t, client) == nil {
		t.Fatal("detached from a node that has it in use")
	}
	state(t, client, "a", true, false)
	eventually(t, "it is detached", func() bool { return attachment(t, client) == nil })
}

// TestAttach_Force: a node that reported a volume in use and then fell silent keeps it for six minutes; one that is out of service does not.
func TestAttach_Force(t *testing.T) {
	for _, tainted := range []bool{false, true} {
		m := start(t)
		var late, looks atomic.Int64
		began := time.Now()
		now := func() time.Time { looks.Add(1); return began.Add(time.Duration(late.Load())) }
		timed := func(d controller.Deps, drivers Drivers) (*controller.Loop, error) {
			return attachDetach(d, drivers, now)
		}
		objects := append(on("a"), append(using("a"), driverObject(false))...)
		inUse(objects[0].(*corev1.Node))
		client, _ := run(t, m, []func(controller.Deps, Drivers) (*controller.Loop, error){timed}, objects...)
		eventually(t, "an attachment is made", func() bool { return attachment(t, client) != nil })
		dropPod(t, client, "a")
		// stays has the controller look twice: at the second time it is done with the first.
		stays := func(what string) {
			t.Helper()
			for range 2 {
				before := looks.Load()
				state(t, client, "a", true, true)
				state(t, client, "a", false, true)
				eventually(t, what, func() bool { return looks.Load() > before })
			}
			if attachment(t, client) == nil {
				t.Fatal(what)
			}
		}
		stays("a node that just fell silent")
		late.Store(int64(forceAfter - time.Second))
		stays("a node that is silent for less than its time")
		if tainted {
			state(t, client, "a", false, true, corev1.Taint{Key: corev1.TaintNodeOutOfService, Effect: corev1.TaintEffectNoExecute})
		} else {
			late.Store(int64(2 * forceAfter))
			state(t, client, "a", true, true)
			state(t, client, "a", false, true)
		}
		eventually(t, "it is detached", func() bool { return attachment(t, client) == nil })
	}
}

// TestForeignAttachments: an attachment that this controller made goes once nobody wants it, even without its volume; one that somebody else made stays.
func TestForeignAttachments(t *testing.T) {
	of := func(name, volume string) *storagev1.VolumeAttachment {
		return &storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}, Spec: storagev1.VolumeAttachmentSpec{Attacher: "other.driver", NodeName: "a", Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: &volume}}}
	}
	ours, others := of(namePrefix+strings.Repeat("a", 64), "gone"), of("a-user-made-it", "never")
	client, _ := run(t, start(t), []func(controller.Deps, Drivers) (*controller.Loop, error){NewAttachDetach}, append(on("a"), others, ours)...)
	eventually(t, "ours goes", func() bool {
		list, err := client.StorageV1().VolumeAttachments().List(t.Context(), metav1.ListOptions{})
		return err == nil && !slices.ContainsFunc(list.Items, func(v storagev1.VolumeAttachment) bool { return v.Name == ours.Name })
	})
	if a := attachment(t, client); a == nil || a.Name != others.Name {
		t.Errorf("what is left is %v, want the attachment that somebody else made", a)
	}
}

// TestDetach: the driver detaches before attachment and volume are let go; one that refuses is asked again; one that knows nothing of it has done it.
func TestDetach(t *testing.T) {
	m := start(t)
	m.attached["h"] = "id-a"
	m.refuse["ControllerUnpublishVolume"] = errors.New("busy")
	objects := using("a")
	pv := objects[0].(*corev1.PersistentVolume)
	pv.Finalizers = []string{attacherFinalizer(driverName)}
	gone := metav1.Now()
	a := &storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{Name: "a", UID: "a", DeletionTimestamp: &gone, Finalizers: []string{attacherFinalizer(driverName)}, Annotations: map[string]string{nodeIDAnnotation: "id-a"}},
		Spec: storagev1.VolumeAttachmentSpec{Attacher: driverName, NodeName: "a", Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: &pv.Name}}, Status: storagev1.VolumeAttachmentStatus{Attached: true}}
	client, _ := run(t, m, []func(controller.Deps, Drivers) (*controller.Loop, error){NewAttacher}, append(objects, a, driverObject(false))...)
	eventually(t, "the refusal is written down", func() bool {
		a := attachment(t, client)
		return a.Status.DetachError != nil && strings.Contains(a.Status.DetachError.Message, "busy") && len(a.Finalizers) == 1
	})
	m.set(func() { delete(m.refuse, "ControllerUnpublishVolume") })
	m.comes(true)
	eventually(t, "attachment and volume are let go", func() bool {
		pv, err := client.CoreV1().PersistentVolumes().Get(t.Context(), "pv", metav1.GetOptions{})
		a, err2 := client.StorageV1().VolumeAttachments().Get(t.Context(), "a", metav1.GetOptions{})
		return err == nil && len(pv.Finalizers) == 0 && (apierrors.IsNotFound(err2) || err2 == nil && len(a.Finalizers) == 0)
	})
	m.set(func() {
		if len(m.attached) != 0 {
			t.Errorf("the driver still has %v", m.attached)
		}
	})
}
