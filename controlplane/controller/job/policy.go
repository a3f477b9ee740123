package job

import (
	"fmt"
	"slices"
	"strconv"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// judge applies the pod failure policy to one failed pod. It returns true if the failure does not count.
func (s *state) judge(pod *corev1.Pod) (ignored bool) {
	action, message := s.action(pod)
	if action == batchv1.PodFailurePolicyActionFailJob && s.verdict == "" {
		s.verdict = message
	}
	return action == batchv1.PodFailurePolicyActionIgnore
}

func (s *state) action(pod *corev1.Pod) (batchv1.PodFailurePolicyAction, string) {
	if p := s.job.Spec.PodFailurePolicy; p != nil && pod.Status.Phase == corev1.PodFailed {
		return match(p, pod)
	}
	return batchv1.PodFailurePolicyActionCount, ""
}

func (s *state) ignores(pod *corev1.Pod) bool {
	action, _ := s.action(pod)
	return action == batchv1.PodFailurePolicyActionIgnore
}

// loses: with this failure the pod's index is given up.
func (s *state) loses(pod *corev1.Pod) bool {
	before, _ := failures(pod)
	switch action, _ := s.action(pod); action {
	case batchv1.PodFailurePolicyActionFailIndex:
		return true
	case batchv1.PodFailurePolicyActionIgnore:
		return false
	}
	return before >= *s.job.Spec.BackoffLimitPerIndex
}

// failures are those of a pod's index before it, as written on the pod: what counts, and what the policy ignores.
func failures(pod *corev1.Pod) (failed, ignored int32) {
	read := func(key string) int32 {
		n, err := strconv.ParseInt(pod.Annotations[key], 10, 32)
		if err != nil {
			return 0
		}
		return max(int32(n), 0)
	}
	return read(batchv1.JobIndexFailureCountAnnotation), read(batchv1.JobIndexIgnoredFailureCountAnnotation)
}

func sumOf(failed, ignored int32) int32 { return failed + ignored }

// failuresWith counts a failed pod's own end too: the figures for the pod that comes after it.
func (s *state) failuresWith(pod *corev1.Pod) (failed, ignored int32) {
	failed, ignored = failures(pod)
	if s.ignores(pod) {
		return failed, ignored + 1
	}
	return failed + 1, ignored
}

// match finds the first rule that a failed pod meets; without one the failure counts.
func match(p *batchv1.PodFailurePolicy, pod *corev1.Pod) (batchv1.PodFailurePolicyAction, string) {
	for n, rule := range p.Rules {
		if rule.OnExitCodes != nil {
			if c := exited(rule.OnExitCodes, pod); c != nil {
				return rule.Action, fmt.Sprintf("Container %s for pod %s/%s failed with exit code %d matching %s rule at index %d",
					c.Name, pod.Namespace, pod.Name, c.State.Terminated.ExitCode, rule.Action, n)
			}
			continue
		}
		for _, want := range rule.OnPodConditions {
			if slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
				return c.Type == want.Type && c.Status == want.Status
			}) {
				return rule.Action, fmt.Sprintf("Pod %s/%s has condition %s matching %s rule at index %d", pod.Namespace, pod.Name, want.Type, rule.Action, n)
			}
		}
	}
	return batchv1.PodFailurePolicyActionCount, ""
}

func exited(r *batchv1.PodFailurePolicyOnExitCodesRequirement, pod *corev1.Pod) *corev1.ContainerStatus {
	for _, list := range [][]corev1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses} {
		for i := range list {
			c := &list[i]
			if c.State.Terminated == nil || c.State.Terminated.ExitCode == 0 || r.ContainerName != nil && *r.ContainerName != c.Name {
				continue
			}
			in := slices.Contains(r.Values, c.State.Terminated.ExitCode)
			if in == (r.Operator == batchv1.PodFailurePolicyOnExitCodesOpIn) {
				return c
			}
		}
	}
	return nil
}

// successRule is the number of the first success rule that holds; -1 if none does.
func (s *state) successRule() int {
	if s.job.Spec.SuccessPolicy == nil || !s.indexed {
		return -1
	}
	for n, rule := range s.job.Spec.SuccessPolicy.Rules {
		have, need := len(s.completed), s.completions
		if rule.SucceededIndexes != nil {
			among := parseIndexes(*rule.SucceededIndexes, s.completions)
			have, need = 0, len(among)
			for i := range among {
				if s.completed[i] {
					have++
				}
			}
		}
		if rule.SucceededCount != nil {
			need = int(*rule.SucceededCount)
		}
		if have >= need {
			return n
		}
	}
	return -1
}

// restarts sums the restarts of pods whose containers are restarted in place (restartPolicy: OnFailure).
func (s *state) restarts() (n int32) {
	if s.job.Spec.Template.Spec.RestartPolicy != corev1.RestartPolicyOnFailure {
		return 0
	}
	for _, pod := range s.active {
		for _, list := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
			for _, c := range list {
				n += c.RestartCount
			}
		}
	}
	return n
}

// tooManyFailures: beyond backoffLimit; restarts in place reach it, failed pods exceed it.
func (s *state) tooManyFailures() bool {
	limit := ptr.Deref(s.job.Spec.BackoffLimit, 6)
	restarts := s.restarts()
	return s.failed > limit || restarts > 0 && restarts >= max(limit, 1)
}
