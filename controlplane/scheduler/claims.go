package scheduler

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"keelson.dev/keelson/controlplane/controller"
	"keelson.dev/keelson/controlplane/controller/persistentvolume"
)

// selectedNode tells a provisioner for which node a claim that waits for its first consumer is to be provisioned.
const selectedNode = "volume.kubernetes.io/selected-node"

// claims reads the storage objects from informers' stores: nodes are CSINodes, drivers CSIDrivers.
type claims struct {
	pvcs, pvs, classes                      cache.Indexer
	drivers, nodes, capacities, attachments cache.Indexer
}

func newClaims(f informers.SharedInformerFactory, s *Scheduler) *claims {
	pvc := f.Core().V1().PersistentVolumeClaims().Informer()
	pv := f.Core().V1().PersistentVolumes().Informer()
	storage := f.Storage().V1()
	class, driver, node := storage.StorageClasses().Informer(), storage.CSIDrivers().Informer(), storage.CSINodes().Informer()
	capacity, attachment := storage.CSIStorageCapacities().Informer(), storage.VolumeAttachments().Informer()
	again := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { s.post(func() { s.queue.changed(StorageChanged, time.Now()) }) },
		UpdateFunc: func(any, any) { s.post(func() { s.queue.changed(StorageChanged, time.Now()) }) },
		DeleteFunc: func(any) { s.post(func() { s.queue.changed(StorageChanged, time.Now()) }) },
	}
	for _, informer := range []cache.SharedIndexInformer{pvc, pv, class, driver, node, capacity, attachment} {
		// The only error is a stopped informer, which Run's sync would report.
		_, _ = informer.AddEventHandler(again)
		s.synced = append(s.synced, informer.HasSynced)
	}
	return &claims{pvcs: pvc.GetIndexer(), pvs: pv.GetIndexer(), classes: class.GetIndexer(),
		drivers: driver.GetIndexer(), nodes: node.GetIndexer(), capacities: capacity.GetIndexer(), attachments: attachment.GetIndexer()}
}

// Refuses implements Volumes.
func (c *claims) Refuses(pod *corev1.Pod, node *corev1.Node, _ int) []Refusal {
	for _, name := range controller.ClaimNames(pod) {
		if r := c.refuses(pod.Namespace, name, node); r != nil {
			return r
		}
	}
	return nil
}

func (c *claims) refuses(namespace, name string, node *corev1.Node) []Refusal {
	pvc := lookup[corev1.PersistentVolumeClaim](c.pvcs, namespace+"/"+name)
	switch {
	case pvc == nil:
		return refuseEverywhere(fmt.Sprintf("persistentvolumeclaim %q not found", name), "")
	case pvc.DeletionTimestamp != nil:
		return refuseEverywhere(fmt.Sprintf("persistentvolumeclaim %q is being deleted", name), "")
	case pvc.Status.Phase == corev1.ClaimLost:
		return refuseEverywhere(fmt.Sprintf("persistentvolumeclaim %q bound to non-existent persistentvolume %q", name, pvc.Spec.VolumeName), "")
	case pvc.Spec.VolumeName == "":
		if class := c.waits(pvc); class != nil {
			return c.obtainable(pvc, class, node)
		}
		return refuseEverywhere("pod has unbound immediate PersistentVolumeClaims", "claim "+name+": kubectl describe pvc "+name)
	}
	pv := lookup[corev1.PersistentVolume](c.pvs, pvc.Spec.VolumeName)
	if pv == nil {
		return refuse(true, "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)", "volume "+pvc.Spec.VolumeName)
	}
	if pv.Spec.NodeAffinity == nil || pv.Spec.NodeAffinity.Required == nil {
		return nil
	}
	selector, err := nodeaffinity.NewNodeSelector(pv.Spec.NodeAffinity.Required)
	if err != nil || !selector.Match(node) {
		return refuse(true, "node(s) didn't match PersistentVolume's node affinity", "volume "+pv.Name)
	}
	return nil
}

