// Package expectation remembers what a controller did that its informers have yet to show, so that a lagging cache does
// not make it do the same again.
package expectation

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Limit is when an expectation is given up: what has not been seen by then will not be.
const Limit = time.Minute

// Set remembers, per owner, which pods were created or deleted and are not yet seen so by the informer. Keys name owners.
// It is safe for concurrent use.
type Set struct {
	mu  sync.Mutex
	set map[string]*expected
}

type expected struct {
	created map[string]bool    // pod names
	deleted map[types.UID]bool // pods asked to go
	since   time.Time
}

// New returns an empty Set.
func New() *Set { return &Set{set: map[string]*expected{}} }

// Pending reports whether the informer has yet to show something of the owner; an expectation that is too old is dropped.
func (e *Set) Pending(key string, now time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	x := e.set[key]
	if x == nil {
		return false
	}
	if now.Sub(x.since) > Limit || len(x.created)+len(x.deleted) == 0 {
		delete(e.set, key)
		return false
	}
	return true
}

func (e *Set) of(key string) *expected {
	x := e.set[key]
	if x == nil {
		x = &expected{created: map[string]bool{}, deleted: map[types.UID]bool{}, since: time.Now()}
		e.set[key] = x
	}
	return x
}

// Created notes a pod by name; call it before the request.
func (e *Set) Created(key, pod string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.of(key).created[pod] = true
}

// Deleted notes a pod that is asked to go; call it before the request.
func (e *Set) Deleted(key string, uid types.UID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.of(key).deleted[uid] = true
}

// Saw notes what the informer has shown of one pod; gone: deleted or marked for deletion.
func (e *Set) Saw(key, pod string, uid types.UID, gone bool) {
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
