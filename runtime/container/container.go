package container

import (
	"errors"
	"io"
	"log/slog"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"keelson.dev/keelson/runtime/cgroup"
)

// Errors that callers tell apart with errors.Is.
var (
	ErrNotFound   = errors.New("no such container")
	ErrExists     = errors.New("container exists")
	ErrNotRunning = errors.New("container is not running")
	ErrStart      = errors.New("container cannot start") // its own fault: command, mount, limits
	ErrUnknown    = errors.New("its exit code is lost: the keeper was killed before it could tell")
)

// ManagerConfig says where a Manager keeps its things.
type ManagerConfig struct {
	StateDir   string // required, absolute; on tmpfs. Run directories and the keeper's
	DataDir    string // optional; reserved for what outlives a reboot
	KeeperPath string // required: the keelson-keeper program
	Engine     string // "": the native one where it can; EngineLibcontainer
	Systemd    bool   // cgroups named *.scope are systemd's; see cgroup.Hierarchy
	Log        *slog.Logger
}

// EngineLibcontainer has runc's library start every container.
const EngineLibcontainer = "libcontainer"

// Config is a container to create. Spec is complete: Root.Path is a mounted
// rootfs, Linux.CgroupsPath is set. Ownership of Spec passes to the Manager.
type Config struct {
	ID        string
	SandboxID string
	Spec      *specs.Spec
	LogPath   string // "" keeps no log
	TTY       bool
	Stdin     bool
	StdinOnce bool // the first attachment's end is the end of stdin
}

// Status is where a container is in its life.
type Status int

// The statuses, in the order of a life. Unknown is for a record that cannot be
// read.
const (
	Created Status = iota + 1
	Running
	Exited
	Unknown
)

func (s Status) String() string {
	switch s {
	case Created:
		return "created"
	case Running:
		return "running"
	case Exited:
		return "exited"
	}
	return "unknown"
}

// Reasons of an end, as CRI has them.
const (
	ReasonCompleted  = "Completed"
	ReasonError      = "Error"
	ReasonOOMKilled  = "OOMKilled"
	ReasonStartError = "StartError"
	ReasonUnknown    = "Unknown" // nobody lived who saw the exit code
)

// Exit codes that are not a process's own.
const (
	CodeStartError = 128
	CodeUnknown    = 255
)

// State is what is known of a container.
type State struct {
	ID, SandboxID                    string
	Status                           Status
	Pid                              int // host's; 0 unless running
	CreatedAt, StartedAt, FinishedAt time.Time
	ExitCode                         int32 // of an Exited one: status, or 128 plus signal
	Reason, Message                  string
}

// Stats is what a container used and uses.
type Stats = cgroup.Stats

// Size of a terminal in characters.
type Size struct{ Width, Height uint16 }

// Streams are an attachment's ends. A nil one is not attached. Readers and
// writers are the caller's; a Read that is blocked when the attachment ends is
// left to the caller to unblock by closing.
type Streams struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Resize         <-chan Size
}

// ExecConfig is a further process to run in a container.
type ExecConfig struct {
	Process        *specs.Process
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	TTY            bool
	Resize         <-chan Size
	Timeout        time.Duration // 0: none
}

// EventKind says what happened to a container.
type EventKind string

// The kinds. After EventLost the reader has missed some and must look at
// List.
const (
	EventCreated EventKind = "created"
	EventStarted EventKind = "started"
	EventExited  EventKind = "exited"
	EventOOM     EventKind = "oom"
	EventRemoved EventKind = "removed"
	EventLost    EventKind = "lost"
)

// Event is one thing that happened.
type Event struct {
	ContainerID string
	Kind        EventKind
	At          time.Time
}
