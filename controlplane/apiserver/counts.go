package apiserver

import (
	"context"
	"net/http"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/registry/generic"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/storage"
	etcd3metrics "k8s.io/apiserver/pkg/storage/etcd3/metrics"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/storage/storagebackend/factory"
	"k8s.io/apiserver/pkg/util/flowcontrol/request"
	"k8s.io/client-go/tools/cache"

	_ "k8s.io/component-base/metrics/prometheus/restclient" // rest_client_requests_total
	_ "k8s.io/component-base/metrics/prometheus/version"    // kubernetes_build_info
)

// countMemory is how long a count of objects is believed before it is taken again, when it is asked for.
const countMemory = 10 * time.Second

// counts knows how many objects of a resource there are and how large they are, where the library counts all of them every minute,
// asked or not. A count goes through every key and waits for the watch cache to be up to date: only the first who asks waits for
// one. Safe for concurrent use.
type counts struct {
	stores  map[schema.GroupResource]*genericregistry.Store
	defined definedStorages // of what definitions add
	each    sync.Map        // of *count by group and resource
}

// of is the request.statsGetterFunc: resource is "deployments.apps".
func (c *counts) of(resource string) (storage.Stats, error) {
	gr := schema.ParseGroupResource(resource)
	var objects interface {
		Stats(context.Context) (storage.Stats, error)
	}
	if st := c.stores[gr]; st != nil {
		objects = st.Storage.Storage
	} else if objects = c.defined.of(gr); objects == nil {
		return storage.Stats{}, request.ObjectCountNotFoundErr // compared by ==, so unwrapped
	}
	known, ok := c.each.Load(gr)
	if !ok {
		known, _ = c.each.LoadOrStore(gr, &count{})
	}
	return known.(*count).get(func() (storage.Stats, error) { return objects.Stats(context.Background()) })
}

// publish brings the metrics of how many objects there are (apiserver_resource_objects, apiserver_storage_objects) up to date.
func (c *counts) publish() {
	all := map[schema.GroupResource]bool{}
	for gr := range c.stores {
		all[gr] = true
	}
	c.defined.all.Range(func(gr, _ any) bool {
		all[gr.(schema.GroupResource)] = true
		return true
	})
	for gr := range all {
		stats, err := c.of(gr.String())
		etcd3metrics.UpdateStoreStats(gr, stats, err)
	}
}

// withObjectCounts takes the counts when metrics are asked for, and at no other time.
func (s *Server) withObjectCounts(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/metrics" && req.Method == http.MethodGet {
			s.counts.publish()
		}
		next.ServeHTTP(w, req)
	})
}

// definedStorages are the storages of custom resources, which come and go. Safe for concurrent use.
type definedStorages struct{ all sync.Map } // of *definedStorage by group and resource

type definedStorage struct{ storage.Interface }

// youth is how long a list waits for a storage that has only just been made, and soon is how often it looks.
const (
	youth = 3 * time.Second
	soon  = 10 * time.Millisecond
)

// GetList waits for a storage that has only just been made, where the library tells its clients to come again after a second. It tells
// that its own controller, too, which empties a definition before it goes, and which then may not come again for minutes.
func (d *definedStorage) GetList(ctx context.Context, key string, o storage.ListOptions, list runtime.Object) error {
	for begun := time.Now(); ; {
		err := d.Interface.GetList(ctx, key, o, list)
		if !apierrors.IsTooManyRequests(err) || time.Since(begun) > youth {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(soon):
		}
	}
}

// of returns the newest storage of a resource, nil if there is none: each served version has one, of the same objects.
func (d *definedStorages) of(gr schema.GroupResource) storage.Interface {
	if st, ok := d.all.Load(gr); ok {
		return st.(*definedStorage)
	}
	return nil
}

// recorded has d know the storages that are made with the options, for as long as they are there.
type recorded struct {
	generic.RESTOptionsGetter
	d *definedStorages
}

// GetRESTOptions implements generic.RESTOptionsGetter.
func (r recorded) GetRESTOptions(gr schema.GroupResource, example runtime.Object) (generic.RESTOptions, error) {
	o, err := r.RESTOptionsGetter.GetRESTOptions(gr, example)
	decorate := o.Decorator
	o.Decorator = func(config *storagebackend.ConfigForResource, prefix string, key func(runtime.Object) (string, error), one, list func() runtime.Object,
		attrs storage.AttrFunc, triggers storage.IndexerFuncs, indexers *cache.Indexers) (storage.Interface, factory.DestroyFunc, error) {
		st, destroy, err := decorate(config, prefix, key, one, list, attrs, triggers, indexers)
		if err != nil {
			return nil, nil, err
		}
		known := &definedStorage{st}
		r.d.all.Store(gr, known)
		return known, func() {
			r.d.all.CompareAndDelete(gr, known)
			destroy()
		}, nil
	}
	return o, err
}

// count is what is known of one resource.
type count struct {
	mu       sync.Mutex
	stats    storage.Stats
	at       time.Time // zero: not yet counted
	counting bool
}

// get returns the last count. A failure of the first is told and not remembered; of a later one it is not: what was counted before
// is the better answer.
func (c *count) get(take func() (storage.Stats, error)) (storage.Stats, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at.IsZero() {
		st, err := take()
		if err != nil {
			return storage.Stats{}, err
		}
		c.stats, c.at = st, time.Now()
	}
	if time.Since(c.at) >= countMemory && !c.counting {
		c.counting = true
		go func() { // ends with the count
			st, err := take()
			c.mu.Lock()
			defer c.mu.Unlock()
			if err == nil {
				c.stats = st
			}
			c.at, c.counting = time.Now(), false
		}()
	}
	return c.stats, nil
}
