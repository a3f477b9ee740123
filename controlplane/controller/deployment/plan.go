package deployment

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Plan is one step of a rollout. Zero fields mean "nothing to do".
type Plan struct {
	// Create is the new template's set, not there yet.
	Create *appsv1.ReplicaSet
	// Update are sets with other replicas or annotations; scaled ones are named in Scaled.
	Update []*appsv1.ReplicaSet
	// Scaled says from where to where, by set name, for the events.
	Scaled map[string][2]int32
	// Delete are old sets beyond the history limit.
	Delete []*appsv1.ReplicaSet
	// Revision the Deployment is to be annotated with; 0: as it is.
	Revision int64
	Status   appsv1.DeploymentStatus
	// Again is when to look again though nothing changes: at the progress deadline. 0: never.
	Again time.Duration
}

// state is what the decisions share. next are the sets as they will be; they are copies.
type state struct {
	d        *appsv1.Deployment
	replicas int32
	sets     []*appsv1.ReplicaSet
	newest   *appsv1.ReplicaSet // nil: to be created
	old      []*appsv1.ReplicaSet
	oldPods  bool // pods of old sets still run or terminate (Recreate waits for them)
	resized  bool // replicas was changed since the sets were last scaled: then sizes change, but no template rolls
	plan     Plan
}

// Decide plans the next step. sets are the Deployment's; oldPods says whether any pod of an old set is left.
func Decide(d *appsv1.Deployment, sets []*appsv1.ReplicaSet, oldPods bool, now time.Time) Plan {
	s := newState(d, sets, oldPods)
	switch {
	case d.DeletionTimestamp != nil:
	case d.Spec.Paused, s.resized:
		s.proportion()
	case d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType:
		s.recreate()
	default:
		s.roll()
	}
	if d.DeletionTimestamp == nil && (d.Spec.Paused || s.complete()) {
		s.cleanup()
	}
	s.finish(now)
	return s.plan
}

func newState(d *appsv1.Deployment, sets []*appsv1.ReplicaSet, oldPods bool) *state {
	s := &state{d: d, replicas: *d.Spec.Replicas, oldPods: oldPods, plan: Plan{Scaled: map[string][2]int32{}}}
	for _, rs := range sets {
		s.sets = append(s.sets, rs.DeepCopy())
	}
	slices.SortFunc(s.sets, func(a, b *appsv1.ReplicaSet) int {
		if older(a, b) {
			return -1
		}
		return 1
	})
	s.newest = newestSet(d, s.sets)
	highest := int64(0)
	for _, rs := range s.sets {
		if s.newest == nil || rs.UID != s.newest.UID {
			s.old = append(s.old, rs)
			highest = max(highest, revisionOf(rs))
		}
	}
	for _, rs := range s.active() {
		if n, ok := annotated(rs, desiredKey); ok && n != s.replicas {
			s.resized = true
		}
	}
	revision := highest + 1
	if s.newest != nil {
		revision = max(revision, revisionOf(s.newest))
		if !d.Spec.Paused || revisionOf(s.newest) > 0 {
			s.touch(s.newest, annotate(d, s.newest, revision) || s.newest.Spec.MinReadySeconds != d.Spec.MinReadySeconds)
			s.newest.Spec.MinReadySeconds = d.Spec.MinReadySeconds
		}
	}
	if s.newest != nil && revisionOf(d) != revision {
		s.plan.Revision = revision
	}
	return s
}

// touch adds a set to the updates once.
func (s *state) touch(rs *appsv1.ReplicaSet, changed bool) {
	if changed && !slices.Contains(s.plan.Update, rs) {
		s.plan.Update = append(s.plan.Update, rs)
	}
}

