package cronjob

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

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// sample runs every ten minutes and was made a quarter of an hour before noon.
func sample(change func(*batchv1.CronJob)) *batchv1.CronJob {
	c := &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "tick", UID: "tick", CreationTimestamp: metav1.NewTime(noon.Add(-15 * time.Minute))},
		Spec: batchv1.CronJobSpec{Schedule: "*/10 * * * *", TimeZone: ptr.To("Etc/UTC")}}
	if change != nil {
		change(c)
	}
	return c
}

// jobsOf reads "a:running b:complete c:failed"; each started a minute after the one before it.
func jobsOf(text string) []*batchv1.Job {
	var out []*batchv1.Job
	for i, word := range strings.Fields(text) {
		name, how, _ := strings.Cut(word, ":")
		at := metav1.NewTime(noon.Add(time.Duration(i-60) * time.Minute))
		j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID(name)}, Status: batchv1.JobStatus{StartTime: &at}}
		switch how {
		case "complete":
			j.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobComplete, Status: corev1.ConditionTrue}}
			j.Status.CompletionTime = &at
		case "failed":
			j.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobFailed, Status: corev1.ConditionTrue}}
		}
		out = append(out, j)
	}
	return out
}

func describe(p plan) string {
	var out []string
	if p.start != nil {
		out = append(out, "+"+p.due.UTC().Format("15:04"))
	}
	for mark, list := range map[string][]*batchv1.Job{"stop ": p.stop, "forget ": p.forget} {
		for _, j := range list {
			out = append(out, mark+j.Name)
		}
	}
	slices.Sort(out)
	for _, e := range p.events {
		out = append(out, e.reason)
	}
	if p.again > 0 {
		out = append(out, "again "+p.again.Truncate(time.Second).String())
	}
	return strings.Join(out, " ")
}

func TestDecide(t *testing.T) {
	last := func(ago time.Duration) func(*batchv1.CronJob) {
		return func(c *batchv1.CronJob) { c.Status.LastScheduleTime = ptr.To(metav1.NewTime(noon.Add(-ago))) }
	}
	policy := func(p batchv1.ConcurrencyPolicy) func(*batchv1.CronJob) {
		return func(c *batchv1.CronJob) { c.Spec.ConcurrencyPolicy = p }
	}
	for _, s := range []struct {
		what string
		cron *batchv1.CronJob
		jobs string
		now  time.Duration // after noon
		want string
	}{
		{"due now", sample(last(10 * time.Minute)), "", 0, "+12:00 again 10m0s"},
		{"not due yet", sample(last(0)), "", 3 * time.Minute, "again 7m0s"},
		{"a new one waits for its first time", sample(func(c *batchv1.CronJob) { c.CreationTimestamp = metav1.NewTime(noon.Add(time.Minute)) }), "", 2 * time.Minute, "again 8m0s"},
		{"of several missed, the last", sample(last(40 * time.Minute)), "", time.Minute, "+12:00 again 9m0s"},
		{"a thousand missed", sample(last(10000 * time.Minute)), "", time.Minute, "+12:00 TooManyMissedTimes again 9m0s"},
		{"years missed cost nothing", sample(func(c *batchv1.CronJob) {
			c.CreationTimestamp, c.Spec.Schedule = metav1.NewTime(noon.AddDate(-30, 0, 0)), "* * * * *"
		}), "", 0, "+12:00 TooManyMissedTimes again 1m0s"},
		{"in time for its deadline", sample(func(c *batchv1.CronJob) {
			last(10 * time.Minute)(c)
			c.Spec.StartingDeadlineSeconds = ptr.To[int64](90)
		}), "", time.Minute, "+12:00 again 9m0s"},
		{"too late for its deadline", sample(func(c *batchv1.CronJob) {
			last(10 * time.Minute)(c)
			c.Spec.StartingDeadlineSeconds = ptr.To[int64](30)
		}), "", time.Minute, "again 9m0s"},
		{"suspended", sample(func(c *batchv1.CronJob) { c.Spec.Suspend = ptr.To(true) }), "", 0, ""},
		{"side by side", sample(policy(batchv1.AllowConcurrent)), "a:running", 0, "+12:00 again 10m0s"},
		{"forbidden beside another", sample(policy(batchv1.ForbidConcurrent)), "a:running", 0, "JobAlreadyActive again 10m0s"},
		{"forbidden, the other has ended", sample(policy(batchv1.ForbidConcurrent)), "a:complete", 0, "+12:00 again 10m0s"},
		{"in place of another", sample(policy(batchv1.ReplaceConcurrent)), "a:running b:complete", 0, "+12:00 stop a again 10m0s"},
		{"made already, the status was lost", sample(last(10 * time.Minute)), fmt.Sprintf("tick-%d:running", noon.Unix()/60), 0, "again 10m0s"},
		{"the history's limits", sample(last(0)), "a:complete b:failed c:complete d:complete e:failed f:complete", 0, "forget a forget b again 10m0s"},
		{"no history", sample(func(c *batchv1.CronJob) {
			last(0)(c)
			c.Spec.SuccessfulJobsHistoryLimit, c.Spec.FailedJobsHistoryLimit = ptr.To[int32](0), ptr.To[int32](0)
		}), "a:complete b:failed", 0, "forget a forget b again 10m0s"},
		{"what ends is told once", sample(func(c *batchv1.CronJob) {
			last(0)(c)
			c.Status.Active = []corev1.ObjectReference{{Name: "a", UID: "a"}}
		}), "a:complete b:complete", 0, "SawCompletedJob again 10m0s"},
		{"another zone's noon", sample(func(c *batchv1.CronJob) { c.Spec.Schedule, c.Spec.TimeZone = "0 13 * * *", ptr.To("Europe/Berlin") }), "", 0, "+12:00 again 24h0m0s"},
		{"an unknown zone", sample(func(c *batchv1.CronJob) { c.Spec.TimeZone = ptr.To("Mars/Base") }), "", 0, "UnparseableSchedule"},
		{"a day that never comes", sample(func(c *batchv1.CronJob) { c.Spec.Schedule = "0 0 31 2 *" }), "", 0, "UnparseableSchedule"},
	} {
		if got := describe(decide(s.cron, jobsOf(s.jobs), noon.Add(s.now))); got != s.want {
			t.Errorf("%s:\n got %s\nwant %s", s.what, got, s.want)
		}
	}
}

func TestMakeJob(t *testing.T) {
	c := sample(func(c *batchv1.CronJob) {
		c.Spec.TimeZone = ptr.To("Europe/Berlin")
		c.Spec.JobTemplate.Labels = map[string]string{"a": "b"}
	})
	j := makeJob(c, noon)
	if j.Name != fmt.Sprintf("tick-%d", noon.Unix()/60) || j.Labels["a"] != "b" || !metav1.IsControlledBy(j, c) || j.Annotations[ScheduledAt] != "2026-01-01T13:00:00+01:00" {
		t.Errorf("the job: %+v", j.ObjectMeta)
	}
	if c.Spec.JobTemplate.Annotations != nil {
		t.Error("the template was changed")
	}
}

func TestLastSuccess(t *testing.T) {
	got := decide(sample(nil), jobsOf("a:complete b:failed c:complete d:running"), noon).status
	if want := noon.Add(-58 * time.Minute); got.LastSuccessfulTime == nil || !got.LastSuccessfulTime.Time.Equal(want) {
		t.Errorf("the last success was at %v, want %s", got.LastSuccessfulTime, want)
	}
	if len(got.Active) != 1 || got.Active[0].Name != "d" {
		t.Errorf("active: %v", got.Active)
	}
}
