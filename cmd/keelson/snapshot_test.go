package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"keelson.dev/keelson/controlplane/store/snapshot"
)

// TestScheduledSnapshots: the first comes soon, the next at its interval, the newest few are kept, a restart moves nothing, and a save that
// fails is tried again while the old ones stay.
func TestScheduledSnapshots(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var saves []time.Duration // since the beginning
		var broken error
		began := time.Now()
		s := schedule{dir: dir, every: 12 * time.Hour, keep: 3, log: slog.New(slog.DiscardHandler), save: func(context.Context, string) (string, snapshot.Manifest, error) {
			saves = append(saves, time.Since(began))
			file := filepath.Join(dir, fmt.Sprintf("keelson-%s-r%d.snapshot", time.Now().UTC().Format("20060102T150405Z"), len(saves)))
			if broken == nil {
				broken = os.WriteFile(file, nil, 0o600)
			}
			return file, snapshot.Manifest{}, broken
		}}
		runFor := func(d time.Duration) {
			ctx, cancel := context.WithTimeout(t.Context(), d)
			defer cancel()
			if err := s.run(ctx); err != nil {
				t.Error(err)
			}
		}
		expect := func(what string, want ...time.Duration) {
			t.Helper()
			if fmt.Sprint(saves) != fmt.Sprint(want) {
				t.Errorf("%s: saved at %v, want %v", what, saves, want)
			}
		}
		count := func() int {
			files, err := snapshot.List(dir)
			if err != nil {
				t.Error(err)
			}
			return len(files)
		}
		const first, every = 10 * time.Minute, 12 * time.Hour
		runFor(6 * time.Hour)
		expect("first", first)
		runFor(7 * time.Hour) // started anew an hour before the interval is over
		expect("restart", first, first+every)
		runFor(36 * time.Hour)
		expect("interval", first, first+every, first+2*every, first+3*every, first+4*every)
		if n := count(); n != 3 {
			t.Errorf("%d snapshots are kept, want 3", n)
		}
		saves, broken, began = nil, errors.New("no space left on device"), time.Now()
		runFor(12 * time.Hour)
		if len(saves) < 5 || saves[1]-saves[0] != snapshotRetry {
			t.Errorf("after failures: %v", saves)
		}
		if n := count(); n != 3 {
			t.Errorf("failures left %d snapshots of 3", n)
		}
		saves, broken = nil, nil
		runFor(time.Minute) // overdue
		if len(saves) != 1 || count() != 3 {
			t.Errorf("when there is room again: %v, %d kept", saves, count())
		}
		s.every = 0
		if err := s.run(t.Context()); err != nil || len(saves) != 1 {
			t.Errorf("turned off: %v, %v", err, saves)
		}
	})
}
