package mount

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
)

// PS21: a look that does not come back holds up nobody longer than they wait, nobody looks beside it, other paths are none of its business,
// and what it opens at last is closed.
func TestHostile_PS21(t *testing.T) {
	hangs, begun, late := make(chan struct{}), make(chan struct{}, 2), make(chan int, 2)
	var looks atomic.Int32
	look := func() (int, error) {
		looks.Add(1)
		begun <- struct{}{}
		<-hangs
		return 7, nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { // the first look has begun; then its caller gives up
		<-begun
		cancel()
	}()
	if v, err := Patient(ctx, "/hung", look, func(v int) { late <- v }); v != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("a look that hangs: %d, %v", v, err)
	}
	if _, err := Patient(ctx, "/hung", look, nil); !errors.Is(err, context.Canceled) || looks.Load() != 1 {
		t.Errorf("beside it: %v, %d looks", err, looks.Load())
	}
	no := errors.New("no")
	if _, err := Patient(t.Context(), "/other", func() (int, error) { return 0, no }, nil); !errors.Is(err, no) {
		t.Errorf("another path: %v", err)
	}
	close(hangs)
	if v := <-late; v != 7 {
		t.Errorf("what came late is %d", v)
	}
	if v, err := Patient(t.Context(), "/hung", look, nil); v != 7 || err != nil || looks.Load() != 2 {
		t.Errorf("when it answers again: %d, %v, %d looks", v, err, looks.Load())
	}
}
