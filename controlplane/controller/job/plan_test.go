package job

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

var now = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// sample is a Job of 3 completions, 2 at a time, changed by the scenario.
func sample(change func(*batchv1.Job)) *batchv1.Job {
	j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "sum", UID: "job"}, Spec: batchv1.JobSpec{
		Parallelism: ptr.To[int32](2), Completions: ptr.To[int32](3), BackoffLimit: ptr.To[int32](6),
		Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever}}}}
	if change != nil {
		change(j)
	}
	return j
}

func indexed(n int32) func(*batchv1.Job) {
	return func(j *batchv1.Job) {
		j.Spec.CompletionMode, j.Spec.Completions, j.Spec.Parallelism = ptr.To(batchv1.IndexedCompletion), ptr.To(n), ptr.To(n)
	}
}

func perIndex(n, limit int32) func(*batchv1.Job) {
	return func(j *batchv1.Job) {
		indexed(n)(j)
		j.Spec.BackoffLimitPerIndex, j.Spec.BackoffLimit = ptr.To(limit), ptr.To[int32](1<<30)
	}
}

// exitRule acts on the exit code 42.
func exitRule(action batchv1.PodFailurePolicyAction) func(*batchv1.Job) {
	return func(j *batchv1.Job) {
		j.Spec.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{{Action: action,
			OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: []int32{42}}}}}
	}
}

// podsOf reads "a:running b:ready c:succeeded d:failed e:going"; "2:failed=42" is of index 2 and exited with 42. A last
// "!" is a pod that has lost its finalizer; "@30" ended 30 seconds ago; a last "^2,1" carries the failures of its index: two that
// count, one that does not.
func podsOf(text string) []*corev1.Pod {
	var out []*corev1.Pod
	for i, word := range strings.Fields(text) {
		word, before, _ := strings.Cut(word, "^")
		name, how, _ := strings.Cut(word, ":")
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID(name), Finalizers: []string{batchv1.JobTrackingFinalizer},
			CreationTimestamp: metav1.NewTime(now.Add(time.Duration(i-100) * time.Second))}, Spec: corev1.PodSpec{NodeName: "n"},
			Status: corev1.PodStatus{Phase: corev1.PodRunning}}
		if name[0] >= '0' && name[0] <= '9' {
			p.Annotations = map[string]string{batchv1.JobCompletionIndexAnnotation: name[:1]}
			p.Annotations[batchv1.JobIndexFailureCountAnnotation], p.Annotations[batchv1.JobIndexIgnoredFailureCountAnnotation], _ = strings.Cut(before, ",")
		}
		if how, _ = strings.CutSuffix(how, "!"); strings.HasSuffix(word, "!") {
			p.Finalizers = nil
		}
		ago := 1000
		if before, after, ok := strings.Cut(how, "@"); ok {
			how = before
			fmt.Sscan(after, &ago)
		}
		code := int32(1)
		if before, after, ok := strings.Cut(how, "="); ok {
			how = before
			fmt.Sscan(after, &code)
		}
		end := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, FinishedAt: metav1.NewTime(now.Add(-time.Duration(ago) * time.Second))}}
		switch how {
		case "ready":
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		case "succeeded":
			p.Status.Phase = corev1.PodSucceeded
		case "failed":
			p.Status.Phase = corev1.PodFailed
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", State: end}}
		case "going":
			p.DeletionTimestamp = ptr.To(metav1.NewTime(now.Add(-1000 * time.Second)))
		}
		out = append(out, p)
	}
	return out
}

