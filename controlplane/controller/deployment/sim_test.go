package deployment

import (
	"fmt"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"
)

var start = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func sample(replicas int32, surge, unavailable string) *appsv1.Deployment {
	deadline, history := int32(600), int32(10)
	s, u := intstr.Parse(surge), intstr.Parse(unavailable)
	labels := map[string]string{"app": "web"}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default", UID: "d", Generation: 1},
		Spec: appsv1.DeploymentSpec{Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
			ProgressDeadlineSeconds: &deadline, RevisionHistoryLimit: &history,
			Strategy: appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType,
				RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &s, MaxUnavailable: &u}},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "v1"}}}}},
	}
}

// cluster is what surrounds the decision: the stored objects, and the pods that there really are. Statuses of sets are
// only as new as their last report, as in a real cluster.
type cluster struct {
	d    *appsv1.Deployment
	sets []*appsv1.ReplicaSet
	pods map[types.UID]*population
	now  time.Time
	made int
}

type population struct{ ready, starting int32 }

func newCluster(d *appsv1.Deployment) *cluster {
	return &cluster{d: d, pods: map[types.UID]*population{}, now: start}
}

func (c *cluster) image(v string) {
	c.d = c.d.DeepCopy()
	c.d.Spec.Template.Spec.Containers[0].Image = v
	c.d.Generation++
}

func (c *cluster) resize(n int32) {
	c.d = c.d.DeepCopy()
	c.d.Spec.Replicas = &n
	c.d.Generation++
}

// pass is one call of the controller with everything carried out.
func (c *cluster) pass() Plan {
	c.now = c.now.Add(time.Second)
	left := false
	newest := newestSet(c.d, c.sets)
	for _, rs := range c.sets {
		p := c.pods[rs.UID]
		left = left || (newest == nil || rs.UID != newest.UID) && p.ready+p.starting > 0
	}
	plan := Decide(c.d, c.sets, left, c.now)
	if rs := plan.Create; rs != nil {
		c.made++
		rs.UID, rs.Generation = types.UID(fmt.Sprint("rs", c.made)), 1
		rs.CreationTimestamp = metav1.NewTime(c.now)
		c.pods[rs.UID] = &population{}
		c.sets = append(c.sets, rs)
	}
	for _, rs := range plan.Update {
		for i, have := range c.sets {
			if have.UID == rs.UID {
				if *have.Spec.Replicas != *rs.Spec.Replicas {
					rs.Generation++
				}
				c.sets[i] = rs
			}
		}
	}
	for _, gone := range plan.Delete {
		for i, have := range c.sets {
			if have.UID == gone.UID {
				c.sets = append(c.sets[:i:i], c.sets[i+1:]...)
				break
			}
		}
	}
	c.d = c.d.DeepCopy()
	if plan.Revision > 0 {
		c.d.Annotations = with(c.d.Annotations, revisionKey, fmt.Sprint(plan.Revision))
	}
	c.d.Status = plan.Status
	return plan
}

// sync is the ReplicaSet controller: it makes and ends pods, those that do not serve first.
func (c *cluster) sync(i int) {
	rs, p := c.sets[i], c.pods[c.sets[i].UID]
	if over := p.ready + p.starting - wanted(rs); over > 0 {
		idle := min(over, p.starting)
		p.starting -= idle
		p.ready -= over - idle
	} else {
		p.starting -= over
	}
}

// observe is the ReplicaSet controller's status.
func (c *cluster) observe(i int) {
	rs := c.sets[i].DeepCopy()
	p := c.pods[rs.UID]
	rs.Status = appsv1.ReplicaSetStatus{Replicas: p.ready + p.starting, ReadyReplicas: p.ready, AvailableReplicas: p.ready, ObservedGeneration: rs.Generation}
	c.sets[i] = rs
}

func (c *cluster) become(i int, n int32) {
	p := c.pods[c.sets[i].UID]
	n = min(n, p.starting)
	p.starting, p.ready = p.starting-n, p.ready+n
}

