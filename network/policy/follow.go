package policy

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/client-go/tools/cache"
)

// Follow keeps the engine at what three informers know, of NetworkPolicies, Namespaces and Pods (of all nodes). The caller
// starts them; Run calls Synced when they have delivered what there was. Call it before Run.
func (e *Engine) Follow(policies, namespaces, pods cache.SharedInformer) error {
	for _, f := range []struct {
		informer cache.SharedInformer
		handler  cache.ResourceEventHandler
	}{
		{policies, handler(e.SetPolicy, func(p *networkingv1.NetworkPolicy) { e.DeletePolicy(p.Namespace, p.Name) })},
		{namespaces, handler(e.SetNamespace, func(n *corev1.Namespace) { e.DeleteNamespace(n.Name) })},
		{pods, handler(e.SetPod, e.DeletePod)},
	} {
		reg, err := f.informer.AddEventHandler(f.handler)
		if err != nil {
			return fmt.Errorf("policy: follow the API: %w", err)
		}
		e.follows = append(e.follows, reg.HasSynced)
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
