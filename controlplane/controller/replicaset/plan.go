package replicaset

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"keelson.dev/keelson/controlplane/controller/backend"
)

// deletionCost is the annotation by which a user ranks pods for scaling down; lower goes first.
const deletionCost = "controller.kubernetes.io/pod-deletion-cost"

// counts are a set's figures for its status.
type counts struct {
	replicas, labeled, ready, available, terminating int32
	// next is how long until a ready pod becomes available by minReadySeconds alone; 0 if none is waiting.
	next time.Duration
}

// count sums up the live pods of a set. template are the labels of the set's pod template.
func count(pods []*corev1.Pod, template map[string]string, minReady time.Duration, now time.Time) counts {
	var c counts
	for _, p := range pods {
		if !active(p) {
			continue
		}
		if p.DeletionTimestamp != nil {
			c.terminating++
			continue
		}
		c.replicas++
		if subset(template, p.Labels) {
			c.labeled++
		}
		since, ready := backend.ReadySince(p)
		if !ready {
			continue
		}
		c.ready++
		if wait := minReady - now.Sub(since); minReady <= 0 || wait <= 0 {
			c.available++
		} else if c.next == 0 || wait < c.next {
			c.next = wait
		}
	}
	return c
}

// victims picks n pods to delete, the least valuable first: not scheduled, not ready, lower deletion cost, on a node that
// holds more pods of the set, ready for a shorter time, restarted more, younger (upstream's order).
func victims(pods []*corev1.Pod, n int) []*corev1.Pod {
	perNode := map[string]int{}
	var live []*corev1.Pod
	for _, p := range pods {
		if active(p) && p.DeletionTimestamp == nil {
			live = append(live, p)
			if p.Spec.NodeName != "" {
				perNode[p.Spec.NodeName]++
			}
		}
	}
	slices.SortFunc(live, func(a, b *corev1.Pod) int { return rank(a, b, perNode) })
	return live[:min(n, len(live))]
}

// rank is negative if a goes before b.
func rank(a, b *corev1.Pod, perNode map[string]int) int {
	readyA, isReadyA := backend.ReadySince(a)
	readyB, isReadyB := backend.ReadySince(b)
	order := []int{
		first(a.Spec.NodeName == "", b.Spec.NodeName == ""),
		cmp.Compare(phaseRank(a), phaseRank(b)),
		first(!isReadyA, !isReadyB),
		cmp.Compare(cost(a), cost(b)),
		cmp.Compare(perNode[b.Spec.NodeName], perNode[a.Spec.NodeName]),
	}
	if isReadyA && isReadyB {
		order = append(order, readyB.Compare(readyA))
	}
	order = append(order, cmp.Compare(restarts(b), restarts(a)), b.CreationTimestamp.Compare(a.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	for _, o := range order {
		if o != 0 {
			return o
		}
	}
	return 0
}

func first(a, b bool) int {
	switch {
	case a && !b:
		return -1
	case b && !a:
		return 1
	}
	return 0
}

func phaseRank(p *corev1.Pod) int {
	switch p.Status.Phase {
	case corev1.PodPending:
		return 0
	case corev1.PodRunning:
		return 2
	}
	return 1
}

func cost(p *corev1.Pod) int {
	n, err := strconv.Atoi(p.Annotations[deletionCost])
	if err != nil {
		return 0
	}
	return n
}

func restarts(p *corev1.Pod) (n int32) {
	for _, c := range p.Status.ContainerStatuses {
		n = max(n, c.RestartCount)
	}
	return n
}

func active(p *corev1.Pod) bool {
	return p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed
}

func subset(want, have map[string]string) bool {
	for k, v := range want {
		if have[k] != v {
			return false
		}
	}
	return true
}
