package expectation

import (
	"testing"
	"time"
)

func TestPending(t *testing.T) {
	e := New()
	if e.Pending("k", time.Now()) {
		t.Fatal("nothing is expected")
	}
	e.Created("k", "a")
	e.Deleted("k", "uid-b")
	e.Saw("k", "a", "uid-a", false)
	e.Saw("k", "b", "uid-b", false) // still there
	if !e.Pending("k", time.Now()) {
		t.Fatal("the deletion has not been seen")
	}
	e.Saw("k", "b", "uid-b", true)
	if e.Pending("k", time.Now()) {
		t.Fatal("everything has been seen")
	}
	e.Created("k", "lost")
	if e.Pending("k", time.Now().Add(2*Limit)) {
		t.Fatal("an expectation that never comes true blocks for ever")
	}
}
