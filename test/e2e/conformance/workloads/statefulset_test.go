package workloads

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	typedappsv1 "k8s.io/client-go/kubernetes/typed/apps/v1"
)

// sets are the StatefulSets of a spec, with their Service.
type sets struct {
	*spec
	api typedappsv1.StatefulSetInterface
}

func (s *spec) statefulSets() sets {
	s.Helper()
	s.service("test", corev1.ServiceSpec{ClusterIP: "None", Ports: []corev1.ServicePort{{Port: 80}}})
	return sets{s, s.client.AppsV1().StatefulSets(s.ns)}
}

// make makes a set whose pods are ready while they have a file.
func (s sets) make(name string, replicas int32, policy appsv1.PodManagementPolicyType) {
	s.Helper()
	labels := map[string]string{"set": name}
	tmpl := template(labels)
	c := &tmpl.Spec.Containers[0]
	c.Image, c.Args, c.Command = busybox, nil, []string{"sh", "-c", "touch /tmp/healthy; sleep 10000"}
	c.ReadinessProbe = &corev1.Probe{PeriodSeconds: 1, FailureThreshold: 1, ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"test", "-f", "/tmp/healthy"}}}}
	_, err := s.api.Create(s.Context(), &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: appsv1.StatefulSetSpec{ServiceName: "test", Replicas: &replicas, PodManagementPolicy: policy, Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: tmpl}}, metav1.CreateOptions{})
	s.must(err)
}

func (s sets) get(name string) *appsv1.StatefulSet {
	s.Helper()
	set, err := s.api.Get(s.Context(), name, metav1.GetOptions{})
	s.must(err)
	return set
}

// health touches or removes (rm) the file, and waits until the pod's readiness follows.
func (s sets) health(pod, command string) {
	s.Helper()
	s.eventually(pod+" "+command, func() string {
		if out, err := s.exec(pod, "c", command, "/tmp/healthy"); err != nil {
			return out + err.Error()
		}
		return ""
	})
	s.until(pod, "takes note", func(p *corev1.Pod) bool { return ready(p) == (command == "touch") })
}

func (s sets) count(name string, n int) {
	s.Helper()
	s.eventually(fmt.Sprint(name, " has ", n), func() string {
		if set := s.get(name); int(set.Status.Replicas) != n || set.Status.ObservedGeneration != set.Generation {
			return fmt.Sprint(set.Status.Replicas)
		}
		return ""
	})
}

// revisions waits until the pods, in their order, have the wanted ones.
func (s sets) revisions(name string, want ...string) {
	s.Helper()
	s.eventually(fmt.Sprint("revisions ", want), func() string {
		var got []string
		for _, p := range s.waitAlive("set="+name, len(want)) {
			got = append(got, p.Labels[appsv1.StatefulSetRevisionLabel])
		}
		if !slices.Equal(got, want) {
			return fmt.Sprint(got)
		}
		return ""
	})
}

// TestStatefulSetScaling: in order, which halts at an unhealthy pod, and in a burst, which does not.
func TestStatefulSetScaling(t *testing.T) {
	s := begin(t).statefulSets()
	s.make("ordered", 1, appsv1.OrderedReadyPodManagement)
	s.make("burst", 1, appsv1.ParallelPodManagement)
	s.waitAlive("set=ordered", 1)
	s.waitAlive("set=burst", 1)
	s.health("ordered-0", "rm")
	s.health("burst-0", "rm")
	s.kubectl("scale", "statefulset", "ordered", "burst", "--replicas=3")
	s.waitAlive("set=burst", 2) // beside the unhealthy one
	if n := len(s.pods("set=ordered")); n != 1 {
		t.Errorf("ordered went on to %d pods beside an unhealthy one", n)
	}
	s.health("ordered-0", "touch")
	s.waitAlive("set=ordered", 3)
	for i := range 3 {
		s.health(fmt.Sprint("ordered-", i), "rm")
	}
	s.kubectl("scale", "statefulset", "ordered", "burst", "--replicas=0")
	s.count("burst", 0)
	if n := len(s.pods("set=ordered")); n != 3 {
		t.Errorf("ordered went down to %d pods, all of them unhealthy", n)
	}
	for i := range 3 {
		if _, err := s.exec(fmt.Sprint("ordered-", i), "c", "touch", "/tmp/healthy"); err != nil && !strings.Contains(err.Error(), "not found") {
			t.Error(err)
		}
	}
	s.count("ordered", 0)
}

