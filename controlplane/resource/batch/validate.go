package batch

import (
	"fmt"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/resource/check"
	"keelson.dev/keelson/controlplane/resource/podspec"
)

// The limits that keep status.completedIndexes and failedIndexes within what one object can hold.
const (
	maxIndexedParallelism = 100_000
	maxFailedIndexes      = 100_000
	manyCompletions       = 100_000
	maxParallelismOfMany  = 10_000
	maxFailedOfMany       = 10_000
	maxManagedByLength    = 63
)

func validateJob(j *batchv1.Job) field.ErrorList {
	errs := validateGenerated(j)
	errs = append(errs, validateSelected(&j.Spec, nil, field.NewPath("spec"))...)
	return append(errs, validateIndexedName(j)...)
}

func validateIndexedName(j *batchv1.Job) field.ErrorList {
	if n := ptr.Deref(j.Spec.Completions, 0); n > 0 && ptr.Deref(j.Spec.CompletionMode, "") == batchv1.IndexedCompletion {
		// The host name of a pod ends in its index: refuse now what would fail with the last pod.
		last := fmt.Sprintf("%s-%d", j.Name, n-1)
		if len(validation.IsDNS1123Label(last)) > 0 {
			return field.ErrorList{field.Invalid(field.NewPath("metadata", "name"), j.Name, "will not able to create pod with invalid DNS label: "+last)}
		}
	}
	return nil
}

// validateGenerated checks that a generated selector selects by this job's UID, which a user's own labels could prevent.
func validateGenerated(j *batchv1.Job) field.ErrorList {
	if ptr.Deref(j.Spec.ManualSelector, false) || j.Spec.Selector == nil {
		return nil
	}
	var errs field.ErrorList
	if j.UID == "" {
		errs = append(errs, field.Required(field.NewPath("metadata", "uid"), ""))
	}
	path, want := field.NewPath("spec", "template", "metadata"), labels.Set{}
	for _, l := range []struct{ key, value string }{
		{legacyUIDLabel, string(j.UID)}, {legacyNameLabel, j.Name},
		{batchv1.ControllerUidLabel, string(j.UID)}, {batchv1.JobNameLabel, j.Name},
	} {
		errs = append(errs, check.HasLabel(j.Spec.Template.ObjectMeta, path, l.key, l.value)...)
		want[l.key] = l.value
	}
	if s, err := metav1.LabelSelectorAsSelector(j.Spec.Selector); err == nil && !s.Matches(want) {
		errs = append(errs, field.Invalid(field.NewPath("spec", "selector"), j.Spec.Selector, "`selector` not auto-generated"))
	}
	return errs
}

// validateSelected checks a job's spec with its selector, which a CronJob's template must not have.
func validateSelected(s, old *batchv1.JobSpec, path *field.Path) field.ErrorList {
	errs := validateSpec(s, old, path)
	if s.Selector == nil {
		errs = append(errs, field.Required(path.Child("selector"), ""))
	} else {
		var was *metav1.LabelSelector
		if old != nil {
			was = old.Selector
		}
		errs = append(errs, check.SelectorUpdate(s.Selector, was, path.Child("selector"))...)
	}
	if selector, err := metav1.LabelSelectorAsSelector(s.Selector); err == nil && !selector.Matches(labels.Set(s.Template.Labels)) {
		errs = append(errs, field.Invalid(path.Child("template", "metadata", "labels"), s.Template.Labels, "`selector` does not match template `labels`"))
	}
	return errs
}

