package batch

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource/check"
)

const (
	maxFailureRules      = 20
	maxExitCodes         = 255
	maxConditionPatterns = 20
	maxSuccessRules      = 20
	maxIndexesLength     = 64 * 1024
)

func validateFailurePolicy(s *batchv1.JobSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	rules := path.Child("rules")
	if n := len(s.PodFailurePolicy.Rules); n > maxFailureRules {
		errs = append(errs, field.TooMany(rules, n, maxFailureRules))
	}
	var containers []string
	for _, c := range slices.Concat(s.Template.Spec.Containers, s.Template.Spec.InitContainers) {
		containers = append(containers, c.Name)
	}
	for i := range s.PodFailurePolicy.Rules {
		errs = append(errs, validateFailureRule(s, &s.PodFailurePolicy.Rules[i], rules.Index(i), containers)...)
	}
	return errs
}

func validateFailureRule(s *batchv1.JobSpec, r *batchv1.PodFailurePolicyRule, path *field.Path, containers []string) field.ErrorList {
	errs := named(r.Action, path.Child("action"), batchv1.PodFailurePolicyActionCount, batchv1.PodFailurePolicyActionFailIndex,
		batchv1.PodFailurePolicyActionFailJob, batchv1.PodFailurePolicyActionIgnore)
	if r.Action == batchv1.PodFailurePolicyActionFailIndex && s.BackoffLimitPerIndex == nil {
		errs = append(errs, field.Invalid(path.Child("action"), r.Action, "requires the backoffLimitPerIndex to be set"))
	}
	if r.OnExitCodes != nil {
		errs = append(errs, validateExitCodes(r.OnExitCodes, path.Child("onExitCodes"), containers)...)
	}
	if n := len(r.OnPodConditions); n > maxConditionPatterns {
		errs = append(errs, field.TooMany(path.Child("onPodConditions"), n, maxConditionPatterns))
	}
	for i, p := range r.OnPodConditions {
		at := path.Child("onPodConditions").Index(i)
		errs = append(errs, check.Strings(validation.IsQualifiedName(string(p.Type)), at.Child("type"), string(p.Type))...)
		errs = append(errs, named(p.Status, at.Child("status"), corev1.ConditionFalse, corev1.ConditionTrue, corev1.ConditionUnknown)...)
	}
	switch codes, conditions := r.OnExitCodes != nil, len(r.OnPodConditions) > 0; {
	case codes && conditions:
		errs = append(errs, field.Invalid(path, field.OmitValueType{}, "specifying both OnExitCodes and OnPodConditions is not supported"))
	case !codes && !conditions:
		errs = append(errs, field.Invalid(path, field.OmitValueType{}, "specifying one of OnExitCodes and OnPodConditions is required"))
	}
	return errs
}

// named checks a required value out of a list.
func named[S ~string](v S, path *field.Path, supported ...S) field.ErrorList {
	if v == "" {
		return field.ErrorList{field.Required(path, fmt.Sprintf("valid values: %q", supported))}
	}
	return check.OneOf(v, path, supported...)
}

func validateExitCodes(r *batchv1.PodFailurePolicyOnExitCodesRequirement, path *field.Path, containers []string) field.ErrorList {
	errs := named(r.Operator, path.Child("operator"), batchv1.PodFailurePolicyOnExitCodesOpIn, batchv1.PodFailurePolicyOnExitCodesOpNotIn)
	if c := r.ContainerName; c != nil && !slices.Contains(containers, *c) {
		errs = append(errs, field.Invalid(path.Child("containerName"), *c, "must be one of the container or initContainer names in the pod template"))
	}
	values := path.Child("values")
	switch n := len(r.Values); {
	case n == 0:
		errs = append(errs, field.Invalid(values, r.Values, "at least one value is required"))
	case n > maxExitCodes:
		errs = append(errs, field.TooMany(values, n, maxExitCodes))
	}
	seen := map[int32]bool{}
	for i, v := range r.Values {
		if v == 0 && r.Operator == batchv1.PodFailurePolicyOnExitCodesOpIn {
			errs = append(errs, field.Invalid(values.Index(i), v, "must not be 0 for the In operator"))
		}
		if seen[v] {
			errs = append(errs, field.Duplicate(values.Index(i), v))
		}
		seen[v] = true
	}
	if !slices.IsSorted(r.Values) {
		errs = append(errs, field.Invalid(values, r.Values, "must be ordered"))
	}
	return errs
}

