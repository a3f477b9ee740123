package dns

import (
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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

// Follow keeps the server's settings at what the ConfigMaps kube-system/coredns and coredns-custom say, which users of CoreDNS change. The caller
// starts the informer, which may know other ConfigMaps as well.
func (s *Server) Follow(configMaps cache.SharedInformer) error {
	names := []string{"coredns", "coredns-custom"}
	read := func(changed *corev1.ConfigMap) {
		if changed.Namespace != metav1.NamespaceSystem || !slices.Contains(names, changed.Name) {
			return
		}
		files := map[string]string{}
		for _, name := range names {
			obj, ok, err := configMaps.GetStore().GetByKey(metav1.NamespaceSystem + "/" + name)
			if cm, is := obj.(*corev1.ConfigMap); err == nil && ok && is {
				maps.Copy(files, cm.Data)
			}
		}
		settings, ignored := ReadSettings(files)
		for _, what := range ignored {
			s.cfg.Log.Warn("part of the DNS settings is ignored", "what", what)
		}
		s.Use(settings)
	}
	if _, err := configMaps.AddEventHandler(handler(read, read)); err != nil {
		return fmt.Errorf("dns: follow the settings: %w", err)
	}
	return nil
}
