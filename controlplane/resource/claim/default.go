package claim

import (
	corev1 "k8s.io/api/core/v1"

	"keelson.dev/keelson/controlplane/resource/resourcename"
)

// Default sets the defaults of a claim, also of one in a StatefulSet's volumeClaimTemplates.
func Default(pvc *corev1.PersistentVolumeClaim) {
	if pvc.Status.Phase == "" {
		pvc.Status.Phase = corev1.ClaimPending
	}
	DefaultSpec(&pvc.Spec)
	resourcename.RoundUp(pvc.Status.Capacity)
	resourcename.RoundUp(pvc.Status.AllocatedResources)
}

// DefaultSpec sets the defaults of a claim's specification.
func DefaultSpec(spec *corev1.PersistentVolumeClaimSpec) {
	if spec.VolumeMode == nil {
		mode := corev1.PersistentVolumeFilesystem
		spec.VolumeMode = &mode
	}
	resourcename.RoundUp(spec.Resources.Limits)
	resourcename.RoundUp(spec.Resources.Requests)
}
