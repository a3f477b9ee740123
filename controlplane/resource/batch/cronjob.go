package batch

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/cell"
	"keelson.dev/keelson/controlplane/resource/check"
	"keelson.dev/keelson/controlplane/resource/podspec"
)

// maxCronJobName leaves room for the "-" and ten digits that end the names of its jobs.
const maxCronJobName = validation.DNS1035LabelMaxLength - 11

func cronJob() resource.Kind {
	return resource.Of(resource.Kind{
		Kind: "CronJob", Plural: "cronjobs", ShortNames: []string{"cj"}, Categories: all, Namespaced: true,
		HasStatus: true, HasGeneration: true,
		New:     func() runtime.Object { return &batchv1.CronJob{} },
		NewList: func() runtime.Object { return &batchv1.CronJobList{} },
		Columns: cronJobColumns(),
	}, resource.Rules[*batchv1.CronJob]{
		Default:          defaultCronJob,
		PrepareForCreate: func(_ context.Context, c *batchv1.CronJob) { dropDisabled(&c.Spec.JobTemplate.Spec) },
		PrepareForUpdate: func(_ context.Context, c, _ *batchv1.CronJob) { dropDisabled(&c.Spec.JobTemplate.Spec) },
		Validate: func(_ context.Context, c *batchv1.CronJob) field.ErrorList {
			errs := validateCronJob(&c.Spec, nil, field.NewPath("spec"))
			if len(c.Name) > maxCronJobName {
				errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), c.Name, "must be no more than 52 characters"))
			}
			return errs
		},
		ValidateUpdate: func(_ context.Context, c, old *batchv1.CronJob) field.ErrorList {
			return validateCronJob(&c.Spec, &old.Spec, field.NewPath("spec"))
		},
		Warnings: func(_ context.Context, c, old *batchv1.CronJob) []string { return cronJobWarnings(c, old) },
	})
}

func defaultCronJob(c *batchv1.CronJob) {
	podspec.DefaultTemplate(&c.Spec.JobTemplate.Spec.Template)
	defaultFailurePolicy(&c.Spec.JobTemplate.Spec)
	if c.Spec.ConcurrencyPolicy == "" {
		c.Spec.ConcurrencyPolicy = batchv1.AllowConcurrent
	}
	set(&c.Spec.Suspend, false)
	set(&c.Spec.SuccessfulJobsHistoryLimit, 3)
	set(&c.Spec.FailedJobsHistoryLimit, 1)
}

func validateCronJob(s, old *batchv1.CronJobSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if s.Schedule == "" {
		errs = append(errs, field.Required(path.Child("schedule"), ""))
	} else {
		errs = append(errs, validateSchedule(s, old != nil && strings.Contains(old.Schedule, "TZ"), path.Child("schedule"))...)
	}
	errs = append(errs, check.NonNegativePtr(s.StartingDeadlineSeconds, path.Child("startingDeadlineSeconds"))...)
	if old == nil || !ptr.Equal(old.TimeZone, s.TimeZone) {
		errs = append(errs, validateTimeZone(s.TimeZone, path.Child("timeZone"))...)
	}
	if s.ConcurrencyPolicy == "" {
		errs = append(errs, field.Required(path.Child("concurrencyPolicy"), ""))
	} else {
		errs = append(errs, check.OneOf(s.ConcurrencyPolicy, path.Child("concurrencyPolicy"),
			batchv1.AllowConcurrent, batchv1.ForbidConcurrent, batchv1.ReplaceConcurrent)...)
	}
	var was *batchv1.JobSpec
	if old != nil {
		was = &old.JobTemplate.Spec
	}
	job, at := &s.JobTemplate.Spec, path.Child("jobTemplate", "spec")
	errs = append(errs, validateSpec(job, was, at)...)
	if job.Selector != nil {
		errs = append(errs, field.Invalid(at.Child("selector"), job.Selector, "`selector` will be auto-generated"))
	}
	if ptr.Deref(job.ManualSelector, false) {
		errs = append(errs, field.NotSupported(at.Child("manualSelector"), true, []string{"nil", "false"}))
	}
	errs = append(errs, check.NonNegativePtr(s.SuccessfulJobsHistoryLimit, path.Child("successfulJobsHistoryLimit"))...)
	return append(errs, check.NonNegativePtr(s.FailedJobsHistoryLimit, path.Child("failedJobsHistoryLimit"))...)
}

