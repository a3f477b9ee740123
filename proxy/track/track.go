package track

import (
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
)

const byService = "keelson-service"

// Change is what a Service is now. Service nil means that it is gone, or another proxy's.
type Change struct {
	Name    types.NamespacedName
	Service *corev1.Service
	Slices  []*discoveryv1.EndpointSlice
}

// Changes collects. Safe for concurrent use.
type Changes struct {
	services, slices cache.SharedIndexInformer
	wake             chan struct{}

	mu    sync.Mutex
	dirty map[types.NamespacedName]bool
}

// New registers with the informers, which must not be started yet.
func New(services, slices cache.SharedIndexInformer) (*Changes, error) {
	c := &Changes{services: services, slices: slices, wake: make(chan struct{}, 1), dirty: map[types.NamespacedName]bool{}}
	if err := slices.AddIndexers(cache.Indexers{byService: func(o any) ([]string, error) {
		name, ok := owner(o)
		if !ok {
			return nil, nil
		}
		return []string{name.String()}, nil
	}}); err != nil {
		return nil, fmt.Errorf("track: index of endpoint slices: %w", err)
	}
	if _, err := services.AddEventHandler(c.handler(named)); err != nil {
		return nil, fmt.Errorf("track: %w", err)
	}
	if _, err := slices.AddEventHandler(c.handler(owner)); err != nil {
		return nil, fmt.Errorf("track: %w", err)
	}
	return c, nil
}

func (c *Changes) handler(of func(any) (types.NamespacedName, bool)) cache.ResourceEventHandlerFuncs {
	mark := func(objects ...any) {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, o := range objects {
			if name, ok := of(o); ok {
				c.dirty[name] = true
			}
		}
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { mark(o) },
		UpdateFunc: func(old, o any) { mark(old, o) }, // a slice may move to another Service
		DeleteFunc: func(o any) {
			if t, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = t.Obj
			}
			mark(o)
		},
	}
}

func named(o any) (types.NamespacedName, bool) {
	s, ok := o.(*corev1.Service)
	if !ok {
		return types.NamespacedName{}, false
	}
	return types.NamespacedName{Namespace: s.Namespace, Name: s.Name}, true
}

func owner(o any) (types.NamespacedName, bool) {
	s, ok := o.(*discoveryv1.EndpointSlice)
	if !ok || s.Labels[discoveryv1.LabelServiceName] == "" {
		return types.NamespacedName{}, false
	}
	return types.NamespacedName{Namespace: s.Namespace, Name: s.Labels[discoveryv1.LabelServiceName]}, true
}

// ours tells whether a Service is for this kind of proxy: a label may say that another one serves it.
func ours(s *corev1.Service) bool {
	_, other := s.Labels["service.kubernetes.io/service-proxy-name"]
	return !other
}

// proxied tells whether a slice is for proxies: a label may say that its endpoints are to be found by name alone.
func proxied(s *discoveryv1.EndpointSlice) bool {
	_, headless := s.Labels[corev1.IsHeadlessService]
	return !headless
}

// Wake is readable when there is something to take.
func (c *Changes) Wake() <-chan struct{} { return c.wake }

// Synced tells whether the informers have delivered what there was at the start.
func (c *Changes) Synced() bool { return c.services.HasSynced() && c.slices.HasSynced() }

// Take returns the Services that changed since the last call, as they are now.
func (c *Changes) Take() []Change {
	c.mu.Lock()
	dirty := c.dirty
	c.dirty = map[types.NamespacedName]bool{}
	c.mu.Unlock()
	out := make([]Change, 0, len(dirty))
	for name := range dirty {
		ch := Change{Name: name}
		if o, ok, _ := c.services.GetIndexer().GetByKey(name.String()); ok {
			if s, is := o.(*corev1.Service); is && ours(s) {
				ch.Service = s
			}
		}
		objects, _ := c.slices.GetIndexer().ByIndex(byService, name.String())
		for _, o := range objects {
			if s, ok := o.(*discoveryv1.EndpointSlice); ok && proxied(s) {
				ch.Slices = append(ch.Slices, s)
			}
		}
		out = append(out, ch)
	}
	return out
}
