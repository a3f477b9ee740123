package disruption

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/component-helpers/apps/poddisruptionbudget"

	"keelson.dev/keelson/controlplane/controller/backend"
)

// evictionTime is how long an evicted pod may take to be seen going, before it counts as healthy again (upstream's).
const evictionTime = 2 * time.Minute

// decide computes a budget's status. scale is the sum of the replicas that the pods' controllers want; percentages
// and maxUnavailable are of it. again is when an entry of disruptedPods runs out.
func decide(b *policyv1.PodDisruptionBudget, pods []*corev1.Pod, scale int, now time.Time) (status policyv1.PodDisruptionBudgetStatus, again time.Duration) {
	expected, desired := wanted(b, len(pods), scale)
	disrupted := map[string]metav1.Time{}
	healthy := int32(0)
	for _, pod := range pods {
		if pod.DeletionTimestamp != nil {
			continue
		}
		at, evicted := b.Status.DisruptedPods[pod.Name]
		if left := at.Add(evictionTime).Sub(now); evicted && left > 0 {
			disrupted[pod.Name] = at
			if again == 0 || left < again {
				again = left
			}
			continue
		}
		if backend.Ready(pod) {
			healthy++
		}
	}
	next := b.DeepCopy()
	s := &next.Status
	s.ObservedGeneration, s.ExpectedPods, s.DesiredHealthy, s.CurrentHealthy = b.Generation, int32(expected), int32(desired), healthy
	s.DisruptionsAllowed, s.DisruptedPods = 0, disrupted
	if expected > 0 {
		s.DisruptionsAllowed = max(healthy-int32(desired), 0)
	}
	poddisruptionbudget.UpdateDisruptionAllowedCondition(next)
	return next.Status, again
}

// wanted is how many pods there should be, and how many of them must stay healthy.
func wanted(b *policyv1.PodDisruptionBudget, pods, scale int) (expected, healthy int) {
	switch least, most := b.Spec.MinAvailable, b.Spec.MaxUnavailable; {
	case most != nil:
		n, err := intstr.GetScaledValueFromIntOrPercent(most, scale, true)
		if err != nil {
			return scale, scale
		}
		return scale, max(scale-n, 0)
	case least != nil && least.Type == intstr.String:
		n, err := intstr.GetScaledValueFromIntOrPercent(least, scale, true)
		if err != nil {
			return scale, scale
		}
		return scale, n
	case least != nil:
		return pods, least.IntValue()
	}
	return pods, 0
}

// byScale reports whether the budget's figures are relative to what the pods' controllers want.
func byScale(b *policyv1.PodDisruptionBudget) bool {
	return b.Spec.MaxUnavailable != nil || b.Spec.MinAvailable != nil && b.Spec.MinAvailable.Type == intstr.String
}
