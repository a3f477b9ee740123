package statefulset

import (
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"keelson.dev/keelson/controlplane/controller/backend"
)

// input is everything that a plan is made from. Hashes name revisions on pods.
type input struct {
	set             *appsv1.StatefulSet
	pods            []*corev1.Pod
	current, update string // hashes; equal when no update is under way
	now             time.Time
}

// plan is one step.
type plan struct {
	create []int         // ordinals to create
	remove []*corev1.Pod // pods to delete
	status appsv1.StatefulSetStatus
	again  time.Duration // until a ready pod becomes available
}

type state struct {
	input
	slots     []*corev1.Pod // by ordinal, from start; nil: missing
	condemned []*corev1.Pod // highest ordinal first
	plan      plan
	ordered   bool
}

func decide(in input) plan {
	s := &state{input: in, ordered: in.set.Spec.PodManagementPolicy != appsv1.ParallelPodManagement}
	s.sort()
	s.figures()
	if in.set.DeletionTimestamp == nil && s.fillSlots() && s.condemn() {
		s.roll()
	}
	return s.plan
}

func start(set *appsv1.StatefulSet) int {
	if set.Spec.Ordinals == nil {
		return 0
	}
	return int(set.Spec.Ordinals.Start)
}

func (s *state) sort() {
	s.slots = make([]*corev1.Pod, *s.set.Spec.Replicas)
	for _, pod := range s.pods {
		n, ok := ordinal(s.set, pod.Name)
		if !ok {
			continue
		}
		if i := n - start(s.set); i >= 0 && i < len(s.slots) {
			s.slots[i] = pod
		} else {
			s.condemned = append(s.condemned, pod)
		}
	}
	slices.SortFunc(s.condemned, func(a, b *corev1.Pod) int {
		x, _ := ordinal(s.set, a.Name)
		y, _ := ordinal(s.set, b.Name)
		return y - x
	})
}

// fillSlots creates missing pods, lowest first, and replaces those that have ended. It returns false where the order
// demands to wait.
func (s *state) fillSlots() bool {
	settled := true
	for i, pod := range s.slots {
		switch {
		case pod == nil:
			s.plan.create = append(s.plan.create, i+start(s.set))
			settled = false
		case pod.DeletionTimestamp != nil:
			settled = false
		case backend.Ended(pod):
			s.plan.remove = append(s.plan.remove, pod)
			settled = false
		case !s.available(pod):
			settled = false
		default:
			continue
		}
		if s.ordered {
			return false
		}
	}
	return settled || !s.ordered
}

// condemn deletes pods beyond the wanted number, highest first; in order, one at a time and only if the rest is healthy: a pod that is
// not waits for those below it to become so, which is how a set whose pods all fail keeps them to be looked at. Of a pod that has ended
// nothing can be hoped.
func (s *state) condemn() bool {
	unhealthy := func(pod *corev1.Pod) bool {
		return pod.DeletionTimestamp != nil || !s.available(pod) && !backend.Ended(pod)
	}
	for i, pod := range s.condemned {
		if s.ordered && unhealthy(pod) && slices.ContainsFunc(s.condemned[i+1:], unhealthy) {
			return false
		}
		if pod.DeletionTimestamp == nil {
			s.plan.remove = append(s.plan.remove, pod)
		}
		if s.ordered {
			return false
		}
	}
	return true
}

// roll replaces pods of another revision, highest ordinal first, down to the partition, so that no more than
// maxUnavailable are away. Old pods that serve nobody go first: their replacement costs nothing (only a Parallel set
// comes here with such).
func (s *state) roll() {
	if s.set.Spec.UpdateStrategy.Type == appsv1.OnDeleteStatefulSetStrategyType {
		return
	}
	var broken, serving []*corev1.Pod
	away := 0 // missing, ending or starting
	for i := len(s.slots) - 1; i >= 0; i-- {
		pod := s.slots[i]
		old := pod != nil && pod.DeletionTimestamp == nil && revision(s.set, pod) != s.update && i >= partition(s.set)
		up := pod != nil && pod.DeletionTimestamp == nil && s.available(pod)
		switch {
		case old && up:
			serving = append(serving, pod)
		case old:
			broken = append(broken, pod)
		case !up:
			away++
		}
	}
	room := s.maxUnavailable() - away
	for _, pod := range append(broken, serving...) {
		if room <= 0 {
			return
		}
		if !slices.Contains(s.plan.remove, pod) {
			s.plan.remove = append(s.plan.remove, pod)
		}
		room--
	}
}

func (s *state) maxUnavailable() int {
	r := s.set.Spec.UpdateStrategy.RollingUpdate
	if r == nil || r.MaxUnavailable == nil {
		return 1
	}
	n, err := intstr.GetScaledValueFromIntOrPercent(r.MaxUnavailable, int(*s.set.Spec.Replicas), true)
	if err != nil {
		return 1
	}
	return max(n, 1)
}

func partition(set *appsv1.StatefulSet) int {
	if r := set.Spec.UpdateStrategy.RollingUpdate; r != nil && r.Partition != nil {
		return int(*r.Partition)
	}
	return 0
}

// wantsUpdate reports whether a pod made now for the ordinal gets the new template.
func wantsUpdate(set *appsv1.StatefulSet, n int) bool {
	if set.Spec.UpdateStrategy.Type == appsv1.OnDeleteStatefulSetStrategyType {
		return true
	}
	return n-start(set) >= partition(set)
}

func (s *state) figures() {
	st := &s.plan.status
	*st = appsv1.StatefulSetStatus{ObservedGeneration: s.set.Generation, CollisionCount: s.set.Status.CollisionCount,
		CurrentRevision: s.set.Name + "-" + s.current, UpdateRevision: s.set.Name + "-" + s.update, Conditions: s.set.Status.Conditions}
	for _, pod := range s.pods {
		if backend.Ended(pod) {
			continue
		}
		st.Replicas++
		if pod.DeletionTimestamp != nil {
			continue
		}
		if revision(s.set, pod) == s.update {
			st.UpdatedReplicas++
		}
		if revision(s.set, pod) == s.current {
			st.CurrentReplicas++
		}
		if backend.Ready(pod) {
			st.ReadyReplicas++
		}
		if s.available(pod) {
			st.AvailableReplicas++
		}
	}
	wanted := *s.set.Spec.Replicas
	if s.current != s.update && st.UpdatedReplicas == wanted && st.ReadyReplicas == wanted && st.Replicas == wanted {
		st.CurrentRevision, st.CurrentReplicas = st.UpdateRevision, st.UpdatedReplicas
	}
}

// available: ready for minReadySeconds. Asks to be called again when a ready pod will be.
func (s *state) available(pod *corev1.Pod) bool {
	since, ready := backend.ReadySince(pod)
	if !ready || pod.Status.Phase != corev1.PodRunning {
		return false
	}
	wait := time.Duration(s.set.Spec.MinReadySeconds)*time.Second - s.now.Sub(since)
	if s.set.Spec.MinReadySeconds == 0 || wait <= 0 {
		return true
	}
	if s.plan.again == 0 || wait < s.plan.again {
		s.plan.again = wait
	}
	return false
}

// revision is the hash of a pod's revision, whose whole name is on the pod. Pods of earlier versions have the hash alone.
func revision(set *appsv1.StatefulSet, pod *corev1.Pod) string {
	return strings.TrimPrefix(pod.Labels[appsv1.StatefulSetRevisionLabel], set.Name+"-")
}
