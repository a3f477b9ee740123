package replicaset

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/controlplane/controller"
	"keelson.dev/keelson/controlplane/controller/expectation"
	"keelson.dev/keelson/controlplane/controller/owner"
)

// burst is the most pods that one pass creates or deletes.
const burst = 500

// set is a ReplicaSet or ReplicationController, reduced to what the engine needs.
type set struct {
	object   runtime.Object
	meta     metav1.Object
	kind     schema.GroupVersionKind
	replicas int32
	minReady time.Duration
	selector labels.Selector
	template *corev1.PodTemplateSpec
}

// kind is what differs between the two kinds that the engine serves.
type kind struct {
	gvk schema.GroupVersionKind
	// get reads a set from the informer's store; nil if it is gone.
	get func(key string) (*set, error)
	// live reads a set from the API, past the cache.
	live func(ctx context.Context, namespace, name string) (metav1.Object, error)
	// report writes the status if it changed; failure is set if a pod could not be made or deleted.
	report func(ctx context.Context, s *set, c counts, failure error, creating bool) error
}

type engine struct {
	controller.Deps
	kind   kind
	pods   cache.SharedIndexInformer
	expect *expectation.Set
}

func (e *engine) reconcile(ctx context.Context, key string) (time.Duration, error) {
	s, err := e.kind.get(key)
	if err != nil || s == nil {
		return 0, err
	}
	owned, err := e.claim(ctx, s)
	if err != nil {
		return 0, err
	}
	var failure error
	creating := false
	if s.meta.GetDeletionTimestamp() == nil && !e.expect.Pending(key, time.Now()) {
		creating, failure = e.scale(ctx, key, s, owned)
	}
	c := count(owned, s.template.Labels, s.minReady, time.Now())
	if err := e.kind.report(ctx, s, c, failure, creating); err != nil && !apierrors.IsNotFound(err) {
		return 0, errors.Join(failure, err)
	}
	return c.next, failure
}

// scale makes or deletes pods towards the wanted number.
func (e *engine) scale(ctx context.Context, key string, s *set, owned []*corev1.Pod) (creating bool, err error) {
	have := 0
	for _, p := range owned {
		if active(p) && p.DeletionTimestamp == nil {
			have++
		}
	}
	diff := int(s.replicas) - have
	if diff > 0 {
		return true, e.create(ctx, key, s, min(diff, burst))
	}
	var errs []error
	for _, p := range victims(owned, min(-diff, burst)) {
		e.expect.Deleted(key, p.UID)
		err := e.Client.CoreV1().Pods(p.Namespace).Delete(ctx, p.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(p.UID))})
		if err != nil {
			e.expect.Saw(key, p.Name, p.UID, true)
			if !apierrors.IsNotFound(err) {
				errs = append(errs, fmt.Errorf("delete pod %s/%s: %w", p.Namespace, p.Name, err))
			}
			continue
		}
		e.Events.Eventf(s.object, corev1.EventTypeNormal, "SuccessfulDelete", "Deleted pod: %s", p.Name)
	}
	return false, errors.Join(errs...)
}

// create makes n pods in batches that double, so that a quota or an admission error costs one request and not n.
func (e *engine) create(ctx context.Context, key string, s *set, n int) error {
	for batch := 1; n > 0; batch *= 2 {
		size := min(batch, n)
		results := make(chan error, size)
		for range size {
			go func() { results <- e.createOne(ctx, key, s) }()
		}
		var errs []error
		for range size {
			errs = append(errs, <-results)
		}
		if err := errors.Join(errs...); err != nil {
			return err
		}
		n -= size
	}
	return nil
}

func (e *engine) createOne(ctx context.Context, key string, s *set) error {
	prefix := s.meta.GetName() + "-"
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: s.meta.GetNamespace(), GenerateName: prefix,
			// Named here, so that the expectation is there before the watch can bring the pod.
			Name:   prefix[:min(len(prefix), 58)] + rand.String(5),
			Labels: s.template.Labels, Annotations: s.template.Annotations, Finalizers: s.template.Finalizers,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(s.meta, s.kind)},
		},
		Spec: *s.template.Spec.DeepCopy(),
	}
	e.expect.Created(key, pod.Name)
	_, err := e.Client.CoreV1().Pods(pod.Namespace).Create(ctx, pod, metav1.CreateOptions{})
	if err != nil {
		e.expect.Saw(key, pod.Name, "", false)
		if controller.Terminating(err) {
			return nil
		}
		e.Events.Eventf(s.object, corev1.EventTypeWarning, "FailedCreate", "Error creating: %v", err)
		return fmt.Errorf("create a pod of %s %s: %w", s.kind.Kind, key, err)
	}
	e.Events.Eventf(s.object, corev1.EventTypeNormal, "SuccessfulCreate", "Created pod: %s", pod.Name)
	return nil
}

// claim returns the set's pods after adopting orphans that match and releasing pods that no longer do.
func (e *engine) claim(ctx context.Context, s *set) ([]*corev1.Pod, error) {
	objs, err := e.pods.GetIndexer().ByIndex(cache.NamespaceIndex, s.meta.GetNamespace())
	if err != nil {
		return nil, err
	}
	return owner.Claim[*corev1.Pod]{Owner: s.meta, Kind: s.kind, Selector: s.selector, Fit: active,
		Live:  func() (metav1.Object, error) { return e.kind.live(ctx, s.meta.GetNamespace(), s.meta.GetName()) },
		Patch: controller.Patcher(ctx, e.Client.CoreV1().Pods(s.meta.GetNamespace()))}.Take(objs)
}

// podKeys finds the sets that a pod's change concerns, and notes what it shows.
func (e *engine) podKeys(sets cache.Indexer) func(pod, old *corev1.Pod) []string {
	return func(pod, old *corev1.Pod) []string {
		var keys []string
		for _, p := range []*corev1.Pod{pod, old} {
			if p == nil {
				continue
			}
			if by := metav1.GetControllerOf(p); by != nil && by.Kind == e.kind.gvk.Kind {
				key := p.Namespace + "/" + by.Name
				_, stored, _ := e.pods.GetIndexer().GetByKey(p.Namespace + "/" + p.Name)
				e.expect.Saw(key, p.Name, p.UID, p.DeletionTimestamp != nil || !stored)
				keys = append(keys, key)
			}
		}
		return append(keys, owner.Keys(sets, pod, e.selector)...)
	}
}

func (e *engine) selector(obj any) labels.Selector {
	key, err := cache.MetaNamespaceKeyFunc(obj)
	if err != nil {
		return nil
	}
	s, err := e.kind.get(key)
	if err != nil || s == nil {
		return nil
	}
	return s.selector
}
