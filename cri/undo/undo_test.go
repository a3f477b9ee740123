package undo

import (
	"context"
	"errors"
	"slices"
	"testing"
)

func TestRollbackRunsLastFirstAndGoesOnPastFailure(t *testing.T) {
	var s Stack
	var ran []string
	add := func(name string, err error) {
		s.Push(name, func(context.Context) error { ran = append(ran, name); return err })
	}
	bad := errors.New("busy")
	add("a", nil)
	add("b", bad)
	add("c", nil)
	err := s.Rollback(t.Context())
	if want := []string{"c", "b", "a"}; !slices.Equal(ran, want) {
		t.Errorf("steps ran as %v, want %v", ran, want)
	}
	if !errors.Is(err, bad) || err.Error() != "undo b: busy" {
		t.Errorf("error %v, want one naming step b", err)
	}
	if err := s.Rollback(t.Context()); err != nil || len(ran) != 3 {
		t.Errorf("a second rollback ran steps again: %v, %v", ran, err)
	}
}

func TestRollbackOutlivesTheRequest(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var s Stack
	s.Push("x", func(ctx context.Context) error { return ctx.Err() })
	if err := s.Rollback(ctx); err != nil {
		t.Errorf("the cancelled request cancelled its undo: %v", err)
	}
}

func TestCommitForgets(t *testing.T) {
	var s Stack
	s.Push("x", func(context.Context) error { t.Error("ran after Commit"); return nil })
	s.Commit()
	if err := s.Rollback(t.Context()); err != nil {
		t.Error(err)
	}
}
