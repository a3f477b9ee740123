// Package resourcequota keeps the status of ResourceQuotas true: admission only ever charges, and what is deleted or has
// ended is given back here, measured by the same evaluators, which the caller gives.
//
// Pods, services and claims are looked at when what they use changes. Other counted kinds, which nobody here keeps in
// memory, are watched by name alone for as long as a quota counts them. New objects cause nothing: admission has charged
// them. plan.go is pure.
package resourcequota

import (
	"context"
	"errors"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiquota "k8s.io/apiserver/pkg/quota/v1"
	"k8s.io/apiserver/pkg/quota/v1/generic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/controlplane/controller"
)

// resync mends what no event told of, like a charge whose object was refused afterwards.
const resync = 5 * time.Minute

// Deps are what the controller needs beyond the usual, under its own identity.
type Deps struct {
	controller.Deps
	Metadata metadata.Interface
	Mapper   meta.ResettableRESTMapper
	// Measures are admission's evaluators over a lister.
	Measures func(apiquota.ListerForResourceFunc) []apiquota.Evaluator
}

type keeper struct {
	Deps
	quotas   cache.SharedIndexInformer
	kinds    *kinds
	measures []apiquota.Evaluator

	mu      sync.Mutex
	charged map[string]time.Time // by quota: when admission's last charge was seen
}

// New returns the controller; keys are quotas.
func New(d Deps) (*controller.Loop, error) {
	core := d.Informers.Core().V1()
	k := &keeper{Deps: d, quotas: core.ResourceQuotas().Informer(), charged: map[string]time.Time{}}
	loop := controller.NewLoop("resourcequota", d.Log, 2, k.reconcile)
	all := func(namespace string) {
		for _, key := range k.in(namespace) {
			loop.Add(key)
		}
	}
	k.kinds = &kinds{client: d.Metadata, mapper: d.Mapper, run: loop.Go, gone: all, ready: func(schema.GroupResource) { all(metav1.NamespaceAll) },
		kept: map[schema.GroupResource]cache.GenericLister{}, running: map[schema.GroupResource]*watched{}}
	pods, services, claims := core.Pods().Informer(), core.Services().Informer(), core.PersistentVolumeClaims().Informer()
	for resource, informer := range map[string]cache.SharedIndexInformer{
		"pods": pods, "services": services, "persistentvolumeclaims": claims, "resourcequotas": k.quotas,
	} {
		kind := corev1.Resource(resource)
		k.kinds.kept[kind] = cache.NewGenericLister(informer.GetIndexer(), kind)
	}
	devices := d.Informers.Resource().V1().ResourceClaims().Informer()
	k.kinds.kept[resourcev1.Resource("resourceclaims")] = cache.NewGenericLister(devices.GetIndexer(), resourcev1.Resource("resourceclaims"))
	k.measures = d.Measures(k.kinds.lister)
	return loop, errors.Join(
		controller.Watch(loop, k.quotas, k.quotaChanged),
		watchUse(k, loop, pods, func(p *corev1.Pod) string { return p.Namespace }),
		watchUse(k, loop, services, func(s *corev1.Service) string { return s.Namespace }),
		watchUse(k, loop, claims, func(c *corev1.PersistentVolumeClaim) string { return c.Namespace }),
		watchUse(k, loop, devices, func(c *resourcev1.ResourceClaim) string { return c.Namespace }))
}

// quotaChanged: of a quota itself, a new one, another spec, a status that somebody wrote other limits into, or one less to count.
func (k *keeper) quotaChanged(q, old *corev1.ResourceQuota) []string {
	key := q.Namespace + "/" + q.Name
	if old == nil {
		return append(k.in(q.Namespace), key)
	}
	if !equality.Semantic.DeepEqual(q.Status.Used, old.Status.Used) {
		k.mu.Lock()
		k.charged[key] = time.Now()
		k.mu.Unlock()
	}
	if !equality.Semantic.DeepEqual(q.Spec, old.Spec) || !equality.Semantic.DeepEqual(q.Spec.Hard, q.Status.Hard) {
		return []string{key}
	}
	return nil
}

