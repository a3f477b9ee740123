package replicaset

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

const expectationLimit = time.Minute

// expectations remember, per set, which pods were created or deleted and are not yet seen so by the informer.
type expectations struct {
	mu  sync.Mutex
	set map[string]*expected
}

type expected struct {
	created map[string]bool    // pod names
	deleted map[types.UID]bool // pods asked to go
	since   time.Time
}

func newExpectations() *expectations { return &expectations{set: map[string]*expected{}} }

// pending reports whether the informer has yet to show something of the set; an expectation that is too old is dropped.
func (e *expectations) pending(key string, now time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	x := e.set[key]
	if x == nil {
		return false
	}
	if now.Sub(x.since) > expectationLimit || len(x.created)+len(x.deleted) == 0 {
		delete(e.set, key)
		return false
	}
	return true
}

func (e *expectations) of(key string) *expected {
	x := e.set[key]
	if x == nil {
		x = &expected{created: map[string]bool{}, deleted: map[types.UID]bool{}, since: time.Now()}
		e.set[key] = x
	}
	return x
}

func (e *expectations) created(key, pod string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.of(key).created[pod] = true
}

func (e *expectations) deleted(key string, uid types.UID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.of(key).deleted[uid] = true
}

// saw notes what the informer has shown of one pod; gone: deleted or marked for deletion.
func (e *expectations) saw(key, pod string, uid types.UID, gone bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	x := e.set[key]
	if x == nil {
		return
	}
	delete(x.created, pod)
	if gone {
		delete(x.deleted, uid)
	}
}
