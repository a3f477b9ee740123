package persistentvolume

import (
	"context"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/controller"
)

// pending brings a claim that is not bound yet a step further.
func (b *binder) pending(ctx context.Context, claim *corev1.PersistentVolumeClaim) (time.Duration, error) {
	if claim.Spec.VolumeName != "" {
		return b.wanted(ctx, claim)
	}
	if claim.Spec.StorageClassName == nil && claim.Annotations[corev1.BetaStorageClassAnnotation] == "" {
		// A default class that came later is for claims that named none.
		if class := b.defaultClass(); class != "" {
			claim = claim.DeepCopy()
			claim.Spec.StorageClassName = &class
			_, err := b.Client.CoreV1().PersistentVolumeClaims(claim.Namespace).Update(ctx, claim, metav1.UpdateOptions{})
			return 0, err // the change brings the claim here again
		}
	}
	class := controller.Get[storagev1.StorageClass](b.classes, classOf(claim))
	chosen := claim.Annotations[selectedNode]
	waits := class != nil && ptr.Deref(class.VolumeBindingMode, storagev1.VolumeBindingImmediate) == storagev1.VolumeBindingWaitForFirstConsumer && chosen == ""
	var node *corev1.Node
	if chosen != "" {
		node = controller.Get[corev1.Node](b.nodes, chosen)
	}
	if pv := Best(claim, b.all(), node, waits); pv != nil {
		return 0, b.bind(ctx, claim, pv)
	}
	if claim.DeletionTimestamp != nil {
		return 0, nil
	}
	switch {
	case waits:
		b.Events.Eventf(claim, corev1.EventTypeNormal, "WaitForFirstConsumer", "waiting for first consumer to be created before binding")
	case class != nil && class.Provisioner != noProvisioner:
		return b.ask(ctx, claim, class)
	case classOf(claim) != "" && class == nil:
		b.Events.Eventf(claim, corev1.EventTypeWarning, "ProvisioningFailed", "storageclass.storage.k8s.io %q not found", classOf(claim))
	default:
		b.Events.Eventf(claim, corev1.EventTypeNormal, "FailedBinding", "no persistent volumes available for this claim and no storage class is set")
	}
	return retryAfter, b.claimPhase(ctx, claim, corev1.ClaimPending, nil)
}

// ask names the provisioner that is to make a volume on the claim.
func (b *binder) ask(ctx context.Context, claim *corev1.PersistentVolumeClaim, class *storagev1.StorageClass) (time.Duration, error) {
	if claim.Annotations[provisioner] != class.Provisioner {
		claim = claim.DeepCopy()
		metav1.SetMetaDataAnnotation(&claim.ObjectMeta, provisioner, class.Provisioner)
		metav1.SetMetaDataAnnotation(&claim.ObjectMeta, betaProvisioner, class.Provisioner)
		_, err := b.Client.CoreV1().PersistentVolumeClaims(claim.Namespace).Update(ctx, claim, metav1.UpdateOptions{})
		return 0, err
	}
	b.Events.Eventf(claim, corev1.EventTypeNormal, "ExternalProvisioning", "Waiting for a volume to be created either by the external provisioner %q or manually "+
		"by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered.", class.Provisioner)
	return retryAfter, b.claimPhase(ctx, claim, corev1.ClaimPending, nil)
}

// wanted serves a claim whose user named the volume.
func (b *binder) wanted(ctx context.Context, claim *corev1.PersistentVolumeClaim) (time.Duration, error) {
	pv := controller.Get[corev1.PersistentVolume](b.volumes, claim.Spec.VolumeName)
	switch {
	case pv == nil:
		return retryAfter, b.claimPhase(ctx, claim, corev1.ClaimPending, nil)
	case pv.Spec.ClaimRef == nil:
		if why := Misfit(claim, pv); why != "" {
			b.Events.Eventf(claim, corev1.EventTypeWarning, "VolumeMismatch", "Cannot bind to requested volume %q: %s", pv.Name, why)
			return retryAfter, b.claimPhase(ctx, claim, corev1.ClaimPending, nil)
		}
		return 0, b.bind(ctx, claim, pv)
	case names(pv, claim):
		return 0, b.bind(ctx, claim, pv)
	}
	b.Events.Eventf(claim, corev1.EventTypeWarning, "FailedBinding", "volume %q already bound to a different claim.", pv.Name)
	return retryAfter, b.claimPhase(ctx, claim, corev1.ClaimPending, nil)
}

