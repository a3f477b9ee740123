package admission

import (
	"context"
	"sync"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
	resourcev1 "k8s.io/api/resource/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// cluster is what plugins read.
type cluster struct {
	deps       Deps
	client     kubernetes.Interface
	accounts   *reader[*corev1.ServiceAccount]
	limits     *reader[*corev1.LimitRange]
	priorities *reader[*schedulingv1.PriorityClass]
	storage    *reader[*storagev1.StorageClass]
	runtimes   *reader[*nodev1.RuntimeClass]
	ingresses  *reader[*networkingv1.IngressClass]
	devices    *reader[*resourcev1.DeviceClass]
	namespaces *reader[*corev1.Namespace]
	extensions *configured
}

func newCluster(d Deps) *cluster {
	c := &cluster{deps: d, client: d.Client, extensions: &configured{deps: d}}
	core, start := d.Client.CoreV1(), func() { d.Informers.Start(d.Stop) }
	type options = metav1.GetOptions
	c.accounts = &reader[*corev1.ServiceAccount]{
		start:    start,
		informer: func() cache.SharedIndexInformer { return d.Informers.Core().V1().ServiceAccounts().Informer() },
		get: func(ctx context.Context, ns, name string) (*corev1.ServiceAccount, error) {
			return core.ServiceAccounts(ns).Get(ctx, name, options{})
		},
	}
	c.limits = &reader[*corev1.LimitRange]{
		start:    start,
		informer: func() cache.SharedIndexInformer { return d.Informers.Core().V1().LimitRanges().Informer() },
		list: func(ctx context.Context, ns string) ([]*corev1.LimitRange, error) {
			l, err := core.LimitRanges(ns).List(ctx, metav1.ListOptions{})
			return pointers(l, err, func() []corev1.LimitRange { return l.Items })
		},
	}
	c.namespaces = &reader[*corev1.Namespace]{
		start:    start,
		informer: func() cache.SharedIndexInformer { return d.Informers.Core().V1().Namespaces().Informer() },
		get: func(ctx context.Context, _, name string) (*corev1.Namespace, error) {
			return core.Namespaces().Get(ctx, name, options{})
		},
	}
	c.addClasses(d.Informers, start)
	return c
}

// addClasses makes the readers of the cluster-wide classes.
func (c *cluster) addClasses(f informers.SharedInformerFactory, start func()) {
	client := c.client
	c.priorities = &reader[*schedulingv1.PriorityClass]{
		start:    start,
		informer: func() cache.SharedIndexInformer { return f.Scheduling().V1().PriorityClasses().Informer() },
		get: func(ctx context.Context, _, name string) (*schedulingv1.PriorityClass, error) {
			return client.SchedulingV1().PriorityClasses().Get(ctx, name, metav1.GetOptions{})
		},
		list: func(ctx context.Context, _ string) ([]*schedulingv1.PriorityClass, error) {
			l, err := client.SchedulingV1().PriorityClasses().List(ctx, metav1.ListOptions{})
			return pointers(l, err, func() []schedulingv1.PriorityClass { return l.Items })
		},
	}
	c.storage = &reader[*storagev1.StorageClass]{
		start:    start,
		informer: func() cache.SharedIndexInformer { return f.Storage().V1().StorageClasses().Informer() },
		get: func(ctx context.Context, _, name string) (*storagev1.StorageClass, error) {
			return client.StorageV1().StorageClasses().Get(ctx, name, metav1.GetOptions{})
		},
		list: func(ctx context.Context, _ string) ([]*storagev1.StorageClass, error) {
			l, err := client.StorageV1().StorageClasses().List(ctx, metav1.ListOptions{})
			return pointers(l, err, func() []storagev1.StorageClass { return l.Items })
		},
	}
	c.runtimes = &reader[*nodev1.RuntimeClass]{
		start:    start,
		informer: func() cache.SharedIndexInformer { return f.Node().V1().RuntimeClasses().Informer() },
		get: func(ctx context.Context, _, name string) (*nodev1.RuntimeClass, error) {
			return client.NodeV1().RuntimeClasses().Get(ctx, name, metav1.GetOptions{})
		},
	}
	c.devices = &reader[*resourcev1.DeviceClass]{
		start:    start,
		informer: func() cache.SharedIndexInformer { return f.Resource().V1().DeviceClasses().Informer() },
		list: func(ctx context.Context, _ string) ([]*resourcev1.DeviceClass, error) {
			l, err := client.ResourceV1().DeviceClasses().List(ctx, metav1.ListOptions{})
			return pointers(l, err, func() []resourcev1.DeviceClass { return l.Items })
		},
	}
	c.ingresses = &reader[*networkingv1.IngressClass]{
		start:    start,
		informer: func() cache.SharedIndexInformer { return f.Networking().V1().IngressClasses().Informer() },
		list: func(ctx context.Context, _ string) ([]*networkingv1.IngressClass, error) {
			l, err := client.NetworkingV1().IngressClasses().List(ctx, metav1.ListOptions{})
			return pointers(l, err, func() []networkingv1.IngressClass { return l.Items })
		},
	}
}

// reader reads objects of one kind: from a shared informer once that has synced, else from the API.
// The informer starts with the first read. Results are shared: callers must not change them.
type reader[T any] struct {
	start    func() // starts the informers that are not started yet
	informer func() cache.SharedIndexInformer
	get      func(ctx context.Context, namespace, name string) (T, error)
	list     func(ctx context.Context, namespace string) ([]T, error)

	once  sync.Once
	index cache.SharedIndexInformer // set by once
}

// synced returns the informer's content, or nil while it is not complete.
func (r *reader[T]) synced() cache.Indexer {
	r.once.Do(func() {
		r.index = r.informer()
		r.start()
	})
	if !r.index.HasSynced() {
		return nil
	}
	return r.index.GetIndexer()
}

// Get asks the API for what the informer does not (yet) have: a pod may come right behind the class it names.
func (r *reader[T]) Get(ctx context.Context, namespace, name string) (T, error) {
	if index := r.synced(); index != nil {
		key := name
		if namespace != "" {
			key = namespace + "/" + name
		}
		if obj, ok, err := index.GetByKey(key); err == nil && ok {
			if t, ok := obj.(T); ok {
				return t, nil
			}
		}
	}
	return r.get(ctx, namespace, name)
}

// List returns the objects of a namespace, or all for "".
func (r *reader[T]) List(ctx context.Context, namespace string) ([]T, error) {
	index := r.synced()
	if index == nil {
		return r.list(ctx, namespace)
	}
	var objs []any
	if namespace == "" {
		objs = index.List()
	} else {
		var err error
		if objs, err = index.ByIndex(cache.NamespaceIndex, namespace); err != nil {
			return r.list(ctx, namespace)
		}
	}
	out := make([]T, 0, len(objs))
	for _, o := range objs {
		if t, ok := o.(T); ok {
			out = append(out, t)
		}
	}
	return out, nil
}

func pointers[L, E any](_ L, err error, items func() []E) ([]*E, error) {
	if err != nil {
		return nil, err
	}
	list := items()
	out := make([]*E, len(list))
	for i := range list {
		out[i] = &list[i]
	}
	return out, nil
}

func notFound(err error) bool { return apierrors.IsNotFound(err) }
