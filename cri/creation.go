package cri

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// creationLimit bounds a creation whose client no longer waits; then it is taken
// back.
const creationLimit = 4 * time.Minute

// deadlineSlack is by how much a client's timeout may be heard of early: its
// clock started before ours, and its reset of the call comes before our timer.
const deadlineSlack = time.Second

// outlive makes a pod or a container. A client that gives up has what was made
// taken back; one whose time is over does not: it will ask again, on a slow
// machine again in vain if each try began anew, and then gets the result of this
// one (the table of names has it wait). The server's Close ends both.
func outlive[T any](ctx context.Context, s *Server, create func(context.Context) (T, error)) (T, error) {
	if _, timed := ctx.Deadline(); !timed {
		return create(ctx)
	}
	type outcome struct {
		made T
		err  error
	}
	own, cancel := context.WithTimeout(context.WithoutCancel(ctx), creationLimit)
	gone := context.AfterFunc(ctx, func() {
		if !timedOut(ctx) {
			cancel()
		}
	})
	closed := context.AfterFunc(s.life, cancel)
	result := make(chan outcome, 1) // room for one: nobody may be there to take it
	// Ends with the creation; Close waits for it.
	s.readers.Go(func() {
		defer cancel()
		defer closed()
		defer gone()
		var o outcome
		defer func() { result <- o }()
		defer s.caught("a creation", &o.err)
		o.made, o.err = create(own)
		if timedOut(ctx) {
			s.log.Info("a creation ended after its client's time", "err", o.err)
		}
	})
	select {
	case o := <-result:
		return o.made, o.err
	case <-ctx.Done():
	}
	if timedOut(ctx) {
		var none T
		return none, fmt.Errorf("%w: the creation goes on; the same request gets its result", context.DeadlineExceeded)
	}
	o := <-result // taken back, or it was done already
	return o.made, o.err
}

// timedOut tells a context that ended for want of time from one that was given up.
func timedOut(ctx context.Context) bool {
	at, ok := ctx.Deadline()
	return ok && ctx.Err() != nil && (errors.Is(ctx.Err(), context.DeadlineExceeded) || time.Until(at) < deadlineSlack)
}