// settle runs everything until nothing moves.
func (c *cluster) settle(t interface{ Fatalf(string, ...any) }) {
	quiet := 0
	for range 400 {
		plan := c.pass()
		for i := range c.sets {
			c.sync(i)
			c.become(i, 1)
			c.observe(i)
		}
		if plan.Create == nil && len(plan.Update) == 0 && plan.Revision == 0 && len(plan.Delete) == 0 && c.done() {
			if quiet++; quiet == 3 {
				return
			}
		} else {
			quiet = 0
		}
	}
	t.Fatalf("the rollout does not end: %s", c)
}

func (c *cluster) done() bool {
	st, n := c.d.Status, *c.d.Spec.Replicas
	return newestSet(c.d, c.sets) != nil && st.UpdatedReplicas == n && st.Replicas == n && st.AvailableReplicas == n
}

// serving is how many pods serve now and are not asked to go.
func (c *cluster) serving() (n int32) {
	for _, rs := range c.sets {
		n += min(wanted(rs), c.pods[rs.UID].ready)
	}
	return n
}

func (c *cluster) String() string {
	out := fmt.Sprintf("replicas %d", *c.d.Spec.Replicas)
	for _, rs := range c.sets {
		p := c.pods[rs.UID]
		out += fmt.Sprintf("; %s rev %s wants %d, has %d ready %d starting, says %d available", rs.Name, rs.Annotations[revisionKey], wanted(rs), p.ready, p.starting, available(rs))
	}
	return out
}

// However stale the sets' statuses are, in whatever order things happen: never too many pods, never too few that serve.
func TestRollingKeepsItsBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bound := rapid.SampledFrom([]string{"0", "1", "2", "3", "10%", "25%", "50%", "100%"})
		c := newCluster(sample(rapid.Int32Range(1, 20).Draw(t, "replicas"), bound.Draw(t, "surge"), bound.Draw(t, "unavailable")))
		c.settle(t)
		maxSurge, maxUnavailable := bounds(c.d)
		n := *c.d.Spec.Replicas
		for step := range rapid.IntRange(10, 80).Draw(t, "steps") {
			i := rapid.IntRange(0, len(c.sets)-1).Draw(t, "set")
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0:
				c.image(rapid.SampledFrom([]string{"v1", "v2", "v3", "v4"}).Draw(t, "image"))
			case 1, 2, 3:
				c.pass()
			case 4, 5:
				c.sync(i)
			case 6, 7:
				c.become(i, rapid.Int32Range(1, 3).Draw(t, "ready"))
			default:
				c.observe(i)
			}
			if got := sum(c.sets, wanted); got > n+maxSurge {
				t.Fatalf("step %d: %d pods wanted, %d + %d allowed: %s", step, got, n, maxSurge, c)
			}
			if got := c.serving(); got < n-maxUnavailable {
				t.Fatalf("step %d: %d serve, %d - %d must: %s", step, got, n, maxUnavailable, c)
			}
		}
		c.settle(t)
		if plan := c.pass(); plan.Create != nil || len(plan.Update) > 0 || len(plan.Delete) > 0 {
			t.Fatalf("a settled Deployment is changed: %+v", plan)
		}
	})
}

// Scaling at any moment of a rollout ends with the new size, all of the new template.
func TestScalingInTheMiddle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newCluster(sample(rapid.Int32Range(1, 20).Draw(t, "replicas"), "25%", "25%"))
		c.settle(t)
		c.image("v2")
		for range rapid.IntRange(0, 30).Draw(t, "steps") {
			i := rapid.IntRange(0, len(c.sets)-1).Draw(t, "set")
			switch rapid.IntRange(0, 4).Draw(t, "what") {
			case 0:
				c.pass()
			case 1:
				c.sync(i)
			case 2:
				c.become(i, 1)
			case 3:
				c.observe(i)
			case 4:
				c.resize(rapid.Int32Range(0, 30).Draw(t, "size"))
				c.pass()
				surge, _ := bounds(c.d)
				if got := sum(c.sets, wanted); *c.d.Spec.Replicas > 0 && got > *c.d.Spec.Replicas+surge {
					t.Fatalf("%d pods wanted: %s", got, c)
				}
			}
		}
		c.settle(t)
	})
}
