package scheduler

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
)

// manager is the field manager of what the scheduler applies.
const manager = "kube-scheduler"

// bind writes the decision. The API refuses it if the pod was bound or deleted meanwhile.
func (s *Scheduler) bind(ctx context.Context, pod *corev1.Pod, node string) error {
	if err := s.claim(ctx, pod, node); err != nil {
		return err
	}
	binding := &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: node},
	}
	if err := s.deps.Client.CoreV1().Pods(pod.Namespace).Bind(ctx, binding, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("bind pod %s/%s to node %s: %w", pod.Namespace, pod.Name, node, err)
	}
	s.deps.Events.Eventf(pod, nil, corev1.EventTypeNormal, "Scheduled", "Binding",
		"Successfully assigned %s/%s to %s", pod.Namespace, pod.Name, node)
	return nil
}

// tell writes why the pod waits: an event, the PodScheduled condition and, with a preemption, the nominated node, which is taken
// back if none is named; then the victims are asked to go.
func (s *Scheduler) tell(ctx context.Context, pod *corev1.Pod, message string, plan *Preemption) {
	s.deps.Events.Eventf(pod, nil, corev1.EventTypeWarning, "FailedScheduling", "Scheduling", "%s", message)
	status := applycorev1.PodStatus().WithConditions(applycorev1.PodCondition().
		WithType(corev1.PodScheduled).WithStatus(corev1.ConditionFalse).
		WithReason(corev1.PodReasonUnschedulable).WithMessage(message).WithObservedGeneration(pod.Generation).
		WithLastTransitionTime(transition(pod)))
	promised := ""
	if plan != nil {
		promised = plan.Node
		status.WithNominatedNodeName(promised)
	}
	if promised != pod.Status.NominatedNodeName || !said(pod, message) {
		apply := applycorev1.Pod(pod.Name, pod.Namespace).WithUID(pod.UID).WithStatus(status)
		_, err := s.deps.Client.CoreV1().Pods(pod.Namespace).ApplyStatus(ctx, apply, metav1.ApplyOptions{FieldManager: manager, Force: true})
		if err != nil && !gone(err) && ctx.Err() == nil {
			s.cfg.Log.Warn("could not write why a pod waits", "pod", pod.Namespace+"/"+pod.Name, "err", err)
		}
	}
	if plan == nil {
		return
	}
	for _, victim := range plan.Victims {
		s.evict(ctx, pod, victim)
	}
}

func said(pod *corev1.Pod, message string) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled {
			return c.Status == corev1.ConditionFalse && c.Message == message
		}
	}
	return false
}

// transition keeps the time at which the condition became false.
func transition(pod *corev1.Pod) metav1.Time {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return c.LastTransitionTime
		}
	}
	return metav1.Now()
}

// evict marks a victim as a disruption target and deletes it with its own grace period.
func (s *Scheduler) evict(ctx context.Context, preemptor, victim *corev1.Pod) {
	pods := s.deps.Client.CoreV1().Pods(victim.Namespace)
	mark := applycorev1.Pod(victim.Name, victim.Namespace).WithUID(victim.UID).WithStatus(applycorev1.PodStatus().
		WithConditions(applycorev1.PodCondition().WithType(corev1.DisruptionTarget).WithStatus(corev1.ConditionTrue).
			WithReason(corev1.PodReasonPreemptionByScheduler).WithLastTransitionTime(metav1.Now()).
			WithMessage(fmt.Sprintf("%s: preempting to accommodate a higher priority pod", s.cfg.Name))))
	_, err := pods.ApplyStatus(ctx, mark, metav1.ApplyOptions{FieldManager: manager, Force: true})
	if err == nil {
		err = pods.Delete(ctx, victim.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(victim.UID))})
	}
	if err != nil && !gone(err) {
		s.cfg.Log.Warn("could not preempt", "pod", victim.Namespace+"/"+victim.Name, "err", err)
		s.post(func() { s.stayed(victim) })
		return
	}
	s.deps.Events.Eventf(victim, preemptor, corev1.EventTypeNormal, "Preempted", "Preempting",
		"Preempted by pod %s/%s, whose priority is higher, on node %s", preemptor.Namespace, preemptor.Name, victim.Spec.NodeName)
}

// gone: the object is not there any more, or is another one of the same name.
func gone(err error) bool { return apierrors.IsNotFound(err) || apierrors.IsConflict(err) }
