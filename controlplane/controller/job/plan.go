package job

import (
	"fmt"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/controller/backend"
)

// plan is one step. The status is to be stored before anything is done to pods.
type plan struct {
	create  []birth       // pods to make
	release []*corev1.Pod // counted by the new status: take the finalizer away
	drop    []*corev1.Pod // delete without counting: not wanted any more
	end     []*corev1.Pod // delete and count as failed
	status  batchv1.JobStatus
	again   time.Duration
	event   string // reason of what has just happened to the Job; empty: nothing
	message string
}

// birth is a pod to be made.
type birth struct {
	index           int   // its completion index; -1 without
	failed, ignored int32 // failures of the index before it, those that count and those that the failure policy ignores
}

type state struct {
	job         *batchv1.Job
	pods        []*corev1.Pod
	now         time.Time
	indexed     bool
	onlyFailed  bool // replace a pod only when it has ended
	completions int
	parallelism int
	completed   indexes
	lost        indexes             // failed for good
	delayed     map[int]*corev1.Pod // by index, with backoffLimitPerIndex: the last failed pod, until the next one carries its figures
	verdict     string              // of the pod failure policy: fail the Job, with this message
	active      []*corev1.Pod
	ready       int32
	terminating int32
	succeeded   int32
	failed      int32
	status      batchv1.JobStatus
	plan        plan
}

// decide plans the next step of a Job from its own pods.
func decide(j *batchv1.Job, pods []*corev1.Pod, now time.Time) plan {
	s := &state{job: j, pods: pods, now: now, status: *j.Status.DeepCopy(), lost: indexes{},
		parallelism: int(ptr.Deref(j.Spec.Parallelism, 1)), completions: int(ptr.Deref(j.Spec.Completions, 0)),
		indexed: ptr.Deref(j.Spec.CompletionMode, "") == batchv1.IndexedCompletion}
	policy := ptr.Deref(j.Spec.PodReplacementPolicy, "")
	s.onlyFailed = policy == batchv1.Failed || policy == "" && j.Spec.PodFailurePolicy != nil
	s.completed = parseIndexes(j.Status.CompletedIndexes, s.completions)
	if j.Status.FailedIndexes != nil {
		s.lost = parseIndexes(*j.Status.FailedIndexes, s.completions)
	}
	if finished(j) {
		for _, pod := range pods {
			if tracks(pod) {
				s.plan.release = append(s.plan.release, pod)
			}
		}
		s.plan.status = s.status
		return s.plan
	}
	suspended := ptr.Deref(j.Spec.Suspend, false)
	if s.status.StartTime == nil && !suspended {
		s.status.StartTime = s.stamp()
	}
	s.count()
	if s.aim(suspended); s.ending() || j.DeletionTimestamp != nil {
		s.countDelayed()
	} else {
		s.steer(suspended)
	}
	s.settle()
	s.plan.status = s.status
	return s.plan
}

// aim decides whether the Job is to end, and how.
func (s *state) aim(suspended bool) {
	if s.ending() {
		return
	}
	fail := func(reason, message string) { s.set(batchv1.JobFailureTarget, true, reason, message) }
	rule, allDone := s.successRule(), s.completions > 0 && int(s.succeeded) >= s.completions
	if s.job.Spec.Completions == nil {
		allDone = s.succeeded > 0 && len(s.active) == 0 && s.terminating == 0
	}
	settled := s.indexed && len(s.completed)+len(s.lost) >= s.completions
	switch most := s.job.Spec.MaxFailedIndexes; {
	case s.verdict != "":
		fail(batchv1.JobReasonPodFailurePolicy, s.verdict)
	case s.tooManyFailures():
		fail(batchv1.JobReasonBackoffLimitExceeded, "Job has reached the specified backoff limit")
	case s.deadline(suspended):
		fail(batchv1.JobReasonDeadlineExceeded, "Job was active longer than specified deadline")
	case most != nil && len(s.lost) > int(*most):
		fail(batchv1.JobReasonMaxFailedIndexesExceeded, "Job has exceeded the specified maximal number of failed indexes")
	case rule >= 0:
		s.set(batchv1.JobSuccessCriteriaMet, true, batchv1.JobReasonSuccessPolicy, fmt.Sprintf("Matched rules at index %d", rule))
	case allDone || s.completions == 0 && s.job.Spec.Completions != nil:
		s.set(batchv1.JobSuccessCriteriaMet, true, batchv1.JobReasonCompletionsReached, "Reached expected number of succeeded pods")
	case settled && len(s.lost) > 0:
		fail(batchv1.JobReasonFailedIndexes, "Job has failed indexes")
	}
}

