package store

import (
	"testing"
	"time"
)

func TestInStep(t *testing.T) {
	second := time.Unix(1_700_000_000, 0)
	for _, c := range []struct{ at, d, want time.Duration }{
		{0, time.Second, time.Second},
		{400 * time.Millisecond, time.Second, 600 * time.Millisecond},
		{600 * time.Millisecond, 800 * time.Millisecond, 1400 * time.Millisecond}, // never sooner than half a second
		{400 * time.Millisecond, 100 * time.Millisecond, 100 * time.Millisecond},  // what is waited for
		{400 * time.Millisecond, time.Minute, time.Minute},
	} {
		if got := inStep(second.Add(c.at), c.d); got != c.want {
			t.Errorf("%s asked for %s after a second: %s, want %s", c.d, c.at, got, c.want)
		}
	}
}
