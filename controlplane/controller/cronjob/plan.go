package cronjob

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // time zones of schedules, where the machine has none

	"github.com/robfig/cron/v3"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// ScheduledAt is the annotation of a Job that says when it was due.
const ScheduledAt = batchv1.CronJobScheduledTimestampAnnotation

// manyMissed is from how many missed runs on a warning says so.
const manyMissed = 100

// early keeps a look from coming a moment before the run is due.
const early = 100 * time.Millisecond

var kind = batchv1.SchemeGroupVersion.WithKind("CronJob")

// plan is one step of a CronJob.
type plan struct {
	start  *batchv1.Job   // nil: nothing is due
	due    time.Time      // when start was due
	stop   []*batchv1.Job // running ones that the new one replaces: deleted first
	forget []*batchv1.Job // finished ones beyond the history's limits
	status batchv1.CronJobStatus
	again  time.Duration
	events []event
}

type event struct{ level, reason, message string }

func (p *plan) tell(level, reason, format string, args ...any) {
	p.events = append(p.events, event{level, reason, fmt.Sprintf(format, args...)})
}

// decide plans the next step of a CronJob from the Jobs that it owns. The status does not name p.start yet: the shell
// adds it when it is made.
func decide(c *batchv1.CronJob, jobs []*batchv1.Job, now time.Time) plan {
	p := plan{status: *c.Status.DeepCopy()}
	active, finished := p.sort(c, jobs)
	p.history(c, finished)
	if c.DeletionTimestamp != nil || ptr.Deref(c.Spec.Suspend, false) {
		return p
	}
	schedule, err := parse(c)
	if err != nil {
		p.tell(corev1.EventTypeWarning, "UnparseableSchedule", "unparseable schedule %q: %v", c.Spec.Schedule, err)
		return p
	}
	due, missed := latest(c, schedule, now)
	if missed > manyMissed {
		p.tell(corev1.EventTypeWarning, "TooManyMissedTimes", "too many missed start times: %d. Set or decrease .spec.startingDeadlineSeconds or check clock skew", missed)
	}
	next := schedule.Next(now)
	if next.IsZero() { // the 31st of February
		p.tell(corev1.EventTypeWarning, "UnparseableSchedule", "schedule %q never comes", c.Spec.Schedule)
		return p
	}
	p.again = next.Sub(now) + early
	if due.IsZero() {
		return p
	}
	if limit := c.Spec.StartingDeadlineSeconds; limit != nil && due.Add(time.Duration(*limit)*time.Second).Before(now) {
		p.tell(corev1.EventTypeWarning, "MissSchedule", "Missed scheduled time to start a job: %s", due.UTC().Format(time.RFC1123Z))
		return p
	}
	job := makeJob(c, due)
	if slices.ContainsFunc(jobs, func(j *batchv1.Job) bool { return j.Name == job.Name }) {
		p.status.LastScheduleTime = ptr.To(metav1.NewTime(due)) // made before the status was written
		return p
	}
	switch {
	case c.Spec.ConcurrencyPolicy == batchv1.ForbidConcurrent && len(active) > 0:
		p.tell(corev1.EventTypeNormal, "JobAlreadyActive", "Not starting job because prior execution is running and concurrency policy is Forbid")
		return p
	case c.Spec.ConcurrencyPolicy == batchv1.ReplaceConcurrent:
		p.stop = active
	}
	p.start, p.due = job, due
	return p
}

// sort tells running from finished Jobs, brings status.active in step and tells of what has ended.
func (p *plan) sort(c *batchv1.CronJob, jobs []*batchv1.Job) (active, finished []*batchv1.Job) {
	known := map[string]bool{}
	for _, ref := range c.Status.Active {
		known[string(ref.UID)] = true
	}
	p.status.Active = nil
	byName := slices.Clone(jobs)
	slices.SortFunc(byName, func(a, b *batchv1.Job) int { return cmp.Compare(a.Name, b.Name) })
	for _, j := range byName {
		end, ok := ending(j)
		if !ok {
			active = append(active, j)
			p.status.Active = append(p.status.Active, reference(j))
			continue
		}
		finished = append(finished, j)
		if known[string(j.UID)] {
			p.tell(corev1.EventTypeNormal, "SawCompletedJob", "Saw completed job: %s, condition: %s", j.Name, end)
		}
		if at := j.Status.CompletionTime; end == batchv1.JobComplete && at != nil && (p.status.LastSuccessfulTime == nil || p.status.LastSuccessfulTime.Before(at)) {
			p.status.LastSuccessfulTime = at.DeepCopy()
		}
	}
	return active, finished
}