// describe says a plan in words: what is made, released, dropped and ended, the figures, and the conditions that hold.
func describe(p plan) string {
	var out []string
	for _, b := range p.create {
		switch {
		case b.index < 0:
			out = append(out, "+pod")
		case b.failed+b.ignored > 0:
			out = append(out, fmt.Sprintf("+%d(%d failed, %d ignored)", b.index, b.failed, b.ignored))
		default:
			out = append(out, fmt.Sprintf("+%d", b.index))
		}
	}
	for mark, list := range map[string][]*corev1.Pod{"release ": p.release, "drop ": p.drop, "end ": p.end} {
		for _, pod := range list {
			out = append(out, mark+pod.Name)
		}
	}
	slices.Sort(out)
	s := p.status
	out = append(out, fmt.Sprintf("| %da %ds %df", s.Active, s.Succeeded, s.Failed))
	if s.CompletedIndexes != "" {
		out = append(out, "done="+s.CompletedIndexes)
	}
	if s.FailedIndexes != nil {
		out = append(out, "lost="+*s.FailedIndexes)
	}
	if u := s.UncountedTerminatedPods; u != nil && len(u.Succeeded)+len(u.Failed) > 0 {
		out = append(out, fmt.Sprintf("uncounted=%d/%d", len(u.Succeeded), len(u.Failed)))
	}
	for _, c := range s.Conditions {
		if c.Status == corev1.ConditionTrue {
			out = append(out, string(c.Type)+":"+c.Reason)
			if c.Type == batchv1.JobSuspended && s.StartTime == nil {
				out = append(out, "not started")
			}
		}
	}
	if p.again > 0 {
		out = append(out, "again "+p.again.String())
	}
	return strings.Join(out, " ")
}

