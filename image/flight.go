package image

import (
	"context"
	"sync"
)

// flights runs a function once per key for all who ask at the same time. The
// function's context ends when the last of them has gone; one who comes after
// that waits for the function to end and starts it anew, so it never runs twice
// at once.
type flights[V any] struct {
	mu    sync.Mutex
	calls map[string]*call[V]
	wg    sync.WaitGroup
}

type call[V any] struct {
	done    chan struct{}
	v       V
	err     error
	waiters int // 0: cancelled
	cancel  context.CancelCauseFunc
}

func (f *flights[V]) do(ctx context.Context, key string, fn func(ctx context.Context) (V, error)) (V, error) {
	for {
		if err := ctx.Err(); err != nil {
			var zero V
			return zero, context.Cause(ctx)
		}
		c, alive := f.join(ctx, key, fn)
		select {
		case <-c.done:
			if alive {
				return c.v, c.err
			}
		case <-ctx.Done():
			if alive && f.leave(c, context.Cause(ctx)) {
				<-c.done // we were the last: nothing of it goes on when we return
			}
			var zero V
			return zero, context.Cause(ctx)
		}
	}
}

// join takes part in the key's call or starts it; alive is false for one that
// was given up already.
func (f *flights[V]) join(ctx context.Context, key string, fn func(ctx context.Context) (V, error)) (c *call[V], alive bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.calls[key]; c != nil {
		if c.waiters == 0 {
			return c, false
		}
		c.waiters++
		return c, true
	}
	run, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	c = &call[V]{done: make(chan struct{}), waiters: 1, cancel: cancel}
	if f.calls == nil {
		f.calls = map[string]*call[V]{}
	}
	f.calls[key] = c
	f.wg.Go(func() { // ended by fn, which its context stops when the last waiter leaves
		c.v, c.err = fn(run)
		f.mu.Lock()
		delete(f.calls, key)
		f.mu.Unlock()
		close(c.done)
		cancel(nil)
	})
	return c, true
}

// leave gives up waiting for c; last says that nobody is left and c was told to end.
func (f *flights[V]) leave(c *call[V], why error) (last bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.waiters--; c.waiters == 0 {
		c.cancel(why)
	}
	return c.waiters == 0
}

// keyed is a lock per key that gives up with its context.
type keyed struct {
	mu   sync.Mutex
	held map[string]chan struct{} // closed when released
}

func (k *keyed) lock(ctx context.Context, key string) (unlock func(), err error) {
	for {
		k.mu.Lock()
		wait, taken := k.held[key]
		if !taken {
			if k.held == nil {
				k.held = map[string]chan struct{}{}
			}
			ch := make(chan struct{})
			k.held[key] = ch
			k.mu.Unlock()
			return sync.OnceFunc(func() {
				k.mu.Lock()
				delete(k.held, key)
				k.mu.Unlock()
				close(ch)
			}), nil
		}
		k.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
