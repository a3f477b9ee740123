package podautoscaler

import (
	"math"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/utils/ptr"
)

const (
	// defaultTolerance is of upstream's controller manager, as is the window.
	defaultTolerance = 0.1
	// downWindow is how long the highest recommendation holds before pods go, unless the autoscaler says otherwise.
	downWindow = 5 * time.Minute
	// memory is the longest window and the longest policy period that an autoscaler may have.
	memory = time.Hour
)

// rules are one direction's, with nothing left unset.
type rules struct {
	window   time.Duration
	choose   autoscalingv2.ScalingPolicySelect
	policies []autoscalingv2.HPAScalingPolicy
}

// pace returns the rules of growing and shrinking: what is set, and the documented defaults for the rest.
func pace(b *autoscalingv2.HorizontalPodAutoscalerBehavior) (up, down rules) {
	const period = 15
	up = rules{choose: autoscalingv2.MaxChangePolicySelect, policies: []autoscalingv2.HPAScalingPolicy{
		{Type: autoscalingv2.PodsScalingPolicy, Value: 4, PeriodSeconds: period}, {Type: autoscalingv2.PercentScalingPolicy, Value: 100, PeriodSeconds: period}}}
	down = rules{window: downWindow, choose: autoscalingv2.MaxChangePolicySelect, policies: []autoscalingv2.HPAScalingPolicy{
		{Type: autoscalingv2.PercentScalingPolicy, Value: 100, PeriodSeconds: period}}}
	if b != nil {
		up, down = up.with(b.ScaleUp), down.with(b.ScaleDown)
	}
	return up, down
}

func (r rules) with(set *autoscalingv2.HPAScalingRules) rules {
	if set == nil {
		return r
	}
	if w := set.StabilizationWindowSeconds; w != nil {
		r.window = time.Duration(*w) * time.Second
	}
	r.choose = ptr.Deref(set.SelectPolicy, r.choose)
	if set.Policies != nil {
		r.policies = set.Policies
	}
	return r
}

func (l *look) tolerance() tolerance {
	t := tolerance{down: defaultTolerance, up: defaultTolerance}
	if b := l.hpa.Spec.Behavior; b != nil {
		if r := b.ScaleUp; r != nil && r.Tolerance != nil {
			t.up = r.Tolerance.AsApproximateFloat64()
		}
		if r := b.ScaleDown; r != nil && r.Tolerance != nil {
			t.down = r.Tolerance.AsApproximateFloat64()
		}
	}
	return t
}

// entry is a number of pods at a time: recommended, or added (removed if negative).
type entry struct {
	n  int32
	at time.Time
}

// past is what an autoscaler recommended and did. The zero value is of a new one.
type past struct{ recommended, changed []entry }

// grown is a list with an entry more, without those that nobody asks for any more.
func grown(list []entry, n int32, now time.Time) []entry {
	out := make([]entry, 0, len(list)+1)
	for _, e := range list {
		if now.Sub(e.at) < memory {
			out = append(out, e)
		}
	}
	return append(out, entry{n, now})
}

// scaled is the past with one change more.
func (p past) scaled(from, to int32, now time.Time) past {
	p.changed = grown(p.changed, to-from, now)
	return p
}

// steady is wanted, or the recommendation of the window that moves less.
func (p past) steady(up, down rules, current, wanted int32, now time.Time) int32 {
	lowest, highest := wanted, wanted
	for _, e := range p.recommended {
		if age := now.Sub(e.at); age < up.window {
			lowest = min(lowest, e.n)
		}
		if age := now.Sub(e.at); age < down.window {
			highest = max(highest, e.n)
		}
	}
	return min(max(current, lowest), highest)
}

// begun is the number of pods that there were when a period began.
func (p past) begun(current int32, period int32, now time.Time) int32 {
	for _, e := range p.changed {
		if now.Sub(e.at) < time.Duration(period)*time.Second {
			current -= e.n
		}
	}
	return current
}

// ceiling is the most pods that the rules of growing allow now.
func (p past) ceiling(r rules, current int32, now time.Time) int32 {
	if r.choose == autoscalingv2.DisabledPolicySelect {
		return current
	}
	return max(current, p.limit(r, current, now, func(from int64, policy autoscalingv2.HPAScalingPolicy) int64 {
		if policy.Type == autoscalingv2.PodsScalingPolicy {
			return from + int64(policy.Value)
		}
		return (from*(100+int64(policy.Value)) + 99) / 100 // rounded up, or one pod would never become two
	}, r.choose == autoscalingv2.MaxChangePolicySelect))
}

// floor is the fewest pods that the rules of shrinking allow now.
func (p past) floor(r rules, current int32, now time.Time) int32 {
	if r.choose == autoscalingv2.DisabledPolicySelect {
		return current
	}
	return min(current, p.limit(r, current, now, func(from int64, policy autoscalingv2.HPAScalingPolicy) int64 {
		if policy.Type == autoscalingv2.PodsScalingPolicy {
			return from - int64(policy.Value)
		}
		return from * (100 - int64(policy.Value)) / 100
	}, r.choose == autoscalingv2.MinChangePolicySelect))
}

// limit is where a direction's policies let the number of pods go: the highest of their answers, or the lowest.
func (p past) limit(r rules, current int32, now time.Time, to func(int64, autoscalingv2.HPAScalingPolicy) int64, highest bool) int32 {
	if len(r.policies) == 0 {
		return current
	}
	var out int64
	for i, policy := range r.policies {
		n := to(int64(p.begun(current, policy.PeriodSeconds, now)), policy)
		if i == 0 || highest == (n > out) {
			out = n
		}
	}
	return int32(min(max(out, 0), math.MaxInt32))
}
