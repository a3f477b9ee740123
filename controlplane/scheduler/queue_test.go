package scheduler

import (
	"testing"
	"time"
)

func TestQueueOrderAndParking(t *testing.T) {
	now := time.Unix(1000, 0)
	q := newQueue()
	q.put(makePod("old", nil), now)
	q.put(makePod("new", nil), now.Add(time.Second))
	q.put(makePod("vip", map[string]string{"priority": "10"}), now.Add(2*time.Second))
	for _, want := range []string{"vip", "old", "new"} {
		if got := q.next(); got == nil || got.Name != want {
			t.Fatalf("next = %v, want %s", got, want)
		}
	}
	if got := q.next(); got != nil {
		t.Fatalf("next = %s, want none", got.Name)
	}

	q.park("old", RoomChanged, now)
	if q.due(now.Add(time.Minute)); q.next() != nil {
		t.Fatal("a parked pod was tried though nothing changed")
	}
	q.changed(StorageChanged, now.Add(2*time.Minute))
	if got := q.next(); got != nil {
		t.Fatalf("next = %s after a change that cannot help it", got.Name)
	}
	q.changed(RoomChanged|PodsChanged, now.Add(2*time.Minute))
	if got := q.next(); got == nil || got.Name != "old" {
		t.Fatalf("after a change next = %v, want old", got)
	}

	// A second refusal is backed off, so that a busy cluster does not make a hopeless pod spin.
	q.park("old", RoomChanged, now)
	q.changed(RoomChanged, now)
	if got := q.next(); got != nil {
		t.Fatalf("next = %s at once after a second refusal, want a back-off", got.Name)
	}
	if due := q.due(now); !due.After(now) || due.Sub(now) > maxBackOff {
		t.Fatalf("due at %v, want within %v", due.Sub(now), maxBackOff)
	}
	q.due(now.Add(maxBackOff))
	if got := q.next(); got == nil || got.Name != "old" {
		t.Fatalf("after the back-off next = %v, want old", got)
	}
	q.remove("old")
	q.remove("old")
	if active, backoff, parked := q.counts(); active != 2 || backoff != 0 || parked != 0 {
		t.Fatalf("counts = %d ready, %d backing off, %d parked; want the 2 that were taken and not refused", active, backoff, parked)
	}
}
