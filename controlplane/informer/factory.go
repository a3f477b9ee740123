package informer

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/informers/internalinterfaces"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// Options of a factory; the zero value is every object as it is.
type Options struct {
	Namespace string              // "" is all
	Transform cache.TransformFunc // of each object before it is kept; nil keeps it as it is
}

// factory implements informers.SharedInformerFactory. Nothing is resynced: level-triggered loops need it not.
type factory struct {
	informers.SharedInformerFactory // nil: of the groups that are not here

	client  kubernetes.Interface
	options Options

	mu      sync.Mutex
	kinds   map[reflect.Type]cache.SharedIndexInformer
	started map[reflect.Type]bool
	closing bool
	running sync.WaitGroup
}

// New returns a factory whose informers read by the client. Informers are made when first asked for.
func New(client kubernetes.Interface, o Options) informers.SharedInformerFactory {
	return &factory{client: client, options: o, kinds: map[reflect.Type]cache.SharedIndexInformer{}, started: map[reflect.Type]bool{}}
}

// InformerName implements informers.SharedInformerFactory: the informers have no metrics of their own.
func (f *factory) InformerName() *cache.InformerName { return nil }

// Start implements informers.SharedInformerFactory.
func (f *factory) Start(stop <-chan struct{}) { f.StartWithContext(wait.ContextForChannel(stop)) }

// StartWithContext runs the informers that were asked for and do not run yet.
func (f *factory) StartWithContext(ctx context.Context) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closing {
		return
	}
	for kind, informer := range f.kinds {
		if !f.started[kind] {
			f.started[kind] = true
			f.running.Go(func() { informer.RunWithContext(ctx) })
		}
	}
}

// Shutdown waits for the informers, whose context must have ended; none can be started any more.
func (f *factory) Shutdown() {
	f.mu.Lock()
	f.closing = true
	f.mu.Unlock()
	f.running.Wait()
}

// WaitForCacheSync implements informers.SharedInformerFactory.
func (f *factory) WaitForCacheSync(stop <-chan struct{}) map[reflect.Type]bool {
	return f.WaitForCacheSyncWithContext(wait.ContextForChannel(stop)).Synced
}

// WaitForCacheSyncWithContext waits for the informers that run.
func (f *factory) WaitForCacheSyncWithContext(ctx context.Context) cache.SyncResult {
	f.mu.Lock()
	running := maps.Clone(f.kinds)
	maps.DeleteFunc(running, func(kind reflect.Type, _ cache.SharedIndexInformer) bool { return !f.started[kind] })
	f.mu.Unlock()
	var synced []cache.DoneChecker
	for _, informer := range running {
		synced = append(synced, informer.HasSyncedChecker())
	}
	cache.WaitFor(ctx, "", synced...)
	result := cache.SyncResult{Synced: map[reflect.Type]bool{}}
	for kind, informer := range running {
		if result.Synced[kind] = informer.HasSynced(); !result.Synced[kind] {
			result.Err = context.Cause(ctx)
		}
	}
	return result
}

// InformerFor implements informers.SharedInformerFactory: who asks first for a type makes its informer.
func (f *factory) InformerFor(example runtime.Object, make internalinterfaces.NewInformerFunc) cache.SharedIndexInformer {
	f.mu.Lock()
	defer f.mu.Unlock()
	kind := reflect.TypeOf(example)
	if informer := f.kinds[kind]; informer != nil {
		return informer
	}
	informer := make(f.client, 0)
	if f.options.Transform != nil {
		// It fails for an informer that runs already, and this one is new.
		_ = informer.SetTransform(f.options.Transform)
	}
	f.kinds[kind] = informer
	return informer
}

// ForResource implements informers.SharedInformerFactory for the kinds that are here.
func (f *factory) ForResource(r schema.GroupVersionResource) (informers.GenericInformer, error) {
	example := exampleOf(r)
	if example == nil || clientOf(f.client, r.GroupVersion()) == nil {
		return nil, fmt.Errorf("informer of %v: there is none", r)
	}
	return generic{f.of(example), r.GroupResource()}, nil
}

type generic struct {
	informer cache.SharedIndexInformer
	resource schema.GroupResource
}

func (g generic) Informer() cache.SharedIndexInformer { return g.informer }
func (g generic) Lister() cache.GenericLister {
	return cache.NewGenericLister(g.informer.GetIndexer(), g.resource)
}

// of returns the informer of an example's kind, which is one of this package's list.
func (f *factory) of(example runtime.Object) cache.SharedIndexInformer {
	return f.InformerFor(example, func(client kubernetes.Interface, resync time.Duration) cache.SharedIndexInformer {
		r, _ := resourceOf(example)
		everything := func(*metav1.ListOptions) {}
		source := cache.NewFilteredListWatchFromClient(clientOf(client, r.GroupVersion()), r.Resource, f.options.Namespace, everything)
		return cache.NewSharedIndexInformer(cache.ToListWatcherWithWatchListSemantics(source, client), example, resync,
			cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
	})
}
