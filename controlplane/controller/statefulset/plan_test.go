package statefulset

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"
)

var now = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func sample(replicas int32) *appsv1.StatefulSet {
	return &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "db", Namespace: "ns", UID: "db", Generation: 3},
		Spec: appsv1.StatefulSetSpec{Replicas: &replicas, ServiceName: "db", PodManagementPolicy: appsv1.OrderedReadyPodManagement,
			Selector:       &metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}},
			UpdateStrategy: appsv1.StatefulSetUpdateStrategy{Type: appsv1.RollingUpdateStatefulSetStrategyType}}}
}

// parse reads pods: "0:old 1:new:starting 2:old:going 3:new:failed 4:old:fresh"; ready since an hour unless said otherwise.
func parse(t *testing.T, set *appsv1.StatefulSet, text string) []*corev1.Pod {
	t.Helper()
	var out []*corev1.Pod
	for _, word := range strings.Fields(text) {
		parts := append(strings.Split(word, ":"), "ready")
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: set.Name + "-" + parts[0], UID: types.UID(word),
			Labels: map[string]string{appsv1.StatefulSetRevisionLabel: parts[1]}}, Status: corev1.PodStatus{Phase: corev1.PodRunning}}
		since := now.Add(-time.Hour)
		switch parts[2] {
		case "failed":
			pod.Status.Phase = corev1.PodFailed
		case "starting":
			pod.Status.Phase = corev1.PodPending
		case "fresh":
			since = now.Add(-4 * time.Second)
		case "going":
			at := metav1.NewTime(now)
			pod.DeletionTimestamp = &at
		}
		if pod.Status.Phase == corev1.PodRunning {
			pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(since)}}
		}
		out = append(out, pod)
	}
	return out
}

func describe(p plan) string {
	var out []string
	for _, n := range p.create {
		out = append(out, fmt.Sprintf("+%d", n))
	}
	for _, pod := range p.remove {
		out = append(out, "-"+strings.TrimPrefix(pod.Name, "db-"))
	}
	return strings.Join(out, " ")
}

func parallel(s *appsv1.StatefulSet) { s.Spec.PodManagementPolicy = appsv1.ParallelPodManagement }
func onDelete(s *appsv1.StatefulSet) {
	s.Spec.UpdateStrategy.Type = appsv1.OnDeleteStatefulSetStrategyType
}
func from(n int32) func(*appsv1.StatefulSet) {
	return func(s *appsv1.StatefulSet) {
		s.Spec.UpdateStrategy.RollingUpdate = &appsv1.RollingUpdateStatefulSetStrategy{Partition: &n}
	}
}
func away(n string) func(*appsv1.StatefulSet) {
	return func(s *appsv1.StatefulSet) {
		v := intstr.Parse(n)
		s.Spec.UpdateStrategy.RollingUpdate = &appsv1.RollingUpdateStatefulSetStrategy{MaxUnavailable: &v}
	}
}
func minReady(s *appsv1.StatefulSet)  { s.Spec.MinReadySeconds = 10 }
func startAt5(s *appsv1.StatefulSet)  { s.Spec.Ordinals = &appsv1.StatefulSetOrdinals{Start: 5} }
func vanishing(s *appsv1.StatefulSet) { at := metav1.NewTime(now); s.DeletionTimestamp = &at }