// deadline reports whether activeDeadlineSeconds is over, or asks to be called when it will be.
func (s *state) deadline(suspended bool) bool {
	limit := s.job.Spec.ActiveDeadlineSeconds
	if limit == nil || suspended || s.status.StartTime == nil {
		return false
	}
	left := s.status.StartTime.Add(time.Duration(*limit) * time.Second).Sub(s.now)
	s.later(left)
	return left <= 0
}

// steer makes and deletes pods towards the wanted number.
func (s *state) steer(suspended bool) {
	if s.suspend(suspended) {
		s.plan.drop = append(s.plan.drop, s.active...)
		return
	}
	s.dropNeedless()
	kept := slices.DeleteFunc(slices.Clone(s.active), func(p *corev1.Pod) bool { return slices.Contains(s.plan.drop, p) })
	want := s.parallelism
	switch {
	case s.job.Spec.Completions != nil:
		want = min(want, s.completions-int(s.succeeded)-len(s.lost))
	case s.succeeded > 0: // a work queue that is drained takes nobody new
		want = min(want, len(kept))
	}
	if len(kept) > want {
		slices.SortStableFunc(kept, func(a, b *corev1.Pod) int { return rank(a) - rank(b) })
		s.plan.drop = append(s.plan.drop, kept[:len(kept)-max(want, 0)]...)
		return
	}
	room := want - len(kept)
	if s.onlyFailed {
		room -= int(s.terminating)
	}
	s.create(room, kept)
}

func rank(pod *corev1.Pod) int {
	switch {
	case pod.Spec.NodeName == "":
		return 0
	case !backend.Ready(pod):
		return 1
	}
	return 2
}

// suspend keeps the Suspended condition and reports whether the Job is to have no pods.
func (s *state) suspend(suspended bool) bool {
	have := s.find(batchv1.JobSuspended)
	was := have != nil && have.Status == corev1.ConditionTrue
	switch {
	case suspended && !was:
		s.set(batchv1.JobSuspended, true, "JobSuspended", "Job suspended")
		s.status.StartTime = nil // it starts anew: until then it may be placed and sized anew
		s.plan.event, s.plan.message = "Suspended", "Job suspended"
	case !suspended && was:
		s.set(batchv1.JobSuspended, false, "JobResumed", "Job resumed")
		s.status.StartTime = s.stamp()
		s.plan.event, s.plan.message = "Resumed", "Job resumed"
	}
	return suspended
}

// dropNeedless deletes pods whose index is done, lost or out of range, and all but the oldest of an index.
func (s *state) dropNeedless() {
	if !s.indexed {
		return
	}
	seen := indexes{}
	for _, pod := range s.active {
		i := indexOf(pod)
		if i < 0 || i >= s.completions || s.completed[i] || s.lost[i] || seen[i] {
			s.plan.drop = append(s.plan.drop, pod)
			continue
		}
		seen[i] = true
	}
}