// history finds the oldest finished Jobs beyond the limits: 3 that succeeded, 1 that failed, if nothing else is said.
func (p *plan) history(c *batchv1.CronJob, finished []*batchv1.Job) {
	slices.SortStableFunc(finished, func(a, b *batchv1.Job) int {
		return started(a).Compare(started(b))
	})
	for end, limit := range map[batchv1.JobConditionType]int32{
		batchv1.JobComplete: ptr.Deref(c.Spec.SuccessfulJobsHistoryLimit, 3), batchv1.JobFailed: ptr.Deref(c.Spec.FailedJobsHistoryLimit, 1),
	} {
		var of []*batchv1.Job
		for _, j := range finished {
			if e, _ := ending(j); e == end {
				of = append(of, j)
			}
		}
		p.forget = append(p.forget, of[:max(len(of)-int(limit), 0)]...)
	}
}

func started(j *batchv1.Job) time.Time {
	if j.Status.StartTime != nil {
		return j.Status.StartTime.Time
	}
	return j.CreationTimestamp.Time
}

func ending(j *batchv1.Job) (batchv1.JobConditionType, bool) {
	for _, c := range j.Status.Conditions {
		if (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == corev1.ConditionTrue {
			return c.Type, true
		}
	}
	return "", false
}

// parse reads the schedule in its time zone; without one, in this machine's.
func parse(c *batchv1.CronJob) (cron.Schedule, error) {
	text := c.Spec.Schedule
	if zone := ptr.Deref(c.Spec.TimeZone, ""); zone != "" && !strings.Contains(text, "TZ=") {
		if _, err := time.LoadLocation(zone); err != nil {
			return nil, fmt.Errorf("time zone %q: %w", zone, err)
		}
		text = "TZ=" + zone + " " + text
	}
	return cron.ParseStandard(text)
}

// latest is the last time that was due and not started, zero if none is, and how many were.
func latest(c *batchv1.CronJob, s cron.Schedule, now time.Time) (time.Time, int) {
	from := c.CreationTimestamp.Time
	if c.Status.LastScheduleTime != nil {
		from = c.Status.LastScheduleTime.Time
	}
	if limit := c.Spec.StartingDeadlineSeconds; limit != nil {
		// What is too late to be started need not be counted; the last that is too late is still told of.
		if edge := now.Add(-time.Duration(*limit) * time.Second); edge.After(from) {
			from = edge
		}
	}
	first := s.Next(from)
	if first.IsZero() || first.After(now) {
		return time.Time{}, 0
	}
	// A clock that was wrong for years must not be walked minute by minute: jump to the last stretch.
	second := s.Next(first)
	if second.IsZero() || second.After(now) {
		return first, 1
	}
	count := 0
	if every := second.Sub(first); now.Sub(first)/every > manyMissed*2 {
		count = int(now.Sub(first) / every)
		if near := s.Next(now.Add(-every * manyMissed)); !near.IsZero() && !near.After(now) {
			first = near
		}
	}
	last := first
	for n := 1; ; n++ {
		next := s.Next(last)
		if next.IsZero() || next.After(now) {
			return last, max(count, n)
		}
		last = next
	}
}

// makeJob builds the run that was due at a time; its name is that minute's.
func makeJob(c *batchv1.CronJob, due time.Time) *batchv1.Job {
	t := c.Spec.JobTemplate.DeepCopy()
	j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: fmt.Sprintf("%s-%d", c.Name, due.Unix()/60),
		Labels: maps.Clone(t.Labels), Annotations: maps.Clone(t.Annotations),
		OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(c, kind)}}, Spec: t.Spec}
	if j.Annotations == nil {
		j.Annotations = map[string]string{}
	}
	at := due
	if zone, err := time.LoadLocation(ptr.Deref(c.Spec.TimeZone, "")); err == nil {
		at = due.In(zone)
	}
	j.Annotations[ScheduledAt] = at.Format(time.RFC3339)
	return j
}

func reference(j *batchv1.Job) corev1.ObjectReference {
	return corev1.ObjectReference{Kind: "Job", APIVersion: batchv1.SchemeGroupVersion.String(), Namespace: j.Namespace, Name: j.Name, UID: j.UID, ResourceVersion: j.ResourceVersion}
}
