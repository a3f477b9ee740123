package container

import (
	"errors"
	"testing"
	"time"

	"keelson.dev/keelson/runtime/keeper"
)

// TestMoves tries every move: the edges pass, all others are refused.
func TestMoves(t *testing.T) {
	allowed := map[[2]phase]bool{
		{phaseCreated, phaseStarting}: true, {phaseCreated, phaseRemoving}: true,
		{phaseStarting, phaseRunning}: true, {phaseStarting, phaseExited}: true, {phaseStarting, phaseCreated}: true,
		{phaseRunning, phaseExited}: true, {phaseExited, phaseRemoving}: true, {phaseRemoving, phaseRemoving}: true,
	}
	all := []phase{phaseCreated, phaseStarting, phaseRunning, phaseExited, phaseRemoving}
	for _, from := range all {
		for _, to := range all {
			r, err := record{ID: "c", Phase: from}.to(to)
			if allowed[[2]phase{from, to}] {
				if err != nil || r.Phase != to {
					t.Errorf("%s to %s: %v", from, to, err)
				}
				continue
			}
			var moved *moveError
			if !errors.As(err, &moved) || r.Phase != from {
				t.Errorf("%s to %s: %v, phase %s", from, to, err, r.Phase)
			}
		}
	}
}

func TestReason(t *testing.T) {
	for _, row := range []struct {
		exit keeper.Exit
		want string
	}{
		{keeper.Exit{}, ReasonCompleted},
		{keeper.Exit{Code: 1}, ReasonError},
		{keeper.Exit{Code: 137}, ReasonError},
		{keeper.Exit{Code: 137, OOM: true}, ReasonOOMKilled},
		{keeper.Exit{Code: 0, OOM: true}, ReasonCompleted},
		{keeper.Exit{Code: 3, OOM: true}, ReasonError},
		{keeper.Exit{Code: 255, Unknown: true}, ReasonUnknown},
	} {
		if got := reasonOf(row.exit); got != row.want {
			t.Errorf("%+v: %s, want %s", row.exit, got, row.want)
		}
	}
}

func TestReconcile(t *testing.T) {
	now := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	proc := &keeper.Running{ID: "c", Pid: 7, StartTicks: 70, StartedAt: now.Add(-time.Minute)}
	exit := &keeper.Exit{ID: "c", Pid: 7, Code: 3, At: now.Add(-time.Second)}
	for _, row := range []struct {
		name   string
		phase  phase
		facts  facts
		want   phase
		reason string
		adopt  bool
		clear  bool
		remove bool
	}{
		{name: "created stays", phase: phaseCreated, facts: facts{sameBoot: true}, want: phaseCreated},
		{name: "created before a reboot stays", phase: phaseCreated, want: phaseCreated},
		{name: "removing goes on", phase: phaseRemoving, want: phaseRemoving, remove: true},
		{name: "exited is cleared again", phase: phaseExited, want: phaseExited, clear: true},
		{name: "running with the keeper", phase: phaseRunning, facts: facts{sameBoot: true, kept: proc, alive: true, released: true}, want: phaseRunning},
		{name: "running, keeper killed", phase: phaseRunning, facts: facts{sameBoot: true, init: proc, alive: true, released: true}, want: phaseRunning, adopt: true},
		{name: "running, keeper gone before its program was executed", phase: phaseRunning, facts: facts{sameBoot: true, init: proc, alive: true}, want: phaseRunning, adopt: true},
		{name: "ended, recorded", phase: phaseRunning, facts: facts{sameBoot: true, exit: exit, init: proc}, want: phaseExited, reason: ReasonError, clear: true},
		{name: "ended, recorded, seen after a reboot", phase: phaseRunning, facts: facts{exit: exit, init: proc}, want: phaseExited, reason: ReasonError, clear: true},
		{name: "ended, unseen", phase: phaseRunning, facts: facts{sameBoot: true, init: proc}, want: phaseExited, reason: ReasonUnknown, clear: true},
		{name: "rebooted", phase: phaseRunning, facts: facts{init: proc}, want: phaseExited, reason: ReasonUnknown, clear: true},
		{name: "starting, never asked", phase: phaseStarting, facts: facts{sameBoot: true}, want: phaseCreated, clear: true},
		{name: "starting, never asked, and a caller waits", phase: phaseStarting, facts: facts{sameBoot: true, awaited: true}, want: phaseExited, reason: ReasonStartError, clear: true},
		{name: "starting, made but not let go", phase: phaseStarting, facts: facts{sameBoot: true, init: proc, alive: true}, want: phaseExited, reason: ReasonStartError, clear: true},
		{name: "starting, runs", phase: phaseStarting, facts: facts{sameBoot: true, init: proc, alive: true, released: true}, want: phaseRunning, adopt: true},
		{name: "starting, the keeper has it", phase: phaseStarting, facts: facts{sameBoot: true, kept: proc, init: proc, alive: true, released: true}, want: phaseRunning},
		{name: "starting, ended already", phase: phaseStarting, facts: facts{sameBoot: true, exit: exit, init: proc}, want: phaseExited, reason: ReasonError, clear: true},
		{name: "starting, ended unseen", phase: phaseStarting, facts: facts{sameBoot: true, init: proc}, want: phaseExited, reason: ReasonUnknown, clear: true},
		{name: "starting, ended unseen, but we have its pidfd", phase: phaseStarting, facts: facts{sameBoot: true, init: proc, held: true}, want: phaseRunning, adopt: true},
		{name: "starting, made but not let go, and we have its pidfd", phase: phaseStarting, facts: facts{sameBoot: true, init: proc, held: true, alive: true}, want: phaseExited, reason: ReasonStartError, clear: true},
		{name: "starting, made but not recorded", phase: phaseStarting, facts: facts{sameBoot: true, held: true, awaited: true}, want: phaseExited, reason: ReasonStartError, clear: true},
		{name: "starting, rebooted", phase: phaseStarting, facts: facts{}, want: phaseExited, reason: ReasonUnknown, clear: true},
	} {
		r := record{ID: "c", Phase: row.phase}
		if row.phase == phaseRunning {
			r.Pid, r.StartTicks, r.StartedAt = 7, 70, proc.StartedAt
		}
		row.facts.now = now
		v := reconcile(r, row.facts)
		if v.record.Phase != row.want || v.record.Reason != row.reason || v.adopt != row.adopt || v.clear != row.clear || v.remove != row.remove {
			t.Errorf("%s: %+v", row.name, v)
		}
		if v.record.Phase == phaseRunning && (v.record.Pid != 7 || v.record.StartTicks != 70) {
			t.Errorf("%s: process %d, %d", row.name, v.record.Pid, v.record.StartTicks)
		}
		if v.record.Phase == phaseExited && row.phase != phaseExited && v.record.FinishedAt.IsZero() {
			t.Errorf("%s: no time of its end", row.name)
		}
	}
}
