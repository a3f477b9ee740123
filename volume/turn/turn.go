// Package turn lets one caller per key run at a time.
package turn

import (
	"context"
	"sync"
)

// Turns are the queues of all keys; the zero value is ready. A key costs nothing while nobody wants it.
type Turns[K comparable] struct {
	mu   sync.Mutex
	keys map[K]*queue // guarded by mu
}

// queue is one key's.
type queue struct {
	token chan struct{}
	users int
}

// Take waits for the key and returns what gives it back. The error is the context's cause.
func (t *Turns[K]) Take(ctx context.Context, key K) (done func(), err error) {
	t.mu.Lock()
	q := t.keys[key]
	if q == nil {
		q = &queue{token: make(chan struct{}, 1)}
		if t.keys == nil {
			t.keys = map[K]*queue{}
		}
		t.keys[key] = q
	}
	q.users++
	t.mu.Unlock()
	leave := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if q.users--; q.users == 0 {
			delete(t.keys, key)
		}
	}
	select {
	case q.token <- struct{}{}:
		return func() { <-q.token; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, context.Cause(ctx)
	}
}
