package job

import (
	"fmt"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// judge applies the pod failure policy to one failed pod, and notes failures by index. It returns true if the failure
// does not count.
func (s *state) judge(pod *corev1.Pod, i int) (ignored bool) {
	action, message := batchv1.PodFailurePolicyActionCount, ""
	if p := s.job.Spec.PodFailurePolicy; p != nil && pod.Status.Phase == corev1.PodFailed {
		action, message = match(p, pod)
	}
	switch action {
	case batchv1.PodFailurePolicyActionIgnore:
		return true
	case batchv1.PodFailurePolicyActionFailJob:
		if s.verdict == "" {
			s.verdict = message
		}
	case batchv1.PodFailurePolicyActionFailIndex:
		if i >= 0 && s.job.Spec.BackoffLimitPerIndex != nil {
			s.lost[i] = true
		}
	}
	s.failures[i]++
	if limit := s.job.Spec.BackoffLimitPerIndex; limit != nil && i >= 0 && s.failures[i] > *limit {
		s.lost[i] = true
	}
	return false
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
