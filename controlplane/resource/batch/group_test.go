package batch

import (
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/resource/resourcetest"
)

func TestNames(t *testing.T) {
	resourcetest.CheckNames(t, Group(),
		resourcetest.Row{Plural: "cronjobs", Short: "cj", Kind: "CronJob", Namespaced: true, Categories: "all"},
		resourcetest.Row{Plural: "jobs", Kind: "Job", Namespaced: true, Categories: "all"})
}

// made is a job as the store has it after creation.
func made(t *testing.T, edit func(*batchv1.Job)) *batchv1.Job {
	j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "j", UID: "u1"}}
	j.Spec.Template.Spec = corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "c", Image: "i:1"}}}
	if edit != nil {
		edit(j)
	}
	k := resourcetest.Kind(t, Group(), "Job")
	k.Default(j)
	k.PrepareForCreate(t.Context(), j)
	return j
}

func TestDefaults(t *testing.T) {
	j := made(t, nil)
	if s := j.Spec; *s.Completions != 1 || *s.Parallelism != 1 || *s.BackoffLimit != 6 || *s.CompletionMode != "NonIndexed" || *s.PodReplacementPolicy != "TerminatingOrFailed" {
		t.Errorf("%+v", s)
	}
	resourcetest.CheckDefaults(t, resourcetest.Kind(t, Group(), "Job"), j.DeepCopy(), func() *batchv1.Job {
		w := j.DeepCopy()
		w.Labels = w.Spec.Template.Labels
		return w
	}())
	c := &batchv1.CronJob{}
	resourcetest.Kind(t, Group(), "CronJob").Default(c)
	if s := c.Spec; s.ConcurrencyPolicy != "Allow" || *s.SuccessfulJobsHistoryLimit != 3 || *s.FailedJobsHistoryLimit != 1 || *s.Suspend {
		t.Errorf("%+v", s)
	}
}

func TestGeneratedSelector(t *testing.T) {
	j := made(t, nil)
	if j.Spec.Selector.MatchLabels[batchv1.ControllerUidLabel] != "u1" || j.Spec.Template.Labels["job-name"] != "j" {
		t.Errorf("selector %v, labels %v", j.Spec.Selector, j.Spec.Template.Labels)
	}
	manual := made(t, func(j *batchv1.Job) { j.Spec.ManualSelector = ptr.To(true) })
	if manual.Spec.Selector != nil {
		t.Errorf("a manual selector was generated: %v", manual.Spec.Selector)
	}
}

func TestValidateJob(t *testing.T) {
	k := resourcetest.Kind(t, Group(), "Job")
	indexed := func(j *batchv1.Job) {
		j.Spec.CompletionMode, j.Spec.Completions = ptr.To(batchv1.IndexedCompletion), ptr.To[int32](3)
	}
	for _, c := range []struct {
		edit func(*batchv1.Job)
		want []string
	}{
		{nil, nil},
		{indexed, nil},
		{func(j *batchv1.Job) { j.Spec.Template.Spec.RestartPolicy = "" },
			[]string{`spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"`}},
		{func(j *batchv1.Job) { j.Spec.Parallelism = ptr.To[int32](-1) }, []string{"spec.parallelism: Invalid value: -1"}},
		{func(j *batchv1.Job) {
			j.Spec.CompletionMode, j.Spec.Parallelism = ptr.To(batchv1.IndexedCompletion), ptr.To[int32](1)
		},
			[]string{"spec.completions: Required value: when completion mode is Indexed"}},
		{func(j *batchv1.Job) { j.Spec.BackoffLimitPerIndex = ptr.To[int32](1) },
			[]string{"spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode"}},
		{func(j *batchv1.Job) { j.Spec.ManagedBy = ptr.To("me") }, []string{`spec.managedBy: Invalid value: "me": must be a domain-prefixed path`}},
		{func(j *batchv1.Job) { j.Spec.Template.Labels = map[string]string{"job-name": "other"} },
			[]string{"spec.template.metadata.labels[job-name]: Invalid value"}},
		{func(j *batchv1.Job) {
			j.Spec.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{{Action: "FailJob",
				OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{Operator: "In", Values: []int32{2, 1, 1, 0}, ContainerName: ptr.To("x")}}}}
		}, []string{
			`spec.podFailurePolicy.rules[0].onExitCodes.containerName: Invalid value: "x": must be one of the container or initContainer names in the pod template`,
			"spec.podFailurePolicy.rules[0].onExitCodes.values[2]: Duplicate value: 1",
			"spec.podFailurePolicy.rules[0].onExitCodes.values[3]: Invalid value: 0: must not be 0 for the In operator",
			"spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [2,1,1,0]: must be ordered"}},
		{func(j *batchv1.Job) {
			indexed(j)
			j.Spec.SuccessPolicy = &batchv1.SuccessPolicy{Rules: []batchv1.SuccessPolicyRule{{SucceededIndexes: ptr.To("0,9")}, {}}}
		}, []string{
			`spec.successPolicy.rules[0].succeededIndexes: Invalid value: "0,9": error parsing succeededIndexes: too large index: "9"`,
			"spec.successPolicy.rules[1]: Required value: at least one of succeededCount or succeededIndexes must be specified"}},
	} {
		resourcetest.CheckErrors(t, k.Validate(t.Context(), made(t, c.edit)), c.want...)
	}
}

