// Package resourceclaim makes the ResourceClaims that pods ask for by a template, writes their names into the pods' status, and looks
// after every claim's reservations: one of a pod that has ended goes, with the last of them what was allocated, and a claim that was
// made for a pod that will not run (KEP-4381).
//
// plan.go is pure. Devices are chosen by the scheduler, which also reserves; only for a pod that came with a node this does.
package resourceclaim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/controlplane/controller"
)

const (
	workers = 2
	ofPod   = "pod:"   // begins the key of a pod
	ofClaim = "claim:" // and of a claim
	byClaim = "resourceclaim"
	byOwner = "owner"
	// lag is how long the informer may take to show a claim that was made here.
	lag = time.Minute
)

type keeper struct {
	controller.Deps
	pods, claims, templates cache.SharedIndexInformer

	mu    sync.Mutex
	fresh map[string]*resourcev1.ResourceClaim // made here and not seen yet, by key
}

// New returns the controller; keys are pods and claims.
func New(d controller.Deps) (*controller.Loop, error) {
	api := d.Informers.Resource().V1()
	k := &keeper{Deps: d, pods: d.Informers.Core().V1().Pods().Informer(), claims: api.ResourceClaims().Informer(),
		templates: api.ResourceClaimTemplates().Informer(), fresh: map[string]*resourcev1.ResourceClaim{}}
	loop := controller.NewLoop("resourceclaim", d.Log, workers, k.reconcile)
	return loop, errors.Join(
		k.pods.AddIndexers(cache.Indexers{byClaim: func(obj any) ([]string, error) { return claimKeys(obj.(*corev1.Pod)), nil }}),
		k.claims.AddIndexers(cache.Indexers{byOwner: func(obj any) ([]string, error) {
			if by := metav1.GetControllerOf(obj.(*resourcev1.ResourceClaim)); by != nil && by.Kind == "Pod" {
				return []string{string(by.UID)}, nil
			}
			return nil, nil
		}}),
		controller.Watch(loop, k.pods, func(p, _ *corev1.Pod) []string { return podKeys(p) }),
		controller.Watch(loop, k.claims, k.claimChanged),
		controller.Watch(loop, k.templates, func(t, _ *resourcev1.ResourceClaimTemplate) []string { return k.waiting(t) }))
}

// claimKeys are the claims that a pod is known to use.
func claimKeys(p *corev1.Pod) (keys []string) {
	for i := range p.Spec.ResourceClaims {
		if name, _ := claimName(p, &p.Spec.ResourceClaims[i]); name != "" {
			keys = append(keys, p.Namespace+"/"+name)
		}
	}
	if s := p.Status.ExtendedResourceClaimStatus; s != nil {
		keys = append(keys, p.Namespace+"/"+s.ResourceClaimName)
	}
	return keys
}

func podKeys(p *corev1.Pod) (keys []string) {
	for _, key := range claimKeys(p) {
		keys = append(keys, ofClaim+key)
	}
	if len(p.Spec.ResourceClaims) > 0 {
		keys = append(keys, ofPod+p.Namespace+"/"+p.Name)
	}
	return keys
}

func (k *keeper) claimChanged(c, _ *resourcev1.ResourceClaim) []string {
	key := c.Namespace + "/" + c.Name
	k.mu.Lock()
	delete(k.fresh, key)
	k.mu.Unlock()
	keys := []string{ofClaim + key}
	users, err := k.pods.GetIndexer().IndexKeys(byClaim, key)
	if err != nil {
		return keys
	}
	for _, pod := range users {
		keys = append(keys, ofPod+pod)
	}
	return keys
}

// waiting are the pods of a template that has just come.
func (k *keeper) waiting(t *resourcev1.ResourceClaimTemplate) (keys []string) {
	objs, err := k.pods.GetIndexer().ByIndex(cache.NamespaceIndex, t.Namespace)
	if err != nil {
		return nil
	}
	for _, obj := range objs {
		pod := obj.(*corev1.Pod)
		if slices.ContainsFunc(pod.Spec.ResourceClaims, func(c corev1.PodResourceClaim) bool {
			return c.ResourceClaimTemplateName != nil && *c.ResourceClaimTemplateName == t.Name
		}) {
			keys = append(keys, ofPod+pod.Namespace+"/"+pod.Name)
		}
	}
	return keys
}

func (k *keeper) reconcile(ctx context.Context, key string) (time.Duration, error) {
	if pod, ok := strings.CutPrefix(key, ofPod); ok {
		if p := controller.Get[corev1.Pod](k.pods, pod); p != nil && p.DeletionTimestamp == nil && !done(p) {
			return 0, k.pod(ctx, p)
		}
		return 0, nil
	}
	if c := controller.Get[resourcev1.ResourceClaim](k.claims, strings.TrimPrefix(key, ofClaim)); c != nil {
		return 0, k.claim(ctx, c)
	}
	return 0, nil
}

