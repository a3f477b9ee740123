package scheduler

import (
	"strconv"
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
		s.cluster.Volumes = &claims{pvcs: index(), pvs: index(), classes: index(), drivers: index(), nodes: index(), capacities: index(), attachments: index()}
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
			class.Provisioner = "maker"
		}
		obj = class
	case "volume":
		pv := &corev1.PersistentVolume{ObjectMeta: meta, Spec: corev1.PersistentVolumeSpec{Capacity: size, AccessModes: modes, StorageClassName: args["class"]},
			Status: corev1.PersistentVolumeStatus{Phase: corev1.VolumeAvailable}}
		for k, v := range pairs(args["at"]) {
			pv.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{Key: k, Operator: corev1.NodeSelectorOpIn, Values: []string{v}}}}}}}
		}
		if driver := args["driver"]; driver != "" {
			pv.Spec.CSI = &corev1.CSIPersistentVolumeSource{Driver: driver, VolumeHandle: words[1]}
		}
		into, obj = c.pvs, pv
	case "driver":
		into, obj = c.drivers, &storagev1.CSIDriver{ObjectMeta: meta, Spec: storagev1.CSIDriverSpec{StorageCapacity: ptr.To(true)}}
	case "capacity":
		room := &storagev1.CSIStorageCapacity{ObjectMeta: meta, StorageClassName: args["class"], NodeTopology: &metav1.LabelSelector{MatchLabels: pairs(args["at"])}}
		for word, field := range map[string]**resource.Quantity{"of": &room.Capacity, "most": &room.MaximumVolumeSize} {
			if args[word] != "" {
				*field = ptr.To(resource.MustParse(args[word]))
			}
		}
		into, obj = c.capacities, room
	case "takes":
		most, err := strconv.Atoi(args["most"])
		if err != nil {
			t.Fatal(err)
		}
		into, obj = c.nodes, &storagev1.CSINode{ObjectMeta: meta, Spec: storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{{
			Name: args["driver"], Allocatable: &storagev1.VolumeNodeResources{Count: ptr.To(int32(most))}}}}}
	case "attached":
		into, obj = c.attachments, &storagev1.VolumeAttachment{ObjectMeta: meta, Spec: storagev1.VolumeAttachmentSpec{NodeName: args["on"],
			Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: ptr.To(args["volume"])}}}
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
