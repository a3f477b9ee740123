package scheduler

import (
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/controller"
)

// roomFor tells whether a driver has room on the node for a claim's volume. Only of drivers whose object says that they publish it
// (spec.storageCapacity) is anything known; the others are believed to have it.
func (c *claims) roomFor(pvc *corev1.PersistentVolumeClaim, class *storagev1.StorageClass, node *corev1.Node) bool {
	size, has := pvc.Spec.Resources.Requests[corev1.ResourceStorage]
	driver := lookup[storagev1.CSIDriver](c.drivers, class.Provisioner)
	if !has || driver == nil || !ptr.Deref(driver.Spec.StorageCapacity, false) {
		return true
	}
	for _, r := range listed[storagev1.CSIStorageCapacity](c.capacities) {
		if r.StorageClassName != class.Name || r.NodeTopology == nil {
			continue
		}
		most := r.Capacity
		if r.MaximumVolumeSize != nil {
			most = r.MaximumVolumeSize // what is free in all may be in pieces
		}
		if most == nil || most.Cmp(size) < 0 {
			continue
		}
		if s, err := metav1.LabelSelectorAsSelector(r.NodeTopology); err == nil && s.Matches(labels.Set(node.Labels)) {
			return true
		}
	}
	return false
}

// Full implements Volumes.
func (c *claims) Full(pod *Pod, node *Node) []Refusal {
	limits := map[string]int{}
	if n := lookup[storagev1.CSINode](c.nodes, node.Name); n != nil {
		for _, d := range n.Spec.Drivers {
			if d.Allocatable != nil && d.Allocatable.Count != nil {
				limits[d.Name] = int(*d.Allocatable.Count)
			}
		}
	}
	if len(limits) == 0 {
		return nil
	}
	asks, all := map[attachable]bool{}, map[attachable]bool{}
	c.attachables(pod.Pod, asks)
	maps.DeleteFunc(asks, func(v attachable, _ bool) bool { _, limited := limits[v.driver]; return !limited })
	if len(asks) == 0 {
		return nil
	}
	maps.Copy(all, asks)
	for _, p := range node.Pods {
		c.attachables(p.Pod, all)
	}
	// An attachment outlives its pod for a moment, and keeps its place meanwhile.
	for _, a := range listed[storagev1.VolumeAttachment](c.attachments) {
		if a.Spec.NodeName != node.Name || a.Spec.Source.PersistentVolumeName == nil {
			continue
		}
		if pv := lookup[corev1.PersistentVolume](c.pvs, *a.Spec.Source.PersistentVolumeName); pv != nil && pv.Spec.CSI != nil {
			all[attachable{pv.Spec.CSI.Driver, pv.Spec.CSI.VolumeHandle}] = true
		}
	}
	used := map[string]int{}
	for v := range all {
		used[v.driver]++
	}
	for v := range asks {
		if used[v.driver] > limits[v.driver] {
			return refuse(false, "node(s) exceed max volume count", fmt.Sprintf("driver %s takes %d", v.driver, limits[v.driver]))
		}
	}
	return nil
}

// attachable is a volume that takes a place on its node.
type attachable struct{ driver, volume string }

// attachables adds the volumes of a pod's claims. One that is still to be made takes a place under its claim's name.
func (c *claims) attachables(pod *corev1.Pod, out map[attachable]bool) {
	for _, name := range controller.ClaimNames(pod) {
		pvc := lookup[corev1.PersistentVolumeClaim](c.pvcs, pod.Namespace+"/"+name)
		if pvc == nil {
			continue
		}
		if pvc.Spec.VolumeName == "" {
			if class := c.waits(pvc); class != nil {
				out[attachable{class.Provisioner, pvc.Namespace + "/" + pvc.Name}] = true
			}
			continue
		}
		if pv := lookup[corev1.PersistentVolume](c.pvs, pvc.Spec.VolumeName); pv != nil && pv.Spec.CSI != nil {
			out[attachable{pv.Spec.CSI.Driver, pv.Spec.CSI.VolumeHandle}] = true
		}
	}
}
