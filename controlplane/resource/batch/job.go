package batch

import (
	"context"
	"fmt"
	"math"
	"strconv"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/warning"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/cell"
	"keelson.dev/keelson/controlplane/resource/podspec"
)

// The labels that tie pods to their job: today's names, and those from before the labels had a prefix.
const (
	legacyNameLabel = "job-name"
	legacyUIDLabel  = "controller-uid"
)

func job() resource.Kind {
	return resource.Of(resource.Kind{
		Kind: "Job", Plural: "jobs", Categories: all, Namespaced: true,
		HasStatus: true, HasGeneration: true, OrphanByDefault: true,
		New:     func() runtime.Object { return &batchv1.Job{} },
		NewList: func() runtime.Object { return &batchv1.JobList{} },
		Columns: jobColumns(),
	}, resource.Rules[*batchv1.Job]{
		Default:          defaultJob,
		PrepareForCreate: func(_ context.Context, j *batchv1.Job) { dropDisabled(&j.Spec); generateSelector(j) },
		PrepareForUpdate: func(_ context.Context, j, _ *batchv1.Job) { dropDisabled(&j.Spec) },
		Validate:         func(_ context.Context, j *batchv1.Job) field.ErrorList { return validateJob(j) },
		ValidateUpdate:   func(_ context.Context, j, old *batchv1.Job) field.ErrorList { return validateJobUpdate(j, old) },
		ValidateStatusUpdate: func(_ context.Context, j, old *batchv1.Job) field.ErrorList {
			return validateJobStatusUpdate(j, old)
		},
		Warnings: func(_ context.Context, j, old *batchv1.Job) []string { return jobWarnings(j, old) },
		CheckGracefulDelete: func(ctx context.Context, _ *batchv1.Job, o *metav1.DeleteOptions) bool {
			//lint:ignore SA1019 the old way to say it silences the warning too
			if o != nil && o.PropagationPolicy == nil && o.OrphanDependents == nil {
				warning.AddWarning(ctx, "", "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning")
			}
			return false
		},
		Fields: func(j *batchv1.Job) fields.Set {
			return fields.Set{"status.successful": strconv.Itoa(int(j.Status.Succeeded))}
		},
	})
}

func defaultJob(j *batchv1.Job) {
	s := &j.Spec
	podspec.DefaultTemplate(&s.Template)
	defaultFailurePolicy(s)
	if s.Completions == nil && s.Parallelism == nil {
		set(&s.Completions, 1)
	}
	set(&s.Parallelism, 1)
	if s.BackoffLimitPerIndex != nil {
		set(&s.BackoffLimit, math.MaxInt32)
	}
	set(&s.BackoffLimit, 6)
	if s.Template.Labels != nil && len(j.Labels) == 0 {
		j.Labels = s.Template.Labels // the same map: what generateSelector adds to the template is the job's too
	}
	set(&s.CompletionMode, batchv1.NonIndexedCompletion)
	set(&s.Suspend, false)
	if s.PodFailurePolicy != nil {
		set(&s.PodReplacementPolicy, batchv1.Failed)
	}
	set(&s.PodReplacementPolicy, batchv1.TerminatingOrFailed)
	set(&s.ManualSelector, false)
}

// dropDisabled clears what upstream has switched off by default in this release.
func dropDisabled(s *batchv1.JobSpec) {
	s.Scheduling = nil
	podspec.DropDisabled(&s.Template.Spec)
}

func defaultFailurePolicy(s *batchv1.JobSpec) {
	if s.PodFailurePolicy == nil {
		return
	}
	for i := range s.PodFailurePolicy.Rules {
		conditions := s.PodFailurePolicy.Rules[i].OnPodConditions
		for j := range conditions {
			if conditions[j].Status == "" {
				conditions[j].Status = corev1.ConditionTrue
			}
		}
	}
}