// scale sets a set's wanted pods.
func (s *state) scale(rs *appsv1.ReplicaSet, n int32) {
	from := *rs.Spec.Replicas
	if from == n {
		return
	}
	if first, again := s.plan.Scaled[rs.Name]; again {
		from = first[0]
	}
	s.plan.Scaled[rs.Name] = [2]int32{from, n}
	rs.Spec.Replicas = &n
	annotate(s.d, rs, max(revisionOf(rs), 1))
	s.touch(rs, true)
}

// create plans the new set with n pods.
func (s *state) create(n int32) {
	highest := int64(0)
	for _, rs := range s.old {
		highest = max(highest, revisionOf(rs))
	}
	s.plan.Create = makeSet(s.d, int64(n), highest+1)
	s.plan.Revision = highest + 1
	s.plan.Scaled[s.plan.Create.Name] = [2]int32{0, n}
}

// recreate ends every old pod before the first new one starts.
func (s *state) recreate() {
	down := false
	for _, rs := range s.old {
		if *rs.Spec.Replicas > 0 {
			s.scale(rs, 0)
			down = true
		}
	}
	if down || s.oldPods {
		return
	}
	if s.newest == nil {
		s.create(s.replicas)
		return
	}
	s.scale(s.newest, s.replicas)
}

// complete: all pods are new and available, and none is left over.
func (s *state) complete() bool {
	st := s.d.Status
	return s.newest != nil && st.UpdatedReplicas == s.replicas && st.Replicas == s.replicas &&
		st.AvailableReplicas == s.replicas && st.ObservedGeneration >= s.d.Generation
}

// cleanup deletes the oldest empty sets beyond revisionHistoryLimit.
func (s *state) cleanup() {
	if s.d.Spec.RevisionHistoryLimit == nil {
		return
	}
	var empty []*appsv1.ReplicaSet
	for _, rs := range s.old {
		if *rs.Spec.Replicas == 0 && rs.Status.Replicas == 0 && rs.Generation <= rs.Status.ObservedGeneration && rs.DeletionTimestamp == nil {
			empty = append(empty, rs)
		}
	}
	slices.SortStableFunc(empty, func(a, b *appsv1.ReplicaSet) int { return cmp.Compare(revisionOf(a), revisionOf(b)) })
	if n := len(empty) - int(*s.d.Spec.RevisionHistoryLimit); n > 0 {
		s.plan.Delete = empty[:n]
	}
}

func surge(d *appsv1.Deployment) int32 {
	s, _ := bounds(d)
	return s
}

// bounds resolves maxSurge (rounded up) and maxUnavailable (rounded down); both zero would never move, so one may go.
func bounds(d *appsv1.Deployment) (maxSurge, maxUnavailable int32) {
	r := d.Spec.Strategy.RollingUpdate
	if d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType || r == nil {
		return 0, 0
	}
	maxSurge = resolve(r.MaxSurge, *d.Spec.Replicas, true)
	maxUnavailable = resolve(r.MaxUnavailable, *d.Spec.Replicas, false)
	if maxSurge == 0 && maxUnavailable == 0 {
		maxUnavailable = 1
	}
	return maxSurge, min(maxUnavailable, *d.Spec.Replicas)
}

func resolve(v *intstr.IntOrString, total int32, up bool) int32 {
	if v == nil {
		return 0
	}
	n, err := intstr.GetScaledValueFromIntOrPercent(v, int(total), up)
	if err != nil {
		return 0
	}
	return int32(n)
}

// annotated returns a number that we keep on a set.
func annotated(rs *appsv1.ReplicaSet, key string) (int32, bool) {
	n, err := strconv.ParseInt(rs.Annotations[key], 10, 32)
	return int32(n), err == nil
}

func sum(sets []*appsv1.ReplicaSet, f func(*appsv1.ReplicaSet) int32) (total int32) {
	for _, rs := range sets {
		total += f(rs)
	}
	return total
}

func wanted(rs *appsv1.ReplicaSet) int32    { return *rs.Spec.Replicas }
func available(rs *appsv1.ReplicaSet) int32 { return rs.Status.AvailableReplicas }
