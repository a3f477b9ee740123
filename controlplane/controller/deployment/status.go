package deployment

import (
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// finish computes the status from the sets as they are now (not as they will be).
func (s *state) finish(now time.Time) {
	d := s.d
	var updated int32
	if s.newest != nil {
		updated = s.newest.Status.Replicas
	}
	avail := sum(s.sets, available)
	terminating := sum(s.sets, func(rs *appsv1.ReplicaSet) int32 {
		if rs.Status.TerminatingReplicas == nil {
			return 0
		}
		return *rs.Status.TerminatingReplicas
	})
	s.plan.Status = appsv1.DeploymentStatus{
		ObservedGeneration: d.Generation, CollisionCount: d.Status.CollisionCount,
		Replicas:        sum(s.sets, func(rs *appsv1.ReplicaSet) int32 { return rs.Status.Replicas }),
		ReadyReplicas:   sum(s.sets, func(rs *appsv1.ReplicaSet) int32 { return rs.Status.ReadyReplicas }),
		UpdatedReplicas: updated, AvailableReplicas: avail, TerminatingReplicas: &terminating,
		UnavailableReplicas: max(sum(s.sets, wanted)-avail, 0),
		Conditions:          slices.Clone(d.Status.Conditions),
	}
	s.availability(now)
	s.progress(now)
	s.failure(now)
}

func (s *state) availability(now time.Time) {
	_, maxUnavailable := bounds(s.d)
	c := appsv1.DeploymentCondition{Type: appsv1.DeploymentAvailable, Status: corev1.ConditionFalse,
		Reason: "MinimumReplicasUnavailable", Message: "Deployment does not have minimum availability."}
	if s.plan.Status.AvailableReplicas >= s.replicas-maxUnavailable {
		c.Status, c.Reason, c.Message = corev1.ConditionTrue, "MinimumReplicasAvailable", "Deployment has minimum availability."
	}
	s.set(c, now)
}

// progress maintains the Progressing condition; its reasons are what `kubectl rollout status` and helm wait for.
func (s *state) progress(now time.Time) {
	d := s.d
	if d.Spec.ProgressDeadlineSeconds == nil || *d.Spec.ProgressDeadlineSeconds == 1<<31-1 {
		s.drop(appsv1.DeploymentProgressing)
		return
	}
	have := find(d.Status.Conditions, appsv1.DeploymentProgressing)
	c := appsv1.DeploymentCondition{Type: appsv1.DeploymentProgressing, Status: corev1.ConditionTrue}
	switch {
	case d.Spec.Paused:
		if have == nil || have.Reason != "DeploymentPaused" {
			c.Status, c.Reason, c.Message = corev1.ConditionUnknown, "DeploymentPaused", "Deployment is paused"
			s.set(c, now)
		}
		return
	case have != nil && have.Reason == "DeploymentPaused":
		c.Status, c.Reason, c.Message = corev1.ConditionUnknown, "DeploymentResumed", "Deployment is resumed"
		s.set(c, now)
		have = &c
		have.LastUpdateTime = metav1.NewTime(now)
		fallthrough
	default:
		s.progressRunning(have, now)
	}
}

func (s *state) progressRunning(have *appsv1.DeploymentCondition, now time.Time) {
	c := appsv1.DeploymentCondition{Type: appsv1.DeploymentProgressing, Status: corev1.ConditionTrue}
	st, before := s.plan.Status, s.d.Status
	done := s.newest != nil && s.plan.Create == nil && st.UpdatedReplicas == s.replicas && st.Replicas == s.replicas && st.AvailableReplicas == s.replicas
	moved := st.UpdatedReplicas > before.UpdatedReplicas || st.Replicas-st.UpdatedReplicas < before.Replicas-before.UpdatedReplicas ||
		st.ReadyReplicas > before.ReadyReplicas || st.AvailableReplicas > before.AvailableReplicas
	switch {
	case s.plan.Create != nil:
		c.Reason, c.Message = "NewReplicaSetCreated", fmt.Sprintf("Created new replica set %q", s.plan.Create.Name)
		s.refresh(c, now)
	case done:
		if have == nil || have.Reason != "NewReplicaSetAvailable" || have.Status != corev1.ConditionTrue {
			c.Reason, c.Message = "NewReplicaSetAvailable", s.named("has successfully progressed")
			s.refresh(c, now)
		}
	case have != nil && have.Reason == "NewReplicaSetAvailable" && st.Replicas == st.UpdatedReplicas:
		// Done before: a pod that fails later, or a scaling that finds no room, is no failed rollout.
	case have != nil && have.Reason == "NewReplicaSetAvailable" && s.newest != nil:
		// A rollback began: the clock of the deadline starts now, not with the last rollout's end.
		c.Reason, c.Message = "FoundNewReplicaSet", fmt.Sprintf("Found new replica set %q", s.newest.Name)
		s.refresh(c, now)
	case moved || have == nil:
		c.Reason, c.Message = "ReplicaSetUpdated", s.named("is progressing")
		s.refresh(c, now)
	case have.Reason == "ProgressDeadlineExceeded":
	default:
		s.deadline(have, now)
	}
}

// deadline marks a rollout that has not moved for progressDeadlineSeconds, or asks to be called when that will be.
func (s *state) deadline(have *appsv1.DeploymentCondition, now time.Time) {
	limit := time.Duration(*s.d.Spec.ProgressDeadlineSeconds) * time.Second
	if left := limit - now.Sub(have.LastUpdateTime.Time); left > 0 {
		s.plan.Again = left + time.Second
		return
	}
	s.refresh(appsv1.DeploymentCondition{Type: appsv1.DeploymentProgressing, Status: corev1.ConditionFalse,
		Reason: "ProgressDeadlineExceeded", Message: s.named("has timed out progressing")}, now)
}

func (s *state) named(what string) string {
	name := ""
	if s.newest != nil {
		name = s.newest.Name
	}
	return fmt.Sprintf("ReplicaSet %q %s.", name, what)
}

func (s *state) failure(now time.Time) {
	sets := s.old
	if s.newest != nil {
		sets = append(slices.Clone(s.old), s.newest)
	}
	for i := len(sets) - 1; i >= 0; i-- {
		for _, c := range sets[i].Status.Conditions {
			if c.Type == appsv1.ReplicaSetReplicaFailure {
				s.set(appsv1.DeploymentCondition{Type: appsv1.DeploymentReplicaFailure, Status: c.Status, Reason: c.Reason, Message: c.Message}, now)
				return
			}
		}
	}
	s.drop(appsv1.DeploymentReplicaFailure)
}

// set replaces a condition if it says something else, keeping the transition time if only the words changed.
func (s *state) set(c appsv1.DeploymentCondition, now time.Time) {
	if have := find(s.plan.Status.Conditions, c.Type); have != nil && have.Status == c.Status && have.Reason == c.Reason {
		return
	}
	s.refresh(c, now)
}

// refresh replaces a condition and its update time: it counts as progress.
func (s *state) refresh(c appsv1.DeploymentCondition, now time.Time) {
	// Times are stored in seconds; anything finer would make every status differ from the stored one.
	stamp := metav1.NewTime(now.Truncate(time.Second))
	c.LastUpdateTime, c.LastTransitionTime = stamp, stamp
	for i, have := range s.plan.Status.Conditions {
		if have.Type == c.Type {
			if have.Status == c.Status {
				c.LastTransitionTime = have.LastTransitionTime
			}
			s.plan.Status.Conditions[i] = c
			return
		}
	}
	s.plan.Status.Conditions = append(s.plan.Status.Conditions, c)
}

func (s *state) drop(t appsv1.DeploymentConditionType) {
	s.plan.Status.Conditions = slices.DeleteFunc(s.plan.Status.Conditions, func(c appsv1.DeploymentCondition) bool { return c.Type == t })
}

func find(list []appsv1.DeploymentCondition, t appsv1.DeploymentConditionType) *appsv1.DeploymentCondition {
	for i := range list {
		if list[i].Type == t {
			return &list[i]
		}
	}
	return nil
}
