package network

import (
	"context"
	"fmt"
	"sync"
)

// turns lets one call per key run at a time; the others wait as long as their context allows.
type turns struct {
	mu sync.Mutex
	m  map[string]*turn
}

type turn struct {
	token chan struct{}
	users int // holders and waiters; the last one removes it
}

// take waits for the key's turn; the returned function gives it on.
func (t *turns) take(ctx context.Context, key string) (done func(), err error) {
	t.mu.Lock()
	e := t.m[key]
	if e == nil {
		e = &turn{token: make(chan struct{}, 1)}
		t.m[key] = e
	}
	e.users++
	t.mu.Unlock()
	leave := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if e.users--; e.users == 0 {
			delete(t.m, key)
		}
	}
	select {
	case e.token <- struct{}{}:
		return func() { <-e.token; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, fmt.Errorf("network: waiting for another call for sandbox %s: %w", key, context.Cause(ctx))
	}
}
