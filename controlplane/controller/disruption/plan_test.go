package disruption

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
)

var now = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// parse reads pods: "a b:down c:going".
func parse(text string) (out []*corev1.Pod) {
	for _, word := range strings.Fields(text) {
		name, how, _ := strings.Cut(word, ":")
		status := corev1.ConditionTrue
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}}
		switch how {
		case "down":
			status = corev1.ConditionFalse
		case "going":
			pod.DeletionTimestamp = ptr.To(metav1.NewTime(now))
		}
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: status}}
		out = append(out, pod)
	}
	return out
}

func TestDecide(t *testing.T) {
	for _, c := range []struct {
		name, least, most, pods               string
		evicted                               map[string]time.Duration // ago
		scale                                 int
		expected, desired, healthy, disrupted int32
		allowed                               int32
		reason                                string
	}{
		{name: "minAvailable", least: "2", pods: "a b c", expected: 3, desired: 2, healthy: 3, allowed: 1, reason: policyv1.SufficientPodsReason},
		{name: "minAvailable, one down", least: "2", pods: "a b c:down", expected: 3, desired: 2, healthy: 2, reason: policyv1.InsufficientPodsReason},
		{name: "minAvailable in percent rounds up", least: "50%", pods: "a b c", scale: 3, expected: 3, desired: 2, healthy: 3, allowed: 1, reason: policyv1.SufficientPodsReason},
		{name: "maxUnavailable", most: "1", pods: "a b c", scale: 3, expected: 3, desired: 2, healthy: 3, allowed: 1, reason: policyv1.SufficientPodsReason},
		{name: "maxUnavailable counts what is missing", most: "1", pods: "a b", scale: 3, expected: 3, desired: 2, healthy: 2, reason: policyv1.InsufficientPodsReason},
		{name: "maxUnavailable in percent rounds up", most: "30%", pods: "a b c d", scale: 4, expected: 4, desired: 2, healthy: 4, allowed: 2, reason: policyv1.SufficientPodsReason},
		{name: "maxUnavailable beyond the scale", most: "5", pods: "a b", scale: 2, expected: 2, healthy: 2, allowed: 2, reason: policyv1.SufficientPodsReason},
		{name: "none", least: "0", reason: policyv1.InsufficientPodsReason},
		{name: "a pod that goes is not healthy", least: "1", pods: "a b:going", expected: 2, desired: 1, healthy: 1, reason: policyv1.InsufficientPodsReason},
		{name: "evicted just now", least: "1", pods: "a b", evicted: map[string]time.Duration{"a": time.Second, "gone": time.Second},
			expected: 2, desired: 1, healthy: 1, disrupted: 1, reason: policyv1.InsufficientPodsReason},
		{name: "evicted, but it stayed", least: "1", pods: "a b", evicted: map[string]time.Duration{"a": 3 * time.Minute},
			expected: 2, desired: 1, healthy: 2, allowed: 1, reason: policyv1.SufficientPodsReason},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Generation: 4}}
			if c.least != "" {
				b.Spec.MinAvailable = ptr.To(intstr.Parse(c.least))
			}
			if c.most != "" {
				b.Spec.MaxUnavailable = ptr.To(intstr.Parse(c.most))
			}
			for name, ago := range c.evicted {
				if b.Status.DisruptedPods == nil {
					b.Status.DisruptedPods = map[string]metav1.Time{}
				}
				b.Status.DisruptedPods[name] = metav1.NewTime(now.Add(-ago))
			}
			s, again := decide(b, parse(c.pods), c.scale, now)
			if s.ExpectedPods != c.expected || s.DesiredHealthy != c.desired || s.CurrentHealthy != c.healthy || s.DisruptionsAllowed != c.allowed ||
				len(s.DisruptedPods) != int(c.disrupted) || s.ObservedGeneration != 4 || again > 0 != (c.disrupted > 0) {
				t.Errorf("%+v, again %v", s, again)
			}
			if cond := meta.FindStatusCondition(s.Conditions, policyv1.DisruptionAllowedCondition); cond == nil || cond.Reason != c.reason {
				t.Errorf("condition %+v", cond)
			}
		})
	}
}
