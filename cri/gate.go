package cri

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/sync/semaphore"
)

// gates serialise the calls on one object. A waiter gives up with its context,
// so what hangs on one pod never piles up callers of another.
type gates struct {
	mu sync.Mutex
	m  map[string]*gate
}

type gate struct {
	sem  *semaphore.Weighted
	refs int // holders and waiters; at zero the gate is forgotten
}

const whole = 1 << 30

// lock takes the gate of id for itself.
func (g *gates) lock(ctx context.Context, id string) (unlock func(), err error) {
	return g.acquire(ctx, id, whole)
}

// share takes the gate of id together with other sharers.
func (g *gates) share(ctx context.Context, id string) (unlock func(), err error) {
	return g.acquire(ctx, id, 1)
}

func (g *gates) acquire(ctx context.Context, id string, n int64) (func(), error) {
	g.mu.Lock()
	if g.m == nil {
		g.m = map[string]*gate{}
	}
	e := g.m[id]
	if e == nil {
		e = &gate{sem: semaphore.NewWeighted(whole)}
		g.m[id] = e
	}
	e.refs++
	g.mu.Unlock()
	if err := e.sem.Acquire(ctx, n); err != nil {
		g.drop(id, e)
		return nil, fmt.Errorf("wait for another call on %s: %w", id, err)
	}
	return func() {
		e.sem.Release(n)
		g.drop(id, e)
	}, nil
}

func (g *gates) drop(id string, e *gate) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if e.refs--; e.refs == 0 {
		delete(g.m, id)
	}
}
