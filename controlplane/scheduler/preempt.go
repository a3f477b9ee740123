package scheduler

import (
	"sort"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	corehelpers "k8s.io/component-helpers/scheduling/corev1"
)

// Preemption names a node and the pods on it that would have to go for the pod to fit there.
type Preemption struct {
	Node    string
	Victims []*corev1.Pod
}

// Preempt looks for the node on which the fewest and least important pods of lower priority must go.
// disruptable says whether a pod may go without breaking its disruption budget; budgets are broken only if there is no
// other way, as upstream does. It returns nil if no preemption can help or the pod forbids it (preemptionPolicy: Never).
func Preempt(c *Cluster, pod *Pod, d Decision, disruptable func(*corev1.Pod) bool) *Preemption {
	if pod.Spec.PreemptionPolicy != nil && *pod.Spec.PreemptionPolicy == corev1.PreemptNever {
		return nil
	}
	var best *candidate
	for name, refusals := range d.Refusals {
		if final(refusals) {
			continue
		}
		if found := victims(c, pod, c.Nodes[name], disruptable); found != nil && (best == nil || found.better(best)) {
			best = found
		}
	}
	if best == nil {
		return nil
	}
	return &Preemption{Node: best.node, Victims: best.victims}
}

type candidate struct {
	node    string
	victims []*corev1.Pod // most important first
	broken  int           // budgets broken
}

func final(refusals []Refusal) bool {
	for _, r := range refusals {
		if r.Final {
			return true
		}
	}
	return false
}

// victims removes everything less important from a copy of the node and, if the pod then fits, puts back what it can,
// most important first.
func victims(c *Cluster, pod *Pod, node *Node, disruptable func(*corev1.Pod) bool) *candidate {
	var lower []*Pod
	gone := map[types.UID]bool{}
	for uid, p := range node.Pods {
		if corehelpers.PodPriority(p.Pod) < corehelpers.PodPriority(pod.Pod) {
			lower = append(lower, p)
			gone[uid] = true
		}
	}
	if len(lower) == 0 || Check(c, pod, node.without(gone)) != nil {
		return nil
	}
	sort.Slice(lower, func(i, j int) bool {
		if a, b := disruptable(lower[i].Pod), disruptable(lower[j].Pod); a != b {
			return !a // those whose budget would break are reprieved first
		}
		return moreImportant(lower[i].Pod, lower[j].Pod)
	})
	out := &candidate{node: node.Name}
	for _, p := range lower {
		delete(gone, p.UID)
		if Check(c, pod, node.without(gone)) == nil {
			continue
		}
		gone[p.UID] = true
		out.victims = append(out.victims, p.Pod)
		if !disruptable(p.Pod) {
			out.broken++
		}
	}
	sort.Slice(out.victims, func(i, j int) bool { return moreImportant(out.victims[i], out.victims[j]) })
	return out
}

// moreImportant: higher priority, then longer running.
func moreImportant(a, b *corev1.Pod) bool {
	if pa, pb := corehelpers.PodPriority(a), corehelpers.PodPriority(b); pa != pb {
		return pa > pb
	}
	if a.Status.StartTime != nil && b.Status.StartTime != nil && !a.Status.StartTime.Equal(b.Status.StartTime) {
		return a.Status.StartTime.Before(b.Status.StartTime)
	}
	return a.UID < b.UID
}

// better orders candidates: fewest budgets broken, lowest highest victim, smallest sum of priorities, fewest victims, name.
func (a *candidate) better(b *candidate) bool {
	if a.broken != b.broken {
		return a.broken < b.broken
	}
	if x, y := a.highest(), b.highest(); x != y {
		return x < y
	}
	if x, y := a.sum(), b.sum(); x != y {
		return x < y
	}
	if len(a.victims) != len(b.victims) {
		return len(a.victims) < len(b.victims)
	}
	return a.node < b.node
}

func (a *candidate) highest() int32 {
	if len(a.victims) == 0 {
		return -1 << 31
	}
	return corehelpers.PodPriority(a.victims[0])
}

func (a *candidate) sum() int64 {
	var sum int64
	for _, v := range a.victims {
		sum += int64(corehelpers.PodPriority(v)) + 1<<31
	}
	return sum
}
