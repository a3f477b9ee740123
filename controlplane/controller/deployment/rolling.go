package deployment

import (
	"slices"

	appsv1 "k8s.io/api/apps/v1"
)

// roll takes one step of a rolling update: first up as far as maxSurge allows, else down as far as maxUnavailable allows.
func (s *state) roll() {
	maxSurge, maxUnavailable := bounds(s.d)
	total := sum(s.sets, wanted)
	if s.newest == nil {
		s.create(min(s.replicas, max(s.replicas+maxSurge-total, 0)))
		return
	}
	have := wanted(s.newest)
	switch {
	case have > s.replicas:
		s.scale(s.newest, s.replicas)
		return
	case have < s.replicas && total < s.replicas+maxSurge:
		s.scale(s.newest, min(s.replicas, have+s.replicas+maxSurge-total))
		return
	}
	s.shrinkOld(maxUnavailable)
}

// shrinkOld scales old sets down: first pods that are not available anyway, then others, never below
// replicas - maxUnavailable available ones.
func (s *state) shrinkOld(maxUnavailable int32) {
	oldTotal := sum(s.old, wanted)
	if oldTotal == 0 {
		return
	}
	least := s.replicas - maxUnavailable
	newUnavailable := wanted(s.newest) - available(s.newest)
	room := sum(s.sets, wanted) - least - newUnavailable
	if room <= 0 {
		return
	}
	for _, rs := range s.old { // oldest first
		broken := wanted(rs) - available(rs)
		if n := min(broken, room); n > 0 && rs.Status.ObservedGeneration >= rs.Generation {
			s.scale(rs, wanted(rs)-n)
			room -= n
		}
	}
	spare := sum(s.sets, available) - least
	for _, rs := range s.old {
		if n := min(wanted(rs), available(rs), spare); n > 0 {
			s.scale(rs, wanted(rs)-n)
			spare -= n
		}
	}
}

func (s *state) active() (out []*appsv1.ReplicaSet) {
	for _, rs := range s.sets {
		if wanted(rs) > 0 {
			out = append(out, rs)
		}
	}
	return out
}

// proportion spreads a changed number of replicas over the sets as they are, larger sets taking more, so that a scaling
// in the middle of a rollout risks no more pods than before.
func (s *state) proportion() {
	live := s.active()
	if len(live) <= 1 {
		only := s.newest
		if len(live) == 1 {
			only = live[0]
		}
		if only != nil {
			s.scale(only, s.replicas)
		} else if !s.d.Spec.Paused {
			s.create(s.replicas)
		}
		s.remember(live)
		return
	}
	maxSurge, _ := bounds(s.d)
	allowed := int32(0)
	if s.replicas > 0 {
		allowed = s.replicas + maxSurge
	}
	total := sum(live, wanted)
	left := allowed - total
	if left == 0 {
		s.remember(live)
		return
	}
	// Larger sets first; equals: newer first when growing, older first when shrinking.
	slices.SortStableFunc(live, func(a, b *appsv1.ReplicaSet) int {
		if wanted(a) != wanted(b) {
			return int(wanted(b) - wanted(a))
		}
		if (left > 0) == older(a, b) {
			return 1
		}
		return -1
	})
	change := left
	for i, rs := range live {
		share := change * wanted(rs) / total
		if i == 0 {
			share = change - sharesOfOthers(live, change, total)
		}
		s.scale(rs, max(wanted(rs)+share, 0))
	}
	s.remember(live)
}

// sharesOfOthers is what all but the first set take; rounding goes to the first.
func sharesOfOthers(live []*appsv1.ReplicaSet, change, total int32) (out int32) {
	for _, rs := range live[1:] {
		out += change * wanted(rs) / total
	}
	return out
}

// remember notes on the sets for which number of replicas they were sized.
func (s *state) remember(live []*appsv1.ReplicaSet) {
	for _, rs := range live {
		s.touch(rs, annotate(s.d, rs, max(revisionOf(rs), 1)))
	}
}
