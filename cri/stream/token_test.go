package stream

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestHostile_CR10: a token works once, for a minute, and cannot be guessed.
func TestHostile_CR10(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var k tokens
		issue := func() string {
			tok, err := k.issue("req")
			if err != nil {
				t.Fatal(err)
			}
			return tok
		}
		tok := issue()
		if len(tok) != 32 || tok == issue() {
			t.Errorf("token %q is short or repeated", tok)
		}
		if _, ok := k.redeem(tok); !ok {
			t.Error("a fresh token is refused")
		}
		if _, ok := k.redeem(tok); ok {
			t.Error("a token worked twice")
		}
		late := issue()
		time.Sleep(tokenLife)
		if _, ok := k.redeem(late); ok {
			t.Error("a token worked after its minute")
		}
		if _, ok := k.redeem(""); ok {
			t.Error("no token worked")
		}
	})
}

func TestTooManyPendingThenFreedByTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var k tokens
		for range maxPending {
			if _, err := k.issue(1); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := k.issue(1); !errors.Is(err, ErrTooMany) {
			t.Errorf("error %v, want ErrTooMany", err)
		}
		time.Sleep(tokenLife)
		if _, err := k.issue(1); err != nil {
			t.Errorf("expired tokens still count: %v", err)
		}
		if len(k.pending) != 1 || len(k.order) != 1 {
			t.Errorf("expired tokens are kept: %d, %d", len(k.pending), len(k.order))
		}
	})
}