func validateSpec(s, old *batchv1.JobSpec, path *field.Path) field.ErrorList {
	errs := check.NonNegativePtr(s.Parallelism, path.Child("parallelism"))
	errs = append(errs, check.NonNegativePtr(s.Completions, path.Child("completions"))...)
	errs = append(errs, check.NonNegativePtr(s.ActiveDeadlineSeconds, path.Child("activeDeadlineSeconds"))...)
	errs = append(errs, check.NonNegativePtr(s.BackoffLimit, path.Child("backoffLimit"))...)
	errs = append(errs, check.NonNegativePtr(s.TTLSecondsAfterFinished, path.Child("ttlSecondsAfterFinished"))...)
	errs = append(errs, check.NonNegativePtr(s.BackoffLimitPerIndex, path.Child("backoffLimitPerIndex"))...)
	errs = append(errs, check.NonNegativePtr(s.MaxFailedIndexes, path.Child("maxFailedIndexes"))...)
	if s.MaxFailedIndexes != nil && s.BackoffLimitPerIndex == nil {
		errs = append(errs, field.Required(path.Child("backoffLimitPerIndex"), "when maxFailedIndexes is specified"))
	}
	if m := s.ManagedBy; m != nil {
		errs = append(errs, validation.IsDomainPrefixedPath(path.Child("managedBy"), *m)...)
		if len(*m) > maxManagedByLength {
			errs = append(errs, field.TooLong(path.Child("managedBy"), "", maxManagedByLength))
		}
	}
	errs = append(errs, validateCompletionMode(s, path)...)
	if s.PodFailurePolicy != nil {
		errs = append(errs, validateFailurePolicy(s, path.Child("podFailurePolicy"))...)
	}
	if s.SuccessPolicy != nil {
		if ptr.Deref(s.CompletionMode, batchv1.NonIndexedCompletion) != batchv1.IndexedCompletion {
			errs = append(errs, field.Invalid(path.Child("successPolicy"), *s.SuccessPolicy, "requires indexed completion mode"))
		} else {
			errs = append(errs, validateSuccessPolicy(s, path.Child("successPolicy"))...)
		}
	}
	if p := s.PodReplacementPolicy; p != nil {
		supported := []batchv1.PodReplacementPolicy{batchv1.Failed, batchv1.TerminatingOrFailed}
		if s.PodFailurePolicy != nil {
			supported = supported[:1]
		}
		errs = append(errs, check.OneOf(*p, path.Child("podReplacementPolicy"), supported...)...)
	}
	var was *corev1.PodTemplateSpec
	if old != nil {
		was = &old.Template
	}
	errs = append(errs, podspec.ValidateTemplateUpdate(&s.Template, was, path.Child("template"))...)
	return append(errs, validateRestartPolicy(s, path.Child("template", "spec", "restartPolicy"))...)
}

func validateRestartPolicy(s *batchv1.JobSpec, path *field.Path) field.ErrorList {
	switch p := s.Template.Spec.RestartPolicy; {
	case p == corev1.RestartPolicyAlways || p == "":
		return field.ErrorList{field.Required(path, fmt.Sprintf("valid values: %q, %q", corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever))}
	case p != corev1.RestartPolicyOnFailure && p != corev1.RestartPolicyNever:
		return field.ErrorList{field.NotSupported(path, p, []corev1.RestartPolicy{corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever})}
	case s.PodFailurePolicy != nil && p != corev1.RestartPolicyNever:
		return field.ErrorList{field.Invalid(path, p, fmt.Sprintf("only %q is supported when podFailurePolicy is specified", corev1.RestartPolicyNever))}
	}
	return nil
}

func validateCompletionMode(s *batchv1.JobSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	mode := ptr.Deref(s.CompletionMode, batchv1.NonIndexedCompletion)
	switch mode {
	case batchv1.IndexedCompletion:
		return validateIndexed(s, path)
	case batchv1.NonIndexedCompletion:
		if n := s.BackoffLimitPerIndex; n != nil {
			errs = append(errs, field.Invalid(path.Child("backoffLimitPerIndex"), *n, "requires indexed completion mode"))
		}
		if n := s.MaxFailedIndexes; n != nil {
			errs = append(errs, field.Invalid(path.Child("maxFailedIndexes"), *n, "requires indexed completion mode"))
		}
	default:
		errs = append(errs, field.NotSupported(path.Child("completionMode"), mode,
			[]batchv1.CompletionMode{batchv1.NonIndexedCompletion, batchv1.IndexedCompletion}))
	}
	return errs
}

func validateIndexed(s *batchv1.JobSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if s.Completions == nil {
		errs = append(errs, field.Required(path.Child("completions"), "when completion mode is Indexed"))
	}
	parallelism, failed := path.Child("parallelism"), path.Child("maxFailedIndexes")
	most := func(n *int32, limit int32, at *field.Path, suffix string) {
		if n != nil && *n > limit {
			errs = append(errs, field.Invalid(at, *n, fmt.Sprintf("must be less than or equal to %d%s", limit, suffix)))
		}
	}
	most(s.Parallelism, maxIndexedParallelism, parallelism, " when completion mode is Indexed")
	if s.Completions == nil {
		most(s.MaxFailedIndexes, maxFailedIndexes, failed, "")
		return errs
	}
	if s.MaxFailedIndexes != nil && *s.MaxFailedIndexes > *s.Completions {
		errs = append(errs, field.Invalid(failed, *s.MaxFailedIndexes, "must be less than or equal to completions"))
	}
	most(s.MaxFailedIndexes, maxFailedIndexes, failed, "")
	if *s.Completions > manyCompletions && s.BackoffLimitPerIndex != nil {
		if s.MaxFailedIndexes == nil {
			errs = append(errs, field.Required(failed, fmt.Sprintf("must be specified when completions is above %d", manyCompletions)))
		}
		suffix := fmt.Sprintf(" when completions are above %d and used with backoff limit per index", manyCompletions)
		most(s.Parallelism, maxParallelismOfMany, parallelism, suffix)
		most(s.MaxFailedIndexes, maxFailedOfMany, failed, suffix)
	}
	return errs
}

