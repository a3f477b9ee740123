package plan

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"keelson.dev/keelson/kubelet/observe"
)

// In is everything that a decision rests on. Plan does not change it.
type In struct {
	Pod      *corev1.Pod
	Observed observe.Pod
	Memory   Memory
	Now      time.Time
	// Ending is nil while the pod is to run.
	Ending *Ending
	// Resources is what each container's cgroup is to hold, by container name, and under PodLevel the pod's own; none is
	// compared without an entry.
	Resources map[string]Resources
}

// PodLevel is the pod as a whole, where containers go by name or by ID.
const PodLevel = ""

// Resources are a cgroup's values in CRI's units: shares, microseconds, bytes. Zero for unlimited.
type Resources struct{ Shares, Quota, Memory int64 }

// Ending says why and how a pod is stopped.
type Ending struct {
	Since time.Time
	// Grace is what all containers together have from Since on until they are killed.
	Grace time.Duration
	// Reason and Message go into the pod's status when the pod failed by it (Evicted, DeadlineExceeded); empty for
	// a deletion.
	Reason, Message string
}

// Memory is what a pod's worker knows beside the runtime's state. It does not survive the daemon: losing it may
// repeat an idempotent action or shorten a back-off, nothing worse. Maps are keyed by container name unless said
// otherwise.
type Memory struct {
	Volumes Step
	Sandbox Step
	Images  map[string]Step
	Starts  map[string]Step
	Crashes map[string]Crash
	// Stops is keyed by container ID: a stop under way or one that failed.
	Stops map[string]Stop
	// Started is keyed by container ID: true when a startup probe passed. Containers without one need no entry.
	Started map[string]bool
	// Applied is keyed by container ID, or PodLevel: what was last written into its cgroup, at its creation or later. Unknown
	// after a restart of the daemon.
	Applied map[string]Resources
	// Resizes is keyed alike: a resize that failed.
	Resizes map[string]Step
	// Unhealthy is keyed by container ID: the message of the liveness or startup probe that condemned it.
	Unhealthy map[string]string
}

// Progress of a step that takes time.
type Progress int

// A step not begun, under way, done, or failed until its RetryAt.
const (
	Idle Progress = iota
	Busy
	Done
	Failed
)

// Step is the state of one asynchronous or failed step.
type Step struct {
	Progress        Progress
	Reason, Message string    // of a failure, as the container's waiting state shows it
	RetryAt         time.Time // of a failure
	Failures        int       // in a row; the executor computes RetryAt from it
}

func (s Step) due(now time.Time) bool {
	return s.Progress == Idle || s.Progress == Failed && !now.Before(s.RetryAt)
}

// Crash is a container's restart back-off.
type Crash struct {
	Delay   time.Duration // before the next restart; zero when it never restarted
	Updated time.Time     // when Delay was set, that is, at the last restart
}

// Stop is a container stop: under way until Deadline, or failed and due again at RetryAt.
type Stop struct {
	Deadline, RetryAt time.Time
	Failures          int
}

// Op is the kind of an action.
type Op string

// What an executor is asked to do. Those marked (async) run beside the worker; their progress is in Memory.
const (
	MountVolumes  Op = "mount-volumes" // (async)
	Pull          Op = "pull"          // (async) the image of Container
	CreateSandbox Op = "create-sandbox"
	Start         Op = "start"          // create and start Container, then its post-start hook
	StopContainer Op = "stop"           // (async) pre-stop hook, signal, kill
	StopSandbox   Op = "stop-sandbox"   //
	Resize        Op = "resize"         // write Container's cgroup values anew, or the pod's
	Remove        Op = "remove"         // a dead container
	RemoveSandbox Op = "remove-sandbox" // a stopped sandbox that was replaced
)

// Kind is the part that a container plays in its pod.
type Kind string

// The four kinds of container.
const (
	App       Kind = "app"
	Init      Kind = "init"
	Sidecar   Kind = "sidecar"
	Ephemeral Kind = "ephemeral"
)

// Action is one thing to do.
type Action struct {
	Op        Op
	Container string        // name
	Kind      Kind          // of the container
	ID        string        // of the container or sandbox acted upon; of a start: an instance to be removed before
	Attempt   uint32        // of the container or sandbox to make
	Round     uint32        // of a start: the container's
	Grace     time.Duration // of a stop
	Deadline  time.Time     // of a stop: when Grace is over; to be remembered in Memory.Stops
	Reason    string        // of a stop: why, as its event says it
	Crash     Crash         // of a start: the back-off to remember with it
}

func (a Action) String() string {
	s := string(a.Op)
	if a.Container != "" {
		s += " " + a.Container
	}
	if a.ID != "" {
		s += " id=" + a.ID
	}
	switch a.Op {
	case CreateSandbox, Start:
		s += fmt.Sprintf(" attempt=%d", a.Attempt)
	case StopContainer:
		s += fmt.Sprintf(" grace=%s", a.Grace)
	}
	if a.Round > 0 {
		s += fmt.Sprintf(" round=%d", a.Round)
	}
	if a.Reason != "" {
		s += fmt.Sprintf(" %q", a.Reason)
	}
	return s
}

// Waiting is why a container that should run does not.
type Waiting struct{ Reason, Message string }

// Out is the decision.
type Out struct {
	Actions []Action
	// Wake is when to plan again if nothing happens before; zero for never.
	Wake time.Time
	// Waiting says by container name why it waits; names without an entry wait for their turn.
	Waiting map[string]Waiting
	// Finished: nothing of the pod runs and nothing of it is to run again. For a pod without Ending it means that
	// its containers ended by themselves (sidecars may still run; the ending stops them).
	Finished bool
	// End is set when the pod itself asks to be ended (activeDeadlineSeconds).
	End *Ending
}
