package job

import (
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"keelson.dev/keelson/controlplane/controller/backend"
)

// count takes stock of the pods: who is active, who has ended, and which ends are counted now.
func (s *state) count() {
	var uncounted batchv1.UncountedTerminatedPods
	if u := s.job.Status.UncountedTerminatedPods; u != nil {
		uncounted = *u.DeepCopy()
	}
	tracked := map[types.UID]bool{}
	for _, pod := range s.pods {
		if tracks(pod) {
			tracked[pod.UID] = true
		}
	}
	// Step 3: seen without the finalizer.
	gone := func(uid types.UID) bool { return !tracked[uid] }
	before := len(uncounted.Succeeded)
	uncounted.Succeeded = slices.DeleteFunc(uncounted.Succeeded, gone)
	s.status.Succeeded += int32(before - len(uncounted.Succeeded))
	before = len(uncounted.Failed)
	uncounted.Failed = slices.DeleteFunc(uncounted.Failed, gone)
	s.status.Failed += int32(before - len(uncounted.Failed))
	// Step 1, and step 2 for what is stored already.
	for _, pod := range s.pods {
		if i := indexOf(pod); pod.Status.Phase == corev1.PodSucceeded && s.indexed && i >= 0 && i < s.completions {
			s.completed[i] = true
		}
	}
	s.delay(uncounted.Failed)
	for _, pod := range s.pods {
		s.countPod(pod, &uncounted)
	}
	if s.indexed {
		s.status.CompletedIndexes = s.completed.String()
		s.status.Succeeded = int32(len(s.completed))
	}
	s.status.UncountedTerminatedPods = &uncounted
	s.succeeded = s.status.Succeeded + int32(len(uncounted.Succeeded))
	s.failed = s.status.Failed + int32(len(uncounted.Failed))
	for _, pod := range s.delayed {
		if !s.ignores(pod) {
			s.failed++
		}
	}
	slices.SortFunc(s.active, func(a, b *corev1.Pod) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
}

func (s *state) countPod(pod *corev1.Pod, uncounted *batchv1.UncountedTerminatedPods) {
	i := indexOf(pod)
	foreign := s.indexed && (i < 0 || i >= s.completions)
	switch {
	case pod.Status.Phase == corev1.PodSucceeded:
		if !s.indexed && tracks(pod) && !slices.Contains(uncounted.Succeeded, pod.UID) {
			uncounted.Succeeded = append(uncounted.Succeeded, pod.UID)
		}
	case s.hasFailed(pod):
		if pod.Status.Phase != corev1.PodFailed {
			s.terminating++
		}
		ignored := s.judge(pod)
		if s.delayed[i] == pod {
			return
		}
		if tracks(pod) && !foreign && !ignored && !slices.Contains(uncounted.Failed, pod.UID) {
			uncounted.Failed = append(uncounted.Failed, pod.UID)
		}
	case pod.DeletionTimestamp != nil:
		s.terminating++
		return
	default:
		s.active = append(s.active, pod)
		if backend.Ready(pod) {
			s.ready++
		}
		return
	}
	if tracks(pod) {
		s.plan.release = append(s.plan.release, pod)
	}
}

// perIndex: each index has a back-off and a limit of its own.
func (s *state) perIndex() bool { return s.indexed && s.job.Spec.BackoffLimitPerIndex != nil }

// delay notes the indexes that are lost and, of each that is to be tried again and has no active pod yet, the last failed
// pod. That one keeps its finalizer, and so stays, until the pod that comes after it carries the number of failures: this
// number is then known whoever deletes ended pods, and whenever we begin anew.
func (s *state) delay(uncounted []types.UID) {
	s.delayed = map[int]*corev1.Pod{}
	if !s.perIndex() {
		return
	}
	busy := indexes{}
	var failed []*corev1.Pod
	for _, pod := range s.pods {
		i := indexOf(pod)
		switch {
		case i < 0 || i >= s.completions || s.completed[i] || pod.Status.Phase == corev1.PodSucceeded:
		case s.hasFailed(pod):
			if tracks(pod) && s.loses(pod) {
				s.lost[i] = true
			}
			failed = append(failed, pod)
		case pod.DeletionTimestamp == nil:
			busy[i] = true
		}
	}
	if s.ending() || s.job.DeletionTimestamp != nil {
		return
	}
	for _, pod := range failed {
		i := indexOf(pod)
		if !tracks(pod) || s.lost[i] || busy[i] || slices.Contains(uncounted, pod.UID) {
			continue
		}
		if have := s.delayed[i]; have == nil || sumOf(failures(have)) < sumOf(failures(pod)) {
			s.delayed[i] = pod
		}
	}
}

// countDelayed: no pod comes after those that failed last.
func (s *state) countDelayed() {
	for _, pod := range s.delayed {
		if !s.ignores(pod) {
			s.status.UncountedTerminatedPods.Failed = append(s.status.UncountedTerminatedPods.Failed, pod.UID)
		}
		s.plan.release = append(s.plan.release, pod)
	}
	slices.Sort(s.status.UncountedTerminatedPods.Failed)
}

// hasFailed: a pod that is being deleted counts as failed at once, unless only failed ones are to be replaced: its node
// may never come back to say so.
func (s *state) hasFailed(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodFailed || pod.DeletionTimestamp != nil && !s.onlyFailed
}

func tracks(pod *corev1.Pod) bool {
	return slices.Contains(pod.Finalizers, batchv1.JobTrackingFinalizer)
}

// ended is when a pod's last container ended, or, if that is not known, when it was asked to go or last changed.
func ended(pod *corev1.Pod) time.Time {
	var at time.Time
	for _, c := range pod.Status.ContainerStatuses {
		if t := c.State.Terminated; t != nil && t.FinishedAt.After(at) {
			at = t.FinishedAt.Time
		}
	}
	if at.IsZero() && pod.DeletionTimestamp != nil {
		at = pod.DeletionTimestamp.Time
		if pod.DeletionGracePeriodSeconds != nil {
			at = at.Add(-time.Duration(*pod.DeletionGracePeriodSeconds) * time.Second)
		}
	}
	for _, c := range pod.Status.Conditions {
		if at.IsZero() && c.Type == corev1.PodReady {
			at = c.LastTransitionTime.Time
		}
	}
	if at.IsZero() {
		at = pod.CreationTimestamp.Time
	}
	return at
}

// Back-off between failures: 10 s, doubling, at most 10 minutes (upstream's).
const (
	firstBackoff = 10 * time.Second
	mostBackoff  = 10 * time.Minute
)

// backoff is how long no pod may be made yet: it grows with the failures since the last success.
func (s *state) backoff() time.Duration {
	var success, last time.Time
	for _, pod := range s.pods {
		if pod.Status.Phase == corev1.PodSucceeded {
			if at := ended(pod); at.After(success) {
				success = at
			}
		}
	}
	n := int32(0)
	for _, pod := range s.pods {
		if pod.Status.Phase == corev1.PodSucceeded || !s.hasFailed(pod) {
			continue
		}
		if at := ended(pod); at.After(success) {
			n++
			if at.After(last) {
				last = at
			}
		}
	}
	return remaining(n, last, s.now)
}

// remaining is how long after the n-th failure, at last, the next try has to wait.
func remaining(n int32, last, now time.Time) time.Duration {
	if n == 0 {
		return 0
	}
	wait := mostBackoff
	if n <= 6 {
		wait = min(firstBackoff<<(n-1), mostBackoff)
	}
	return max(last.Add(wait).Sub(now), 0)
}
