package scheduler

import (
	"fmt"
	"sort"
	"strings"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/types"
	corehelpers "k8s.io/component-helpers/scheduling/corev1"
)

// Preemption names a node and the pods on it that would have to go for the pod to fit there; none where those of an earlier
// preemption are on their way, whose promise stands.
type Preemption struct {
	Node    string
	Victims []*corev1.Pod
}

// Preempt looks for the node on which the fewest and least important pods of lower priority must go. Budgets are broken
// only if there is no other way, as upstream does. It returns no plan if no preemption can help or the pod forbids it, and
// what there is to say about it: nothing where the pod's reasons have nothing to do with other pods.
func Preempt(c *Cluster, pod *Pod, d Decision, budgets []*policyv1.PodDisruptionBudget) (*Preemption, string) {
	var open []string
	for name, refusals := range d.Refusals {
		if !final(refusals) {
			open = append(open, name)
		}
	}
	switch n := c.Nodes[c.promise(pod)]; {
	case len(open) == 0:
		return nil, ""
	case pod.Spec.PreemptionPolicy != nil && *pod.Spec.PreemptionPolicy == corev1.PreemptNever:
		return nil, "Its preemptionPolicy is Never: no pod has to make room for it."
	case n != nil && c.emptying(pod, n):
		return &Preemption{Node: n.Name}, "Pods of lower priority are leaving node " + n.Name + " for it."
	}
	var best *candidate
	for _, name := range open {
		if found := victims(c, pod, c.Nodes[name], budgets); found != nil && (best == nil || found.better(best)) {
			best = found
		}
	}
	if best == nil {
		return nil, "No pod of lower priority could make room."
	}
	names := make([]string, len(best.victims))
	for i, v := range best.victims {
		names[i] = v.Namespace + "/" + v.Name
	}
	return &Preemption{Node: best.node, Victims: best.victims}, fmt.Sprintf("Of lower priority, and asked to leave node %s for it: %s.", best.node, strings.Join(names, ", "))
}

// emptying: pods are already leaving the node for this one.
func (c *Cluster) emptying(pod *Pod, n *Node) bool {
	for uid, p := range n.Pods {
		if (p.DeletionTimestamp != nil || c.leaving[uid]) && corehelpers.PodPriority(p.Pod) < corehelpers.PodPriority(pod.Pod) {
			return true
		}
	}
	return false
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
func victims(c *Cluster, pod *Pod, node *Node, budgets []*policyv1.PodDisruptionBudget) *candidate {
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
	sort.Slice(lower, func(i, j int) bool { return moreImportant(lower[i].Pod, lower[j].Pod) })
	breaks := breaking(lower, budgets)
	// Those whose budget would break are reprieved first.
	sort.SliceStable(lower, func(i, j int) bool { return breaks[lower[i].UID] && !breaks[lower[j].UID] })
	out := &candidate{node: node.Name}
	for _, p := range lower {
		delete(gone, p.UID)
		if Check(c, pod, node.without(gone)) == nil {
			continue
		}
		gone[p.UID] = true
		out.victims = append(out.victims, p.Pod)
		if breaks[p.UID] {
			out.broken++
		}
	}
	sort.Slice(out.victims, func(i, j int) bool { return moreImportant(out.victims[i], out.victims[j]) })
	return out
}

// breaking are the pods whose going, in this order, is more than their budgets allow.
func breaking(pods []*Pod, budgets []*policyv1.PodDisruptionBudget) map[types.UID]bool {
	out, left := map[types.UID]bool{}, make([]int32, len(budgets))
	for i, b := range budgets {
		left[i] = b.Status.DisruptionsAllowed
	}
	for _, p := range pods {
		for i, b := range budgets {
			if b.Namespace != p.Namespace || !labelsMatch(b.Spec.Selector, p.Labels) {
				continue
			}
			if _, counted := b.Status.DisruptedPods[p.Name]; counted {
				continue
			}
			if left[i]--; left[i] < 0 {
				out[p.UID] = true
			}
		}
	}
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
