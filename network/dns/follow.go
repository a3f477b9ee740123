package dns

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/client-go/tools/cache"
)

// Follow keeps the zone at what two informers know, of Services and of EndpointSlices. The caller starts them.
func (z *Zone) Follow(services, slices cache.SharedInformer) error {
	_, err := services.AddEventHandler(handler(z.SetService, func(s *corev1.Service) { z.DeleteService(s.Namespace, s.Name) }))
	if err == nil {
		_, err = slices.AddEventHandler(handler(z.SetSlice, func(s *discoveryv1.EndpointSlice) { z.DeleteSlice(s.Namespace, s.Name) }))
	}
	if err != nil {
		return fmt.Errorf("dns: follow the API: %w", err)
	}
	return nil
}

// handler calls set for what is new or changed and gone for what was deleted.
func handler[T any](set, gone func(T)) cache.ResourceEventHandlerFuncs {
	on := func(f func(T)) func(any) {
		return func(o any) {
			if t, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = t.Obj
			}
			if v, ok := o.(T); ok {
				f(v)
			}
		}
	}
	return cache.ResourceEventHandlerFuncs{AddFunc: on(set), UpdateFunc: func(_, o any) { on(set)(o) }, DeleteFunc: on(gone)}
}
