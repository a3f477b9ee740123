package deployment

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"keelson.dev/keelson/controlplane/controller/owner"
	"keelson.dev/keelson/controlplane/scenario"
)

// story is a Deployment web, its sets (named by their image) and their pods. Commands:
//
//	deployment WORD..   a new Deployment of image v1, rolled out: replicas=10 surge=3 unavailable=2 recreate deadline=600 limit=2
//	image V, scale N, pause, resume     what a user changes
//	pass                one pass of the controller; prints the sizes that it asks for, and what it makes and deletes
//	pods                the ReplicaSets make and end pods as they are asked
//	ready V N           N more pods of a set serve
//	break V N           N pods of a set serve no longer
//	report              the ReplicaSets report what they have
//	run                 all of it to the end, where every pod comes up; prints the sizes each time that they change
//	later D             time passes
//	progress            prints the condition that `kubectl rollout status` reads
//	revisions           prints the sets with their revisions, oldest first, and the Deployment's
//	orphan V            a set's controller is gone; prints what the Deployment does with it
//	taken               the new set's name belongs to something else; prints whether the next name is another
type story struct{ c *cluster }

func TestScenarios(t *testing.T) {
	scenario.Play(t, func() scenario.Do { return (&story{}).do })
}

func (s *story) do(t *testing.T, words []string) string {
	c := s.c
	switch args := append(words[1:], "", ""); words[0] {
	case "deployment":
		s.c = newCluster(parseDeployment(t, words[1:]))
		s.c.settle(t)
	case "image":
		c.image(args[0])
	case "scale":
		c.resize(int32(number(t, args[0])))
	case "pause", "resume":
		c.d = c.d.DeepCopy()
		c.d.Spec.Paused = words[0] == "pause"
		c.d.Generation++
	case "pass":
		return s.pass()
	case "pods":
		for i := range c.sets {
			c.sync(i)
		}
	case "ready":
		c.become(s.index(t, args[0]), int32(number(t, args[1])))
	case "break":
		p, n := c.pods[c.sets[s.index(t, args[0])].UID], int32(number(t, args[1]))
		p.ready, p.starting = p.ready-n, p.starting+n
	case "report":
		for i := range c.sets {
			c.observe(i)
		}
	case "run":
		return s.run(t)
	case "later":
		d, err := time.ParseDuration(args[0])
		if err != nil {
			t.Fatal(err)
		}
		c.now = c.now.Add(d)
	case "progress":
		return reason(c)
	case "revisions":
		var out []string
		for _, rs := range c.sets {
			out = append(out, rs.Spec.Template.Spec.Containers[0].Image+"="+rs.Annotations[revisionKey])
		}
		return strings.Join(out, " ") + ", now " + c.d.Annotations[revisionKey]
	case "orphan":
		return s.orphan(t, args[0])
	case "taken":
		return s.taken()
	default:
		t.Fatalf("no command %q", words[0])
	}
	return ""
}

func (s *story) pass() string {
	plan := s.c.pass()
	out := sizes(s.c)
	if plan.Create != nil {
		out += ", made " + plan.Create.Spec.Template.Spec.Containers[0].Image
	}
	for _, rs := range plan.Delete {
		out += ", deleted " + rs.Spec.Template.Spec.Containers[0].Image
	}
	return out
}

func (s *story) run(t *testing.T) string {
	c := s.c
	steps := []string{sizes(c)}
	for quiet := 0; quiet < 4; quiet++ {
		if len(steps) > 100 {
			t.Fatalf("no end: %v", steps)
		}
		c.pass()
		for i := range c.sets {
			c.sync(i)
			c.become(i, 1000)
			c.observe(i)
		}
		if now := sizes(c); now != steps[len(steps)-1] {
			steps, quiet = append(steps, now), 0
		}
	}
	return strings.Join(steps, " -> ")
}

func (s *story) orphan(t *testing.T, image string) string {
	i := s.index(t, image)
	rs := s.c.sets[i].DeepCopy()
	rs.OwnerReferences = nil
	if owner.Decide(s.c.d, rs, owner.Selector(s.c.d.Spec.Selector).Matches(labels.Set(rs.Labels)), true) != owner.Adopt {
		s.c.sets = slices.Delete(slices.Clone(s.c.sets), i, i+1)
		return "leaves it"
	}
	rs.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(s.c.d, kind)}
	s.c.sets[i] = rs
	return "adopts"
}

// taken does what the shell does about a name that is taken.
func (s *story) taken() string {
	before := templateHash(&s.c.d.Spec.Template, s.c.d.Status.CollisionCount)
	s.c.d = s.c.d.DeepCopy()
	one := int32(1)
	s.c.d.Status.CollisionCount = &one
	if templateHash(&s.c.d.Spec.Template, &one) == before {
		return "the same again"
	}
	return "another"
}

func (s *story) index(t *testing.T, image string) int {
	t.Helper()
	i := slices.IndexFunc(s.c.sets, func(rs *appsv1.ReplicaSet) bool { return rs.Spec.Template.Spec.Containers[0].Image == image })
	if i < 0 {
		t.Fatalf("no set of %s", image)
	}
	return i
}

func parseDeployment(t *testing.T, words []string) *appsv1.Deployment {
	args := map[string]string{"replicas": "1", "surge": "25%", "unavailable": "25%"}
	for _, word := range words {
		k, v, _ := strings.Cut(word, "=")
		args[k] = v
	}
	d := sample(int32(number(t, args["replicas"])), args["surge"], args["unavailable"])
	if _, ok := args["recreate"]; ok {
		d.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}
	}
	for key, to := range map[string]**int32{"deadline": &d.Spec.ProgressDeadlineSeconds, "limit": &d.Spec.RevisionHistoryLimit} {
		if v, ok := args[key]; ok {
			n := int32(number(t, v))
			*to = &n
		}
	}
	return d
}

func number(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(fmt.Errorf("want a number: %w", err))
	}
	return n
}
