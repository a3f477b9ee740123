package turn

import (
	"context"
	"errors"
	"sync"
	"testing"
)

// TestTake: one at a time for a key, keys beside each other, and nothing is left of a key that nobody wants.
func TestTake(t *testing.T) {
	var turns Turns[string]
	other, err := turns.Take(t.Context(), "other")
	if err != nil {
		t.Fatal(err)
	}
	inside, total := 0, 0
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			done, err := turns.Take(t.Context(), "key")
			if err != nil {
				t.Error(err)
				return
			}
			defer done()
			if inside++; inside != 1 {
				t.Errorf("%d at a time", inside)
			}
			total++
			inside--
		})
	}
	wg.Wait()
	if total != 50 {
		t.Errorf("%d had their turn", total)
	}
	other()
	if len(turns.keys) != 0 {
		t.Errorf("left: %v", turns.keys)
	}
}

// TestTake_GivesUp: who gives up hears why and is in nobody's way.
func TestTake_GivesUp(t *testing.T) {
	var turns Turns[int]
	done, err := turns.Take(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	why := errors.New("no patience")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if _, err := turns.Take(ctx, 1); !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
	done()
	done, err = turns.Take(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	done()
	if len(turns.keys) != 0 {
		t.Errorf("left: %v", turns.keys)
	}
}
