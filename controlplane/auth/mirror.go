package auth

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/cache"
	"k8s.io/component-base/metrics"
)

// Source lists and watches all objects of a resource. Objects may be shared with others: they are only read.
type Source func(schema.GroupResource) cache.ListerWatcher

// mirror is what a reflector writes into: it keeps what keep makes of each object and tells change of every difference.
// Keeping little of an object is what makes a mirror of all pods cheap.
type mirror[T metav1.Object, V any] struct {
	// mu is the owner's; it guards objs and all that change touches.
	mu     *sync.RWMutex
	keep   func(T) V
	change func(key string, old, new *V) // nil: absent. Called with mu held.
	objs   map[string]V
	// adds and removes, if set, are told how long each change took.
	adds, removes metrics.ObserverMetric
	// waiters want keys that are not there yet; guarded by mu.
	waiters []*waiter

	once   sync.Once
	synced chan struct{}
}

// waiter is told when the last of the keys that it misses has come.
type waiter struct {
	missing map[string]bool
	whole   chan struct{}
}

func newMirror[T metav1.Object, V any](mu *sync.RWMutex, keep func(T) V, change func(key string, old, new *V)) *mirror[T, V] {
	return &mirror[T, V]{mu: mu, keep: keep, change: change, objs: map[string]V{}, synced: make(chan struct{})}
}

// run feeds the mirror until ctx ends.
func (m *mirror[T, V]) run(ctx context.Context, source cache.ListerWatcher, example T) {
	cache.NewReflector(source, example, m, 0).RunWithContext(ctx)
}

func keyOf(namespace, name string) string { return namespace + "/" + name }

func (m *mirror[T, V]) set(obj any) error {
	t, ok := obj.(T)
	if !ok {
		return fmt.Errorf("watch of %T yields %T", *new(T), obj)
	}
	key, v := keyOf(t.GetNamespace(), t.GetName()), m.keep(t)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.put(key, v)
	return nil
}

// put. Precondition: m.mu is held.
func (m *mirror[T, V]) put(key string, v V) {
	defer observe(m.adds, time.Now())
	old, had := m.objs[key]
	m.objs[key] = v
	if had {
		m.change(key, &old, &v)
	} else {
		m.change(key, nil, &v)
	}
	m.waiters = slices.DeleteFunc(m.waiters, func(w *waiter) bool {
		delete(w.missing, key)
		if len(w.missing) > 0 {
			return false
		}
		close(w.whole)
		return true
	})
}

// wait returns when every key is there, or has been.
func (m *mirror[T, V]) wait(ctx context.Context, keys []string) error {
	w := &waiter{missing: map[string]bool{}, whole: make(chan struct{})}
	m.mu.Lock()
	for _, key := range keys {
		if _, has := m.objs[key]; !has {
			w.missing[key] = true
		}
	}
	if len(w.missing) == 0 {
		close(w.whole)
	} else {
		m.waiters = append(m.waiters, w)
	}
	m.mu.Unlock()
	select {
	case <-w.whole:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Add, Update, Delete, Replace and Resync implement cache.ReflectorStore.
func (m *mirror[T, V]) Add(obj any) error    { return m.set(obj) }
func (m *mirror[T, V]) Update(obj any) error { return m.set(obj) }
func (m *mirror[T, V]) Resync() error        { return nil }

func (m *mirror[T, V]) Delete(obj any) error {
	t, ok := obj.(T)
	if !ok {
		return fmt.Errorf("watch of %T yields %T", *new(T), obj)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.remove(keyOf(t.GetNamespace(), t.GetName()))
	return nil
}

// remove. Precondition: m.mu is held.
func (m *mirror[T, V]) remove(key string) {
	defer observe(m.removes, time.Now())
	if old, had := m.objs[key]; had {
		delete(m.objs, key)
		m.change(key, &old, nil)
	}
}

func (m *mirror[T, V]) Replace(list []any, _ string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	seen := make(map[string]bool, len(list))
	for _, obj := range list {
		t, ok := obj.(T)
		if !ok {
			return fmt.Errorf("list of %T yields %T", *new(T), obj)
		}
		key := keyOf(t.GetNamespace(), t.GetName())
		seen[key] = true
		m.put(key, m.keep(t))
	}
	for key := range m.objs {
		if !seen[key] {
			m.remove(key)
		}
	}
	m.once.Do(func() { close(m.synced) })
	return nil
}
