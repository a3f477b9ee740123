// Package undo keeps the steps that take back what a request has done so far.
//
// A Stack belongs to one request and one goroutine. Steps run last in, first
// out, each exactly once, on a context of the stack's own: a client that goes
// away cancels the work, never its undoing. Every step must be idempotent and
// safe when its do came only half-way.
package undo

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// limit bounds the whole of a rollback; what does not finish in it is left to
// the next start's cleaning.
const limit = 30 * time.Second

// Stack is a LIFO of named undo steps. The zero value is ready.
type Stack struct {
	steps []step
}

type step struct {
	name string
	do   func(context.Context) error
}

// Push adds a step. Push before the effect when the effect may be left half done.
func (s *Stack) Push(name string, do func(context.Context) error) {
	s.steps = append(s.steps, step{name, do})
}

// Commit forgets all steps: what was done stays.
func (s *Stack) Commit() { s.steps = nil }

// Rollback runs the steps and empties the stack. It goes on past a failure; the
// error joins all of them by name. ctx gives values only: its end does not stop
// a rollback.
func (s *Stack) Rollback(ctx context.Context) error {
	if len(s.steps) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	var errs []error
	for i := len(s.steps) - 1; i >= 0; i-- {
		if err := s.steps[i].do(ctx); err != nil {
			errs = append(errs, fmt.Errorf("undo %s: %w", s.steps[i].name, err))
		}
	}
	s.steps = nil
	return errors.Join(errs...)
}
