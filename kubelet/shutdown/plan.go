package shutdown

import (
	"cmp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// systemCritical is the least priority of pods that the cluster's own functions rest on.
const systemCritical = 2_000_000_000

// Period is what pods of at least that priority have to end, all together.
type Period struct {
	Priority int32
	Grace    time.Duration
}

// Periods are the usual two: of the total, critical pods have the last part for themselves.
func Periods(total, critical time.Duration) []Period {
	return []Period{{0, max(total-critical, 0)}, {systemCritical, critical}}
}

// Sum is how long all periods take.
func Sum(list []Period) (sum time.Duration) {
	for _, p := range list {
		sum += p.Grace
	}
	return sum
}

// Fit shortens periods in proportion, so that all together take no longer than most.
func Fit(list []Period, most time.Duration) []Period {
	sum, out := Sum(list), slices.Clone(list)
	if sum <= most {
		return out
	}
	for i := range out {
		out[i].Grace = time.Duration(float64(out[i].Grace) * float64(most) / float64(sum))
	}
	return out
}

// Group are pods that end together.
type Group struct {
	Period
	Pods []*corev1.Pod
}

// Plan sorts pods into groups, in the order in which they end. A pod belongs to the highest period that its priority
// reaches; one below them all, to the lowest. Groups without pods are left out.
func Plan(pods []*corev1.Pod, periods []Period) []Group {
	periods = slices.Clone(periods)
	slices.SortFunc(periods, func(a, b Period) int { return cmp.Compare(a.Priority, b.Priority) })
	groups := make([]Group, len(periods))
	for i, p := range periods {
		groups[i].Period = p
	}
	for _, pod := range pods {
		var priority int32
		if pod.Spec.Priority != nil {
			priority = *pod.Spec.Priority
		}
		at := 0
		for i, p := range periods {
			if priority >= p.Priority {
				at = i
			}
		}
		if len(groups) > 0 {
			groups[at].Pods = append(groups[at].Pods, pod)
		}
	}
	return slices.DeleteFunc(groups, func(g Group) bool { return len(g.Pods) == 0 })
}
