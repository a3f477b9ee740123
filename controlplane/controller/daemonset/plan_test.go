package daemonset

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
)

var now = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func sample(unavailable, surge string) *appsv1.DaemonSet {
	u, s := intstr.Parse(unavailable), intstr.Parse(surge)
	return &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: "agent", Namespace: "ns", UID: "agent", Generation: 2},
		Spec: appsv1.DaemonSetSpec{UpdateStrategy: appsv1.DaemonSetUpdateStrategy{Type: appsv1.RollingUpdateDaemonSetStrategyType,
			RollingUpdate: &appsv1.RollingUpdateDaemonSet{MaxUnavailable: &u, MaxSurge: &s}}}}
}

// nodes reads "a b:taint=NoSchedule c:zone=x": an effect makes a taint, else a label.
func nodes(text string) []*corev1.Node {
	var out []*corev1.Node
	for _, word := range strings.Fields(text) {
		name, more, _ := strings.Cut(word, ":")
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{}}}
		if key, value, ok := strings.Cut(more, "="); ok && strings.HasPrefix(value, "No") {
			n.Spec.Taints = []corev1.Taint{{Key: key, Effect: corev1.TaintEffect(value)}}
		} else if ok {
			n.Labels[key] = value
		}
		out = append(out, n)
	}
	return out
}

// pods reads "a:old b:new:starting c:old:going d:new:failed e:new:pinned"; a pinned one waits for the scheduler.
func pods(text string) []*corev1.Pod {
	var out []*corev1.Pod
	for i, word := range strings.Fields(text) {
		parts := append(strings.Split(word, ":"), "ready")
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: parts[0] + "-" + parts[1], UID: types.UID(word), CreationTimestamp: metav1.NewTime(now.Add(time.Duration(i) * time.Second)),
			Labels: map[string]string{appsv1.DefaultDaemonSetUniqueLabelKey: parts[1]}},
			Spec: corev1.PodSpec{NodeName: parts[0]}, Status: corev1.PodStatus{Phase: corev1.PodRunning}}
		switch parts[2] {
		case "ready":
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(now.Add(-5 * time.Second))}}
		case "failed":
			p.Status.Phase = corev1.PodFailed
		case "going":
			at := metav1.NewTime(now)
			p.DeletionTimestamp = &at
		case "pinned":
			p.Spec.NodeName = ""
			p.Status.Phase = corev1.PodPending
			pin(p, parts[0])
		}
		out = append(out, p)
	}
	return out
}

