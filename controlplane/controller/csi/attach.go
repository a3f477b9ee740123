package csi

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/controller"
)

// forceAfter is how long a node that does not answer keeps a volume that it last reported in use: upstream's.
const forceAfter = 6 * time.Minute

// namePrefix begins the names of attachments made here, as upstream's: a digest of volume, driver and node follows.
const namePrefix = "csi-"

// attach decides which volumes are attached to which nodes.
type attach struct {
	*base
	now func() time.Time

	mu   sync.Mutex
	kept map[types.UID]time.Time // since when an attachment that nobody wants is kept by its node; guarded by mu
}

// NewAttachDetach returns the controller that makes a VolumeAttachment for each volume that has to be attached where a pod uses it. Its keys
// are "<node>/<volume>".
func NewAttachDetach(d controller.Deps, drivers Drivers) (*controller.Loop, error) {
	return attachDetach(d, drivers, time.Now)
}

func attachDetach(d controller.Deps, drivers Drivers, now func() time.Time) (*controller.Loop, error) {
	a := &attach{base: newBase(d, drivers), now: now, kept: map[types.UID]time.Time{}}
	loop := controller.NewLoop("attachdetach", d.Log, 2, a.reconcile)
	loop.Needs(a.volumes, a.objects)
	attachment := func(v, _ *storagev1.VolumeAttachment) []string {
		keys := []string{v.Spec.NodeName + "/" + ptr.Deref(v.Spec.Source.PersistentVolumeName, "")}
		if claim := a.claimOf(ptr.Deref(v.Spec.Source.PersistentVolumeName, "")); claim != nil && v.DeletionTimestamp != nil {
			keys = append(keys, a.users(claim)...) // another node may wait for its end
		}
		return keys
	}
	return loop, errors.Join(
		controller.Watch(loop, a.attachments, attachment),
		controller.Watch(loop, a.pods, func(pod, _ *corev1.Pod) []string { return a.keys(pod) }),
		controller.Watch(loop, a.claims, func(c, _ *corev1.PersistentVolumeClaim) []string { return a.users(c) }),
		controller.Watch(loop, a.csiNodes, func(n, _ *storagev1.CSINode) []string { return a.ofNode(n.Name) }),
		controller.Watch(loop, a.nodes, func(n, old *corev1.Node) []string {
			if old != nil && slices.Equal(n.Status.VolumesInUse, old.Status.VolumesInUse) && n.DeletionTimestamp == nil &&
				controller.Ready(n) == controller.Ready(old) && controller.OutOfService(n) == controller.OutOfService(old) {
				return nil
			}
			return a.ofNode(n.Name)
		}))
}

// keys are where a pod uses volumes.
func (a *attach) keys(pod *corev1.Pod) []string {
	var out []string
	for _, name := range controller.ClaimNames(pod) {
		if c := controller.Get[corev1.PersistentVolumeClaim](a.claims, pod.Namespace+"/"+name); c != nil && c.Spec.VolumeName != "" && pod.Spec.NodeName != "" {
			out = append(out, pod.Spec.NodeName+"/"+c.Spec.VolumeName)
		}
	}
	return out
}

// users are the keys of a claim's pods.
func (a *attach) users(c *corev1.PersistentVolumeClaim) []string {
	var out []string
	if c.Spec.VolumeName == "" {
		return nil
	}
	for _, pod := range each[corev1.Pod](a.pods) {
		if pod.Namespace == c.Namespace && pod.Spec.NodeName != "" && slices.Contains(controller.ClaimNames(pod), c.Name) {
			out = append(out, pod.Spec.NodeName+"/"+c.Spec.VolumeName)
		}
	}
	return out
}

func (a *attach) ofNode(node string) []string {
	var out []string
	for _, v := range each[storagev1.VolumeAttachment](a.attachments) {
		if v.Spec.NodeName == node {
			out = append(out, node+"/"+ptr.Deref(v.Spec.Source.PersistentVolumeName, ""))
		}
	}
	for _, pod := range each[corev1.Pod](a.pods) {
		if pod.Spec.NodeName == node {
			out = append(out, a.keys(pod)...)
		}
	}
	return out
}

// claimOf is the claim that a volume is bound to.
func (a *attach) claimOf(volume string) *corev1.PersistentVolumeClaim {
	if pv := a.csiVolume(volume); pv != nil && pv.Spec.ClaimRef != nil {
		return controller.Get[corev1.PersistentVolumeClaim](a.claims, pv.Spec.ClaimRef.Namespace+"/"+pv.Spec.ClaimRef.Name)
	}
	return nil
}