// waits returns the class of a claim that is bound only once a pod that uses it has a node; nil for another claim.
func (c *claims) waits(pvc *corev1.PersistentVolumeClaim) *storagev1.StorageClass {
	if pvc.Spec.StorageClassName == nil {
		return nil
	}
	class := lookup[storagev1.StorageClass](c.classes, *pvc.Spec.StorageClassName)
	if class == nil || class.VolumeBindingMode == nil || *class.VolumeBindingMode != storagev1.VolumeBindingWaitForFirstConsumer {
		return nil
	}
	return class
}

// obtainable says why a claim that waits would not be bound if its pod went to the node: there is no free volume that the node
// reaches, and none can be made there.
func (c *claims) obtainable(pvc *corev1.PersistentVolumeClaim, class *storagev1.StorageClass, node *corev1.Node) []Refusal {
	if persistentvolume.Best(pvc, listed[corev1.PersistentVolume](c.pvs), node, false) != nil {
		return nil
	}
	if class.Provisioner == "kubernetes.io/no-provisioner" {
		return refuse(true, "node(s) didn't find available persistent volumes to bind", "claim "+pvc.Name)
	}
	if len(class.AllowedTopologies) > 0 && !slices.ContainsFunc(class.AllowedTopologies, func(t corev1.TopologySelectorTerm) bool {
		return !slices.ContainsFunc(t.MatchLabelExpressions, func(e corev1.TopologySelectorLabelRequirement) bool {
			return !slices.Contains(e.Values, node.Labels[e.Key])
		})
	}) {
		return refuse(true, "node(s) didn't match the allowed topologies of the storage class", "claim "+pvc.Name+", class "+class.Name)
	}
	if !c.roomFor(pvc, class, node) {
		return refuse(true, "node(s) did not have enough free storage", "claim "+pvc.Name+", class "+class.Name)
	}
	return nil
}

// Alone implements Volumes.
func (c *claims) Alone(pod *corev1.Pod) []string {
	return slices.DeleteFunc(controller.ClaimNames(pod), func(name string) bool {
		pvc := lookup[corev1.PersistentVolumeClaim](c.pvcs, pod.Namespace+"/"+name)
		return pvc == nil || !slices.Contains(pvc.Spec.AccessModes, corev1.ReadWriteOncePod)
	})
}

// claim names the node on every claim that waits for its first consumer; the provisioner or binder goes on from there,
// and the kubelet waits for the claim before it starts the pod.
func (s *Scheduler) claim(ctx context.Context, pod *corev1.Pod, node string) error {
	c, ok := s.cluster.Volumes.(*claims)
	if !ok {
		return nil
	}
	for _, name := range controller.ClaimNames(pod) {
		pvc := lookup[corev1.PersistentVolumeClaim](c.pvcs, pod.Namespace+"/"+name)
		if pvc == nil || pvc.Spec.VolumeName != "" || pvc.Annotations[selectedNode] == node {
			continue
		}
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": pvc.UID, "annotations": map[string]string{selectedNode: node}}})
		if err != nil {
			return err
		}
		if _, err = s.deps.Client.CoreV1().PersistentVolumeClaims(pvc.Namespace).Patch(ctx, pvc.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: manager}); err != nil {
			return fmt.Errorf("name node %s on claim %s/%s: %w", node, pvc.Namespace, pvc.Name, err)
		}
	}
	return nil
}

func lookup[T any](store cache.Indexer, key string) *T {
	obj, exists, err := store.GetByKey(key)
	if err != nil || !exists {
		return nil
	}
	typed, _ := obj.(*T)
	return typed
}

func listed[T any](store cache.Indexer) []*T {
	var out []*T
	for _, obj := range store.List() {
		if typed, ok := obj.(*T); ok {
			out = append(out, typed)
		}
	}
	return out
}
