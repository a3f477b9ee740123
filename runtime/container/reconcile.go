package container

import (
	"time"

	"keelson.dev/keelson/runtime/keeper"
)

// facts are what Open finds out about a container beside its record.
type facts struct {
	now      time.Time
	sameBoot bool
	exit     *keeper.Exit    // exit.json, or what the keeper says
	kept     *keeper.Running // the keeper has it
	init     *keeper.Running // init.json: its process was made
	alive    bool            // that process (or the record's) still is, a zombie too
	held     bool            // we have its pidfd from when it was made
	released bool            // and runs the container's program, not our init
	awaited  bool            // a caller of Start waits for the answer
}

// verdict is what to do about a container.
type verdict struct {
	record record
	adopt  bool // hand it to the keeper
	clear  bool // kill what is left of it and remove its cgroup
	remove bool // go on with its removal
}

// reconcile decides what a container is and what it needs, after a time in
// which nobody wrote its record.
func reconcile(r record, f facts) verdict {
	switch r.Phase {
	case phaseRemoving:
		return verdict{record: r, remove: true}
	case phaseCreated:
		return verdict{record: r}
	case phaseExited:
		return verdict{record: r, clear: true}
	}
	lost := keeper.Exit{ID: r.ID, Code: CodeUnknown, At: f.now, Unknown: true}
	switch {
	case f.exit != nil:
		return endedBy(r, f, *f.exit)
	case !f.sameBoot:
		return endedBy(r, f, lost)
	case f.kept != nil:
		r, _ = asStarted(r, *f.kept)
		return verdict{record: r}
	case r.Phase == phaseStarting && f.init == nil && !f.awaited: // its program never ran: it may be started yet
		r, _ = r.to(phaseCreated)
		return verdict{record: r, clear: true}
	case r.Phase == phaseStarting && f.init == nil:
		return interrupted(r, f)
	case f.alive && (f.released || r.Phase == phaseRunning), // on record as running it was let go, if it has not come to its program yet
		f.held && !f.alive: // how it ended the pidfd tells
		if f.init != nil {
			r, _ = asStarted(r, *f.init)
		}
		return verdict{record: r, adopt: true}
	case f.alive:
		return interrupted(r, f)
	}
	return endedBy(r, f, lost)
}

// asStarted moves a starting record on; a running one stays as it is.
func asStarted(r record, p keeper.Running) (record, error) {
	if r.Phase == phaseRunning {
		return r, nil
	}
	return r.started(p)
}

func endedBy(r record, f facts, x keeper.Exit) verdict {
	if f.init != nil {
		r, _ = asStarted(r, *f.init)
	}
	r, _ = r.ended(x)
	return verdict{record: r, clear: true}
}

func interrupted(r record, f facts) verdict {
	r, _ = r.failed(f.now, "the start was interrupted: the keeper was killed")
	return verdict{record: r, clear: true}
}