// generateSelector makes the job select its own pods by its UID, which the store has set by now.
func generateSelector(j *batchv1.Job) {
	if ptr.Deref(j.Spec.ManualSelector, false) {
		return
	}
	t := &j.Spec.Template
	if t.Labels == nil {
		t.Labels = map[string]string{}
	}
	for _, name := range []string{legacyNameLabel, batchv1.JobNameLabel} {
		if _, found := t.Labels[name]; !found {
			t.Labels[name] = j.Name
		}
	}
	for _, uid := range []string{legacyUIDLabel, batchv1.ControllerUidLabel} {
		if _, found := t.Labels[uid]; !found {
			t.Labels[uid] = string(j.UID)
		}
	}
	set(&j.Spec.Selector, metav1.LabelSelector{})
	if j.Spec.Selector.MatchLabels == nil {
		j.Spec.Selector.MatchLabels = map[string]string{}
	}
	if _, found := j.Spec.Selector.MatchLabels[batchv1.ControllerUidLabel]; !found {
		j.Spec.Selector.MatchLabels[batchv1.ControllerUidLabel] = string(j.UID)
	}
}

func jobWarnings(j, old *batchv1.Job) []string {
	path := field.NewPath("spec")
	switch {
	case old == nil:
		return append(nameWarnings(j.Name), specWarnings(&j.Spec, path)...)
	case old.Generation != j.Generation:
		return specWarnings(&j.Spec, path)
	}
	return nil
}

func nameWarnings(name string) []string {
	msgs := validation.IsDNS1123Label(name)
	if len(msgs) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: %v", msgs)}
}

func specWarnings(s *batchv1.JobSpec, path *field.Path) []string {
	var warnings []string
	if ptr.Deref(s.CompletionMode, "") == batchv1.IndexedCompletion &&
		ptr.Deref(s.Completions, 0) > manyCompletions && ptr.Deref(s.Parallelism, 0) > maxParallelismOfMany {
		warnings = []string{path.String() + ": In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail"}
	}
	return append(warnings, podspec.WarningsForTemplate(&s.Template, path.Child("template"))...)
}

func jobColumns() []resource.Column {
	columns := []resource.Column{
		resource.Col("Status", "string", "Status of the job.", 0, func(j *batchv1.Job) any { return jobStatus(j) }),
		resource.Col("Completions", "string", batchv1.JobStatus{}.SwaggerDoc()["succeeded"], 0, func(j *batchv1.Job) any { return completionsCell(j) }),
		resource.Col("Duration", "string", "Time required to complete the job.", 0, func(j *batchv1.Job) any {
			return cell.Between(j.Status.StartTime, j.Status.CompletionTime)
		}),
	}
	columns = append(columns, cell.Template(func(j *batchv1.Job) *corev1.PodSpec { return &j.Spec.Template.Spec })...)
	return append(columns, resource.Col("Selector", "string", batchv1.JobSpec{}.SwaggerDoc()["selector"], 1,
		func(j *batchv1.Job) any { return metav1.FormatLabelSelector(j.Spec.Selector) }))
}

// jobStatus is the first of the conditions, in this order, that holds.
func jobStatus(j *batchv1.Job) string {
	switch {
	case is(j, batchv1.JobComplete):
		return "Complete"
	case is(j, batchv1.JobFailed):
		return "Failed"
	case j.DeletionTimestamp != nil:
		return "Terminating"
	case is(j, batchv1.JobSuspended):
		return "Suspended"
	case is(j, batchv1.JobFailureTarget):
		return "FailureTarget"
	case is(j, batchv1.JobSuccessCriteriaMet):
		return "SuccessCriteriaMet"
	}
	return "Running"
}

func completionsCell(j *batchv1.Job) string {
	if n := j.Spec.Completions; n != nil {
		return fmt.Sprintf("%d/%d", j.Status.Succeeded, *n)
	}
	if p := ptr.Deref(j.Spec.Parallelism, 0); p > 1 {
		return fmt.Sprintf("%d/1 of %d", j.Status.Succeeded, p)
	}
	return fmt.Sprintf("%d/1", j.Status.Succeeded)
}

// is says whether the condition holds.
func is(j *batchv1.Job, condition batchv1.JobConditionType) bool {
	for _, c := range j.Status.Conditions {
		if c.Type == condition && c.Status == corev1.ConditionTrue {
			return true
		}
	}
	return false
}
