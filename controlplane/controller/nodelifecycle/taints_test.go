package nodelifecycle

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var now = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func node(conditions ...string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}
	for _, c := range conditions {
		t, s, _ := strings.Cut(c, "=")
		n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{Type: corev1.NodeConditionType(t), Status: corev1.ConditionStatus(s)})
	}
	return n
}

func words(taints []corev1.Taint) string {
	var out []string
	for _, t := range taints {
		out = append(out, strings.TrimPrefix(t.Key, "node.kubernetes.io/")+":"+string(t.Effect))
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestTaintsFollowConditions(t *testing.T) {
	cordoned := node("Ready=True")
	cordoned.Spec.Unschedulable = true
	for _, c := range []struct {
		node *corev1.Node
		want string
	}{
		{node("Ready=True"), ""},
		{node(), "not-ready:NoExecute not-ready:NoSchedule"},
		{node("Ready=False"), "not-ready:NoExecute not-ready:NoSchedule"},
		{node("Ready=Unknown"), "unreachable:NoExecute unreachable:NoSchedule"},
		{node("Ready=True", "MemoryPressure=True", "DiskPressure=True", "PIDPressure=Unknown"), "disk-pressure:NoSchedule memory-pressure:NoSchedule"},
		{node("Ready=True", "NetworkUnavailable=True"), "network-unavailable:NoSchedule"},
		{cordoned, "unschedulable:NoSchedule"},
	} {
		if got := words(wanted(c.node)); got != c.want {
			t.Errorf("%v: %q, want %q", c.node.Status.Conditions, got, c.want)
		}
	}
}

func TestRetaint(t *testing.T) {
	n := node("Ready=Unknown")
	since := metav1.NewTime(now.Add(-time.Minute))
	mine := corev1.Taint{Key: "mine", Effect: corev1.TaintEffectNoExecute}
	n.Spec.Taints = []corev1.Taint{mine, {Key: corev1.TaintNodeUnreachable, Effect: corev1.TaintEffectNoExecute, TimeAdded: &since},
		{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoExecute}}
	out, changed := retaint(n, metav1.NewTime(now))
	if !changed || words(out) != "mine:NoExecute unreachable:NoExecute unreachable:NoSchedule" {
		t.Fatalf("%v %s", changed, words(out))
	}
	if !out[1].TimeAdded.Equal(&since) {
		t.Fatal("the time of a taint that stays was changed: tolerations would begin anew")
	}
	n.Spec.Taints = out
	if _, changed := retaint(n, metav1.NewTime(now)); changed {
		t.Fatal("what is right is changed again")
	}
	n.Status.Conditions = node("Ready=True").Status.Conditions
	if out, _ := retaint(n, metav1.NewTime(now)); words(out) != "mine:NoExecute" {
		t.Fatal(words(out))
	}
}

func TestStay(t *testing.T) {
	added := metav1.NewTime(now.Add(-time.Minute))
	unreachable := corev1.Taint{Key: corev1.TaintNodeUnreachable, Effect: corev1.TaintEffectNoExecute, TimeAdded: &added}
	for _, c := range []struct {
		name        string
		tolerations string // key/operator/effect/seconds
		taints      []corev1.Taint
		want        string
	}{
		{"no taint", "", nil, "forever"},
		{"only NoSchedule", "", []corev1.Taint{{Key: "k", Effect: corev1.TaintEffectNoSchedule}}, "forever"},
		{"not tolerated", "other/Exists/NoExecute/", []corev1.Taint{unreachable}, "0s"},
		{"for ever", corev1.TaintNodeUnreachable + "/Exists/NoExecute/", []corev1.Taint{unreachable}, "forever"},
		{"everything", "/Exists//", []corev1.Taint{unreachable}, "forever"},
		{"300 s since the taint", corev1.TaintNodeUnreachable + "/Exists/NoExecute/300", []corev1.Taint{unreachable}, "4m0s"},
		{"over", corev1.TaintNodeUnreachable + "/Exists/NoExecute/30", []corev1.Taint{unreachable}, "-30s"},
		{"the shortest", "/Exists// " + corev1.TaintNodeUnreachable + "/Exists/NoExecute/120", []corev1.Taint{unreachable}, "1m0s"},
		{"one of two", corev1.TaintNodeUnreachable + "/Exists/NoExecute/300", []corev1.Taint{unreachable, {Key: "x", Effect: corev1.TaintEffectNoExecute}}, "0s"},
		{"other value", "x/Equal/NoExecute/", []corev1.Taint{{Key: "x", Value: "v", Effect: corev1.TaintEffectNoExecute}}, "0s"},
		{"negative is at once", "x/Exists/NoExecute/-5", []corev1.Taint{{Key: "x", Effect: corev1.TaintEffectNoExecute, TimeAdded: &added}}, "-1m0s"},
	} {
		pod := &corev1.Pod{}
		for _, word := range strings.Fields(c.tolerations) {
			i := strings.LastIndex(word, "/Exists/")
			op := "Exists"
			if i < 0 {
				i, op = strings.LastIndex(word, "/Equal/"), "Equal"
			}
			effect, seconds, _ := strings.Cut(word[i+len(op)+2:], "/")
			tol := corev1.Toleration{Key: word[:i], Operator: corev1.TolerationOperator(op), Effect: corev1.TaintEffect(effect)}
			if seconds != "" {
				var n int64
				if _, err := fmt.Sscan(seconds, &n); err != nil {
					t.Fatal(err)
				}
				tol.TolerationSeconds = &n
			}
			pod.Spec.Tolerations = append(pod.Spec.Tolerations, tol)
		}
		until, forever := stay(pod, c.taints, now)
		got := "forever"
		if !forever {
			got = until.Sub(now).String()
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestSilence(t *testing.T) {
	n := node("Ready=True", "MemoryPressure=False")
	if !silence(&n.Status, metav1.NewTime(now)) {
		t.Fatal("nothing changed")
	}
	for _, c := range n.Status.Conditions {
		if c.Status != corev1.ConditionUnknown || c.LastTransitionTime.IsZero() {
			t.Errorf("%+v", c)
		}
	}
	if len(n.Status.Conditions) != 4 || silence(&n.Status, metav1.NewTime(now)) {
		t.Fatalf("%+v", n.Status.Conditions)
	}
}

// TestUndatedTaint: a taint that somebody added without a time counts from when it was first seen, also at the next look; once it was away, anew.
func TestUndatedTaint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &watcher{tainted: map[string]map[string]time.Time{}}
		mine := []corev1.Taint{{Key: "mine", Value: "v", Effect: corev1.TaintEffectNoExecute}}
		pod := &corev1.Pod{Spec: corev1.PodSpec{Tolerations: []corev1.Toleration{{Key: "mine", Operator: corev1.TolerationOpExists, TolerationSeconds: new(int64)}}}}
		*pod.Spec.Tolerations[0].TolerationSeconds = 5
		left := func() time.Duration {
			until, forever := stay(pod, w.counted("n", mine), time.Now())
			if forever {
				t.Error("the pod may stay for ever")
			}
			return time.Until(until)
		}
		if got := left(); got != 5*time.Second {
			t.Errorf("at first %s are left, want 5 s", got)
		}
		time.Sleep(3 * time.Second)
		if got := left(); got != 2*time.Second {
			t.Errorf("3 s later %s are left, want 2 s", got)
		}
		pod.CreationTimestamp = metav1.Now()
		if got := left(); got != 5*time.Second {
			t.Errorf("to a pod that came to the tainted node %s are left, want 5 s", got)
		}
		pod.CreationTimestamp = metav1.Time{}
		w.counted("n", nil)
		if got := left(); got != 5*time.Second {
			t.Errorf("once the taint was away %s are left, want 5 s", got)
		}
	})
}