func TestDecide(t *testing.T) {
	type mod = func(*appsv1.StatefulSet)
	for _, c := range []struct {
		name     string
		replicas int32
		pods     string
		want     string
		mods     []mod
	}{
		{"first", 3, "", "+0", nil},
		{"waits for the lower one", 3, "0:new:starting", "", nil},
		{"next", 3, "0:new", "+1", nil},
		{"waits for minReadySeconds", 3, "0:new:fresh", "", []mod{minReady}},
		{"a hole is filled first", 3, "0:new 2:new", "+1", nil},
		{"waits until a pod of the name is gone", 3, "0:new:going", "", nil},
		{"failed is replaced", 3, "0:new 1:new:failed", "-1", nil},
		{"parallel makes all", 3, "1:new:starting", "+0 +2", []mod{parallel}},
		{"ordinals from 5", 2, "5:new", "+6", []mod{startAt5}},
		{"down from the top", 1, "0:new 1:new 2:new 3:new", "-3", nil},
		{"down waits for the one that goes", 1, "0:new 1:new 2:new 3:new:going", "", nil},
		{"down waits for the healthy ones", 2, "0:new 1:new:starting 2:new", "", nil},
		{"down to nothing", 0, "0:new", "-0", nil},
		{"down: the only unhealthy one goes", 1, "0:new 1:new 2:new:starting", "-2", nil},
		{"down: all unhealthy stay", 0, "0:new:starting 1:new:starting 2:new:starting", "", nil},
		{"down: the last unhealthy one goes", 0, "0:new:starting", "-0", nil},
		{"down: what has ended is not waited for", 0, "0:new:failed 1:new:failed", "-1", nil},
		{"parallel down, all unhealthy", 0, "0:new:starting 1:new:starting", "-1 -0", []mod{parallel}},
		{"the revision's whole name, as of now, and the hash alone", 3, "0:old 1:db-new 2:db-new", "-0", nil},
		{"parallel down", 1, "0:new 1:new 2:new 3:new:going", "-2 -1", []mod{parallel}},
		{"update from the top", 3, "0:old 1:old 2:old", "-2", nil},
		{"update goes on", 3, "0:old 1:old 2:new", "-1", nil},
		{"update waits", 3, "0:old 1:old 2:new:starting", "", nil},
		{"partition", 3, "0:old 1:old 2:new", "", []mod{from(2)}},
		{"partition beyond", 3, "0:old 1:old 2:old", "", []mod{from(9)}},
		{"on delete", 3, "0:old 1:old 2:old", "", []mod{onDelete}},
		{"two may be away", 4, "0:old 1:old 2:old 3:old", "-3 -2", []mod{away("50%")}},
		{"parallel: a broken old pod does not stop its own repair", 3, "0:old 1:old:starting 2:old", "-1", []mod{parallel}},
		{"parallel: a lower new one that starts counts", 3, "0:new:starting 1:old 2:old", "", []mod{parallel}},
		{"parallel: missing counts", 2, "1:old", "+0", []mod{parallel}},
		{"deleted", 3, "", "", []mod{vanishing}},
	} {
		set := sample(c.replicas)
		for _, m := range c.mods {
			m(set)
		}
		p := decide(input{set: set, pods: parse(t, set, c.pods), current: "old", update: "new", now: now})
		if got := describe(p); got != c.want {
			t.Errorf("%s: %s: %q, want %q", c.name, c.pods, got, c.want)
		}
	}
}

func TestStatus(t *testing.T) {
	set := sample(4)
	minReady(set)
	p := decide(input{set: set, pods: parse(t, set, "0:old 1:old:fresh 2:new:starting 3:new:going"), current: "old", update: "new", now: now})
	st := p.status
	if st.Replicas != 4 || st.ReadyReplicas != 2 || st.AvailableReplicas != 1 || st.CurrentReplicas != 2 || st.UpdatedReplicas != 1 ||
		st.CurrentRevision != "db-old" || st.UpdateRevision != "db-new" || st.ObservedGeneration != 3 || p.again != 6*time.Second {
		t.Fatalf("%+v again %s", st, p.again)
	}
	set = sample(2)
	st = decide(input{set: set, pods: parse(t, set, "0:new 1:new"), current: "old", update: "new", now: now}).status
	if st.CurrentRevision != "db-new" || st.CurrentReplicas != 2 {
		t.Fatalf("a rollout that has ended: %+v", st)
	}
}

func TestOrdinal(t *testing.T) {
	set := sample(1)
	for name, want := range map[string]int{"db-0": 0, "db-12": 12, "db-01": -1, "db-": -1, "db--1": -1, "other-1": -1, "db-1-2": -1} {
		if n, ok := ordinal(set, name); ok != (want >= 0) || ok && n != want {
			t.Errorf("%s: %d %v", name, n, ok)
		}
	}
}