func TestValidateJobUpdate(t *testing.T) {
	k := resourcetest.Kind(t, Group(), "Job")
	old := made(t, nil)
	moved := old.DeepCopy()
	moved.Spec.Template.Spec.NodeSelector = map[string]string{"a": "b"}
	resourcetest.CheckErrors(t, k.ValidateUpdate(t.Context(), moved, old), "field is immutable")
	old.Spec.Suspend, moved.Spec.Suspend = ptr.To(true), ptr.To(true)
	resourcetest.CheckErrors(t, k.ValidateUpdate(t.Context(), moved, old))
	moved.Spec.Template.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2")}
	moved.Spec.Suspend = ptr.To(false) // sized and resumed at once
	resourcetest.CheckErrors(t, k.ValidateUpdate(t.Context(), moved, old))
	other := moved.DeepCopy()
	other.Spec.Template.Spec.Containers[0].Image = "other"
	resourcetest.CheckErrors(t, k.ValidateUpdate(t.Context(), other, old), "field is immutable")
	// One that ran before is changed as soon as it is known to be suspended and its pods go.
	ran := old.DeepCopy()
	ran.Status.StartTime = &metav1.Time{Time: time.Unix(1000, 0)}
	resourcetest.CheckErrors(t, k.ValidateUpdate(t.Context(), moved, ran), "field is immutable")
	ran.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobSuspended, Status: corev1.ConditionTrue}}
	resourcetest.CheckErrors(t, k.ValidateUpdate(t.Context(), moved, ran))
	ran.Status.Active = 1
	resourcetest.CheckErrors(t, k.ValidateUpdate(t.Context(), moved, ran), "field is immutable")
	more := old.DeepCopy()
	more.Spec.Completions = ptr.To[int32](7)
	resourcetest.CheckErrors(t, k.ValidateUpdate(t.Context(), more, old), "spec.completions: Invalid value: 7: field is immutable")
}

