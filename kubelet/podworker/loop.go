package podworker

import (
	"context"
	"time"
)

// loop is a worker's life.
func (w *Workers) loop(ctx context.Context, k *worker) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.wake:
		case <-timer.C:
		}
		res, over := w.step(ctx, k)
		if over {
			return
		}
		timer.Reset(until(res.Next))
	}
}

// until is how long to sleep; never is a day, which does no harm.
func until(next time.Time) time.Duration {
	if next.IsZero() {
		return 24 * time.Hour
	}
	return max(time.Until(next), 0)
}

// step makes one call for the state that the pod is in and moves on when it is done. over: the worker's life ends.
func (w *Workers) step(ctx context.Context, k *worker) (res Result, over bool) {
	ctx, state, req, cancel := w.begin(ctx, k)
	defer cancel()
	switch state {
	case Waiting:
		return Result{}, false
	case Syncing:
		res = w.sync.Sync(ctx, req)
	case Terminating:
		res = w.sync.Terminate(ctx, req)
	case Terminated:
		res = w.sync.Clean(ctx, req)
	}
	return res, w.finish(k, state, req, res)
}

// begin decides the state to work in and takes a copy of the wish.
func (w *Workers) begin(ctx context.Context, k *worker) (context.Context, State, Request, context.CancelFunc) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if k.state == Waiting {
		holder, held := w.names[k.name]
		switch {
		case !held || holder == k.uid:
			w.names[k.name] = k.uid
			k.state = Syncing
		case k.req.Ending != nil: // it never began: it ends without having been anything
			k.state = Terminating
		}
	}
	if k.state == Syncing && k.req.Ending != nil {
		k.state = Terminating
	}
	ctx, cancel := context.WithCancel(ctx)
	if k.state == Syncing {
		k.cancel = cancel
	}
	return ctx, k.state, k.req, cancel
}

// finish draws the conclusions of a call.
func (w *Workers) finish(k *worker, state State, req Request, res Result) (over bool) {
	w.mu.Lock()
	k.cancel = nil
	switch {
	case res.End != nil:
		k.end(*res.End)
	case !res.Done:
	case state == Syncing:
		k.req.Finished = true
		w.wish(k)
	case state == Terminating:
		k.state = Terminated
		k.poke()
	case state == Terminated && req.Gone:
		over = true
		delete(w.pods, k.uid)
		if w.names[k.name] == k.uid {
			delete(w.names, k.name)
		}
		for _, other := range w.pods {
			if other.name == k.name {
				other.poke()
			}
		}
	}
	again := k.again
	w.mu.Unlock()
	if over {
		w.sync.Ended(k.uid)
		if again != nil {
			w.Set(again)
		}
	}
	return over
}
