package deployment

import (
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

// sizes says who wants how many, oldest set first.
func sizes(c *cluster) string {
	var out []string
	for _, rs := range c.sets {
		out = append(out, fmt.Sprintf("%s=%d", rs.Spec.Template.Spec.Containers[0].Image, wanted(rs)))
	}
	return strings.Join(out, " ")
}

func TestBounds(t *testing.T) {
	for _, c := range []struct {
		replicas           int32
		surge, unavailable string
		wantSurge, wantUna int32
	}{
		{10, "25%", "25%", 3, 2}, // up, down
		{1, "25%", "25%", 1, 0},
		{4, "0", "0", 0, 1},
		{4, "0%", "10%", 0, 1},
		{3, "2", "5", 2, 3},
		{0, "1", "1", 1, 0},
	} {
		surge, unavailable := bounds(sample(c.replicas, c.surge, c.unavailable))
		if surge != c.wantSurge || unavailable != c.wantUna {
			t.Errorf("%d replicas, %s/%s: surge %d unavailable %d, want %d and %d", c.replicas, c.surge, c.unavailable, surge, unavailable, c.wantSurge, c.wantUna)
		}
	}
}

func TestRollingStepByStep(t *testing.T) {
	c := newCluster(sample(10, "3", "2"))
	c.settle(t)
	c.image("v2")
	steps := []struct {
		act  func()
		want string
	}{
		{func() {}, "v1=10 v2=3"},
		{func() {}, "v1=8 v2=3"}, // two may be away
		{func() {}, "v1=8 v2=5"}, // which makes room above
		{func() {}, "v1=8 v2=5"}, // none of the new ones serves yet
		{func() { c.sync(0); c.observe(0); c.sync(1); c.observe(1) }, "v1=8 v2=5"},
		{func() { c.become(1, 3); c.observe(1) }, "v1=5 v2=5"},
		{func() {}, "v1=5 v2=8"},
	}
	for i, s := range steps {
		s.act()
		c.pass()
		if got := sizes(c); got != s.want {
			t.Fatalf("step %d: %s, want %s", i, got, s.want)
		}
	}
	c.settle(t)
	if got := sizes(c); got != "v1=0 v2=10" {
		t.Fatal(got)
	}
}

// Pods of an old, broken template serve nobody: they go before any that do.
func TestBrokenOldPodsGoFirst(t *testing.T) {
	c := newCluster(sample(4, "1", "0"))
	c.settle(t)
	c.image("broken")
	c.pass()
	c.sync(1)
	c.observe(1)
	c.image("v3")
	c.pass()
	if got := sizes(c); got != "v1=4 broken=1 v3=0" {
		t.Fatal(got)
	}
	c.pass()
	if got := sizes(c); got != "v1=4 broken=0 v3=0" {
		t.Fatal(got)
	}
	c.settle(t)
}

func TestRecreate(t *testing.T) {
	c := newCluster(sample(3, "1", "1"))
	c.d.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}
	c.settle(t)
	c.image("v2")
	c.pass()
	c.pass() // the old pods are still there
	if got := sizes(c); got != "v1=0" {
		t.Fatal(got)
	}
	c.sync(0)
	c.pass()
	if got := sizes(c); got != "v1=0 v2=3" {
		t.Fatal(got)
	}
	c.settle(t)
}

func TestPause(t *testing.T) {
	c := newCluster(sample(3, "1", "1"))
	c.settle(t)
	c.d.Spec.Paused = true
	c.image("v2")
	c.pass()
	if got := sizes(c); got != "v1=3" {
		t.Fatalf("a paused Deployment rolls: %s", got)
	}
	if got := reason(c); got != "Unknown DeploymentPaused" {
		t.Fatal(got)
	}
	c.resize(5)
	c.pass()
	if got := sizes(c); got != "v1=5" {
		t.Fatalf("a paused Deployment is still scaled: %s", got)
	}
	c.d.Spec.Paused = false
	c.now = c.now.Add(time.Hour) // longer than the deadline
	plan := c.pass()
	if plan.Create == nil || strings.Contains(reason(c), "Deadline") {
		t.Fatalf("resumed: %s, %s", sizes(c), reason(c))
	}
	c.settle(t)
}