func TestValidateStatus(t *testing.T) {
	k := resourcetest.Kind(t, Group(), "Job")
	at := metav1.NewTime(time.Unix(1000, 0))
	done := made(t, nil)
	done.Status = batchv1.JobStatus{Succeeded: 1, StartTime: &at, CompletionTime: &at, Conditions: []batchv1.JobCondition{
		{Type: batchv1.JobSuccessCriteriaMet, Status: "True"}, {Type: batchv1.JobComplete, Status: "True"}}}
	resourcetest.CheckErrors(t, k.ValidateStatusUpdate(t.Context(), done, made(t, nil)))
	undone := done.DeepCopy()
	undone.Status.Conditions, undone.Status.Succeeded = undone.Status.Conditions[:1], 0
	resourcetest.CheckErrors(t, k.ValidateStatusUpdate(t.Context(), undone, done),
		"cannot set completionTime when there is no Complete=True condition",
		"cannot disable the terminal Complete=True condition",
		"status.succeeded: Invalid value: 0: cannot decrease the succeeded counter")
	// The start stays once it is known, but for a job that is resumed.
	running, later := made(t, nil), metav1.NewTime(at.Add(time.Minute))
	running.Status.StartTime = &at
	moved := running.DeepCopy()
	moved.Status.StartTime = &later
	resourcetest.CheckErrors(t, k.ValidateStatusUpdate(t.Context(), moved, running), "field is immutable for unsuspended job once set")
	running.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobSuspended, Status: "True"}}
	moved.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobSuspended, Status: "False"}}
	resourcetest.CheckErrors(t, k.ValidateStatusUpdate(t.Context(), moved, running))
	// Of a failed job that loses its target nothing is said but that.
	lost := made(t, nil)
	lost.Status.StartTime = &at
	lost.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobFailureTarget, Status: "True"}, {Type: batchv1.JobFailed, Status: "True"}}
	bare := lost.DeepCopy()
	bare.Status.Conditions = bare.Status.Conditions[1:]
	resourcetest.CheckErrors(t, k.ValidateStatusUpdate(t.Context(), bare, lost), "cannot disable the terminal FailureTarget=True condition")
	// A suspended job of nothing is done without having started.
	idle := made(t, func(j *batchv1.Job) { j.Spec.Suspend, j.Spec.Completions = ptr.To(true), ptr.To[int32](0) })
	idle.Status = batchv1.JobStatus{CompletionTime: &at, Conditions: done.Status.Conditions}
	resourcetest.CheckErrors(t, k.ValidateStatusUpdate(t.Context(), idle, made(t, nil)))
	// What was wrong before is not held against an update that leaves it alone.
	weak := made(t, nil)
	weak.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobFailed, Status: "True"}}
	weak.Status.StartTime = &at
	resourcetest.CheckErrors(t, k.ValidateStatusUpdate(t.Context(), weak.DeepCopy(), weak))
	resourcetest.CheckErrors(t, k.ValidateStatusUpdate(t.Context(), weak, made(t, nil)), "without the FailureTarget=true condition")
}

func TestLabels(t *testing.T) {
	k := resourcetest.Kind(t, Group(), "Job")
	j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "j", UID: "u"}}
	j.Spec.Template.Labels = map[string]string{"a": "b"}
	k.Default(j)
	k.PrepareForCreate(t.Context(), j)
	if j.Labels["a"] != "b" || j.Labels[batchv1.JobNameLabel] != "j" || j.Labels[batchv1.ControllerUidLabel] != "u" {
		t.Errorf("labels %v, want the template's with those of the job", j.Labels)
	}
}

func TestUpdateWarnings(t *testing.T) {
	k := resourcetest.Kind(t, Group(), "CronJob")
	old := &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Generation: 1}, Spec: batchv1.CronJobSpec{Schedule: "TZ=UTC 0 * * * *"}}
	old.Spec.JobTemplate.Spec.Template.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{}}
	now := old.DeepCopy()
	if w := k.Warnings(t.Context(), now, old); len(w) != 1 || !strings.Contains(w[0], "cannot use TZ or CRON_TZ in spec.spec.schedule") {
		t.Errorf("an update of nothing is warned about: %q", w)
	}
	now.Generation = 2
	if w := k.Warnings(t.Context(), now, old); len(w) != 2 {
		t.Errorf("a change of the spec is warned about with %q", w)
	}
}