// watchUse looks at a namespace's quotas when an object goes, or uses something else than before.
func watchUse[T runtime.Object](k *keeper, loop *controller.Loop, informer cache.SharedIndexInformer, namespace func(T) string) error {
	look := func(obj T, changed func() bool) {
		if keys := k.in(namespace(obj)); len(keys) > 0 && changed() {
			for _, key := range keys {
				loop.Add(key)
			}
		}
	}
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		UpdateFunc: func(old, obj any) {
			before, _ := old.(T)
			if now, ok := obj.(T); ok {
				look(now, func() bool { return !equality.Semantic.DeepEqual(k.uses(before), k.uses(now)) })
			}
		},
		DeleteFunc: func(obj any) {
			if tomb, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = tomb.Obj
			}
			if gone, ok := obj.(T); ok {
				look(gone, func() bool { return true })
			}
		},
	})
	loop.Needs(informer)
	return err
}

// uses is what an object of a kind that we keep uses.
func (k *keeper) uses(obj runtime.Object) corev1.ResourceList {
	for _, m := range k.measures {
		if u, err := m.Usage(obj); err == nil && len(m.MatchingResources(apiquota.ResourceNames(u))) > 0 {
			return u
		}
	}
	return nil
}

// in lists the quotas of a namespace, or all.
func (k *keeper) in(namespace string) (keys []string) {
	_ = cache.ListAllByNamespace(k.quotas.GetIndexer(), namespace, labels.Everything(), func(obj any) {
		q := obj.(*corev1.ResourceQuota)
		keys = append(keys, q.Namespace+"/"+q.Name)
	})
	return keys
}

func (k *keeper) reconcile(ctx context.Context, key string) (time.Duration, error) {
	k.kinds.only(k.named())
	q := controller.Get[corev1.ResourceQuota](k.quotas, key)
	if q == nil || q.DeletionTimestamp != nil {
		k.mu.Lock()
		delete(k.charged, key)
		k.mu.Unlock()
		return 0, nil
	}
	registry, hard, again, err := k.countable(ctx, q)
	if err != nil {
		return 0, err
	}
	usage, failed := apiquota.CalculateUsage(q.Namespace, q.Spec.Scopes, hard, registry, q.Spec.ScopeSelector)
	next := q.DeepCopy()
	next.Status = measured(q, usage)
	if equality.Semantic.DeepEqual(q.Status, next.Status) {
		return again, failed
	}
	k.mu.Lock()
	charged := time.Since(k.charged[key])
	k.mu.Unlock()
	if d := wait(q.Status, next.Status, charged); d > 0 {
		return d, failed
	}
	_, err = k.Client.CoreV1().ResourceQuotas(q.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		err = nil
	}
	return again, errors.Join(failed, err)
}

// countable are the evaluators and the limits that can be measured now; the others follow when their kinds are known.
func (k *keeper) countable(ctx context.Context, q *corev1.ResourceQuota) (apiquota.Registry, corev1.ResourceList, time.Duration, error) {
	registry, hard, again := generic.NewRegistry(k.measures), corev1.ResourceList{}, resync
	for name, limit := range q.Spec.Hard {
		kind, ok := counted(name)
		if !ok {
			hard[name] = limit
			continue
		}
		ready, served, err := k.kinds.want(ctx, kind)
		if err != nil {
			return nil, nil, 0, err
		}
		if !served {
			again = rediscover
		}
		if !ready {
			continue
		}
		hard[name] = limit
		if registry.Get(kind) == nil {
			list := generic.ListResourceUsingListerFunc(k.kinds.lister, kind.WithVersion(""))
			registry.Add(generic.NewObjectCountEvaluator(kind, list, ""))
		}
	}
	return registry, hard, again, nil
}

// named are the kinds that any quota counts.
func (k *keeper) named() map[schema.GroupResource]bool {
	out := map[schema.GroupResource]bool{}
	for _, obj := range k.quotas.GetIndexer().List() {
		for name := range obj.(*corev1.ResourceQuota).Spec.Hard {
			if kind, ok := counted(name); ok {
				out[kind] = true
			}
		}
	}
	return out
}
