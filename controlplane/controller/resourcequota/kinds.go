package resourcequota

import (
	"context"
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"
)

// rediscover is how often at most discovery is asked again for kinds that it did not show.
const rediscover = 30 * time.Second

// kinds watches the metadata of those kinds that some quota counts and nobody here keeps anyway.
type kinds struct {
	client metadata.Interface
	mapper meta.ResettableRESTMapper
	run    func(func())                                 // owns the goroutine
	gone   func(namespace string)                       // an object was deleted
	ready  func(kind schema.GroupResource)              // a kind's first list is there
	kept   map[schema.GroupResource]cache.GenericLister // by the shared informers

	mu      sync.Mutex
	running map[schema.GroupResource]*watched
	reset   time.Time // the mapper's last
}

type watched struct {
	informer cache.SharedIndexInformer
	lister   cache.GenericLister
	stop     context.CancelFunc
}

// want reports whether a kind can be counted now, and begins to watch it if need be. served is false for what no server
// has: there are none of it. ctx is the watch's.
func (k *kinds) want(ctx context.Context, kind schema.GroupResource) (ready, served bool, err error) {
	if _, ok := k.kept[kind]; ok {
		return true, true, nil
	}
	k.mu.Lock()
	w := k.running[kind]
	k.mu.Unlock()
	if w != nil {
		return w.informer.HasSynced(), true, nil
	}
	gvr, err := k.resource(kind)
	if meta.IsNoMatchError(err) {
		return false, false, nil
	} else if err != nil {
		return false, false, fmt.Errorf("find %s, which a quota counts: %w", kind, err)
	}
	return false, true, k.watch(ctx, gvr)
}

func (k *kinds) watch(ctx context.Context, gvr schema.GroupVersionResource) error {
	generic := metadatainformer.NewFilteredMetadataInformer(k.client, gvr, metav1.NamespaceAll, 0, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc}, nil)
	informer := generic.Informer()
	// Only the number counts.
	err := informer.SetTransform(func(obj any) (any, error) {
		if m, ok := obj.(*metav1.PartialObjectMetadata); ok {
			m.ObjectMeta = metav1.ObjectMeta{Namespace: m.Namespace, Name: m.Name, UID: m.UID, ResourceVersion: m.ResourceVersion}
		}
		return obj, nil
	})
	if err == nil {
		_, err = informer.AddEventHandler(cache.ResourceEventHandlerFuncs{DeleteFunc: func(obj any) {
			if key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(obj); err == nil {
				namespace, _, _ := cache.SplitMetaNamespaceKey(key)
				k.gone(namespace)
			}
		}})
	}
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	kind := gvr.GroupResource()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.running[kind] != nil {
		stop()
		return nil
	}
	k.running[kind] = &watched{informer: informer, lister: generic.Lister(), stop: stop}
	k.run(func() { informer.RunWithContext(ctx) })
	k.run(func() {
		if cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
			k.ready(kind)
		}
	})
	return nil
}

// only stops the watches of kinds that no quota counts any more.
func (k *kinds) only(named map[schema.GroupResource]bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for kind, w := range k.running {
		if !named[kind] {
			w.stop()
			delete(k.running, kind)
		}
	}
}

// resource is the served version of a kind; what discovery did not know may have come since.
func (k *kinds) resource(kind schema.GroupResource) (schema.GroupVersionResource, error) {
	gvr, err := k.mapper.ResourceFor(kind.WithVersion(""))
	if !meta.IsNoMatchError(err) {
		return gvr, err
	}
	k.mu.Lock()
	due := time.Since(k.reset) >= rediscover
	if due {
		k.reset = time.Now()
	}
	k.mu.Unlock()
	if !due {
		return gvr, err
	}
	k.mapper.Reset()
	return k.mapper.ResourceFor(kind.WithVersion(""))
}

// lister implements quota.ListerForResourceFunc over what is watched.
func (k *kinds) lister(gvr schema.GroupVersionResource) (cache.GenericLister, error) {
	if l, ok := k.kept[gvr.GroupResource()]; ok {
		return l, nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if w := k.running[gvr.GroupResource()]; w != nil {
		return w.lister, nil
	}
	return nil, fmt.Errorf("%s is not watched", gvr.GroupResource())
}
