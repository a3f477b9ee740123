package persistentvolume

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/controlplane/controller"
)

// volume keeps a volume's phase and takes back what its claim has left.
func (b *binder) volume(ctx context.Context, pv *corev1.PersistentVolume) (time.Duration, error) {
	r := pv.Spec.ClaimRef
	if r == nil || r.UID == "" {
		return 0, b.volumePhase(ctx, pv, corev1.VolumeAvailable, "")
	}
	claim, err := b.claimOf(ctx, r)
	switch {
	case err != nil:
		return 0, err
	case claim == nil:
		if pv.Status.Phase != corev1.VolumeReleased && pv.Status.Phase != corev1.VolumeFailed {
			if err := b.volumePhase(ctx, pv, corev1.VolumeReleased, ""); err != nil {
				return 0, err
			}
		}
		return b.reclaim(ctx, pv)
	case claim.Spec.VolumeName == pv.Name:
		return 0, b.volumePhase(ctx, pv, corev1.VolumeBound, "")
	case claim.Spec.VolumeName == "":
		b.loop.Add(claimKey + r.Namespace + "/" + r.Name)
		return 0, nil
	}
	// The claim went with another volume. One that was made for it is of no use to anybody; one that we chose is free.
	if pv.Annotations[provisionedBy] != "" && pv.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete {
		if err := b.volumePhase(ctx, pv, corev1.VolumeReleased, ""); err != nil {
			return 0, err
		}
		return b.reclaim(ctx, pv)
	}
	return 0, b.free(ctx, pv)
}

// claimOf reads a volume's claim; nil if it is gone or another of its name. What the store does not show is asked for:
// data is at stake.
func (b *binder) claimOf(ctx context.Context, r *corev1.ObjectReference) (*corev1.PersistentVolumeClaim, error) {
	claim := controller.Get[corev1.PersistentVolumeClaim](b.claims, r.Namespace+"/"+r.Name)
	if claim != nil && claim.UID == r.UID {
		return claim, nil
	}
	claim, err := b.Client.CoreV1().PersistentVolumeClaims(r.Namespace).Get(ctx, r.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || err == nil && claim.UID != r.UID {
		return nil, nil
	}
	return claim, err
}

// reclaim does what the volume's policy says of a released volume.
func (b *binder) reclaim(ctx context.Context, pv *corev1.PersistentVolume) (time.Duration, error) {
	switch pv.Spec.PersistentVolumeReclaimPolicy {
	case corev1.PersistentVolumeReclaimDelete:
		if pv.Annotations[provisionedBy] != "" || pv.Spec.CSI != nil || pv.Status.Phase == corev1.VolumeFailed {
			return 0, nil // its provisioner deletes it
		}
		return 0, b.fail(ctx, pv, "VolumeFailedDelete", "error getting deleter volume plugin for volume %q: no volume plugin matched", pv.Name)
	case corev1.PersistentVolumeReclaimRecycle:
		return b.recycle(ctx, pv)
	}
	return 0, nil
}

func (b *binder) fail(ctx context.Context, pv *corev1.PersistentVolume, reason, format string, args ...any) error {
	message := fmt.Sprintf(format, args...)
	if pv.Status.Phase != corev1.VolumeFailed {
		b.Events.Eventf(pv, corev1.EventTypeWarning, reason, "%s", message)
	}
	return b.volumePhase(ctx, pv, corev1.VolumeFailed, message)
}

// free takes the claim off a volume, or only its UID if a user put the name there.
func (b *binder) free(ctx context.Context, pv *corev1.PersistentVolume) error {
	pv = pv.DeepCopy()
	if pv.Annotations[boundByController] != "" {
		pv.Spec.ClaimRef = nil
		delete(pv.Annotations, boundByController)
	} else {
		pv.Spec.ClaimRef.UID, pv.Spec.ClaimRef.ResourceVersion = "", ""
	}
	pv, err := b.Client.CoreV1().PersistentVolumes().Update(ctx, pv, metav1.UpdateOptions{})
	if err != nil {
		return err
	}
	return b.volumePhase(ctx, pv, corev1.VolumeAvailable, "")
}

func (b *binder) volumePhase(ctx context.Context, pv *corev1.PersistentVolume, phase corev1.PersistentVolumePhase, message string) error {
	if pv.Status.Phase == phase && pv.Status.Message == message {
		return nil
	}
	pv = pv.DeepCopy()
	if pv.Status.Phase != phase {
		now := metav1.Now()
		pv.Status.LastPhaseTransitionTime = &now
	}
	pv.Status.Phase, pv.Status.Message = phase, message
	_, err := b.Client.CoreV1().PersistentVolumes().UpdateStatus(ctx, pv, metav1.UpdateOptions{})
	return err
}
