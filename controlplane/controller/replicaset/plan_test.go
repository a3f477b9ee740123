package replicaset

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

var now = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

type option func(*corev1.Pod)

func pod(name string, opts ...option) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), CreationTimestamp: metav1.NewTime(now.Add(-time.Hour))},
		Spec: corev1.PodSpec{NodeName: "n-" + name}, Status: corev1.PodStatus{Phase: corev1.PodRunning}}
	ready(time.Hour)(p)
	for _, o := range opts {
		o(p)
	}
	return p
}

func ready(ago time.Duration) option {
	return func(p *corev1.Pod) {
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(now.Add(-ago))}}
	}
}
func unready(p *corev1.Pod)  { p.Status.Conditions = nil }
func deleting(p *corev1.Pod) { at := metav1.NewTime(now); p.DeletionTimestamp = &at }
func node(n string) option   { return func(p *corev1.Pod) { p.Spec.NodeName = n } }
func phase(ph corev1.PodPhase) option {
	return func(p *corev1.Pod) { p.Status.Phase = ph }
}
func costs(c string) option {
	return func(p *corev1.Pod) { p.Annotations = map[string]string{deletionCost: c} }
}
func restarted(n int32) option {
	return func(p *corev1.Pod) { p.Status.ContainerStatuses = []corev1.ContainerStatus{{RestartCount: n}} }
}
func born(ago time.Duration) option {
	return func(p *corev1.Pod) { p.CreationTimestamp = metav1.NewTime(now.Add(-ago)) }
}

// The least valuable pod goes first, in upstream's order of reasons: each pod below loses to the next by one reason.
func TestVictimsOrder(t *testing.T) {
	ordered := []*corev1.Pod{
		pod("unscheduled", node(""), phase(corev1.PodPending), unready, costs("100")),
		pod("pending", phase(corev1.PodPending), unready, costs("90")),
		pod("unknown", phase(corev1.PodUnknown), costs("80")),
		pod("unready", unready, costs("70")),
		pod("cheap", costs("-10"), ready(10*time.Hour)),
		pod("crowded1", node("full"), ready(9*time.Hour)),
		pod("crowded2", node("full"), ready(10*time.Hour)),
		pod("fresh", ready(time.Minute)),
		pod("restarted", restarted(3)),
		pod("young", born(30*time.Minute)),
		pod("plain"),
		pod("dear", costs("10"), ready(time.Second)),
	}
	var want []string
	for _, p := range ordered {
		want = append(want, p.Name)
	}
	shuffled := append([]*corev1.Pod{pod("gone", deleting), pod("ended", phase(corev1.PodFailed))}, ordered...)
	for seed := range uint64(20) {
		rand.New(rand.NewPCG(seed, 0)).Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		var got []string
		for _, p := range victims(shuffled, 100) {
			got = append(got, p.Name)
		}
		if strings.Join(got, " ") != strings.Join(want, " ") {
			t.Fatalf("seed %d\ngot  %v\nwant %v", seed, got, want)
		}
	}
	if got := victims(shuffled, 2); len(got) != 2 || got[1].Name != "pending" {
		t.Fatalf("%v", got)
	}
}

func TestCount(t *testing.T) {
	labels := func(p *corev1.Pod) { p.Labels = map[string]string{"app": "web", "more": "x"} }
	pods := []*corev1.Pod{
		pod("old", labels), pod("fresh", ready(4*time.Second)), pod("fresher", labels, ready(2*time.Second)), pod("starting", labels, unready),
		pod("leaving", labels, deleting), pod("failed", phase(corev1.PodFailed)), pod("failed-leaving", phase(corev1.PodFailed), deleting),
	}
	c := count(pods, map[string]string{"app": "web"}, 10*time.Second, now)
	want := counts{replicas: 4, labeled: 3, ready: 3, available: 1, terminating: 1, next: 6 * time.Second}
	if c != want {
		t.Fatalf("%+v, want %+v", c, want)
	}
	if c := count(pods, nil, 0, now); c.available != 3 || c.next != 0 {
		t.Fatalf("without minReadySeconds: %+v", c)
	}
}

// Each failing try names another pod; a status that followed would wake the controller again, at once and for ever.
func TestFailureConditionIsStable(t *testing.T) {
	first := failureCondition(nil, errors.New(`pods "web-abcde" is forbidden`), true)
	second := failureCondition(first, errors.New(`pods "web-fghij" is forbidden`), true)
	if len(first) != 1 || len(second) != 1 || first[0] != second[0] || first[0].Reason != "FailedCreate" {
		t.Fatalf("%+v then %+v", first, second)
	}
	if got := failureCondition(second, errors.New("no"), false); len(got) != 1 || got[0].Reason != "FailedDelete" {
		t.Fatalf("%+v", got)
	}
	if got := failureCondition(second, nil, false); len(got) != 0 {
		t.Fatalf("%+v", got)
	}
}