// A Deployment that was scaled to nothing, changed and paused is scaled by its latest set.
func TestPauseAtZero(t *testing.T) {
	c := newCluster(sample(2, "1", "1"))
	c.settle(t)
	c.image("v2")
	c.settle(t)
	c.resize(0)
	c.settle(t)
	c.d.Spec.Paused = true
	c.image("v3")
	c.pass()
	c.resize(2)
	c.pass()
	if got := sizes(c); got != "v1=0 v2=2" {
		t.Fatal(got)
	}
}

func TestProportion(t *testing.T) {
	for _, c := range []struct {
		from, to, want string
		replicas       int32
	}{
		{"v1=10 v2=5", "", "v1=15 v2=7", 20}, // 22 = 20 + 2
		{"v1=5 v2=10", "", "v1=7 v2=15", 20},
		{"v1=6 v2=6", "", "v1=11 v2=11", 20}, // the newer set takes what rounding leaves
		{"v1=8 v2=4", "", "v1=5 v2=2", 5},
		{"v1=8 v2=4", "", "v1=0 v2=0", 0},
	} {
		k := newCluster(sample(10, "2", "2"))
		k.settle(t)
		k.image("v2")
		k.pass()
		var a, b int32
		if _, err := fmt.Sscanf(c.from, "v1=%d v2=%d", &a, &b); err != nil {
			t.Fatal(err)
		}
		k.sets[0].Spec.Replicas, k.sets[1].Spec.Replicas = &a, &b
		k.resize(c.replicas)
		k.pass()
		if got := sizes(k); got != c.want {
			t.Errorf("%s to %d: %s, want %s", c.from, c.replicas, got, c.want)
		}
		k.settle(t)
	}
}

func TestRevisions(t *testing.T) {
	c := newCluster(sample(2, "1", "1"))
	limit := int32(2)
	c.d.Spec.RevisionHistoryLimit = &limit
	for _, v := range []string{"v1", "v2", "v3"} {
		c.image(v)
		c.settle(t)
	}
	if got := c.d.Annotations[revisionKey]; got != "3" {
		t.Fatalf("revision %s", got)
	}
	c.image("v1") // kubectl rollout undo --to-revision=1
	c.settle(t)
	rs := newestSet(c.d, c.sets)
	if c.d.Annotations[revisionKey] != "4" || rs.Annotations[revisionKey] != "4" || rs.Annotations[historyKey] != "1" || len(c.sets) != 3 {
		t.Fatalf("after a rollback: deployment %v, set %v, %d sets", c.d.Annotations, rs.Annotations, len(c.sets))
	}
	c.image("v4")
	c.settle(t)
	var kept []string
	for _, rs := range c.sets {
		kept = append(kept, rs.Annotations[revisionKey])
	}
	if got := strings.Join(kept, " "); got != "4 3 5" && got != "3 4 5" {
		t.Fatalf("history limit 2 keeps %s", got)
	}
}

func TestHashLabel(t *testing.T) {
	d := sample(1, "1", "1")
	d.Annotations = map[string]string{"note": "yes", corev1.LastAppliedConfigAnnotation: "{}", revisionKey: "7"}
	rs := makeSet(d, 1, 8)
	hash := rs.Labels[appsv1.DefaultDeploymentUniqueLabelKey]
	if hash == "" || rs.Name != "web-"+hash || rs.Spec.Selector.MatchLabels[appsv1.DefaultDeploymentUniqueLabelKey] != hash ||
		rs.Spec.Template.Labels[appsv1.DefaultDeploymentUniqueLabelKey] != hash {
		t.Fatalf("%+v", rs)
	}
	if rs.Annotations["note"] != "yes" || rs.Annotations[corev1.LastAppliedConfigAnnotation] != "" || rs.Annotations[revisionKey] != "8" {
		t.Fatal(rs.Annotations)
	}
	if d.Spec.Template.Labels[appsv1.DefaultDeploymentUniqueLabelKey] != "" {
		t.Fatal("the Deployment's own template was changed")
	}
	one := int32(1)
	if templateHash(&d.Spec.Template, &one) == hash {
		t.Fatal("a collision gives the same name again")
	}
}