func validateSuccessPolicy(s *batchv1.JobSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	rules, completions := path.Child("rules"), int32(0)
	if s.Completions != nil {
		completions = *s.Completions
	}
	switch n := len(s.SuccessPolicy.Rules); {
	case n == 0:
		errs = append(errs, field.Required(rules, "at least one rules must be specified when the successPolicy is specified"))
	case n > maxSuccessRules:
		errs = append(errs, field.TooMany(rules, n, maxSuccessRules))
	}
	for i := range s.SuccessPolicy.Rules {
		errs = append(errs, validateSuccessRule(&s.SuccessPolicy.Rules[i], completions, rules.Index(i))...)
	}
	return errs
}

func validateSuccessRule(r *batchv1.SuccessPolicyRule, completions int32, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if r.SucceededCount == nil && r.SucceededIndexes == nil {
		errs = append(errs, field.Required(path, "at least one of succeededCount or succeededIndexes must be specified"))
	}
	var total int32
	if s := r.SucceededIndexes; s != nil {
		at := path.Child("succeededIndexes")
		if len(*s) > maxIndexesLength {
			errs = append(errs, field.TooLong(at, "", maxIndexesLength))
		}
		list, err := parseIndexes(*s, completions)
		if err != nil {
			errs = append(errs, field.Invalid(at, *s, "error parsing succeededIndexes: "+err.Error()))
		}
		for _, i := range list {
			total += i.last - i.first + 1
		}
	}
	if n := r.SucceededCount; n != nil {
		at := path.Child("succeededCount")
		errs = append(errs, check.NonNegative(*n, at)...)
		if *n > completions {
			errs = append(errs, field.Invalid(at, *n, fmt.Sprintf("must be less than or equal to %d (the number of specified completions)", completions)))
		}
		if r.SucceededIndexes != nil && *n > total {
			errs = append(errs, field.Invalid(at, *n, fmt.Sprintf("must be less than or equal to %d (the number of indexes in the specified succeededIndexes field)", total)))
		}
	}
	return errs
}

// interval is a run of completion indexes, both ends included.
type interval struct{ first, last int32 }

// parseIndexes reads "1,3-5,7": growing, not overlapping, all below completions. On an error the list is nil.
func parseIndexes(text string, completions int32) ([]interval, error) {
	if text == "" {
		return nil, nil
	}
	var list []interval
	for part := range strings.SplitSeq(text, ",") {
		i, err := parseInterval(part, completions)
		if err != nil {
			return nil, err
		}
		if n := len(list); n > 0 && list[n-1].last >= i.first {
			return nil, fmt.Errorf("non-increasing order, previous: %d, current: %d", list[n-1].last, i.first)
		}
		list = append(list, i)
	}
	return list, nil
}

func parseInterval(text string, completions int32) (interval, error) {
	parts := strings.Split(text, "-")
	if len(parts) > 2 {
		return interval{}, fmt.Errorf("the fragment %q violates the requirement that an index interval can have at most two parts separated by '-'", text)
	}
	var ends []int32
	for _, p := range parts {
		n, err := strconv.Atoi(p)
		if err != nil {
			return interval{}, fmt.Errorf("cannot convert string to integer for index: %q", p)
		}
		if n >= int(completions) {
			return interval{}, fmt.Errorf("too large index: %q", p)
		}
		ends = append(ends, int32(n))
	}
	i := interval{ends[0], ends[len(ends)-1]}
	if len(ends) == 2 && i.first >= i.last {
		return interval{}, fmt.Errorf("non-increasing order, previous: %d, current: %d", i.first, i.last)
	}
	return i, nil
}

// overlap returns the first index that is in both lists.
func overlap(a, b []interval) (int32, bool) {
	for i, j := 0, 0; i < len(a) && j < len(b); {
		if a[i].first <= b[j].last && b[j].first <= a[i].last {
			return max(a[i].first, b[j].first), true
		}
		if a[i].first <= b[j].first {
			i++
		} else {
			j++
		}
	}
	return 0, false
}