func validateJobUpdate(j, old *batchv1.Job) field.ErrorList {
	path, s, was := field.NewPath("spec"), &j.Spec, &old.Spec
	errs := validateSelected(s, was, path)
	errs = append(errs, validateCompletionsUpdate(s, was, path.Child("completions"))...)
	errs = append(errs, check.Immutable(s.Selector, was.Selector, path.Child("selector"))...)
	errs = append(errs, validateTemplateChange(j, old, path)...)
	errs = append(errs, check.Immutable(s.CompletionMode, was.CompletionMode, path.Child("completionMode"))...)
	errs = append(errs, check.Immutable(s.PodFailurePolicy, was.PodFailurePolicy, path.Child("podFailurePolicy"))...)
	errs = append(errs, check.Immutable(s.BackoffLimitPerIndex, was.BackoffLimitPerIndex, path.Child("backoffLimitPerIndex"))...)
	errs = append(errs, check.Immutable(s.ManagedBy, was.ManagedBy, path.Child("managedBy"))...)
	errs = append(errs, check.Immutable(s.SuccessPolicy, was.SuccessPolicy, path.Child("successPolicy"))...)
	return append(errs, validateIndexedName(j)...)
}

// validateCompletionsUpdate: an Indexed job is resized by setting completions and parallelism together.
func validateCompletionsUpdate(s, old *batchv1.JobSpec, path *field.Path) field.ErrorList {
	if ptr.Deref(s.CompletionMode, "") != batchv1.IndexedCompletion {
		return check.Immutable(s.Completions, old.Completions, path)
	}
	if s.Completions == nil || ptr.Equal(s.Completions, old.Completions) || *s.Completions == ptr.Deref(s.Parallelism, 0) {
		return nil
	}
	return field.ErrorList{field.Invalid(path, *s.Completions, "can only be modified in tandem with "+path.Root().Child("parallelism").String())}
}

// validateTemplateChange lets those changes through that the job's state allows: where pods run and what they take, while
// the job is suspended and has no pods, be it that it had some before (queueing systems place and size jobs so).
func validateTemplateChange(j, old *batchv1.Job, path *field.Path) field.ErrorList {
	if !ptr.Deref(old.Spec.Suspend, false) || old.Status.Active > 0 || old.Status.StartTime != nil && !is(old, batchv1.JobSuspended) {
		return check.Immutable(&j.Spec.Template, &old.Spec.Template, path.Child("template"))
	}
	t := &j.Spec.Template
	return check.Immutable(t.Spec, allowedPods(&t.Spec, &old.Spec.Template.Spec), path.Child("template", "spec"))
}

// allowedPods is old with the changes of s that are allowed.
func allowedPods(s, old *corev1.PodSpec) corev1.PodSpec {
	out := old.DeepCopy()
	var affinity *corev1.NodeAffinity
	if s.Affinity != nil {
		affinity = s.Affinity.NodeAffinity
	}
	if out.Affinity == nil && s.Affinity != nil {
		out.Affinity = &corev1.Affinity{}
	}
	if out.Affinity != nil {
		out.Affinity.NodeAffinity = affinity
		if s.Affinity == nil && *out.Affinity == (corev1.Affinity{}) {
			out.Affinity = nil
		}
	}
	out.NodeSelector, out.Tolerations, out.SchedulingGates = s.NodeSelector, s.Tolerations, s.SchedulingGates
	takeResources(out.Containers, s.Containers)
	takeResources(out.InitContainers, s.InitContainers)
	return *out
}

// takeResources gives containers the resources of others, if they are the same ones.
func takeResources(to, from []corev1.Container) {
	if len(to) != len(from) {
		return
	}
	for i := range to {
		if to[i].Name == from[i].Name {
			to[i].Resources = from[i].Resources
		}
	}
}