// wanted is a pod that wants the volume on the node; nil for none. One that ended still has it until its object is gone or the node says otherwise.
func (a *attach) wanted(node string, pv *corev1.PersistentVolume) *corev1.Pod {
	claim := a.claimOf(pv.Name)
	if claim == nil || claim.UID != pv.Spec.ClaimRef.UID || claim.Spec.VolumeName != pv.Name {
		return nil
	}
	for _, pod := range each[corev1.Pod](a.pods) {
		if pod.Spec.NodeName == node && controller.UsesClaim(pod, claim) {
			return pod
		}
	}
	return nil
}

func (a *attach) reconcile(ctx context.Context, key string) (time.Duration, error) {
	node, volume, _ := strings.Cut(key, "/")
	pv := a.csiVolume(volume)
	var have *storagev1.VolumeAttachment
	var elsewhere []string
	for _, v := range each[storagev1.VolumeAttachment](a.attachments) {
		switch {
		case volume == "" || ptr.Deref(v.Spec.Source.PersistentVolumeName, "") != volume:
		case v.Spec.NodeName == node:
			have = v
		default:
			elsewhere = append(elsewhere, v.Spec.NodeName)
		}
	}
	var pod *corev1.Pod
	if pv != nil {
		pod = a.wanted(node, pv)
	}
	if pod != nil && have != nil {
		a.keep(have.UID, false) // somebody wants it after all
	}
	switch {
	case pod == nil && have != nil && madeHere(have):
		return a.detach(ctx, have, pv)
	case pod == nil || have != nil || !a.attaches(pv.Spec.CSI.Driver) || a.onNode(node, pv.Spec.CSI.Driver) == nil:
		return 0, nil
	case len(elsewhere) > 0 && !slices.Contains(pv.Spec.AccessModes, corev1.ReadWriteMany) && !slices.Contains(pv.Spec.AccessModes, corev1.ReadOnlyMany):
		a.Events.Eventf(pod, corev1.EventTypeWarning, "FailedAttachVolume", "Multi-Attach error for volume %q Volume is already exclusively attached to node %s and can't be attached to another",
			pv.Name, elsewhere[0])
		return time.Minute, nil
	}
	csi := pv.Spec.CSI
	_, err := a.Client.StorageV1().VolumeAttachments().Create(ctx, &storagev1.VolumeAttachment{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s%x", namePrefix, sha256.Sum256([]byte(csi.VolumeHandle+csi.Driver+node)))},
		Spec:       storagev1.VolumeAttachmentSpec{Attacher: csi.Driver, NodeName: node, Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: &pv.Name}}}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return 0, nil // the informer will show it
	}
	return 0, err
}

// madeHere tells attachments of this controller from those that somebody else made and will take away. The name is what is left to go by once
// the volume's object is gone.
func madeHere(v *storagev1.VolumeAttachment) bool {
	digest, ok := strings.CutPrefix(v.Name, namePrefix)
	return ok && len(digest) == 2*sha256.Size
}

func (a *attach) attaches(driver string) bool {
	o := controller.Get[storagev1.CSIDriver](a.objects, driver)
	return o == nil || ptr.Deref(o.Spec.AttachRequired, true)
}

// detach lets go of an attachment, unless its node has the volume in use. A node that is out of service is not asked, and one that has not answered for a
// while is not believed any more: its pods would wait elsewhere for ever.
func (a *attach) detach(ctx context.Context, have *storagev1.VolumeAttachment, pv *corev1.PersistentVolume) (time.Duration, error) {
	node := controller.Get[corev1.Node](a.nodes, have.Spec.NodeName)
	used := pv != nil && node != nil && slices.Contains(node.Status.VolumesInUse, corev1.UniqueVolumeName("kubernetes.io/csi/"+pv.Spec.CSI.Driver+"^"+pv.Spec.CSI.VolumeHandle))
	if have.DeletionTimestamp != nil {
		a.keep(have.UID, false)
		return 0, nil
	}
	if since := a.keep(have.UID, used); used {
		switch left := forceAfter - a.now().Sub(since); {
		case controller.OutOfService(node):
		case controller.Ready(node):
			return 0, nil // the node's status brings it here again
		case left > 0:
			return left, nil
		}
		a.Log.Warn("detach a volume that its node, which does not answer, reported in use", "volume", pv.Name, "node", node.Name, "out of service", controller.OutOfService(node))
	}
	err := a.Client.StorageV1().VolumeAttachments().Delete(ctx, have.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(have.UID))})
	if apierrors.IsNotFound(err) {
		err = nil
	}
	if err == nil {
		a.keep(have.UID, false)
	}
	return 0, err
}

// keep notes whether an attachment that nobody wants is kept by its node, and returns since when.
func (a *attach) keep(attachment types.UID, kept bool) time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !kept {
		delete(a.kept, attachment)
		return time.Time{}
	}
	if _, known := a.kept[attachment]; !known {
		a.kept[attachment] = a.now()
	}
	return a.kept[attachment]
}