// create makes up to n pods, unless a failure is too recent.
func (s *state) create(n int, kept []*corev1.Pod) {
	if n <= 0 {
		return
	}
	if !s.perIndex() {
		if wait := s.backoff(); wait > 0 {
			s.later(wait)
			return
		}
	}
	if !s.indexed {
		for range n {
			s.plan.create = append(s.plan.create, birth{index: -1})
		}
		return
	}
	busy := indexes{}
	for _, pod := range s.pods {
		if s.onlyFailed && pod.DeletionTimestamp != nil && pod.Status.Phase != corev1.PodFailed && pod.Status.Phase != corev1.PodSucceeded {
			busy[indexOf(pod)] = true
		}
	}
	for _, pod := range kept {
		busy[indexOf(pod)] = true
	}
	for i := 0; i < s.completions && n > 0; i++ {
		if busy[i] || s.completed[i] || s.lost[i] {
			continue
		}
		n--
		b := birth{index: i}
		if last := s.delayed[i]; last != nil {
			b.failed, b.ignored = s.failuresWith(last)
			if wait := remaining(b.failed+b.ignored, ended(last), s.now); wait > 0 {
				s.later(wait)
				continue
			}
		}
		s.plan.create = append(s.plan.create, b)
	}
}

// settle writes the figures, ends a Job's pods and, when none is left, the Job.
func (s *state) settle() {
	failing, met := s.is(batchv1.JobFailureTarget), s.is(batchv1.JobSuccessCriteriaMet)
	switch {
	case failing != nil:
		s.plan.end = s.active
	case met != nil:
		s.plan.drop = s.active
	}
	leaving := int32(0)
	if s.ending() {
		leaving = int32(len(s.active))
	}
	active := int32(len(s.active)) - leaving
	terminating := s.terminating + leaving
	s.status.Active, s.status.Ready, s.status.Terminating = active, ptr.To(min(s.ready, active)), &terminating
	if s.job.Spec.BackoffLimitPerIndex != nil {
		s.status.FailedIndexes = ptr.To(s.lost.String())
	}
	if u := s.status.UncountedTerminatedPods; !s.ending() || terminating > 0 || len(u.Succeeded)+len(u.Failed) > 0 {
		return
	}
	if failing != nil {
		s.set(batchv1.JobFailed, true, failing.Reason, failing.Message)
		s.plan.event, s.plan.message = failing.Reason, failing.Message
	} else {
		s.set(batchv1.JobComplete, true, met.Reason, met.Message)
		s.plan.event, s.plan.message = "Completed", "Job completed"
		s.status.CompletionTime = s.stamp()
	}
	if s.status.StartTime == nil { // never started, as it was suspended
		s.status.StartTime = s.stamp()
	}
	s.plan.again = 0
}

// finished: nothing of the Job changes any more.
func finished(j *batchv1.Job) bool {
	return slices.ContainsFunc(j.Status.Conditions, func(c batchv1.JobCondition) bool {
		return (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == corev1.ConditionTrue
	})
}

func (s *state) ending() bool {
	return s.is(batchv1.JobFailureTarget) != nil || s.is(batchv1.JobSuccessCriteriaMet) != nil
}

func (s *state) find(t batchv1.JobConditionType) *batchv1.JobCondition {
	for i := range s.status.Conditions {
		if s.status.Conditions[i].Type == t {
			return &s.status.Conditions[i]
		}
	}
	return nil
}

func (s *state) is(t batchv1.JobConditionType) *batchv1.JobCondition {
	if c := s.find(t); c != nil && c.Status == corev1.ConditionTrue {
		return c
	}
	return nil
}

func (s *state) set(t batchv1.JobConditionType, yes bool, reason, message string) {
	status := corev1.ConditionFalse
	if yes {
		status = corev1.ConditionTrue
	}
	c := batchv1.JobCondition{Type: t, Status: status, Reason: reason, Message: message, LastProbeTime: *s.stamp(), LastTransitionTime: *s.stamp()}
	if have := s.find(t); have != nil {
		*have = c
		return
	}
	s.status.Conditions = append(s.status.Conditions, c)
}

// stamp is the time in whole seconds, as it is stored.
func (s *state) stamp() *metav1.Time { return ptr.To(metav1.NewTime(s.now.Truncate(time.Second))) }

// later asks for another look after d, if none is sooner.
func (s *state) later(d time.Duration) {
	if d > 0 && (s.plan.again == 0 || d < s.plan.again) {
		s.plan.again = d
	}
}
