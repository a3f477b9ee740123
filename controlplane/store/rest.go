package store

import (
	"context"
	"fmt"
	"strconv"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/features"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/cacher"
	"k8s.io/apiserver/pkg/storage/etcd3"
	etcdfeature "k8s.io/apiserver/pkg/storage/feature"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/storage/storagebackend/factory"
	"k8s.io/apiserver/pkg/storage/value/encrypt/identity"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/tools/cache"
)

// Resource says how objects of one resource are kept.
type Resource struct {
	// Codec encodes to the stored version and decodes to the internal one; Versioner is its target.
	Codec     runtime.Codec
	Versioner runtime.GroupVersioner
	// Prefix is the part of the key after /registry/, without slashes around: "pods", "services/specs".
	Prefix string
	// Uncached resources are read from the store on every list and watch.
	Uncached bool
	// Secret resources are encrypted.
	Secret bool
}

// RESTOptions answers for a resource how the generic registry reaches its storage. layout is asked once per resource,
// with an example object (nil when there is none).
func (s *Store) RESTOptions(layout func(schema.GroupResource, runtime.Object) (Resource, error)) generic.RESTOptionsGetter {
	return optionsGetter{store: s, layout: layout}
}

type optionsGetter struct {
	store  *Store
	layout func(schema.GroupResource, runtime.Object) (Resource, error)
}

func (g optionsGetter) GetRESTOptions(gr schema.GroupResource, example runtime.Object) (generic.RESTOptions, error) {
	r, err := g.layout(gr, example)
	if err != nil {
		return generic.RESTOptions{}, fmt.Errorf("storage of %s: %w", gr, err)
	}
	cfg := storagebackend.NewDefaultConfig(keyPrefix, r.Codec)
	cfg.EncodeVersioner = r.Versioner
	if r.Secret {
		cfg.Transformer = g.store.secrets
	}
	return generic.RESTOptions{
		StorageConfig: cfg.ForResource(gr),
		Decorator: func(config *storagebackend.ConfigForResource, resourcePrefix string,
			keyFunc func(runtime.Object) (string, error), newFunc, newListFunc func() runtime.Object,
			attrs storage.AttrFunc, triggers storage.IndexerFuncs, indexers *cache.Indexers,
		) (storage.Interface, factory.DestroyFunc, error) {
			raw, destroy, err := g.store.raw(config, resourcePrefix, newFunc, newListFunc)
			if err != nil {
				return nil, nil, err
			}
			if r.Uncached {
				return g.store.apart(raw), destroy, nil
			}
			return g.store.cached(raw, destroy, cacher.Config{
				Storage:             g.store.apart(raw),
				Versioner:           storage.APIObjectVersioner{},
				GroupResource:       config.GroupResource,
				EventsHistoryWindow: config.EventsHistoryWindow,
				ResourcePrefix:      resourcePrefix,
				KeyFunc:             keyFunc,
				NewFunc:             newFunc,
				NewListFunc:         newListFunc,
				GetAttrsFunc:        attrs,
				IndexerFuncs:        triggers,
				Indexers:            indexers,
				Codec:               config.Codec,
				Clock:               beat{},
			})
		},
		EnableGarbageCollection: true,
		DeleteCollectionWorkers: 4,
		ResourcePrefix:          r.Prefix,
	}, nil
}

// raw is the storage beneath the watch cache. Config comes back from the registry, which may have changed its codec
// (custom resources do).
func (s *Store) raw(config *storagebackend.ConfigForResource, prefix string, newFunc, newListFunc func() runtime.Object) (storage.Interface, factory.DestroyFunc, error) {
	transformer := config.Transformer
	if transformer == nil {
		transformer = plain
	}
	versioner := storage.APIObjectVersioner{}
	decoder := etcd3.NewDefaultDecoder(config.Codec, versioner)
	unsafe := utilfeature.DefaultFeatureGate.Enabled(features.AllowUnsafeMalformedObjectDeletion)
	if unsafe { // KEP-3926
		transformer = etcd3.WithCorruptObjErrorHandlingTransformer(transformer)
		decoder = etcd3.WithCorruptObjErrorHandlingDecoder(decoder)
	}
	st, err := etcd3.New(s.client, s.compact, config.Codec, newFunc, newListFunc, config.Prefix, prefix,
		config.GroupResource, transformer, config.LeaseManagerConfig, decoder, versioner)
	if err != nil {
		return nil, nil, err
	}
	var out storage.Interface = guarded{st, s.space}
	if unsafe {
		out = etcd3.NewStoreWithUnsafeCorruptObjectDeletion(out, config.GroupResource)
	}
	return out, sync.OnceFunc(st.Close), nil
}

func (s *Store) cached(raw storage.Interface, destroy factory.DestroyFunc, cfg cacher.Config) (storage.Interface, factory.DestroyFunc, error) {
	c, err := cacher.NewCacherFromConfig(cfg)
	if err != nil {
		destroy()
		return nil, nil, err
	}
	d := cacher.NewCacheDelegator(c, raw)
	return patient{d, cfg.GroupResource, s.etcd.Server.KV().Rev}, sync.OnceFunc(func() {
		d.Stop()
		c.Stop()
		destroy()
	}), nil
}

// apart is storage whose watches have a stream of etcd's of their own, as elsewhere, where each has a client of its own. A request
// for progress is of a stream: it is answered to every watch of it, if every watch of it may be told. With one for all, a watch cache
// that is as new as the newest write, as that of a new definition is, keeps progress from all others until there is a newer write: who
// lists one of those waits three seconds. And a watch without a cache would get bookmarks that its client did not ask for.
type apart struct {
	storage.Interface
	stream string
}

func (s *Store) apart(raw storage.Interface) apart {
	return apart{raw, strconv.FormatInt(s.streams.Add(1), 10)}
}

func (a apart) on(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "stream", a.stream)
}

// Watch implements storage.Interface.
func (a apart) Watch(ctx context.Context, key string, o storage.ListOptions) (watch.Interface, error) {
	return a.Interface.Watch(a.on(ctx), key, o)
}

// RequestWatchProgress implements storage.Interface.
func (a apart) RequestWatchProgress(ctx context.Context) error {
	return a.Interface.RequestWatchProgress(a.on(ctx))
}

// allowProgressRequests tells the library that this etcd supports progress requests (it is 3.7). The library finds
// out by asking every endpoint, and an in-process client has none; without it, lists would not be served consistently
// from the watch cache and WatchList would be off.
func allowProgressRequests(ctx context.Context) {
	etcdfeature.DefaultFeatureSupportChecker.CheckClient(ctx, inProcess{}, storage.RequestWatchProgress)
}

type inProcess struct{}

func (inProcess) Endpoints() []string { return []string{"in-process"} }

func (inProcess) Status(context.Context, string) (*clientv3.StatusResponse, error) {
	return &clientv3.StatusResponse{Version: "3.7.0"}, nil
}

var plain = identity.NewEncryptCheckTransformer()
