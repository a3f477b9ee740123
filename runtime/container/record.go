package container

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"keelson.dev/keelson/runtime/bundle"
	"keelson.dev/keelson/runtime/keeper"
)

// phase is a record's place in a container's life: finer than Status, since it
// also names what was under way.
type phase string

const (
	phaseCreated  phase = "created"
	phaseStarting phase = "starting"
	phaseRunning  phase = "running"
	phaseExited   phase = "exited"
	phaseRemoving phase = "removing"
)

// record is record.json.
type record struct {
	ID         string    `json:"id"`
	SandboxID  string    `json:"sandbox,omitempty"`
	LogPath    string    `json:"log,omitempty"`
	TTY        bool      `json:"tty,omitempty"`
	Stdin      bool      `json:"stdin,omitempty"`
	StdinOnce  bool      `json:"stdinOnce,omitempty"`
	Cgroup     string    `json:"cgroup"`
	SharedPID  bool      `json:"sharedPID,omitempty"` // its end does not end its other processes
	BootID     string    `json:"boot"`
	Phase      phase     `json:"phase"`
	Pid        int       `json:"pid,omitempty"`
	StartTicks uint64    `json:"ticks,omitempty"`
	CreatedAt  time.Time `json:"createdAt"`
	StartedAt  time.Time `json:"startedAt,omitzero"`
	FinishedAt time.Time `json:"finishedAt,omitzero"`
	ExitCode   int32     `json:"exitCode,omitempty"`
	Reason     string    `json:"reason,omitempty"`
	Message    string    `json:"message,omitempty"`
}

const recordName = "record.json"

// state is what others see of a record.
func (r record) state() State {
	s := State{
		ID: r.ID, SandboxID: r.SandboxID,
		CreatedAt: r.CreatedAt, StartedAt: r.StartedAt, FinishedAt: r.FinishedAt,
		ExitCode: r.ExitCode, Reason: r.Reason, Message: r.Message,
	}
	switch r.Phase {
	case phaseCreated, phaseStarting:
		s.Status = Created
	case phaseRunning:
		s.Status, s.Pid = Running, r.Pid
	case phaseExited, phaseRemoving:
		s.Status = Exited
	default:
		s.Status = Unknown
	}
	return s
}

// edges are the moves that a life allows.
var edges = map[phase][]phase{
	phaseCreated:  {phaseStarting, phaseRemoving},
	phaseStarting: {phaseRunning, phaseExited, phaseCreated},
	phaseRunning:  {phaseExited},
	phaseExited:   {phaseRemoving},
	phaseRemoving: {phaseRemoving},
}

// moveError is a move that a life does not allow.
type moveError struct{ id, from, to string }

func (e *moveError) Error() string {
	return fmt.Sprintf("container %s is %s and cannot become %s", e.id, e.from, e.to)
}

// to is the record moved on; the caller sets what the phase implies by
// started, ended.
func (r record) to(next phase) (record, error) {
	for _, edge := range edges[r.Phase] {
		if edge == next {
			r.Phase = next
			return r, nil
		}
	}
	return r, &moveError{id: r.ID, from: string(r.Phase), to: string(next)}
}

// started is the record of a process that runs.
func (r record) started(p keeper.Running) (record, error) {
	r, err := r.to(phaseRunning)
	if err == nil {
		r.Pid, r.StartTicks, r.StartedAt = p.Pid, p.StartTicks, p.StartedAt
	}
	return r, err
}

// ended is the record of a process that has ended.
func (r record) ended(x keeper.Exit) (record, error) {
	r, err := r.to(phaseExited)
	if err != nil {
		return r, err
	}
	r.FinishedAt, r.ExitCode = x.At, x.Code
	if r.StartedAt.IsZero() {
		r.StartedAt = x.At
	}
	r.Reason = reasonOf(x)
	if r.Reason == ReasonUnknown {
		r.Message = "the exit code is lost: neither the daemon nor the keeper was alive"
	}
	return r, nil
}

// reasonOf classes an end. A kill for memory counts if it is what ended the
// container: its process was killed, or passed on that its child was (a shell
// exits with 137). A child that was killed and survived by its parent is an
// event, not a reason.
func reasonOf(x keeper.Exit) string {
	const killed = 137
	switch {
	case x.Unknown:
		return ReasonUnknown
	case x.OOM && x.Code == killed:
		return ReasonOOMKilled
	case x.Code == 0:
		return ReasonCompleted
	}
	return ReasonError
}

// failed is the record of a container that could not start.
func (r record) failed(at time.Time, message string) (record, error) {
	r, err := r.to(phaseExited)
	if err == nil {
		r.FinishedAt, r.ExitCode, r.Reason, r.Message = at, CodeStartError, ReasonStartError, message
	}
	return r, err
}

func (r record) save(dir string) error {
	if err := bundle.WriteJSON(filepath.Join(dir, recordName), r); err != nil {
		return fmt.Errorf("record container %s as %s: %w", r.ID, r.Phase, err)
	}
	return nil
}

func loadRecord(dir string) (record, error) {
	var r record
	if err := bundle.ReadJSON(filepath.Join(dir, recordName), &r); err != nil {
		return r, err
	}
	if r.ID != filepath.Base(dir) || edges[r.Phase] == nil {
		return r, fmt.Errorf("record %s is not of this container: id %q, phase %q", dir, r.ID, r.Phase)
	}
	return r, nil
}

// validID is a name that is safe as one path component and as a cgroup.
var validID = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$`)

func bootID() (string, error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("boot id: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}
