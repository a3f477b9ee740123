package batch

import (
	"fmt"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/resource/check"
)

// validateJobStatusUpdate checks a status that any controller may write (a job can be managed by a foreign one).
// A weakness that the old status already has is not held against the new one, or old jobs could never be finished.
func validateJobStatusUpdate(j, old *batchv1.Job) field.ErrorList {
	path := field.NewPath("status")
	known := map[string]bool{}
	for _, e := range slices.Concat(validateFinished(old, path), validateIndexLists(old, path)) {
		known[e.Error()] = true
	}
	errs := append(validateCounters(&j.Status, path), validateConditions(j, old, path.Child("conditions"))...)
	for _, e := range slices.Concat(validateFinished(j, path), validateIndexLists(j, path)) {
		if !known[e.Error()] {
			errs = append(errs, e)
		}
	}
	errs = append(errs, validateSuccess(j, path.Child("conditions"))...)
	return append(errs, validateProgress(j, old, path)...)
}

func validateCounters(s *batchv1.JobStatus, path *field.Path) field.ErrorList {
	errs := check.NonNegative(s.Active, path.Child("active"))
	errs = append(errs, check.NonNegative(s.Succeeded, path.Child("succeeded"))...)
	errs = append(errs, check.NonNegative(s.Failed, path.Child("failed"))...)
	errs = append(errs, check.NonNegativePtr(s.Ready, path.Child("ready"))...)
	errs = append(errs, check.NonNegativePtr(s.Terminating, path.Child("terminating"))...)
	if u := s.UncountedTerminatedPods; u != nil {
		seen := map[types.UID]bool{}
		for _, list := range []struct {
			name string
			uids []types.UID
		}{{"succeeded", u.Succeeded}, {"failed", u.Failed}} {
			for i, uid := range list.uids {
				at := path.Child("uncountedTerminatedPods", list.name).Index(i)
				if uid == "" {
					errs = append(errs, field.Invalid(at, uid, "must not be empty"))
				} else if seen[uid] {
					errs = append(errs, field.Duplicate(at, uid))
				}
				seen[uid] = true
			}
		}
	}
	return errs
}

// validateConditions checks which conditions go together, as far as the update changes one of them.
func validateConditions(j, old *batchv1.Job, path *field.Path) field.ErrorList {
	changed := func(conditions ...batchv1.JobConditionType) bool {
		return slices.ContainsFunc(conditions, func(c batchv1.JobConditionType) bool { return is(j, c) != is(old, c) })
	}
	indexes := !ptr.Equal(j.Status.FailedIndexes, old.Status.FailedIndexes)
	complete, failed := is(j, batchv1.JobComplete), is(j, batchv1.JobFailed)
	target, criteria := is(j, batchv1.JobFailureTarget), is(j, batchv1.JobSuccessCriteriaMet)
	var errs field.ErrorList
	for _, c := range []struct {
		wrong   bool
		message string
	}{
		{complete && failed && changed(batchv1.JobComplete, batchv1.JobFailed), "cannot set Complete=True and Failed=true conditions"},
		{complete && target && changed(batchv1.JobComplete, batchv1.JobFailureTarget), "cannot set Complete=True and FailureTarget=true conditions"},
		{failed && !target && (indexes || changed(batchv1.JobFailed)), "cannot set Failed=True condition without the FailureTarget=true condition"},
		{complete && !criteria && changed(batchv1.JobComplete, batchv1.JobSuccessCriteriaMet), "cannot set Complete=True condition without the SuccessCriteriaMet=true condition"},
	} {
		if c.wrong {
			errs = append(errs, field.Invalid(path, field.OmitValueType{}, c.message))
		}
	}
	return errs
}

// validateSuccess holds whatever the old status was.
func validateSuccess(j *batchv1.Job, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	refuse := func(wrong bool, message string) {
		if wrong {
			errs = append(errs, field.Invalid(path, field.OmitValueType{}, message))
		}
	}
	criteria := is(j, batchv1.JobSuccessCriteriaMet)
	refuse(criteria && is(j, batchv1.JobFailed), "cannot set SuccessCriteriaMet=True and Failed=true conditions")
	refuse(criteria && is(j, batchv1.JobFailureTarget), "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions")
	refuse(!criteria && j.Spec.SuccessPolicy != nil && is(j, batchv1.JobComplete),
		"cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True")
	return errs
}