// reason is what kubectl rollout status and helm look at.
func reason(c *cluster) string {
	p := find(c.d.Status.Conditions, appsv1.DeploymentProgressing)
	if p == nil {
		return "none"
	}
	return string(p.Status) + " " + p.Reason
}

func TestConditionsOfARollout(t *testing.T) {
	c := newCluster(sample(2, "1", "0"))
	c.pass()
	if got := reason(c); got != "True NewReplicaSetCreated" {
		t.Fatal(got)
	}
	if a := find(c.d.Status.Conditions, appsv1.DeploymentAvailable); a == nil || a.Status != corev1.ConditionFalse || a.Reason != "MinimumReplicasUnavailable" {
		t.Fatalf("%+v", a)
	}
	c.settle(t)
	if got := reason(c); got != "True NewReplicaSetAvailable" {
		t.Fatal(got)
	}
	if a := find(c.d.Status.Conditions, appsv1.DeploymentAvailable); a.Status != corev1.ConditionTrue {
		t.Fatalf("%+v", a)
	}
	// Days later a pod fails, and the Deployment is scaled where there is no room: no rollout has failed.
	c.now = c.now.Add(72 * time.Hour)
	c.pods[c.sets[0].UID].ready, c.pods[c.sets[0].UID].starting = 1, 1
	c.observe(0)
	c.pass()
	c.resize(3)
	c.pass()
	c.sync(0)
	c.observe(0)
	c.pass()
	if got := reason(c); got != "True NewReplicaSetAvailable" {
		t.Fatal(got)
	}
}

func TestProgressDeadline(t *testing.T) {
	c := newCluster(sample(2, "1", "0"))
	c.settle(t)
	c.now = c.now.Add(72 * time.Hour)
	c.image("broken")
	plan := c.pass()
	c.sync(1)
	c.observe(1)
	c.pass()
	if plan = c.pass(); plan.Again <= 0 || plan.Again > 601*time.Second {
		t.Fatalf("asks to be called again in %s", plan.Again)
	}
	c.now = c.now.Add(plan.Again)
	c.pass()
	if got := reason(c); got != "False ProgressDeadlineExceeded" {
		t.Fatal(got)
	}
	// The rollback, days later, is a new rollout with a new deadline.
	c.now = c.now.Add(72 * time.Hour)
	c.image("v1")
	c.settle(t)
	if got := reason(c); got != "True NewReplicaSetAvailable" {
		t.Fatal(got)
	}
}

// A rollback to a set that is still there begins its own deadline.
func TestRollbackLongAfter(t *testing.T) {
	c := newCluster(sample(3, "1", "1"))
	c.settle(t)
	c.image("v2")
	c.settle(t)
	c.now = c.now.Add(72 * time.Hour)
	c.image("v1")
	for range 3 {
		c.pass()
		if got := reason(c); strings.Contains(got, "Deadline") {
			t.Fatal(got)
		}
	}
	if got := reason(c); got != "True FoundNewReplicaSet" {
		t.Fatal(got)
	}
	c.settle(t)
}

func TestReplicaFailureIsReported(t *testing.T) {
	c := newCluster(sample(1, "1", "0"))
	c.pass()
	c.sets[0].Status.Conditions = []appsv1.ReplicaSetCondition{{Type: appsv1.ReplicaSetReplicaFailure, Status: corev1.ConditionTrue, Reason: "FailedCreate", Message: "quota"}}
	c.pass()
	if f := find(c.d.Status.Conditions, appsv1.DeploymentReplicaFailure); f == nil || f.Message != "quota" {
		t.Fatalf("%+v", f)
	}
	c.sets[0].Status.Conditions = nil
	c.pass()
	if f := find(c.d.Status.Conditions, appsv1.DeploymentReplicaFailure); f != nil {
		t.Fatalf("%+v", f)
	}
}

// What is written must be what the next pass would write: else the controller wakes itself for ever.
func TestStatusIsStable(t *testing.T) {
	c := newCluster(sample(3, "1", "1"))
	c.settle(t)
	before := c.d.Status
	c.pass()
	if !equality.Semantic.DeepEqual(before, c.d.Status) {
		t.Fatalf("%v\n%v", before, c.d.Status)
	}
}
