package deployment

import (
	"cmp"
	"math"
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
	newUnavailable := wanted(s.newest) - sure(s.newest)
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
	spare := sum(s.sets, sure) - least
	for _, rs := range s.old {
		if n := min(sure(rs), spare); n > 0 {
			s.scale(rs, wanted(rs)-n)
			spare -= n
		}
	}
}

// sure is how many available pods of a set stay. A status that is older than the set's size says nothing: the pods that it
// counts may have been ended by a smaller size in between (a rollback in the middle of a rollout).
func sure(rs *appsv1.ReplicaSet) int32 {
	if rs.Status.ObservedGeneration < rs.Generation {
		return 0
	}
	return min(wanted(rs), available(rs))
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
		if only := s.activeOrLatest(live); only != nil {
			s.scale(only, s.replicas)
		}
		s.remember(live)
		return
	}
	if s.saturated() {
		for _, rs := range s.old {
			s.scale(rs, 0)
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
	rest := left // what rounding leaves goes to the first
	for _, rs := range live[1:] {
		share := int32(math.Round(float64(left) * float64(wanted(rs)) / float64(total)))
		if left > 0 {
			share = min(share, rest)
		} else {
			share = max(share, rest)
		}
		rest -= share
		s.scale(rs, wanted(rs)+share)
	}
	s.scale(live[0], max(wanted(live[0])+rest, 0))
	s.remember(live)
}

// activeOrLatest is the one set that holds all pods; if none does, the new one, else the latest.
func (s *state) activeOrLatest(live []*appsv1.ReplicaSet) *appsv1.ReplicaSet {
	switch {
	case len(live) == 1:
		return live[0]
	case s.newest != nil || len(s.old) == 0:
		return s.newest
	}
	return slices.MaxFunc(s.old, func(a, b *appsv1.ReplicaSet) int { return cmp.Compare(revisionOf(a), revisionOf(b)) })
}

// saturated: the new set is complete and available, so that nothing else is needed.
func (s *state) saturated() bool {
	if s.newest == nil {
		return false
	}
	n, known := annotated(s.newest, desiredKey)
	return known && n == s.replicas && wanted(s.newest) == s.replicas && available(s.newest) == s.replicas
}

// remember notes on the sets for which number of replicas they were sized.
func (s *state) remember(live []*appsv1.ReplicaSet) {
	for _, rs := range live {
		s.touch(rs, annotate(s.d, rs, max(revisionOf(rs), 1)))
	}
}
