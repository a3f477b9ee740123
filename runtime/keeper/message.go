package keeper

import (
	"errors"
	"time"
)

// Hello opens a connection; both sides send what they are.
type Hello struct {
	Version int    `json:"version"`
	Pid     int    `json:"pid"`
	Build   string `json:"build,omitempty"`
}

// Run starts a container. Dir is its run directory: bundle (config.json),
// FIFOs, the engine's state and the exit record are in it. The reply is a
// Running, with a pidfd and, for a terminal, its master beside it. With Made,
// the same comes as an event too, before the container's program may run: who
// has the pidfd then can learn the exit code even if the keeper is killed
// before it answers and the program has ended by then.
type Run struct {
	ID      string `json:"id"`
	Dir     string `json:"dir"`
	LogPath string `json:"log,omitempty"`
	TTY     bool   `json:"tty,omitempty"`
	Stdin   bool   `json:"stdin,omitempty"`
	Made    bool   `json:"made,omitempty"`
	Systemd bool   `json:"systemd,omitempty"` // its cgroup is to be a scope of systemd's
}

// Running is a container's process. StartTicks is its start time in clock
// ticks since boot (field 22 of /proc/<pid>/stat): with Pid and the boot id it
// names the process for good.
type Running struct {
	ID         string    `json:"id"`
	Pid        int       `json:"pid"`
	StartTicks uint64    `json:"ticks"`
	StartedAt  time.Time `json:"startedAt"`
	Exit       *Exit     `json:"exit,omitempty"`
}

// Exit is how a container ended. Code is the exit status, or 128 plus the
// signal. OOM says that the kernel killed a process of it for memory.
// Unknown says that the code was lost (nobody lived who could have seen it).
type Exit struct {
	ID      string    `json:"id"`
	Pid     int       `json:"pid"`
	Code    int32     `json:"code"`
	Signal  int       `json:"signal,omitempty"`
	At      time.Time `json:"at"`
	OOM     bool      `json:"oom,omitempty"`
	Unknown bool      `json:"unknown,omitempty"`
}

// Exec starts a further process in a container. Process is the path of a JSON
// OCI process. Beside it travel its stdin, stdout and stderr, as Stdio says
// ("i", "o", "e" in this order), or for a terminal one end of a socket pair on
// which the master will be sent. The reply is a Running with a pidfd; how it
// ends comes as an ExecExited event to this connection.
type Exec struct {
	ID      string `json:"id"`
	ExecID  string `json:"exec"`
	Process string `json:"process"`
	TTY     bool   `json:"tty,omitempty"`
	Stdio   string `json:"stdio,omitempty"`
}

// ExecExited is how an exec ended.
type ExecExited struct {
	ID     string `json:"id"`
	ExecID string `json:"exec"`
	Code   int32  `json:"code"`
}

// Attach copies a container's live output to the descriptors beside it, as
// Stdio says ("o", "e"). It ends when the container does, when the reader
// closes its end, or when the reader falls too far behind; a Detached tells.
type Attach struct {
	ID       string `json:"id"`
	AttachID string `json:"attach"`
	Stdio    string `json:"stdio"`
}

// Detached says that an attachment ended and why, if not by the container's
// end or the client's wish.
type Detached struct {
	ID       string `json:"id"`
	AttachID string `json:"attach"`
	Cause    string `json:"cause,omitempty"`
}

// Adopt hands a container whose keeper died to a new keeper. Beside it travel
// a pidfd and, for a terminal, its master. Exited says that its end is already
// on record and only its log is to be drained.
type Adopt struct {
	Run
	Pid        int       `json:"pid"`
	StartTicks uint64    `json:"ticks"`
	StartedAt  time.Time `json:"startedAt"`
	Exited     bool      `json:"exited,omitempty"`
}

// Reaped tells the keeper the wait status of a container that it adopted and
// that ended as a child of the daemon; or that it ended as nobody's child.
type Reaped struct {
	ID      string `json:"id"`
	Status  int    `json:"status"`
	Unknown bool   `json:"unknown,omitempty"`
}

// Target names a container.
type Target struct {
	ID string `json:"id"`
}

// ListAfter asks for the containers whose ids follow After, in order.
type ListAfter struct {
	After string `json:"after,omitempty"`
}

// Listed is one page of containers. More says that there are further ones.
type Listed struct {
	Containers []Running `json:"containers"`
	More       bool      `json:"more,omitempty"`
}

// Upgrade asks the keeper to execute the program beside it in its place, with
// the same pid: its children stay its children, and the daemon has them
// adopted anew. KindBusy says that an exec or an attachment is under way. There
// is no reply if it succeeds: the connection ends.
type Upgrade struct {
	Build string `json:"build"`
}

// Seccomp asks for the profile (an OCI seccomp object as JSON) at path Profile
// to be compiled into the file Filter: struct sock_filter after another.
type Seccomp struct {
	Profile string `json:"profile"`
	Filter  string `json:"filter"`
}

// Failure is an error as it crosses the socket.
type Failure struct {
	Kind    Kind   `json:"kind"`
	Message string `json:"message"`
}

// Kind classes a Failure by what the caller can do about it.
type Kind string

// The kinds. Anything else is KindInternal to the caller.
const (
	KindNotFound   Kind = "not-found"
	KindExists     Kind = "exists"
	KindNotRunning Kind = "not-running"
	KindStart      Kind = "start" // the container's own fault: bad command, bad mount
	KindBusy       Kind = "busy"
	KindInternal   Kind = "internal"
)

func (f *Failure) Error() string { return f.Message }

// KindOf says which kind of failure err is or wraps.
func KindOf(err error) Kind {
	var f *Failure
	if errors.As(err, &f) {
		return f.Kind
	}
	return KindInternal
}
