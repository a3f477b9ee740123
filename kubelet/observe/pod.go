package observe

import (
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// State is where a container stands in the runtime (CRI ContainerState).
type State int

// The four CRI states. Created means made, never started: whoever made it died before starting it.
const (
	Created State = iota
	Running
	Exited
	Unknown
)

func (s State) String() string {
	return [...]string{"created", "running", "exited", "unknown"}[s]
}

// Pod is all that the runtime holds of one pod. The zero value of everything but UID means: nothing at all.
type Pod struct {
	UID             types.UID
	Namespace, Name string
	// Sandboxes, newest first. More than one only while an old one waits for its removal.
	Sandboxes []Sandbox
	// Containers, newest first; all instances of all names, in whatever sandbox.
	Containers []Container
}

// Sandbox is one pod sandbox.
type Sandbox struct {
	ID        string
	Attempt   uint32
	Ready     bool
	CreatedAt time.Time
	// IPs, the primary one first; empty with host network.
	IPs []string
}

// Container is one instance of a container. Times are zero where the runtime has none.
type Container struct {
	ID, SandboxID, Name              string
	Attempt                          uint32 // restart count at its creation
	Round                            uint32 // how often all the pod's containers had begun anew by then (annotation keelson.dev/round)
	State                            State
	CreatedAt, StartedAt, FinishedAt time.Time
	ExitCode                         int32
	Reason, Message                  string // of the exit; Message includes the termination message
	Image, ImageID                   string // as asked for; as the runtime resolved it
	// Hash is the fingerprint of the container's spec at creation (annotation io.kubernetes.container.hash).
	Hash string
	// CPUShares, CPUQuota, CPUPeriod and MemoryLimit (bytes) are what is in force, zero when not reported.
	CPUShares, CPUQuota, CPUPeriod, MemoryLimit int64
	Details
}

// Details are told, in the pod's status and elsewhere, and decide nothing.
type Details struct {
	LogPath string
	// User is whom the first process began as; nil when the runtime does not say.
	User *User
	// Recursive are the paths in the container at which a mount and all below it is read-only.
	Recursive []string
}

// User is a process's identity on Linux.
type User struct {
	UID, GID int64
	Groups   []int64
}

// Sandbox returns the newest sandbox or nil.
func (p Pod) Sandbox() *Sandbox {
	if len(p.Sandboxes) == 0 {
		return nil
	}
	return &p.Sandboxes[0]
}

// Newest returns the latest instance of the named container or nil.
func (p Pod) Newest(name string) *Container {
	for i := range p.Containers {
		if p.Containers[i].Name == name {
			return &p.Containers[i]
		}
	}
	return nil
}

// Instances returns all instances of the named container, newest first.
func (p Pod) Instances(name string) []Container {
	var out []Container
	for _, c := range p.Containers {
		if c.Name == name {
			out = append(out, c)
		}
	}
	return out
}

// Live returns the containers that have, or may have, a process.
func (p Pod) Live() []Container {
	var out []Container
	for _, c := range p.Containers {
		if c.State == Running || c.State == Unknown {
			out = append(out, c)
		}
	}
	return out
}

// Sort puts sandboxes and containers newest first, the order that every reader relies on.
func (p *Pod) Sort() {
	slices.SortStableFunc(p.Sandboxes, func(a, b Sandbox) int {
		if a.Attempt != b.Attempt {
			return int(b.Attempt) - int(a.Attempt)
		}
		return b.CreatedAt.Compare(a.CreatedAt)
	})
	slices.SortStableFunc(p.Containers, func(a, b Container) int {
		if a.Attempt != b.Attempt {
			return int(b.Attempt) - int(a.Attempt)
		}
		return b.CreatedAt.Compare(a.CreatedAt)
	})
}
