package nodelifecycle

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// stay says for how long a pod may stay on a node with these taints: forever, or until a time (which may be past).
func stay(pod *corev1.Pod, taints []corev1.Taint, now time.Time) (until time.Time, forever bool) {
	forever = true
	for i := range taints {
		t := &taints[i]
		if t.Effect != corev1.TaintEffectNoExecute {
			continue
		}
		limit, tolerated := tolerance(pod.Spec.Tolerations, t)
		if !tolerated {
			return now, false
		}
		if limit == nil {
			continue
		}
		since := now
		if t.TimeAdded != nil {
			since = t.TimeAdded.Time
		}
		if pod.CreationTimestamp.After(since) {
			since = pod.CreationTimestamp.Time // it came to a node that was tainted
		}
		if end := since.Add(*limit); forever || end.Before(until) {
			until, forever = end, false
		}
	}
	return until, forever
}

// tolerance returns the shortest time for which a taint is tolerated; nil: without end.
func tolerance(tolerations []corev1.Toleration, taint *corev1.Taint) (limit *time.Duration, tolerated bool) {
	for i := range tolerations {
		t := &tolerations[i]
		if !matches(t, taint) {
			continue
		}
		tolerated = true
		if t.TolerationSeconds != nil {
			d := time.Duration(max(*t.TolerationSeconds, 0)) * time.Second
			if limit == nil || d < *limit {
				limit = &d
			}
		}
	}
	return limit, tolerated
}

func matches(t *corev1.Toleration, taint *corev1.Taint) bool {
	if t.Effect != "" && t.Effect != taint.Effect || t.Key != "" && t.Key != taint.Key {
		return false
	}
	return t.Operator == corev1.TolerationOpExists || (t.Operator == "" || t.Operator == corev1.TolerationOpEqual) && t.Value == taint.Value
}