func TestDecide(t *testing.T) {
	for _, s := range []struct {
		what   string
		job    *batchv1.Job
		pods   string
		want   string
		status func(*batchv1.JobStatus)
	}{
		{what: "a new job starts as many as may run", job: sample(nil), want: "+pod +pod | 0a 0s 0f"},
		{what: "a success is noted before it is counted", job: sample(nil), pods: "a:succeeded b:ready", want: "+pod release a | 1a 0s 0f uncounted=1/0"},
		{what: "seen without the finalizer it is counted", job: sample(nil), pods: "a:succeeded! b:ready", want: "+pod | 1a 1s 0f",
			status: func(s *batchv1.JobStatus) {
				s.UncountedTerminatedPods = &batchv1.UncountedTerminatedPods{Succeeded: []types.UID{"a"}}
			}},
		{what: "a counted pod that is deleted counts once", job: sample(nil), pods: "b:ready", want: "+pod | 1a 1s 0f",
			status: func(s *batchv1.JobStatus) {
				s.UncountedTerminatedPods = &batchv1.UncountedTerminatedPods{Succeeded: []types.UID{"a"}}
			}},
		{what: "no more than are still needed", job: sample(nil), pods: "c:ready", want: "| 1a 2s 0f", status: func(s *batchv1.JobStatus) { s.Succeeded = 2 }},
		{what: "the last success ends it", job: sample(nil), want: "| 0a 3s 0f SuccessCriteriaMet:CompletionsReached Complete:CompletionsReached",
			status: func(s *batchv1.JobStatus) { s.Succeeded = 3 }},
		{what: "a failure waits ten seconds", job: sample(nil), pods: "a:failed@4", want: "release a | 0a 0s 0f uncounted=0/1 again 6s"},
		{what: "the third in a row waits forty", job: sample(nil), pods: "a:failed@90! b:failed@60! c:failed@10!", want: "| 0a 0s 3f again 30s",
			status: func(s *batchv1.JobStatus) { s.Failed = 3 }},
		{what: "too many failures fail the job and end its pods", job: sample(func(j *batchv1.Job) { j.Spec.BackoffLimit = ptr.To[int32](0) }), pods: "a:failed@4 b:ready",
			want: "end b release a | 0a 0s 0f uncounted=0/1 FailureTarget:BackoffLimitExceeded"},
		{what: "failed when none is left", job: sample(func(j *batchv1.Job) {
			j.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobFailureTarget, Status: corev1.ConditionTrue, Reason: "BackoffLimitExceeded"}}
		}), want: "| 0a 0s 0f FailureTarget:BackoffLimitExceeded Failed:BackoffLimitExceeded"},
		{what: "the deadline", job: sample(func(j *batchv1.Job) { j.Spec.ActiveDeadlineSeconds = ptr.To[int64](60) }), pods: "a:ready b:ready",
			want: "end a end b | 0a 0s 0f FailureTarget:DeadlineExceeded", status: func(s *batchv1.JobStatus) { s.StartTime = ptr.To(metav1.NewTime(now.Add(-time.Minute))) }},
		{what: "a look when the deadline comes", job: sample(func(j *batchv1.Job) { j.Spec.ActiveDeadlineSeconds = ptr.To[int64](60) }), pods: "a:ready b:ready",
			want: "| 2a 0s 0f again 45s", status: func(s *batchv1.JobStatus) { s.StartTime = ptr.To(metav1.NewTime(now.Add(-15 * time.Second))) }},
		{what: "suspended: its pods go, uncounted", job: sample(func(j *batchv1.Job) { j.Spec.Suspend = ptr.To(true) }), pods: "a:ready", want: "drop a | 1a 0s 0f Suspended:JobSuspended not started",
			status: func(s *batchv1.JobStatus) { s.StartTime = ptr.To(metav1.NewTime(now.Add(-time.Minute))) }},
		{what: "less parallelism takes the least ready", job: sample(func(j *batchv1.Job) { j.Spec.Parallelism = ptr.To[int32](1) }), pods: "a:ready b:running", want: "drop b | 2a 0s 0f"},
		{what: "indexed: one pod an index", job: sample(indexed(3)), pods: "1x:ready", want: "+0 +2 | 1a 0s 0f"},
		{what: "indexed: done indexes", job: sample(indexed(3)), pods: "0x:succeeded 2x:succeeded 1x:ready", want: "release 0x release 2x | 1a 2s 0f done=0,2"},
		{what: "indexed: two of one index, the younger goes", job: sample(indexed(2)), pods: "0a:ready 0b:ready 1x:ready", want: "drop 0b | 3a 0s 0f"},
		{what: "indexed: beyond the completions", job: sample(indexed(1)), pods: "0a:ready 4x:ready", want: "drop 4x | 2a 0s 0f"},
		{what: "per index: lost after its limit, the others go on", job: sample(perIndex(2, 0)), pods: "0a:failed@1 1x:ready", want: "release 0a | 1a 0s 0f lost=0 uncounted=0/1"},
		{what: "per index: all settled, some lost", job: sample(perIndex(2, 0)), pods: "1x:succeeded!", want: "| 0a 1s 1f done=1 lost=0 FailureTarget:FailedIndexes Failed:FailedIndexes",
			status: func(s *batchv1.JobStatus) { s.FailedIndexes, s.Failed = ptr.To("0"), 1 }},
		{what: "per index: the last failed pod stays until there is another", job: sample(perIndex(2, 2)), pods: "0a:failed@4^1 1x:ready", want: "| 1a 0s 0f lost= again 16s"},
		{what: "per index: the next pod carries the figure", job: sample(perIndex(2, 2)), pods: "0a:failed@21^1 1x:ready", want: "+0(2 failed, 0 ignored) | 1a 0s 0f lost="},
		{what: "per index: then the failed one is counted", job: sample(perIndex(2, 2)), pods: "0a:failed@21^1 0b:ready^2 1x:ready", want: "release 0a | 2a 0s 0f lost= uncounted=0/1"},
		{what: "per index: the figure decides, not the pods that are left", job: sample(perIndex(2, 2)), pods: "0b:failed@1^2 1x:ready", want: "release 0b | 1a 0s 0f lost=0 uncounted=0/1"},
		{what: "per index: an index that waits holds up no other", job: sample(perIndex(2, 2)), pods: "0a:failed@4", want: "+1 | 0a 0s 0f lost= again 6s"},
		{what: "per index: too many lost indexes fail the job", job: sample(func(j *batchv1.Job) {
			perIndex(3, 0)(j)
			j.Spec.MaxFailedIndexes = ptr.To[int32](0)
		}), pods: "0a:failed 1x:ready", want: "end 1x release 0a | 0a 0s 0f lost=0 uncounted=0/1 FailureTarget:MaxFailedIndexesExceeded"},
		{what: "per index: at the end who waited for a successor is counted", job: sample(func(j *batchv1.Job) {
			perIndex(3, 1)(j)
			j.Spec.MaxFailedIndexes = ptr.To[int32](0)
		}), pods: "0a:failed^1 1x:failed@1", want: "release 0a release 1x | 0a 0s 0f lost=0 uncounted=0/2 FailureTarget:MaxFailedIndexesExceeded"},
		{what: "failure policy: an exit code gives an index up at once", job: sample(func(j *batchv1.Job) {
			perIndex(2, 5)(j)
			exitRule(batchv1.PodFailurePolicyActionFailIndex)(j)
		}), pods: "0a:failed=42 1x:ready", want: "release 0a | 1a 0s 0f lost=0 uncounted=0/1"},
		{what: "failure policy: an ignored failure of an index does not count, but delays", job: sample(func(j *batchv1.Job) {
			perIndex(2, 0)(j)
			exitRule(batchv1.PodFailurePolicyActionIgnore)(j)
		}), pods: "0a:failed=42@41^0,2 1x:ready", want: "+0(0 failed, 3 ignored) | 1a 0s 0f lost="},
		{what: "failure policy: an exit code fails the job", job: sample(func(j *batchv1.Job) {
			j.Spec.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{{Action: batchv1.PodFailurePolicyActionFailJob,
				OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: []int32{42}}}}}
		}), pods: "a:failed=42 b:ready", want: "end b release a | 0a 0s 0f uncounted=0/1 FailureTarget:PodFailurePolicy"},
		{what: "failure policy: an ignored failure does not count", job: sample(func(j *batchv1.Job) {
			j.Spec.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{{Action: batchv1.PodFailurePolicyActionIgnore,
				OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{Operator: batchv1.PodFailurePolicyOnExitCodesOpNotIn, Values: []int32{42}}}}}
		}), pods: "a:failed=1 b:ready", want: "+pod release a | 1a 0s 0f"},
		{what: "success policy: one index is enough", job: sample(func(j *batchv1.Job) {
			indexed(3)(j)
			j.Spec.SuccessPolicy = &batchv1.SuccessPolicy{Rules: []batchv1.SuccessPolicyRule{{SucceededIndexes: ptr.To("1")}}}
		}), pods: "0x:ready 1x:succeeded 2x:ready", want: "drop 0x drop 2x release 1x | 0a 1s 0f done=1 SuccessCriteriaMet:SuccessPolicy"},
		{what: "replaced only when it has ended", job: sample(func(j *batchv1.Job) { j.Spec.PodReplacementPolicy = ptr.To(batchv1.Failed) }), pods: "a:going b:ready", want: "| 1a 0s 0f"},
		{what: "replaced when it is asked to go", job: sample(nil), pods: "a:going b:ready", want: "+pod release a | 1a 0s 0f uncounted=0/1"},
		{what: "a work queue ends when all have", job: sample(func(j *batchv1.Job) { j.Spec.Completions = nil }), want: "| 0a 1s 0f SuccessCriteriaMet:CompletionsReached Complete:CompletionsReached",
			status: func(s *batchv1.JobStatus) { s.Succeeded = 1 }},
		{what: "a finished job holds no pod", job: sample(func(j *batchv1.Job) {
			j.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobComplete, Status: corev1.ConditionTrue, Reason: "CompletionsReached"}}
		}), pods: "a:succeeded", want: "release a | 0a 0s 0f Complete:CompletionsReached"},
	} {
		if s.status != nil {
			s.status(&s.job.Status)
		}
		if got := describe(decide(s.job, podsOf(s.pods), now)); got != s.want {
			t.Errorf("%s (pods %q):\n got %s\nwant %s", s.what, s.pods, got, s.want)
		}
	}
}

// TestDecideKeepsItsHands: whatever is decided, objects of the shared cache stay as they were.
func TestDecideKeepsItsHands(t *testing.T) {
	j := sample(nil)
	j.Status.UncountedTerminatedPods = &batchv1.UncountedTerminatedPods{Succeeded: []types.UID{"a", "gone"}}
	before := j.DeepCopy()
	decide(j, podsOf("a:succeeded b:failed c:ready"), now)
	if fmt.Sprint(j.Status) != fmt.Sprint(before.Status) {
		t.Errorf("the Job in the cache was changed: %v, was %v", j.Status, before.Status)
	}
}

func FuzzParseIndexes(f *testing.F) {
	f.Add("1,3-5,7")
	f.Add("-,1-,9999999999-1")
	f.Fuzz(func(t *testing.T, text string) {
		x := parseIndexes(text, 100)
		if again := parseIndexes(x.String(), 100); again.String() != x.String() {
			t.Errorf("%q: %q is read as %q", text, x.String(), again.String())
		}
	})
}
