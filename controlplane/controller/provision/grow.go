package provision

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/controlplane/controller"
)

// grow gives a bound claim the room it asks for by now: on disk, in the volume's capacity, in the claim's status, in this
// order, so that the API never promises more than there is. It needs nothing of the node that mounts the volume: a
// quota and a loop device grow under their users.
func (p *provisioner) grow(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	pv := controller.Get[corev1.PersistentVolume](p.volumes, claim.Spec.VolumeName)
	if pv == nil || !p.ours(pv) || claim.Status.Phase != corev1.ClaimBound {
		return nil
	}
	wants, has := claim.Spec.Resources.Requests[corev1.ResourceStorage], claim.Status.Capacity[corev1.ResourceStorage]
	if wants.Cmp(has) <= 0 {
		return nil
	}
	unheld, err := p.disks.Grow(pv.Name, wants.Value())
	if err != nil {
		p.Events.Eventf(claim, corev1.EventTypeWarning, "VolumeResizeFailed", "resize volume %q: %s", pv.Name, err)
		return err
	}
	if c := pv.Spec.Capacity[corev1.ResourceStorage]; c.Cmp(wants) < 0 {
		pv = pv.DeepCopy()
		pv.Spec.Capacity[corev1.ResourceStorage] = wants
		metav1.SetMetaDataAnnotation(&pv.ObjectMeta, SizeAnnotation, held(unheld))
		if _, err := p.Client.CoreV1().PersistentVolumes().Update(ctx, pv, metav1.UpdateOptions{}); err != nil {
			return err
		}
	}
	next := claim.DeepCopy()
	next.Status.Capacity[corev1.ResourceStorage] = wants
	next.Status.AllocatedResources = corev1.ResourceList{corev1.ResourceStorage: wants}
	next.Status.AllocatedResourceStatuses = nil
	next.Status.Conditions = WithoutResize(next.Status.Conditions)
	if _, err := p.Client.CoreV1().PersistentVolumeClaims(claim.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{}); err != nil {
		return err
	}
	p.Events.Eventf(claim, corev1.EventTypeNormal, "VolumeResizeSuccessful", "Resize volume succeeded")
	return nil
}

// WithoutResize drops what an earlier resize has left to say.
func WithoutResize(conditions []corev1.PersistentVolumeClaimCondition) []corev1.PersistentVolumeClaimCondition {
	var out []corev1.PersistentVolumeClaimCondition
	for _, c := range conditions {
		switch c.Type {
		case corev1.PersistentVolumeClaimResizing, corev1.PersistentVolumeClaimFileSystemResizePending,
			corev1.PersistentVolumeClaimControllerResizeError, corev1.PersistentVolumeClaimNodeResizeError:
		default:
			out = append(out, c)
		}
	}
	return out
}