func TestIndexes(t *testing.T) {
	for text, want := range map[string]string{
		"":        "",
		"0":       "",
		"0,2-4,9": "",
		"2,1":     "non-increasing order, previous: 2, current: 1",
		"1-3,3":   "non-increasing order, previous: 3, current: 3",
		"3-3":     "non-increasing order, previous: 3, current: 3",
		"1-2-3":   `the fragment "1-2-3" violates the requirement that an index interval can have at most two parts separated by '-'`,
		"a":       `cannot convert string to integer for index: "a"`,
		"10":      `too large index: "10"`,
	} {
		_, err := parseIndexes(text, 10)
		if got := errText(err); got != want {
			t.Errorf("parseIndexes(%q): got %q, want %q", text, got, want)
		}
	}
	a, _ := parseIndexes("0-2,5", 10)
	b, _ := parseIndexes("3,5-6", 10)
	if at, both := overlap(a, b); !both || at != 5 {
		t.Errorf("overlap at %d, %v, want 5", at, both)
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func FuzzParseIndexes(f *testing.F) {
	f.Add("0,2-4,9", int32(10))
	f.Fuzz(func(t *testing.T, text string, completions int32) {
		list, err := parseIndexes(text, completions)
		if err != nil {
			return
		}
		for i, v := range list {
			if v.first > v.last || v.last >= completions || i > 0 && list[i-1].last >= v.first {
				t.Errorf("parseIndexes(%q, %d) = %v", text, completions, list)
			}
		}
	})
}

func TestValidateCronJob(t *testing.T) {
	k := resourcetest.Kind(t, Group(), "CronJob")
	cron := func(schedule string, zone *string) *batchv1.CronJob {
		c := &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Spec: batchv1.CronJobSpec{Schedule: schedule, TimeZone: zone}}
		c.Spec.JobTemplate.Spec.Template.Spec = corev1.PodSpec{RestartPolicy: "OnFailure", Containers: []corev1.Container{{Name: "c", Image: "i:1"}}}
		k.Default(c)
		return c
	}
	for _, c := range []struct {
		job  *batchv1.CronJob
		want []string
	}{
		{cron("*/5 * * * *", nil), nil},
		{cron("@hourly", ptr.To("UTC")), nil},
		{cron("", nil), []string{"spec.schedule: Required value"}},
		{cron("whenever", nil), []string{`spec.schedule: Invalid value: "whenever": expected exactly 5 fields`}},
		{cron("TZ=UTC 0 * * * *", nil), []string{"cannot use TZ or CRON_TZ in schedule, use timeZone field instead"}},
		{cron("TZ=0", nil), []string{"spec.schedule: Invalid value", "cannot use TZ or CRON_TZ in schedule"}},
		{cron("@hourly", ptr.To("../etc/passwd")), []string{"unknown time zone ../etc/passwd"}},
		{cron("@hourly", ptr.To("local")), []string{"timeZone must be an explicit time zone", "unknown time zone local"}},
	} {
		resourcetest.CheckErrors(t, k.Validate(t.Context(), c.job), c.want...)
	}
	long := cron("@hourly", nil)
	long.Name = "a-name-that-is-longer-than-the-fifty-two-characters-allowed"
	long.Spec.JobTemplate.Spec.Selector = &metav1.LabelSelector{}
	resourcetest.CheckErrors(t, k.Validate(t.Context(), long), "spec.jobTemplate.spec.selector: Invalid value: {}: `selector` will be auto-generated",
		"must be no more than 52 characters")
}

func TestColumns(t *testing.T) {
	j := made(t, nil)
	names, cells := resourcetest.Cells(resourcetest.Kind(t, Group(), "Job"), j)
	if names != "Status|Completions|Duration|Age|+Containers|+Images|+Selector" || cells[0] != "Running" || cells[1] != "0/1" {
		t.Errorf("columns %s, cells %v", names, cells)
	}
	c := &batchv1.CronJob{}
	resourcetest.Kind(t, Group(), "CronJob").Default(c)
	names, cells = resourcetest.Cells(resourcetest.Kind(t, Group(), "CronJob"), c)
	if names != "Schedule|Timezone|Suspend|Active|Last Schedule|Age|+Containers|+Images|+Selector" || cells[2] != "False" || cells[1] != "<none>" {
		t.Errorf("columns %s, cells %v", names, cells)
	}
}
