package podautoscaler

import (
	"fmt"
	"testing"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"
)

// TestBoundsHold: whatever the pods use and whatever is missing, the target stays within the autoscaler's bounds, never gets
// farther from its size a minute ago than its policies allow, and does not shrink while a metric cannot be read. A failure prints the
// -rapid.seed that repeats it.
func TestBoundsHold(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		least := rapid.Int32Range(1, 5).Draw(rt, "min")
		most := rapid.Int32Range(least, 30).Draw(rt, "max")
		step := rapid.Int32Range(1, 5).Draw(rt, "step")
		h := autoscaler(t, []string{fmt.Sprint("min=", least), fmt.Sprint("max=", most), "cpu=50%", "external:q=10/pod",
			fmt.Sprintf("up.policies=Pods:%d:60", step), fmt.Sprintf("down.policies=Pods:%d:60", step), "down.window=30"})
		s := &tale{l: look{hpa: h, scale: &autoscalingv1.Scale{}, now: time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)}, values: map[string]string{}, used: map[string]map[string]string{}}
		s.size(rapid.Int32Range(least, most).Draw(rt, "size"))
		changes := map[time.Time]int32{}
		for range 20 {
			s.l.pods, s.used = nil, map[string]map[string]string{}
			for i := range s.l.scale.Spec.Replicas {
				state := rapid.SampledFrom([]string{"", "", "", "unmeasured", "pending", "cold", "going"}).Draw(rt, "state")
				s.pod(fmt.Sprint("p", i), []string{fmt.Sprintf("cpu=%dm", rapid.IntRange(0, 300).Draw(rt, "cpu")), state})
			}
			s.values["q"] = rapid.SampledFrom([]string{"none", "0", "50", "100000"}).Draw(rt, "q")
			before := s.l.scale.Spec.Replicas
			said := s.look()
			now := s.l.scale.Spec.Replicas
			if now < least || now > most {
				rt.Fatalf("%d..%d: %s", least, most, said)
			}
			began := before // a minute ago
			for at, change := range changes {
				if s.l.now.Sub(at) < time.Minute {
					began -= change
				}
			}
			if now > max(before, began+step) || now < min(before, began-step) {
				rt.Fatalf("at most %d from %d a minute ago: %s", step, began, said)
			}
			changes[s.l.now] = now - before
			if s.values["q"] == "none" && now < before {
				rt.Fatalf("shrunk without a metric: %s", said)
			}
			if ptr.Deref(s.l.hpa.Spec.MinReplicas, 0) != least || len(s.last.status.Conditions) < 2 {
				rt.Fatalf("%+v", s.last.status)
			}
			s.l.now = s.l.now.Add(time.Duration(rapid.IntRange(1, 90).Draw(rt, "pause")) * time.Second)
		}
	})
}
