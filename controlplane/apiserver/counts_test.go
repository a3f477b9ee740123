package apiserver

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apiserver/pkg/storage"
)

// TestCounts: objects are counted at most once in a while, and nobody but the first waits for it.
func TestCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c count
		taken, failing := int64(0), errors.New("not now")
		take := func() (storage.Stats, error) {
			taken++
			time.Sleep(time.Second)
			return storage.Stats{ObjectCount: taken}, failing
		}
		expect := func(what string, want int64) {
			t.Helper()
			began := time.Now()
			st, err := c.get(take)
			if err != nil || st.ObjectCount != want {
				t.Errorf("%s: %d %v, want %d", what, st.ObjectCount, err, want)
			}
			if took := time.Since(began); took > 0 && want != 2 {
				t.Errorf("%s: waited %v", what, took)
			}
			synctest.Wait()
		}
		if _, err := c.get(take); !errors.Is(err, failing) {
			t.Errorf("the first fails: %v", err)
		}
		failing = nil
		expect("the first", 2)
		expect("soon", 2)
		time.Sleep(countMemory)
		expect("old", 2) // while it is taken
		expect("old, again", 2)
		time.Sleep(time.Second)
		synctest.Wait()
		expect("renewed", 3)
		failing = errors.New("gone")
		time.Sleep(countMemory)
		expect("old", 3)
		time.Sleep(time.Second)
		synctest.Wait()
		expect("the renewal failed", 3)
		if taken != 4 {
			t.Errorf("counted %d times, want 4", taken)
		}
	})
}
