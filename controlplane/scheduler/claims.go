package scheduler

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"encoding/json"
	"time"
)

// selectedNode tells a provisioner for which node a claim that waits for its first consumer is to be provisioned.
const selectedNode = "volume.kubernetes.io/selected-node"

// claims reads PersistentVolumeClaims, PersistentVolumes and StorageClasses from informers' stores.
type claims struct {
	pvcs, pvs, classes cache.Indexer
}

func newClaims(f informers.SharedInformerFactory, s *Scheduler) *claims {
	pvc := f.Core().V1().PersistentVolumeClaims().Informer()
	pv := f.Core().V1().PersistentVolumes().Informer()
	class := f.Storage().V1().StorageClasses().Informer()
	again := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { s.post(func() { s.queue.changed(time.Now()) }) },
		UpdateFunc: func(any, any) { s.post(func() { s.queue.changed(time.Now()) }) },
	}
	for _, informer := range []cache.SharedIndexInformer{pvc, pv, class} {
		// The only error is a stopped informer, which Run's sync would report.
		_, _ = informer.AddEventHandler(again)
		s.synced = append(s.synced, informer.HasSynced)
	}
	return &claims{pvcs: pvc.GetIndexer(), pvs: pv.GetIndexer(), classes: class.GetIndexer()}
}

// Refuses implements Volumes.
func (c *claims) Refuses(pod *corev1.Pod, node *corev1.Node, _ int) []Refusal {
	for _, name := range claimNames(pod) {
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
		return refuse(true, fmt.Sprintf("persistentvolumeclaim %q not found", name), "")
	case pvc.DeletionTimestamp != nil:
		return refuse(true, fmt.Sprintf("persistentvolumeclaim %q is being deleted", name), "")
	case pvc.Status.Phase == corev1.ClaimLost:
		return refuse(true, fmt.Sprintf("persistentvolumeclaim %q bound to non-existent persistentvolume %q", name, pvc.Spec.VolumeName), "")
	case pvc.Spec.VolumeName == "":
		if c.waits(pvc) {
			return nil
		}
		return refuse(true, "pod has unbound immediate PersistentVolumeClaims", "claim "+name)
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

// waits reports whether a claim is bound only once a pod that uses it has a node.
func (c *claims) waits(pvc *corev1.PersistentVolumeClaim) bool {
	if pvc.Spec.StorageClassName == nil {
		return false
	}
	class := lookup[storagev1.StorageClass](c.classes, *pvc.Spec.StorageClassName)
	return class != nil && class.VolumeBindingMode != nil && *class.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer
}

// claim names the node on every claim that waits for its first consumer; the provisioner or binder goes on from there,
// and the kubelet waits for the claim before it starts the pod.
func (s *Scheduler) claim(ctx context.Context, pod *corev1.Pod, node string) error {
	c, ok := s.cluster.Volumes.(*claims)
	if !ok {
		return nil
	}
	for _, name := range claimNames(pod) {
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

// claimNames lists the claims that a pod uses, those of its ephemeral volumes included.
func claimNames(pod *corev1.Pod) []string {
	var out []string
	for _, v := range pod.Spec.Volumes {
		switch {
		case v.PersistentVolumeClaim != nil:
			out = append(out, v.PersistentVolumeClaim.ClaimName)
		case v.Ephemeral != nil:
			out = append(out, pod.Name+"-"+v.Name)
		}
	}
	return out
}

func lookup[T any](store cache.Indexer, key string) *T {
	obj, exists, err := store.GetByKey(key)
	if err != nil || !exists {
		return nil
	}
	typed, _ := obj.(*T)
	return typed
}
