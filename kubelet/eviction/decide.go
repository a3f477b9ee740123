package eviction

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	helpers "k8s.io/component-helpers/resource"
)

// Signal is a resource that the node can run short of.
type Signal string

// The signals, by the names that upstream's settings have for them.
const (
	Memory  Signal = "memory.available"
	Nodefs  Signal = "nodefs.available"
	Inodes  Signal = "nodefs.inodesFree"
	Imagefs Signal = "imagefs.available"
	PIDs    Signal = "pid.available"
)

// Level is what is left of a resource, and the threshold below which it is short. Bytes or numbers.
type Level struct {
	Signal          Signal
	Left, Threshold uint64
}

// Short tells whether the threshold is passed.
func (l Level) Short() bool { return l.Left < l.Threshold }

// Usage is what one pod uses.
type Usage struct {
	Pod    *corev1.Pod
	Memory uint64 // working set, bytes
	Disk   uint64 // ephemeral storage, bytes
	PIDs   uint64
	Immune bool // critical or static
}

// resourceOf is the word for a signal's resource in messages, and its name in requests ("" for none).
func resourceOf(s Signal) (word string, name corev1.ResourceName) {
	switch s {
	case Memory:
		return "memory", corev1.ResourceMemory
	case Nodefs, Imagefs:
		return "ephemeral-storage", corev1.ResourceEphemeralStorage
	case Inodes:
		return "inodes", ""
	}
	return "pids", ""
}

func (u Usage) of(s Signal) uint64 {
	switch s {
	case Memory:
		return u.Memory
	case PIDs:
		return u.PIDs
	}
	return u.Disk
}

// request is what the pod asked for of the signal's resource.
func (u Usage) request(s Signal) uint64 {
	_, name := resourceOf(s)
	if name == "" {
		return 0
	}
	q := helpers.PodRequests(u.Pod, helpers.PodResourcesOptions{})[name]
	return uint64(max(q.Value(), 0))
}

// Victim is a pod to evict and why, in upstream's words.
type Victim struct {
	Pod     *corev1.Pod
	Message string
}

// Decide returns the first short level and the pod to evict for it; nil when nothing is short or nobody may go.
func Decide(levels []Level, pods []Usage) (short *Level, victim *Victim) {
	for i := range levels {
		if levels[i].Short() {
			short = &levels[i]
			break
		}
	}
	if short == nil {
		return nil, nil
	}
	ranked := Rank(short.Signal, pods)
	if len(ranked) == 0 {
		return short, nil
	}
	first := ranked[0]
	word, _ := resourceOf(short.Signal)
	msg := fmt.Sprintf("The node was low on resource: %s. Threshold quantity: %s, available: %s. ", word, quantity(short.Signal, short.Threshold), quantity(short.Signal, short.Left))
	if used := first.of(short.Signal); used > first.request(short.Signal) {
		msg += fmt.Sprintf("Pod %s was using %s, request is %s, has larger consumption of %s. ", first.Pod.Name,
			quantity(short.Signal, used), quantity(short.Signal, first.request(short.Signal)), word)
	}
	return short, &Victim{Pod: first.Pod, Message: msg}
}

func quantity(s Signal, n uint64) string {
	format := resource.BinarySI
	if s == Inodes || s == PIDs {
		format = resource.DecimalSI
	}
	return resource.NewQuantity(int64(n), format).String()
}

// Rank orders the pods that may be evicted, the first to go first.
func Rank(s Signal, pods []Usage) []Usage {
	out := slices.DeleteFunc(slices.Clone(pods), func(u Usage) bool { return u.Immune })
	over := func(u Usage) int64 { return int64(u.of(s)) - int64(u.request(s)) }
	slices.SortStableFunc(out, func(a, b Usage) int {
		if x, y := over(a) > 0, over(b) > 0; x != y {
			if x {
				return -1
			}
			return 1
		}
		if p, q := priority(a.Pod), priority(b.Pod); p != q {
			return int(min(max(int64(p)-int64(q), -1), 1))
		}
		return int(min(max(over(b)-over(a), -1), 1))
	})
	return out
}

func priority(p *corev1.Pod) int32 {
	if p.Spec.Priority == nil {
		return 0
	}
	return *p.Spec.Priority
}

// OverLimit tells whether a pod uses more local storage than it may: its limit, or an emptyDir's sizeLimit. used maps
// volumes to bytes; disk is all that the pod uses. The message is "" when it does not.
func OverLimit(pod *corev1.Pod, disk uint64, used map[string]uint64) string {
	for _, v := range pod.Spec.Volumes {
		if v.EmptyDir == nil || v.EmptyDir.SizeLimit == nil || v.EmptyDir.SizeLimit.IsZero() {
			continue
		}
		if limit := v.EmptyDir.SizeLimit; used[v.Name] > uint64(limit.Value()) {
			return fmt.Sprintf("Usage of EmptyDir volume %q exceeds the limit %q. ", v.Name, limit.String())
		}
	}
	limit, has := helpers.PodLimits(pod, helpers.PodResourcesOptions{})[corev1.ResourceEphemeralStorage]
	if has && !limit.IsZero() && disk > uint64(limit.Value()) {
		return fmt.Sprintf("Pod ephemeral local storage usage exceeds the total limit of containers %s. ", limit.String())
	}
	return ""
}