func describe(p plan) string {
	var out []string
	for _, n := range p.create {
		out = append(out, "+"+n)
	}
	for _, pod := range p.remove {
		out = append(out, "-"+pod.Name)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestDecide(t *testing.T) {
	for _, c := range []struct {
		name, unavailable, surge, nodes, pods, want string
	}{
		{"one on each node", "1", "0", "a b", "", "+a +b"},
		{"there already", "1", "0", "a b", "a:new b:new:pinned", ""},
		{"not where a taint forbids", "1", "0", "a b:k=NoSchedule", "", "+a"},
		{"stays under NoSchedule", "1", "0", "b:k=NoSchedule", "b:new", ""},
		{"goes under NoExecute", "1", "0", "b:k=NoExecute", "b:new", "-b-new"},
		{"a node's troubles are tolerated", "1", "0", "b:" + corev1.TaintNodeUnreachable + "=NoExecute c:" + corev1.TaintNodeDiskPressure + "=NoSchedule", "b:new", "+c"},
		{"of a node that is gone", "1", "0", "a", "a:new b:new", "-b-new"},
		{"failed", "1", "0", "a", "a:new:failed", "-a-new"},
		{"waits until it is gone", "1", "0", "a", "a:new:going", ""},
		{"two on a node: the older stays", "1", "0", "a", "a:new a:old", "-a-old"},
		{"update one at a time", "1", "0", "a b c", "a:old b:old c:old", "-a-old"},
		{"update waits", "1", "0", "a b c", "a:new:starting b:old c:old", ""},
		{"update waits for what goes", "1", "0", "a b c", "a:old:going b:old c:old", ""},
		{"update goes on", "1", "0", "a b c", "a:new b:old c:old", "-b-old"},
		{"a broken old one costs nothing", "1", "0", "a b c", "a:new:starting b:old c:old:starting", "-c-old"},
		{"percent of the nodes that count", "50%", "0", "a b c:k=NoSchedule d:k=NoSchedule", "a:old b:old", "-a-old"},
		{"surge makes the new one first", "0", "1", "a b", "a:old b:old", "+a"},
		{"surge waits", "0", "1", "a b", "a:old a:new:starting b:old", ""},
		{"surge then ends the old one and goes on", "0", "1", "a b", "a:old a:new b:old", "+b -a-old"},
	} {
		p := decide(input{set: sample(c.unavailable, c.surge), hash: "new", nodes: nodes(c.nodes), pods: pods(c.pods), now: now})
		if got := describe(p); got != c.want {
			t.Errorf("%s: nodes %s, pods %s: %q, want %q", c.name, c.nodes, c.pods, got, c.want)
		}
	}
}

func TestNodeSelectorAndAffinity(t *testing.T) {
	set := sample("1", "0")
	set.Spec.Template.Spec.NodeSelector = map[string]string{"disk": "ssd"}
	in := input{set: set, hash: "new", nodes: nodes("a b:disk=ssd c:disk=hdd"), pods: pods("c:new"), now: now}
	if got := describe(decide(in)); got != "+b -c-new" {
		t.Fatal(got)
	}
	pod := podFor(set, "new", "b")
	if nodeOf(pod) != "b" || pod.Labels[appsv1.DefaultDaemonSetUniqueLabelKey] != "new" || len(pod.OwnerReferences) != 1 {
		t.Fatalf("%+v", pod)
	}
	if set.Spec.Template.Spec.Affinity != nil {
		t.Fatal("the template was changed")
	}
}

func TestStatus(t *testing.T) {
	set := sample("1", "0")
	set.Spec.MinReadySeconds = 10
	p := decide(input{set: set, hash: "new", nodes: nodes("a b c d:k=NoSchedule"), pods: pods("a:new b:old:starting d:new"), now: now})
	want := appsv1.DaemonSetStatus{ObservedGeneration: 2, DesiredNumberScheduled: 3, CurrentNumberScheduled: 2, NumberMisscheduled: 1, NumberReady: 1,
		UpdatedNumberScheduled: 1, NumberUnavailable: 3}
	if fmt.Sprint(p.status) != fmt.Sprint(want) || p.again != 5*time.Second {
		t.Fatalf("%+v again %s\nwant %+v", p.status, p.again, want)
	}
}

// A rollout under any limits ends, and by its own doing never has more nodes without a daemon than allowed.
func TestRolloutEnds(t *testing.T) {
	for _, limit := range [][2]string{{"1", "0"}, {"2", "0"}, {"100%", "0"}, {"0", "1"}, {"0", "50%"}} {
		state := map[string]string{"a-old": "ready", "b-old": "ready", "c-old": "ready", "d-old": "ready"}
		text := func() string {
			var out []string
			for k, v := range state {
				node, rev, _ := strings.Cut(k, "-")
				out = append(out, node+":"+rev+":"+v)
			}
			slices.Sort(out)
			return strings.Join(out, " ")
		}
		set := sample(limit[0], limit[1])
		most, _ := limits(set, 4)
		for range 40 {
			p := decide(input{set: set, hash: "new", nodes: nodes("a b c d"), pods: pods(text()), now: now})
			for _, n := range p.create {
				state[n+"-new"] = "starting"
			}
			for _, pod := range p.remove {
				state[pod.Name] = "going"
			}
			served := 0
			for _, n := range []string{"a", "b", "c", "d"} {
				if state[n+"-old"] == "ready" || state[n+"-new"] == "ready" {
					served++
				}
			}
			if served < 4-most {
				t.Fatalf("%v: %d served: %s", limit, served, text())
			}
			if len(p.create)+len(p.remove) > 0 {
				continue
			}
			for k, v := range state {
				if v == "going" {
					delete(state, k)
				} else {
					state[k] = "ready"
				}
			}
		}
		if got := text(); got != "a:new:ready b:new:ready c:new:ready d:new:ready" {
			t.Errorf("%v ends with %s", limit, got)
		}
	}
}

// TestNames: a pod's name stays until the pod is seen, so that a lagging cache makes no second one; the pod after it has another.
func TestNames(t *testing.T) {
	s := &spreader{last: map[string]map[string]types.UID{}}
	set := sample("1", "0")
	name := func(seen ...*corev1.Pod) string { return suffix(set, "new", "a", s.seen("ns/agent", seen)["a"]) }
	first := name()
	if again := name(); again != first {
		t.Errorf("without a pod seen: %s, then %s", first, again)
	}
	second := name(pods("a:old a:new")...)
	if second == first {
		t.Errorf("after a pod was seen the next is %s again", second)
	}
	if again := name(); again != second {
		t.Errorf("once the pod is gone: %s, want %s", again, second)
	}
	if other := suffix(set, "new", "b", s.seen("ns/agent", nil)["b"]); other == first || other == second {
		t.Errorf("another node's pod is %s too", other)
	}
}