func validateSchedule(s *batchv1.CronJobSpec, zoneKept bool, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if err := parseSchedule(s.Schedule); err != nil {
		errs = append(errs, field.Invalid(path, s.Schedule, err.Error()))
	}
	if !strings.Contains(s.Schedule, "TZ") {
		return errs
	}
	switch {
	case !zoneKept:
		errs = append(errs, field.Invalid(path, s.Schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"))
	case s.TimeZone != nil:
		errs = append(errs, field.Invalid(path, s.Schedule, "cannot use both timeZone field and TZ or CRON_TZ in schedule"))
	}
	return errs
}

// parseSchedule reads a cron expression. The parser panics on some texts, such as "TZ=0": those are errors like others.
func parseSchedule(text string) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("invalid schedule format: %v", r)
		}
	}()
	_, err = cron.ParseStandard(text)
	return err
}

// zonePart is one component of a zone's name: it must not climb out of the zone database's directory.
var zonePart = regexp.MustCompile(`^[A-Za-z._0-9+][A-Za-z._0-9+-]{0,13}$`)

func validateTimeZone(zone *string, path *field.Path) field.ErrorList {
	if zone == nil {
		return nil
	}
	if *zone == "" {
		return field.ErrorList{field.Invalid(path, *zone, "timeZone must be nil or non-empty string")}
	}
	for part := range strings.SplitSeq(*zone, "/") {
		if part == "." || part == ".." || !zonePart.MatchString(part) {
			return field.ErrorList{field.Invalid(path, *zone, "unknown time zone "+*zone)}
		}
	}
	var errs field.ErrorList
	if strings.EqualFold(*zone, "Local") {
		errs = append(errs, field.Invalid(path, *zone, "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"))
	}
	if _, err := time.LoadLocation(*zone); err != nil {
		errs = append(errs, field.Invalid(path, *zone, err.Error()))
	}
	return errs
}

func cronJobWarnings(c, old *batchv1.CronJob) []string {
	path := field.NewPath("spec", "jobTemplate", "spec")
	if old == nil {
		return append(nameWarnings(c.Name), specWarnings(&c.Spec.JobTemplate.Spec, path)...)
	}
	var w []string
	if old.Generation != c.Generation {
		w = specWarnings(&c.Spec.JobTemplate.Spec, path)
	}
	if strings.Contains(c.Spec.Schedule, "TZ") {
		w = append(w, "cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details")
	}
	return w
}

func cronJobColumns() []resource.Column {
	doc, status := batchv1.CronJobSpec{}.SwaggerDoc(), batchv1.CronJobStatus{}.SwaggerDoc()
	columns := []resource.Column{
		resource.Col("Schedule", "string", doc["schedule"], 0, func(c *batchv1.CronJob) any { return c.Spec.Schedule }),
		resource.Col("Timezone", "string", doc["timeZone"], 0, func(c *batchv1.CronJob) any { return cell.Or(c.Spec.TimeZone, "<none>") }),
		resource.Col("Suspend", "boolean", doc["suspend"], 0, func(c *batchv1.CronJob) any { return cell.Bool(c.Spec.Suspend) }),
		resource.Col("Active", "integer", status["active"], 0, func(c *batchv1.CronJob) any { return int64(len(c.Status.Active)) }),
		resource.Col("Last Schedule", "string", status["lastScheduleTime"], 0, func(c *batchv1.CronJob) any {
			if c.Status.LastScheduleTime == nil {
				return "<none>"
			}
			return cell.Since(*c.Status.LastScheduleTime)
		}),
	}
	columns = append(columns, cell.Template(func(c *batchv1.CronJob) *corev1.PodSpec { return &c.Spec.JobTemplate.Spec.Template.Spec })...)
	return append(columns, resource.Col("Selector", "string", batchv1.JobSpec{}.SwaggerDoc()["selector"], 1,
		func(c *batchv1.CronJob) any { return metav1.FormatLabelSelector(c.Spec.JobTemplate.Spec.Selector) }))
}