// TestStatefulSetUpdates: a canary by partition, whose pods keep their revision, and a roll back to a revision that was.
func TestStatefulSetUpdates(t *testing.T) {
	s := begin(t).statefulSets()
	partition := func(n int) {
		s.kubectl("patch", "statefulset", "rolling", "--type=merge", "-p", fmt.Sprintf(`{"spec":{"updateStrategy":{"type":"RollingUpdate","rollingUpdate":{"partition":%d}}}}`, n))
	}
	s.make("rolling", 3, "")
	s.waitAlive("set=rolling", 3)
	first := s.get("rolling").Status.UpdateRevision
	s.equal("current and update revision", s.get("rolling").Status.CurrentRevision, first)
	partition(3)
	s.kubectl("set", "env", "statefulset/rolling", "NEW=1")
	var second string
	s.eventually("a new revision", func() string {
		set := s.get("rolling")
		if second = set.Status.UpdateRevision; second == first || set.Status.CurrentRevision != first {
			return second
		}
		return ""
	})
	s.kubectl("delete", "pod", "rolling-1")
	s.revisions("rolling", first, first, first)
	partition(2)
	s.revisions("rolling", first, first, second)
	s.kubectl("delete", "pod", "rolling-0", "rolling-2")
	s.revisions("rolling", first, first, second)
	partition(0)
	s.revisions("rolling", second, second, second)
	s.eventually("the revision becomes current", func() string {
		if set := s.get("rolling"); set.Status.CurrentRevision != second {
			return set.Status.CurrentRevision
		}
		return ""
	})
	s.kubectl("set", "env", "statefulset/rolling", "NEW-")
	s.revisions("rolling", first, first, first)
	list, err := s.client.AppsV1().ControllerRevisions(s.ns).List(t.Context(), metav1.ListOptions{LabelSelector: "set=rolling"})
	s.must(err)
	s.equal("revisions kept", len(list.Items), 2)
}

// TestStatefulSetEviction: a pod that fails on the node, since another has its host port, is made anew until that is gone.
func TestStatefulSetEviction(t *testing.T) {
	s := begin(t).statefulSets()
	holder := program("holder", "pause")
	holder.Spec.NodeName = s.c.NodeName
	port := []corev1.ContainerPort{{ContainerPort: 21017, HostPort: 21017, Name: "conflict"}}
	holder.Spec.Containers[0].Ports = port
	s.run(holder)
	tmpl := template(map[string]string{"set": "evicted"})
	tmpl.Spec.Containers[0].Ports, tmpl.Spec.NodeName = port, s.c.NodeName
	_, err := s.api.Create(t.Context(), &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "evicted"}, Spec: appsv1.StatefulSetSpec{ServiceName: "test", Selector: &metav1.LabelSelector{MatchLabels: tmpl.Labels}, Template: tmpl}}, metav1.CreateOptions{})
	s.must(err)
	uids := map[types.UID]bool{}
	s.eventually("the pod fails and is made anew", func() string {
		for _, p := range s.pods("set=evicted") {
			uids[p.UID] = true
		}
		if len(uids) < 2 {
			return "one pod only"
		}
		return ""
	})
	s.must(s.client.CoreV1().Pods(s.ns).Delete(t.Context(), "holder", metav1.DeleteOptions{}))
	s.waitAlive("set=evicted", 1)
}