// bound looks after a claim that was bound once.
func (b *binder) bound(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	pv := controller.Get[corev1.PersistentVolume](b.volumes, claim.Spec.VolumeName)
	switch {
	case pv != nil && (pv.Spec.ClaimRef == nil || names(pv, claim)):
		return b.bind(ctx, claim, pv)
	case claim.Status.Phase == corev1.ClaimLost:
		return nil
	case pv != nil:
		b.Events.Eventf(claim, corev1.EventTypeWarning, "ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly")
	default:
		b.Events.Eventf(claim, corev1.EventTypeWarning, "ClaimLost", "Bound claim has lost its PersistentVolume. Any data on the volume is lost!")
	}
	return b.claimPhase(ctx, claim, corev1.ClaimLost, nil)
}

// bind does what is missing of a binding, the volume's side first.
func (b *binder) bind(ctx context.Context, claim *corev1.PersistentVolumeClaim, pv *corev1.PersistentVolume) error {
	if r := pv.Spec.ClaimRef; r == nil || r.UID != claim.UID {
		pv = pv.DeepCopy()
		if r == nil {
			metav1.SetMetaDataAnnotation(&pv.ObjectMeta, boundByController, "yes")
		}
		pv.Spec.ClaimRef = &corev1.ObjectReference{Kind: "PersistentVolumeClaim", APIVersion: "v1", Namespace: claim.Namespace, Name: claim.Name,
			UID: claim.UID, ResourceVersion: claim.ResourceVersion}
		var err error
		if pv, err = b.Client.CoreV1().PersistentVolumes().Update(ctx, pv, metav1.UpdateOptions{}); err != nil {
			return err
		}
	}
	if err := b.volumePhase(ctx, pv, corev1.VolumeBound, ""); err != nil {
		return err
	}
	if claim.Spec.VolumeName != pv.Name || claim.Annotations[bindCompleted] == "" {
		claim = claim.DeepCopy()
		if claim.Spec.VolumeName == "" {
			claim.Spec.VolumeName = pv.Name
			metav1.SetMetaDataAnnotation(&claim.ObjectMeta, boundByController, "yes")
		}
		metav1.SetMetaDataAnnotation(&claim.ObjectMeta, bindCompleted, "yes")
		var err error
		if claim, err = b.Client.CoreV1().PersistentVolumeClaims(claim.Namespace).Update(ctx, claim, metav1.UpdateOptions{}); err != nil {
			return err
		}
	}
	return b.claimPhase(ctx, claim, corev1.ClaimBound, pv)
}

// claimPhase writes a claim's status if it is another. The capacity of a bound one is left to whoever grows it.
func (b *binder) claimPhase(ctx context.Context, claim *corev1.PersistentVolumeClaim, phase corev1.PersistentVolumeClaimPhase, pv *corev1.PersistentVolume) error {
	next := claim.DeepCopy()
	next.Status.Phase = phase
	switch {
	case pv == nil:
		next.Status.AccessModes, next.Status.Capacity = nil, nil
	case claim.Status.Phase != corev1.ClaimBound || claim.Status.Capacity == nil:
		next.Status.AccessModes = pv.Spec.AccessModes
		next.Status.Capacity = corev1.ResourceList{corev1.ResourceStorage: pv.Spec.Capacity[corev1.ResourceStorage]}
	}
	if equality.Semantic.DeepEqual(next.Status, claim.Status) {
		return nil
	}
	_, err := b.Client.CoreV1().PersistentVolumeClaims(claim.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{})
	return err
}

func (b *binder) all() []*corev1.PersistentVolume {
	var out []*corev1.PersistentVolume
	for _, obj := range b.volumes.GetIndexer().List() {
		out = append(out, obj.(*corev1.PersistentVolume))
	}
	return out
}

// defaultClass is the newest class that is marked as default, "" without one.
func (b *binder) defaultClass() string {
	var all []*storagev1.StorageClass
	for _, obj := range b.classes.GetIndexer().List() {
		if c := obj.(*storagev1.StorageClass); c.Annotations["storageclass.kubernetes.io/is-default-class"] == "true" {
			all = append(all, c)
		}
	}
	if len(all) == 0 {
		return ""
	}
	return slices.MinFunc(all, func(x, y *storagev1.StorageClass) int {
		if n := y.CreationTimestamp.Compare(x.CreationTimestamp.Time); n != 0 {
			return n
		}
		return strings.Compare(x.Name, y.Name)
	}).Name
}