func (k *keeper) pod(ctx context.Context, pod *corev1.Pod) error {
	plan := decidePod(pod, k.world(pod))
	client := k.Client.ResourceV1().ResourceClaims(pod.Namespace)
	for _, c := range plan.create {
		made, err := client.Create(ctx, c, metav1.CreateOptions{})
		if controller.Terminating(err) {
			return nil
		}
		if err != nil {
			plan.errs = append(plan.errs, fmt.Errorf("PodResourceClaim %s: create ResourceClaim: %w", c.Annotations[entryAnnotation], err))
			continue
		}
		k.mu.Lock()
		k.fresh[made.Namespace+"/"+made.Name] = made
		k.mu.Unlock()
		plan.record[c.Annotations[entryAnnotation]] = made.Name
	}
	for _, err := range plan.errs {
		k.Events.Eventf(pod, corev1.EventTypeWarning, "FailedResourceClaimCreation", "%v", err)
	}
	errs := append(plan.errs, k.record(ctx, pod, plan.record))
	for _, c := range plan.reserve {
		next := c.DeepCopy()
		next.Status.ReservedFor = append(next.Status.ReservedFor, resourcev1.ResourceClaimConsumerReference{Resource: "pods", Name: pod.Name, UID: pod.UID})
		if _, err := client.UpdateStatus(ctx, next, metav1.UpdateOptions{}); err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("reserve claim %s for pod %s/%s: %w", c.Name, pod.Namespace, pod.Name, err))
		}
	}
	return errors.Join(errs...)
}

// record writes names into the pod's status, beside those that are there.
func (k *keeper) record(ctx context.Context, pod *corev1.Pod, names map[string]string) error {
	if len(names) == 0 {
		return nil
	}
	var list []corev1.PodResourceClaimStatus
	for entry, claim := range names {
		list = append(list, corev1.PodResourceClaimStatus{Name: entry, ResourceClaimName: &claim})
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": pod.UID}, "status": map[string]any{"resourceClaimStatuses": list}})
	if err != nil {
		return err
	}
	_, err = k.Client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if err == nil || apierrors.IsNotFound(err) {
		return nil
	}
	return fmt.Errorf("write the claims of pod %s/%s into its status: %w", pod.Namespace, pod.Name, err)
}

// world is the cache, and what was made here and is not in it yet.
func (k *keeper) world(pod *corev1.Pod) world {
	w := world{
		template: func(name string) *resourcev1.ResourceClaimTemplate {
			return controller.Get[resourcev1.ResourceClaimTemplate](k.templates, pod.Namespace+"/"+name)
		},
		claim: func(name string) *resourcev1.ResourceClaim {
			key := pod.Namespace + "/" + name
			if c := controller.Get[resourcev1.ResourceClaim](k.claims, key); c != nil {
				return c
			}
			k.mu.Lock()
			defer k.mu.Unlock()
			return k.fresh[key]
		},
	}
	objs, err := k.claims.GetIndexer().ByIndex(byOwner, string(pod.UID))
	if err != nil {
		return w // there is the index
	}
	for _, obj := range objs {
		w.owned = append(w.owned, obj.(*resourcev1.ResourceClaim))
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for key, c := range k.fresh {
		switch {
		case time.Since(c.CreationTimestamp.Time) > lag: // gone before it was seen
			delete(k.fresh, key)
		case metav1.IsControlledBy(c, pod):
			w.owned = append(w.owned, c)
		}
	}
	return w
}

func (k *keeper) claim(ctx context.Context, c *resourcev1.ResourceClaim) error {
	gone := map[types.UID]bool{}
	for _, r := range c.Status.ReservedFor {
		var err error
		if gone[r.UID], err = k.gone(ctx, c.Namespace, r); err != nil {
			return fmt.Errorf("users of claim %s/%s: %w", c.Namespace, c.Name, err)
		}
	}
	var owner *corev1.Pod
	if by := metav1.GetControllerOf(c); by != nil && by.Kind == "Pod" {
		owner = controller.Get[corev1.Pod](k.pods, c.Namespace+"/"+by.Name) // a pod that is really gone takes it along
	}
	p := decideClaim(c, func(r resourcev1.ResourceClaimConsumerReference) bool { return !gone[r.UID] }, owner)
	client := k.Client.ResourceV1().ResourceClaims(c.Namespace)
	next := c.DeepCopy()
	var err error
	if p.status != nil {
		next.Status = *p.status
		next, err = client.UpdateStatus(ctx, next, metav1.UpdateOptions{}) // not a patch: it must fail if anybody reserves meanwhile
	}
	if err == nil && p.free {
		next.Finalizers = slices.DeleteFunc(next.Finalizers, func(f string) bool { return f == resourcev1.Finalizer })
		_, err = client.Update(ctx, next, metav1.UpdateOptions{})
	}
	if err == nil && p.remove {
		err = client.Delete(ctx, c.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(c.UID))})
	}
	if err == nil || apierrors.IsNotFound(err) {
		return nil
	}
	return fmt.Errorf("claim %s/%s: %w", c.Namespace, c.Name, err)
}

// gone tells whether a reservation's pod needs it no more. One that the cache does not have is asked for: to take a reservation from
// a pod that is being scheduled would give its devices to two.
func (k *keeper) gone(ctx context.Context, namespace string, r resourcev1.ResourceClaimConsumerReference) (bool, error) {
	if r.APIGroup != "" || r.Resource != "pods" {
		return false, nil // whoever reserved for it knows
	}
	pod := controller.Get[corev1.Pod](k.pods, namespace+"/"+r.Name)
	if pod == nil {
		live, err := k.Client.CoreV1().Pods(namespace).Get(ctx, r.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return true, nil
		} else if err != nil {
			return false, err
		}
		return live.UID != r.UID, nil
	}
	return pod.UID != r.UID || done(pod), nil
}