// validateFinished checks what must hold once a job is finished, and the times.
func validateFinished(j *batchv1.Job, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	s, complete := &j.Status, is(j, batchv1.JobComplete)
	done := path.Child("completionTime")
	switch {
	case s.CompletionTime != nil && !complete:
		errs = append(errs, field.Invalid(done, s.CompletionTime, "cannot set completionTime when there is no Complete=True condition"))
	case s.CompletionTime == nil && complete:
		errs = append(errs, field.Required(done, "completionTime is required for Complete jobs"))
	}
	if s.StartTime != nil && s.CompletionTime != nil && s.CompletionTime.Before(s.StartTime) {
		errs = append(errs, field.Invalid(done, s.CompletionTime, "must be equal to or after `startTime`"))
	}
	if s.Ready != nil && *s.Ready > s.Active {
		errs = append(errs, field.Invalid(path.Child("ready"), *s.Ready, "cannot set more ready pods than active"))
	}
	if !complete && !is(j, batchv1.JobFailed) {
		return errs
	}
	if s.Active > 0 {
		errs = append(errs, field.Invalid(path.Child("active"), s.Active, "active>0 is invalid for finished job"))
	}
	idle := ptr.Deref(j.Spec.Suspend, false) && ptr.Equal(j.Spec.Completions, ptr.To[int32](0)) // it never starts
	if s.StartTime == nil && !idle {
		errs = append(errs, field.Required(path.Child("startTime"), "startTime is required for finished job"))
	}
	if u := s.UncountedTerminatedPods; u != nil && len(u.Failed)+len(u.Succeeded) > 0 {
		errs = append(errs, field.Invalid(path.Child("uncountedTerminatedPods"), u, "must be empty for finished job"))
	}
	if t := s.Terminating; t != nil && *t > 0 {
		errs = append(errs, field.Invalid(path.Child("terminating"), *t, "terminating>0 is invalid for finished job"))
	}
	return errs
}

func validateIndexLists(j *batchv1.Job, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	s, completed, failed := &j.Status, path.Child("completedIndexes"), path.Child("failedIndexes")
	if s.CompletedIndexes != "" && ptr.Deref(j.Spec.CompletionMode, "") != batchv1.IndexedCompletion {
		errs = append(errs, field.Invalid(completed, s.CompletedIndexes, "cannot set non-empty completedIndexes when non-indexed completion mode"))
	}
	if s.FailedIndexes != nil && j.Spec.BackoffLimitPerIndex == nil {
		errs = append(errs, field.Invalid(failed, *s.FailedIndexes, "cannot set non-null failedIndexes when backoffLimitPerIndex is null"))
	}
	if j.Spec.Completions == nil {
		return errs
	}
	done, err := parseIndexes(s.CompletedIndexes, *j.Spec.Completions)
	if err != nil {
		errs = append(errs, field.Invalid(completed, s.CompletedIndexes, "error parsing completedIndexes: "+err.Error()))
	}
	if s.FailedIndexes == nil {
		return errs
	}
	lost, err := parseIndexes(*s.FailedIndexes, *j.Spec.Completions)
	if err != nil && j.Spec.BackoffLimitPerIndex != nil {
		errs = append(errs, field.Invalid(failed, *s.FailedIndexes, "error parsing failedIndexes: "+err.Error()))
	}
	if at, both := overlap(done, lost); both {
		errs = append(errs, field.Invalid(failed, *s.FailedIndexes, fmt.Sprintf("failedIndexes and completedIndexes overlap at index: %d", at)))
	}
	return errs
}

// validateProgress checks that a status only moves forward.
func validateProgress(j, old *batchv1.Job, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	conditions := path.Child("conditions")
	for _, c := range []batchv1.JobConditionType{batchv1.JobFailed, batchv1.JobComplete, batchv1.JobFailureTarget} {
		if is(old, c) && !is(j, c) {
			errs = append(errs, field.Invalid(conditions, field.OmitValueType{}, fmt.Sprintf("cannot disable the terminal %s=True condition", c)))
		}
	}
	if j.Status.Failed < old.Status.Failed {
		errs = append(errs, field.Invalid(path.Child("failed"), j.Status.Failed, "cannot decrease the failed counter"))
	}
	// An elastic Indexed job may be scaled down, and then succeeded indexes leave it.
	elastic := ptr.Deref(j.Spec.CompletionMode, "") == batchv1.IndexedCompletion && ptr.Equal(j.Spec.Completions, j.Spec.Parallelism)
	if !elastic && j.Status.Succeeded < old.Status.Succeeded {
		errs = append(errs, field.Invalid(path.Child("succeeded"), j.Status.Succeeded, "cannot decrease the succeeded counter"))
	}
	if now, was := j.Status.CompletionTime, old.Status.CompletionTime; now != nil && was != nil && !now.Equal(was) {
		errs = append(errs, field.Invalid(path.Child("completionTime"), now, "field is immutable"))
	}
	resumed := is(old, batchv1.JobSuspended) && slices.ContainsFunc(j.Status.Conditions, func(c batchv1.JobCondition) bool {
		return c.Type == batchv1.JobSuspended && c.Status == corev1.ConditionFalse
	})
	if now, was := j.Status.StartTime, old.Status.StartTime; was != nil && !was.Equal(now) && !ptr.Deref(j.Spec.Suspend, false) && !resumed {
		errs = append(errs, field.Invalid(path.Child("startTime"), now, "field is immutable for unsuspended job once set"))
	}
	switch met, was := is(j, batchv1.JobSuccessCriteriaMet), is(old, batchv1.JobSuccessCriteriaMet); {
	case was && !met:
		errs = append(errs, field.Invalid(conditions, field.OmitValueType{}, "cannot disable the SuccessCriteriaMet=True condition"))
	case met && !was && is(old, batchv1.JobComplete):
		errs = append(errs, field.Invalid(conditions, field.OmitValueType{}, "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions"))
	}
	return errs
}
