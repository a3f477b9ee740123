package podautoscaler

import (
	"errors"
	"fmt"
	"slices"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// look is all that one look at an autoscaler sees.
type look struct {
	hpa   *autoscalingv2.HorizontalPodAutoscaler
	scale *autoscalingv1.Scale // of its target
	now   time.Time
	// Of an autoscaler that measures:
	invalid  *problem      // why the target's pods cannot be told from others
	pods     []*corev1.Pod // that the target's selector selects
	readings []reading     // one for each metric of the spec
}

// problem is a condition's reason and message, and an event's reason.
type problem struct{ reason, event, message string }

// reading is what a metric was read at; values are in thousandths.
type reading struct {
	err   error
	pods  map[string]sample // of a metric that each pod has; decide changes it
	total int64             // of any other: the sum
}

// event is what a user is to be told.
type event struct{ kind, reason, message string }

// verdict is what comes of a look.
type verdict struct {
	status autoscalingv2.HorizontalPodAutoscalerStatus
	scale  bool   // the target is to have status.desiredReplicas pods
	why    string // in the event's words
	events []event
	past   past
}

// story writes a status.
type story struct {
	status     *autoscalingv2.HorizontalPodAutoscalerStatus
	generation int64
	now        time.Time
}

func (s story) set(what autoscalingv2.HorizontalPodAutoscalerConditionType, status corev1.ConditionStatus, reason, format string, args ...any) {
	next := autoscalingv2.HorizontalPodAutoscalerCondition{Type: what, Status: status, Reason: reason, Message: fmt.Sprintf(format, args...),
		LastTransitionTime: metav1.NewTime(s.now), ObservedGeneration: &s.generation}
	for i := range s.status.Conditions {
		c := &s.status.Conditions[i]
		if c.Type != what {
			continue
		}
		if c.Status == status {
			next.LastTransitionTime = c.LastTransitionTime
		}
		*c = next
		return
	}
	s.status.Conditions = append(s.status.Conditions, next)
}

func (l *look) least() int32 { return ptr.Deref(l.hpa.Spec.MinReplicas, 1) }

// measures tells whether the metrics matter: they do not beyond the bounds, nor of a target that somebody set to zero.
func (l *look) measures() bool {
	n := l.scale.Spec.Replicas
	return n <= l.hpa.Spec.MaxReplicas && (n >= l.least() || n == 0) && !l.disabled()
}

// disabled: who scales a target to zero wants it so, unless it was this autoscaler (KEP-2021) and something can wake the target.
func (l *look) disabled() bool {
	if l.scale.Spec.Replicas != 0 {
		return false
	}
	asleep := slices.ContainsFunc(l.hpa.Status.Conditions, func(c autoscalingv2.HorizontalPodAutoscalerCondition) bool {
		return c.Type == autoscalingv2.ScaledToZero && c.Status == corev1.ConditionTrue
	})
	return !asleep || l.least() == 0 && !l.outside()
}

// outside tells whether a metric is there to be read when no pod is.
func (l *look) outside() bool {
	return slices.ContainsFunc(l.hpa.Spec.Metrics, func(m autoscalingv2.MetricSpec) bool {
		return m.Type == autoscalingv2.ObjectMetricSourceType || m.Type == autoscalingv2.ExternalMetricSourceType
	})
}

// scaled writes that the target has another size now, and whether it sleeps by it.
func (l *look) scaled(s story, to int32) {
	s.set(autoscalingv2.AbleToScale, corev1.ConditionTrue, "SucceededRescale", "the HPA controller was able to update the target scale to %d", to)
	if l.scale.Spec.Replicas > 0 && to == 0 && l.least() == 0 && l.outside() {
		s.set(autoscalingv2.ScaledToZero, corev1.ConditionTrue, "ScaledToZero", "the HPA controller scaled the workload to zero")
		return
	}
	s.set(autoscalingv2.ScaledToZero, corev1.ConditionFalse, "NotScaledToZero", "the HPA controller did not scale the workload to zero")
}

// decide is what comes of a look, given what came of those before.
func decide(l look, p past) verdict {
	current := l.scale.Spec.Replicas
	if len(p.recommended) == 0 {
		p.recommended = []entry{{current, l.now}}
	}
	v := verdict{status: *l.hpa.Status.DeepCopy(), past: p}
	s := story{&v.status, l.hpa.Generation, l.now}
	s.set(autoscalingv2.AbleToScale, corev1.ConditionTrue, "SucceededGetScale", "the HPA controller was able to get the target's current scale")
	v.status.ObservedGeneration, v.status.CurrentReplicas, v.status.CurrentMetrics = ptr.To(l.hpa.Generation), current, nil
	wanted := current
	switch {
	case l.disabled():
		s.set(autoscalingv2.ScalingActive, corev1.ConditionFalse, "ScalingDisabled", "scaling is disabled since the replica count of the target is zero")
	case current > l.hpa.Spec.MaxReplicas:
		wanted, v.why = l.hpa.Spec.MaxReplicas, "Current number of replicas above Spec.MaxReplicas"
	case current < l.least() && current > 0:
		wanted, v.why = l.least(), "Current number of replicas below Spec.MinReplicas"
	default:
		asked, metric, err := l.ask(&v, s)
		if err != nil {
			v.events = append(v.events, event{corev1.EventTypeWarning, "FailedComputeMetricsReplicas", err.Error()})
			return v // with the number of pods that was wanted before
		}
		wanted = v.bound(&l, s, asked)
		switch {
		case current == 0 && asked < l.least():
			v.why = "Current number of replicas below Spec.MinReplicas"
		case wanted > current:
			v.why = metric + " above target"
		default:
			v.why = "All metrics below target"
		}
	}
	v.status.DesiredReplicas, v.scale = wanted, wanted != current
	return v
}

// ask returns the largest number of pods that a metric asks for. If one cannot be read, the others may ask for more pods,
// not for fewer.
func (l *look) ask(v *verdict, s story) (most int32, metric string, err error) {
	if i := l.invalid; i != nil {
		if i.event != "" {
			v.events = append(v.events, event{corev1.EventTypeWarning, i.event, i.message})
		}
		s.set(autoscalingv2.ScalingActive, corev1.ConditionFalse, i.reason, "%s", i.message)
		return 0, "", errors.New(i.message)
	}
	specs := l.hpa.Spec.Metrics
	v.status.CurrentMetrics = make([]autoscalingv2.MetricStatus, len(specs))
	var failed []failure
	found := false
	for i := range specs {
		answer, wrong := l.propose(&specs[i], l.readings[i])
		if wrong != nil {
			v.events = append(v.events, event{corev1.EventTypeWarning, wrong.reason, wrong.err.Error()})
			failed = append(failed, *wrong)
			continue
		}
		v.status.CurrentMetrics[i] = answer.status
		if !found || answer.replicas > most {
			found, most, metric = true, answer.replicas, answer.name
		}
	}
	if len(failed) > 0 && (!found || most < l.scale.Spec.Replicas) {
		first := failed[0]
		s.set(autoscalingv2.ScalingActive, corev1.ConditionFalse, first.reason, "the HPA was unable to compute the replica count: %v", first.err)
		return 0, "", fmt.Errorf("invalid metrics (%d invalid out of %d), first error is: failed to get %s metric value: %w", len(failed), len(specs), first.metric, first.err)
	}
	s.set(autoscalingv2.ScalingActive, corev1.ConditionTrue, "ValidMetricFound", "the HPA was able to successfully calculate a replica count from %s", metric)
	return most, metric, nil
}

// bound brings what the metrics ask for into the windows, the policies and the bounds, and says what held it.
func (v *verdict) bound(l *look, s story, asked int32) int32 {
	current := l.scale.Spec.Replicas
	up, down := pace(l.hpa.Spec.Behavior)
	steady := v.past.steady(up, down, current, asked, l.now)
	v.past.recommended = grown(v.past.recommended, asked, l.now)
	switch {
	case steady == asked:
		s.set(autoscalingv2.AbleToScale, corev1.ConditionTrue, "ReadyForNewScale", "recommended size matches current size")
	case asked >= current:
		s.set(autoscalingv2.AbleToScale, corev1.ConditionTrue, "ScaleUpStabilized", "recent recommendations were lower than current one, applying the lowest recent recommendation")
	default:
		s.set(autoscalingv2.AbleToScale, corev1.ConditionTrue, "ScaleDownStabilized", "recent recommendations were higher than current one, applying the highest recent recommendation")
	}
	wanted, reason, message := steady, "DesiredWithinRange", "the desired count is within the acceptable range"
	if most := v.past.ceiling(up, current, l.now); steady > current && steady > min(most, l.hpa.Spec.MaxReplicas) {
		wanted, reason, message = most, "ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate"
	}
	if fewest := v.past.floor(down, current, l.now); steady < current && steady < max(fewest, l.least()) {
		wanted, reason, message = fewest, "ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate"
	}
	if wanted > l.hpa.Spec.MaxReplicas || wanted == l.hpa.Spec.MaxReplicas && wanted < steady {
		wanted, reason, message = l.hpa.Spec.MaxReplicas, "TooManyReplicas", "the desired replica count is more than the maximum replica count"
	}
	if wanted < l.least() || wanted == l.least() && wanted > steady {
		wanted, reason, message = l.least(), "TooFewReplicas", "the desired replica count is less than the minimum replica count"
	}
	limited := corev1.ConditionFalse
	if wanted != steady {
		limited = corev1.ConditionTrue
	}
	s.set(autoscalingv2.ScalingLimited, limited, reason, "%s", message)
	return wanted
}
