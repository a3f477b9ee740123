// Package history keeps ControllerRevisions: what the pod template of a StatefulSet or DaemonSet was.
//
// A revision's data is a strategic merge patch that replaces the template, as upstream's, so that
// `kubectl rollout history` and `undo` work on them.
package history

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/controlplane/controller"
	"keelson.dev/keelson/controlplane/controller/owner"
)

// Owner is the workload whose template is kept.
type Owner struct {
	Object   metav1.Object
	Kind     schema.GroupVersionKind
	Template *corev1.PodTemplateSpec
	Selector *metav1.LabelSelector
	// Live reads the workload from the API, past the cache.
	Live func() (metav1.Object, error)
}

// Sync makes sure that the owner's present template has a revision, the highest of all, and returns all of the owner's
// revisions, oldest first; the last one is the present one. list is the informer's store of ControllerRevisions.
func Sync(ctx context.Context, client kubernetes.Interface, list cache.Indexer, o Owner) ([]*appsv1.ControllerRevision, error) {
	have, err := claimed(ctx, client, list, o)
	if err != nil {
		return nil, err
	}
	data, err := patch(o.Template)
	if err != nil {
		return nil, err
	}
	next := int64(1)
	if n := len(have); n > 0 {
		next = have[n-1].Revision + 1
	}
	revisions := client.AppsV1().ControllerRevisions(o.Object.GetNamespace())
	for i, r := range have {
		if !bytes.Equal(r.Data.Raw, data) {
			continue
		}
		if i == len(have)-1 {
			return have, nil
		}
		// A rollback: an old template is the present one again.
		again := r.DeepCopy()
		again.Revision = next
		if again, err = revisions.Update(ctx, again, metav1.UpdateOptions{}); err != nil {
			return nil, fmt.Errorf("renumber revision %s/%s: %w", r.Namespace, r.Name, err)
		}
		return append(slices.Delete(slices.Clone(have), i, i+1), again), nil
	}
	made, err := create(ctx, client, o, data, next)
	if err != nil {
		return nil, err
	}
	return append(have, made), nil
}

// claimed lists the owner's revisions, oldest first, after adopting those that an owner before it left behind.
func claimed(ctx context.Context, client kubernetes.Interface, list cache.Indexer, o Owner) ([]*appsv1.ControllerRevision, error) {
	objs, err := list.ByIndex(cache.NamespaceIndex, o.Object.GetNamespace())
	if err != nil {
		return nil, err
	}
	selector, err := metav1.LabelSelectorAsSelector(o.Selector)
	if err != nil {
		return nil, err
	}
	out, err := owner.Claim[*appsv1.ControllerRevision]{Owner: o.Object, Kind: o.Kind, Selector: selector, Live: o.Live,
		// Another kind of workload may have the same selector, and its revisions look alike.
		Fit:   func(r *appsv1.ControllerRevision) bool { return r.Name == o.Object.GetName()+"-"+Hash(r) },
		Patch: controller.Patcher(ctx, client.AppsV1().ControllerRevisions(o.Object.GetNamespace()))}.Take(objs)
	slices.SortFunc(out, func(a, b *appsv1.ControllerRevision) int { return int(a.Revision - b.Revision) })
	return out, err
}

// Hash is the word by which pods name their revision (label controller-revision-hash).
func Hash(r *appsv1.ControllerRevision) string {
	return r.Labels[appsv1.ControllerRevisionHashLabelKey]
}

// Template returns the pod template that a revision keeps.
func Template(r *appsv1.ControllerRevision) (*corev1.PodTemplateSpec, error) {
	var kept struct {
		Spec struct {
			Template corev1.PodTemplateSpec `json:"template"`
		} `json:"spec"`
	}
	if err := json.Unmarshal(r.Data.Raw, &kept); err != nil {
		return nil, fmt.Errorf("revision %s/%s: %w", r.Namespace, r.Name, err)
	}
	return &kept.Spec.Template, nil
}

// Trim deletes the oldest revisions that nobody uses, beyond a limit. The present one does not count.
func Trim(ctx context.Context, client kubernetes.Interface, all []*appsv1.ControllerRevision, limit *int32, used func(*appsv1.ControllerRevision) bool) error {
	keep := int32(10)
	if limit != nil {
		keep = *limit
	}
	var idle []*appsv1.ControllerRevision
	for _, r := range all[:max(len(all)-1, 0)] {
		if !used(r) {
			idle = append(idle, r)
		}
	}
	for _, r := range idle[:max(len(idle)-int(keep), 0)] {
		err := client.AppsV1().ControllerRevisions(r.Namespace).Delete(ctx, r.Name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}

// create makes a revision; a name taken by other data is hashed anew.
func create(ctx context.Context, client kubernetes.Interface, o Owner, data []byte, number int64) (*appsv1.ControllerRevision, error) {
	revisions := client.AppsV1().ControllerRevisions(o.Object.GetNamespace())
	for try := 0; ; try++ {
		h := fnv.New32a()
		h.Write(data)
		if try > 0 {
			fmt.Fprint(h, try)
		}
		hash := rand.SafeEncodeString(strconv.FormatUint(uint64(h.Sum32()), 10))
		labels := map[string]string{}
		if o.Selector != nil {
			maps.Copy(labels, o.Template.Labels)
		}
		labels[appsv1.ControllerRevisionHashLabelKey] = hash
		r := &appsv1.ControllerRevision{
			ObjectMeta: metav1.ObjectMeta{Namespace: o.Object.GetNamespace(), Name: o.Object.GetName() + "-" + hash, Labels: labels,
				OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(o.Object, o.Kind)}},
			Data: runtime.RawExtension{Raw: data}, Revision: number,
		}
		made, err := revisions.Create(ctx, r, metav1.CreateOptions{})
		if !apierrors.IsAlreadyExists(err) {
			return made, err
		}
		have, err := revisions.Get(ctx, r.Name, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		if ref := metav1.GetControllerOf(have); ref != nil && ref.UID == o.Object.GetUID() && bytes.Equal(have.Data.Raw, data) {
			return have, nil // the cache has not shown it yet
		}
	}
}

// patch is the template as a strategic merge patch that replaces it. Encoding sorts keys, so equal templates are equal bytes.
func patch(t *corev1.PodTemplateSpec) ([]byte, error) {
	raw, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	var template map[string]any
	if err := json.Unmarshal(raw, &template); err != nil {
		return nil, err
	}
	template["$patch"] = "replace"
	return json.Marshal(map[string]any{"spec": map[string]any{"template": template}})
}
