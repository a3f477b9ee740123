package apiserver

import (
	"context"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/util/flowcontrol/request"
)

// countMemory is how long a count of objects is believed before it is taken again, when it is asked for.
const countMemory = 10 * time.Second

// counts knows how many objects of a resource there are and how large they are, where the library counts all of them every minute,
// asked or not. A count goes through every key and waits for the watch cache to be up to date: only the first who asks waits for
// one. Safe for concurrent use.
type counts struct {
	stores map[schema.GroupResource]*genericregistry.Store
	each   sync.Map // of *count by group and resource
}

// of is the request.statsGetterFunc: resource is "deployments.apps".
func (c *counts) of(resource string) (storage.Stats, error) {
	gr := schema.ParseGroupResource(resource)
	st := c.stores[gr]
	if st == nil {
		return storage.Stats{}, request.ObjectCountNotFoundErr // compared by ==, so unwrapped
	}
	known, ok := c.each.Load(gr)
	if !ok {
		known, _ = c.each.LoadOrStore(gr, &count{})
	}
	return known.(*count).get(func() (storage.Stats, error) { return st.Storage.Storage.Stats(context.Background()) })
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
