package apiserver

import (
	"context"
	"reflect"

	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/client-go/tools/cache"
)

// source reads a resource from its watch cache, for the parts of the server that must know it before they can let any
// request pass. The objects are the cache's own: whoever reads them must not change them. nil: there is no such kind.
func (s *Server) source(gr schema.GroupResource) cache.ListerWatcher {
	st := s.stores[gr]
	if st == nil {
		return nil
	}
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			var in internalversion.ListOptions
			if err := internalversion.Convert_v1_ListOptions_To_internalversion_ListOptions(&o, &in, nil); err != nil {
				return nil, err
			}
			return st.List(apirequest.WithNamespace(ctx, metav1.NamespaceAll), &in)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			var in internalversion.ListOptions
			if err := internalversion.Convert_v1_ListOptions_To_internalversion_ListOptions(&o, &in, nil); err != nil {
				return nil, err
			}
			w, err := st.Watch(apirequest.WithNamespace(ctx, metav1.NamespaceAll), &in)
			if err != nil {
				return nil, err
			}
			return watch.Filter(w, unwrap), nil
		},
	}
}

// unwrap takes the object out of what the watch cache puts around it to share its encoded form between watchers.
func unwrap(e watch.Event) (watch.Event, bool) {
	if c, ok := e.Object.(runtime.CacheableObject); ok {
		e.Object = c.GetObject()
	}
	return e, true
}

// Shared returns what informers of this process transform their objects by: in place of what a client has decoded it gives the watch
// cache's own object of the same version, so that it is in memory once, whoever keeps it. Only the outermost struct is the caller's:
// what it refers to must not be changed, which holds for every informer. Where the cache is ahead, the object stays as it is: the next
// event is under way.
func (s *Server) Shared() cache.TransformFunc {
	kept := make(map[reflect.Type]*genericregistry.Store, len(s.stores))
	for _, st := range s.stores {
		kept[reflect.TypeOf(st.New())] = st
	}
	return func(obj any) (any, error) {
		st := kept[reflect.TypeOf(obj)]
		if st == nil {
			return obj, nil
		}
		m := obj.(metav1.Object) // as everything that is kept
		ctx := apirequest.WithNamespace(context.Background(), m.GetNamespace())
		own, err := st.Get(ctx, m.GetName(), &metav1.GetOptions{ResourceVersion: "0"})
		if err != nil {
			return obj, nil // deleted since
		}
		if o := own.(metav1.Object); o.GetUID() == m.GetUID() && o.GetResourceVersion() == m.GetResourceVersion() {
			return own, nil
		}
		return obj, nil
	}
}
