package persistentvolume

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/utils/ptr"
)

// Best is the volume to bind a claim to: one that names the claim already, or else the smallest that is free and fits;
// nil if there is none. With a node only volumes that it can reach are taken; onlyNamed takes no other than a named one.
func Best(claim *corev1.PersistentVolumeClaim, volumes []*corev1.PersistentVolume, node *corev1.Node, onlyNamed bool) *corev1.PersistentVolume {
	var fitting []*corev1.PersistentVolume
	for _, pv := range volumes {
		if pv.DeletionTimestamp != nil {
			continue
		}
		switch {
		case names(pv, claim):
			if Misfit(claim, pv) == "" {
				return pv
			}
		case onlyNamed || pv.Spec.ClaimRef != nil || pv.Status.Phase != corev1.VolumeAvailable && pv.Status.Phase != "":
		case Misfit(claim, pv) == "" && selected(claim, pv) && reachable(pv, node):
			fitting = append(fitting, pv)
		}
	}
	if len(fitting) == 0 {
		return nil
	}
	return slices.MinFunc(fitting, func(a, b *corev1.PersistentVolume) int {
		x, y := a.Spec.Capacity[corev1.ResourceStorage], b.Spec.Capacity[corev1.ResourceStorage]
		return cmp.Or(x.Cmp(y), cmp.Compare(a.Name, b.Name))
	})
}

// Misfit says in one clause why a claim cannot have a volume, whoever chose it; "" if it can.
func Misfit(claim *corev1.PersistentVolumeClaim, pv *corev1.PersistentVolume) string {
	has, wants := pv.Spec.Capacity[corev1.ResourceStorage], claim.Spec.Resources.Requests[corev1.ResourceStorage]
	switch {
	case has.Cmp(wants) < 0:
		return "requested PV is too small"
	case classOfVolume(pv) != classOf(claim):
		return "storageClassName does not match"
	case mode(pv.Spec.VolumeMode) != mode(claim.Spec.VolumeMode):
		return "incompatible volumeMode"
	case ptr.Deref(pv.Spec.VolumeAttributesClassName, "") != ptr.Deref(claim.Spec.VolumeAttributesClassName, ""):
		return "volumeAttributesClassName does not match"
	}
	for _, m := range claim.Spec.AccessModes {
		if !slices.Contains(pv.Spec.AccessModes, m) {
			return "incompatible accessMode"
		}
	}
	return ""
}

func mode(m *corev1.PersistentVolumeMode) corev1.PersistentVolumeMode {
	return ptr.Deref(m, corev1.PersistentVolumeFilesystem)
}

func selected(claim *corev1.PersistentVolumeClaim, pv *corev1.PersistentVolume) bool {
	if claim.Spec.Selector == nil {
		return true
	}
	s, err := metav1.LabelSelectorAsSelector(claim.Spec.Selector)
	return err == nil && s.Matches(labels.Set(pv.Labels))
}

func reachable(pv *corev1.PersistentVolume, node *corev1.Node) bool {
	if node == nil || pv.Spec.NodeAffinity == nil || pv.Spec.NodeAffinity.Required == nil {
		return true
	}
	s, err := nodeaffinity.NewNodeSelector(pv.Spec.NodeAffinity.Required)
	return err == nil && s.Match(node)
}

// names tells whether the volume is meant for the claim: bound to it, or waiting for one of its name.
func names(pv *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim) bool {
	r := pv.Spec.ClaimRef
	return r != nil && r.Namespace == claim.Namespace && r.Name == claim.Name && (r.UID == "" || r.UID == claim.UID)
}

func classOf(claim *corev1.PersistentVolumeClaim) string {
	if name, ok := claim.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		return name
	}
	return ptr.Deref(claim.Spec.StorageClassName, "")
}

func classOfVolume(pv *corev1.PersistentVolume) string {
	if name, ok := pv.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		return name
	}
	return pv.Spec.StorageClassName
}
