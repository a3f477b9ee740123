package scheduler

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"
)

// store carries out the commands that make storage objects.
func (s *story) store(t *testing.T, words []string, args map[string]string) {
	if s.cluster.Volumes == nil {
		index := func() cache.Indexer { return cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{}) }
		s.cluster.Volumes = &claims{pvcs: index(), pvs: index(), classes: index()}
	}
	c := s.cluster.Volumes.(*claims)
	into, obj, meta := c.classes, any(nil), metav1.ObjectMeta{Name: words[1]}
	size := corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
	modes := []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	switch words[0] {
	case "class":
		class := &storagev1.StorageClass{ObjectMeta: meta, Provisioner: "kubernetes.io/no-provisioner", VolumeBindingMode: ptr.To(storagev1.VolumeBindingImmediate)}
		if _, waits := args["wait"]; waits {
			class.VolumeBindingMode = ptr.To(storagev1.VolumeBindingWaitForFirstConsumer)
		}
		if _, made := args["made"]; made {
			class.Provisioner = "example.com/maker"
		}
		obj = class
	case "volume":
		pv := &corev1.PersistentVolume{ObjectMeta: meta, Spec: corev1.PersistentVolumeSpec{Capacity: size, AccessModes: modes, StorageClassName: args["class"]},
			Status: corev1.PersistentVolumeStatus{Phase: corev1.VolumeAvailable}}
		for k, v := range pairs(args["at"]) {
			pv.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{Key: k, Operator: corev1.NodeSelectorOpIn, Values: []string{v}}}}}}}
		}
		into, obj = c.pvs, pv
	case "claim":
		meta.Namespace = "default"
		if _, alone := args["alone"]; alone {
			modes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod}
		}
		into, obj = c.pvcs, &corev1.PersistentVolumeClaim{ObjectMeta: meta, Spec: corev1.PersistentVolumeClaimSpec{AccessModes: modes,
			StorageClassName: ptr.To(args["class"]), VolumeName: args["volume"], Resources: corev1.VolumeResourceRequirements{Requests: size}}}
	}
	if err := into.Add(obj); err != nil {
		t.Fatal(err)
	}
}