func TestIdentity(t *testing.T) {
	set := sample(3)
	set.Spec.VolumeClaimTemplates = []corev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data"}}}
	template := &corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "db"}},
		Spec: corev1.PodSpec{Volumes: []corev1.Volume{{Name: "data"}, {Name: "scratch"}}}}
	pod := makePod(set, template, "h", 2)
	if pod.Name != "db-2" || pod.Spec.Hostname != "db-2" || pod.Spec.Subdomain != "db" || pod.Labels[appsv1.PodIndexLabel] != "2" ||
		pod.Labels[appsv1.StatefulSetPodNameLabel] != "db-2" || pod.Labels[appsv1.StatefulSetRevisionLabel] != "db-h" {
		t.Fatalf("%+v", pod)
	}
	if len(pod.Spec.Volumes) != 2 || pod.Spec.Volumes[0].PersistentVolumeClaim.ClaimName != "data-db-2" || pod.Spec.Volumes[1].Name != "scratch" {
		t.Fatalf("%+v", pod.Spec.Volumes)
	}
	if len(template.Labels) != 1 {
		t.Fatal("the template was changed")
	}
	if c := claims(set, 2); len(c) != 1 || c[0].Name != "data-db-2" || c[0].Labels["app"] != "db" || len(c[0].OwnerReferences) != 0 {
		t.Fatalf("%+v", c)
	}
	set.Spec.PersistentVolumeClaimRetentionPolicy = &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{WhenDeleted: appsv1.DeletePersistentVolumeClaimRetentionPolicyType}
	if c := claims(set, 2); len(c[0].OwnerReferences) != 1 {
		t.Fatal("whenDeleted: Delete gives the claims no owner")
	}
}

// In order, whatever happens to the pods: a pod is made only if all lower ones serve, one leaves at a time from the top,
// and never are two made with one name. At the end all have the new template.
func TestOrderHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int32Range(0, 5).Draw(t, "replicas")
		set := sample(n)
		state := map[int]string{} // ordinal -> "rev:phase"
		text := func() string {
			var out []string
			for i, s := range state {
				out = append(out, fmt.Sprintf("%d:%s", i, s))
			}
			slices.Sort(out)
			return strings.Join(out, " ")
		}
		step := func() plan {
			p := decide(input{set: set, pods: parse(&testing.T{}, set, text()), current: "old", update: "new", now: now})
			if len(p.create)+len(p.remove) > 1 {
				t.Fatalf("%s: more than one step: %s", text(), describe(p))
			}
			for _, i := range p.create {
				for j := range i {
					if s := state[j]; s != "old:ready" && s != "new:ready" {
						t.Fatalf("%s: %d is made before %d serves", text(), i, j)
					}
				}
				if state[i] != "" {
					t.Fatalf("%s: two of %d", text(), i)
				}
				rev := "new:starting"
				if !wantsUpdate(set, i) {
					rev = "old:starting"
				}
				state[i] = rev
			}
			for _, pod := range p.remove {
				i, _ := ordinal(set, pod.Name)
				state[i] = strings.SplitN(state[i], ":", 2)[0] + ":going"
			}
			return p
		}
		for i := range n {
			state[int(i)] = "old:ready"
		}
		for range rapid.IntRange(0, 40).Draw(t, "steps") {
			i := rapid.IntRange(0, 5).Draw(t, "pod")
			rev, phase, _ := strings.Cut(state[i], ":")
			switch what := rapid.IntRange(0, 4).Draw(t, "what"); {
			case what == 0:
				step()
			case what == 1:
				*set.Spec.Replicas = rapid.Int32Range(0, 5).Draw(t, "size")
			case what == 2 && phase == "starting":
				state[i] = rev + ":ready"
			case what == 3 && phase == "ready":
				state[i] = rev + ":failed"
			case what == 4 && phase == "going":
				delete(state, i)
			}
		}
		for range 200 {
			step()
			for i, s := range state {
				rev, phase, _ := strings.Cut(s, ":")
				if phase == "starting" {
					state[i] = rev + ":ready"
				} else if phase == "going" {
					delete(state, i)
				}
			}
		}
		if len(state) != int(*set.Spec.Replicas) || strings.Contains(text(), "old") {
			t.Fatalf("%d wanted, there are: %s", *set.Spec.Replicas, text())
		}
	})
}
