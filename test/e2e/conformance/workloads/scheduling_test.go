package workloads

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func (s *spec) unschedulable(name, why string) {
	s.Helper()
	p := s.until(name, "is not scheduled", func(p *corev1.Pod) bool {
		c := condition(p, corev1.PodScheduled)
		return c != nil && c.Status == corev1.ConditionFalse
	})
	c := condition(p, corev1.PodScheduled)
	s.equal("reason", c.Reason, corev1.PodReasonUnschedulable)
	s.contains("message", c.Message, why)
	s.eventually("an event tells", func() string {
		out := s.kubectl("get", "events", "--field-selector=involvedObject.name="+name+",reason=FailedScheduling", "-o", "jsonpath={.items[*].message}")
		if !strings.Contains(out, why) {
			return out
		}
		return ""
	})
}

// extended makes the node offer an extended resource until the test ends.
func (s *spec) extended(name string, n int) corev1.ResourceName {
	s.Helper()
	full := "conformance.example/" + name
	patch := fmt.Sprintf(`{"status":{"capacity":{%q:"%d"},"allocatable":{%q:"%d"}}}`, full, n, full, n)
	_, err := s.client.CoreV1().Nodes().Patch(s.Context(), s.c.NodeName, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}, "status")
	s.must(err)
	s.Cleanup(func() {
		patch := fmt.Sprintf(`{"status":{"capacity":{%q:null},"allocatable":{%q:null}}}`, full, full)
		if _, err := s.client.CoreV1().Nodes().Patch(context.WithoutCancel(s.T.Context()), s.c.NodeName, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}, "status"); err != nil {
			s.Log(err)
		}
	})
	return corev1.ResourceName(full)
}

func needing(p *corev1.Pod, name corev1.ResourceName, n string) *corev1.Pod {
	list := corev1.ResourceList{name: resource.MustParse(n)}
	p.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: list, Limits: list}
	return p
}

// TestPredicates: node selectors that match and do not, resources that are not there, scheduling gates.
func TestPredicates(t *testing.T) {
	s := begin(t)
	p := program("nowhere", "pause")
	p.Spec.NodeSelector = map[string]string{"label": "nonempty"}
	s.create(p)
	s.unschedulable("nowhere", "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector")
	s.kubectl("label", "node", s.c.NodeName, s.ns+"=42")
	p = program("somewhere", "pause")
	p.Spec.NodeSelector = map[string]string{s.ns: "42"}
	s.run(p)
	s.kubectl("label", "node", s.c.NodeName, s.ns+"-")
	s.create(needing(program("huge", "pause"), corev1.ResourceCPU, "600"))
	s.unschedulable("huge", "Insufficient cpu")
	gated := program("gated", "pause")
	gated.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "example.com/a"}, {Name: "example.com/b"}}
	s.create(gated)
	g := s.until("gated", "is gated", func(p *corev1.Pod) bool {
		c := condition(p, corev1.PodScheduled)
		return c != nil && c.Reason == corev1.PodReasonSchedulingGated
	})
	s.equal("PodScheduled", condition(g, corev1.PodScheduled).Status, "False")
	s.kubectl("patch", "pod", "gated", "--type=json", "-p", `[{"op":"remove","path":"/spec/schedulingGates"}]`)
	s.until("gated", "runs", ready)
}

// TestPreemption: an ordinary and a critical pod take the place of a lesser one, which is told why (DisruptionTarget) even while a finalizer keeps it.
func TestPreemption(t *testing.T) {
	s := begin(t)
	for name, value := range map[string]int32{"low": 1, "high": 1000} {
		class := fmt.Sprint(s.ns, "-", name)
		_, err := s.client.SchedulingV1().PriorityClasses().Create(t.Context(), &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: class}, Value: value}, metav1.CreateOptions{})
		s.must(err)
		defer s.kubectl("delete", "priorityclass", class)
	}
	scarce := s.extended(s.ns, 3)
	low := func(name string) *corev1.Pod {
		p := needing(program(name, "pause"), scarce, "3")
		p.Spec.PriorityClassName = s.ns + "-low"
		return p
	}
	victim := low("victim")
	victim.Finalizers = []string{"conformance.example/held"}
	s.run(victim)
	high := needing(program("high", "pause"), scarce, "3")
	high.Spec.PriorityClassName = s.ns + "-high"
	s.create(high)
	v := s.until("victim", "is preempted", func(p *corev1.Pod) bool {
		return p.DeletionTimestamp != nil && condition(p, corev1.DisruptionTarget) != nil
	})
	c := condition(v, corev1.DisruptionTarget)
	s.equal("the condition", fmt.Sprint(c.Status, " ", c.Reason), "True "+corev1.PodReasonPreemptionByScheduler)
	s.until("high", "runs", ready)
	s.kubectl("patch", "pod", "victim", "--type=json", "-p", `[{"op":"remove","path":"/metadata/finalizers"}]`)
	s.kubectl("delete", "pod", "high", "--grace-period=0", "--wait")

	s.run(low("victim2"))
	critical := needing(program("critical", "pause"), scarce, "3")
	critical.Namespace, critical.Name, critical.Spec.PriorityClassName = "kube-system", s.ns, "system-cluster-critical"
	_, err := s.client.CoreV1().Pods("kube-system").Create(t.Context(), critical, metav1.CreateOptions{})
	s.must(err)
	s.eventually("the critical pod runs", func() string {
		p, err := s.client.CoreV1().Pods("kube-system").Get(t.Context(), s.ns, metav1.GetOptions{})
		s.must(err)
		if !ready(p) {
			return string(p.Status.Phase)
		}
		return ""
	})
	s.must(s.client.CoreV1().Pods("kube-system").Delete(t.Context(), s.ns, metav1.DeleteOptions{GracePeriodSeconds: ptr(int64(0))}))
	if _, err := s.client.CoreV1().Pods(s.ns).Get(t.Context(), "victim2", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		if p := s.pod("victim2"); p.DeletionTimestamp == nil {
			t.Errorf("the lesser pod is still there: %+v", p.Status)
		}
	}
	// ReplicaSets of rising priority; the last takes what the first have.
	few := s.extended(s.ns+"-rs", 5)
	for name, row := range map[string]struct {
		class    string
		replicas int32
	}{"rs-low": {"-low", 5}, "rs-high": {"-high", 2}} {
		tmpl := template(map[string]string{"name": name})
		tmpl.Spec.PriorityClassName = s.ns + row.class
		tmpl.Spec.Containers[0].Resources.Requests = corev1.ResourceList{few: resource.MustParse("1")}
		tmpl.Spec.Containers[0].Resources.Limits = tmpl.Spec.Containers[0].Resources.Requests
		_, err := s.client.AppsV1().ReplicaSets(s.ns).Create(t.Context(), &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: appsv1.ReplicaSetSpec{Replicas: &row.replicas, Selector: &metav1.LabelSelector{MatchLabels: tmpl.Labels}, Template: tmpl}}, metav1.CreateOptions{})
		s.must(err)
	}
	s.waitAlive("name=rs-high", 2)
	s.waitAlive("name=rs-low", 3)

	// What of a class may change.
	for _, patch := range []string{`{"value":5}`, `{"preemptionPolicy":"Never"}`} {
		_, err := s.client.SchedulingV1().PriorityClasses().Patch(t.Context(), s.ns+"-low", types.MergePatchType, []byte(patch), metav1.PatchOptions{})
		if !apierrors.IsInvalid(err) {
			t.Errorf("%s: %v, want Invalid", patch, err)
		}
	}
}

// TestPromisedRoom: of two pods that make room one is slower, and what the quicker one left waits for the pod that it was promised to.
func TestPromisedRoom(t *testing.T) {
	s := begin(t)
	class := s.ns + "-high"
	_, err := s.client.SchedulingV1().PriorityClasses().Create(t.Context(), &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: class}, Value: 1000}, metav1.CreateOptions{})
	s.must(err)
	defer s.kubectl("delete", "priorityclass", class)
	scarce := s.extended(s.ns, 5)
	slow := needing(shell("slow", "trap '' TERM; until [ -e /tmp/go ]; do sleep 0.1; done"), scarce, "3")
	slow.Spec.TerminationGracePeriodSeconds = ptr(int64(600))
	s.run(slow)
	s.run(needing(program("quick", "pause"), scarce, "2"))
	high := needing(program("high", "pause"), scarce, "5")
	high.Spec.PriorityClassName = class
	s.create(high)
	p := s.until("high", "waits for the slower one", func(p *corev1.Pod) bool {
		c := condition(p, corev1.PodScheduled)
		return c != nil && strings.Contains(c.Message, "Pods of lower priority are leaving")
	})
	s.equal("the promised node", p.Status.NominatedNodeName, s.c.NodeName)
	s.create(needing(program("next", "pause"), scarce, "2"))
	s.unschedulable("next", "Insufficient "+string(scarce))
	_, err = s.exec("slow", "c", "touch", "/tmp/go")
	s.must(err)
	s.until("high", "runs", ready)
}

// TestLimitRange: defaults are given, ranges kept, changes take hold.
func TestLimitRange(t *testing.T) {
	s := begin(t)
	list := func(cpu, memory, storage string) corev1.ResourceList {
		return corev1.ResourceList{"cpu": resource.MustParse(cpu), "memory": resource.MustParse(memory), "ephemeral-storage": resource.MustParse(storage)}
	}
	_, err := s.client.CoreV1().LimitRanges(s.ns).Create(t.Context(), &corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Name: "l"}, Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{Type: corev1.LimitTypeContainer,
		Min: list("50m", "100Mi", "100Gi"), Max: list("500m", "500Mi", "500Gi"), Default: list("500m", "500Mi", "500Gi"), DefaultRequest: list("100m", "200Mi", "200Gi"), MaxLimitRequestRatio: corev1.ResourceList{}}}}}, metav1.CreateOptions{})
	s.must(err)
	make := func(name string, requests, limits corev1.ResourceList) (*corev1.Pod, error) {
		p := program(name, "pause")
		p.Spec.NodeSelector = map[string]string{"no": "where"}
		p.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: requests, Limits: limits}
		return s.client.CoreV1().Pods(s.ns).Create(t.Context(), p, metav1.CreateOptions{})
	}
	text := func(r corev1.ResourceRequirements) string { b, _ := json.Marshal(r); return string(b) }
	p, err := make("defaults", nil, nil)
	s.must(err)
	s.equal("defaults", text(p.Spec.Containers[0].Resources), `{"limits":{"cpu":"500m","ephemeral-storage":"500Gi","memory":"500Mi"},"requests":{"cpu":"100m","ephemeral-storage":"200Gi","memory":"200Mi"}}`)
	p, err = make("partial", list("150m", "150Mi", "150Gi"), list("300m", "500Mi", "500Gi"))
	s.must(err)
	s.equal("partly given", text(p.Spec.Containers[0].Resources), `{"limits":{"cpu":"300m","ephemeral-storage":"500Gi","memory":"500Mi"},"requests":{"cpu":"150m","ephemeral-storage":"150Gi","memory":"150Mi"}}`)
	for name, r := range map[string]corev1.ResourceList{"less": list("10m", "50Mi", "50Gi"), "more": list("600m", "600Mi", "600Gi")} {
		if _, err := make(name, r, r); !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v, want Forbidden", name, err)
		}
	}
	s.kubectl("patch", "limitrange", "l", "--type=json", "-p", `[{"op":"replace","path":"/spec/limits/0/min","value":{"cpu":"9m","memory":"49Mi","ephemeral-storage":"49Gi"}}]`)
	s.eventually("the lower minimum holds", func() string {
		if _, err := make("less", list("10m", "50Mi", "50Gi"), nil); err != nil {
			return err.Error()
		}
		return ""
	})
}

// TestPods: generation, quality of service, a deadline that is set later, a status that somebody patches, labels.
func TestPods(t *testing.T) {
	s := begin(t)
	p := program("pod", "pause")
	p.Generation = 100
	made := s.create(p)
	s.equal("generation", made.Generation, 1)
	got := s.until("pod", "is ready", ready)
	s.equal("observedGeneration", got.Status.ObservedGeneration, 1)
	for _, c := range got.Status.Conditions {
		s.equal(string(c.Type)+"'s observedGeneration", c.ObservedGeneration, 1)
	}
	s.kubectl("patch", "pod", "pod", "--type=json", "-p", `[{"op":"add","path":"/spec/tolerations/-","value":{"key":"x","operator":"Exists"}}]`)
	s.until("pod", "observes generation 2", func(p *corev1.Pod) bool {
		return p.Generation == 2 && p.Status.ObservedGeneration == 2 && condition(p, corev1.PodReady).ObservedGeneration == 2
	})
	s.kubectl("label", "pod", "pod", "time=123")
	s.equal("generation after a label", s.pod("pod").Generation, 2)
	_, err := s.client.CoreV1().Pods(s.ns).Patch(t.Context(), "pod", types.StrategicMergePatchType, []byte(`{"status":{"message":"Patched by e2e test","reason":"E2E"}}`), metav1.PatchOptions{}, "status")
	s.must(err)
	s.equal("the patched status", s.pod("pod").Status.Message+" "+s.pod("pod").Status.Reason, "Patched by e2e test E2E")
	s.kubectl("patch", "pod", "pod", "--type=merge", "-p", `{"spec":{"activeDeadlineSeconds":5}}`)
	over := s.until("pod", "is over its deadline", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodFailed })
	s.equal("reason", over.Status.Reason, "DeadlineExceeded")

	graceful := program("graceful", "pause")
	graceful.Spec.TerminationGracePeriodSeconds = ptr(int64(60))
	graceful.Finalizers = []string{"conformance.example/held"}
	s.run(graceful)
	s.must(s.client.CoreV1().Pods(s.ns).Delete(t.Context(), "graceful", metav1.DeleteOptions{}))
	s.equal("generation of a pod that is to go", s.pod("graceful").Generation, 2)
	s.until("graceful", "observes it", func(p *corev1.Pod) bool { return p.Status.ObservedGeneration == 2 && ended(p) })
	s.kubectl("patch", "pod", "graceful", "--type=json", "-p", `[{"op":"remove","path":"/metadata/finalizers"}]`)

	g := needing(program("guaranteed", "pause"), corev1.ResourceCPU, "100m")
	g.Spec.Containers[0].Resources.Limits["memory"], g.Spec.Containers[0].Resources.Requests["memory"] = resource.MustParse("100Mi"), resource.MustParse("100Mi")
	g.Spec.NodeSelector = map[string]string{"no": "where"}
	s.equal("QoS", s.create(g).Status.QOSClass, "Guaranteed")
}

// TestPodResize: containers' CPU and memory change in place, grown and shrunk, limits and requests added, with a restart where the policy says so; the status tells what is in force.
func TestPodResize(t *testing.T) {
	s := begin(t)
	r := func(cpuReq, cpuLim, memReq, memLim string) corev1.ResourceRequirements {
		var out corev1.ResourceRequirements
		set := func(l *corev1.ResourceList, name corev1.ResourceName, v string) {
			if v != "" {
				if *l == nil {
					*l = corev1.ResourceList{}
				}
				(*l)[name] = resource.MustParse(v)
			}
		}
		set(&out.Requests, "cpu", cpuReq)
		set(&out.Limits, "cpu", cpuLim)
		set(&out.Requests, "memory", memReq)
		set(&out.Limits, "memory", memLim)
		return out
	}
	text := func(r *corev1.ResourceRequirements) string { b, _ := json.Marshal(r); return string(b) }
	restart := []corev1.ContainerResizePolicy{{ResourceName: "cpu", RestartPolicy: corev1.NotRequired}, {ResourceName: "memory", RestartPolicy: corev1.RestartContainer}}
	for name, row := range map[string]struct {
		from, to []corev1.ResourceRequirements
		policy   []corev1.ContainerResizePolicy
		back     bool
	}{
		"guaranteed": {[]corev1.ResourceRequirements{r("20m", "20m", "35Mi", "35Mi"), r("22m", "22m", "37Mi", "37Mi"), r("24m", "24m", "39Mi", "39Mi")},
			[]corev1.ResourceRequirements{r("25m", "25m", "40Mi", "40Mi"), r("27m", "27m", "42Mi", "42Mi"), r("19m", "19m", "34Mi", "34Mi")}, nil, true},
		"burstable": {[]corev1.ResourceRequirements{r("20m", "30m", "35Mi", "45Mi")}, []corev1.ResourceRequirements{r("15m", "35m", "40Mi", "40Mi")}, nil, true},
		"restart":   {[]corev1.ResourceRequirements{r("20m", "30m", "35Mi", "45Mi")}, []corev1.ResourceRequirements{r("20m", "30m", "40Mi", "50Mi")}, restart, true},
		"adding": {[]corev1.ResourceRequirements{r("20m", "", "", ""), r("", "", "35Mi", ""), r("20m", "", "35Mi", ""), r("20m", "", "", ""), r("", "", "35Mi", "")},
			[]corev1.ResourceRequirements{r("25m", "35m", "", ""), r("", "", "30Mi", "50Mi"), r("20m", "", "30Mi", ""), r("15m", "", "35Mi", ""), r("20m", "", "40Mi", "")}, nil, false},
		"equivalents": {[]corev1.ResourceRequirements{r("2m", "10m", "", "")}, []corev1.ResourceRequirements{r("1m", "5m", "", "")}, nil, true},
	} {
		p := shell("resize-"+name, "")
		p.Spec.RestartPolicy = corev1.RestartPolicyOnFailure
		p.Spec.Containers = nil
		for i, from := range row.from {
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: fmt.Sprint("c", i+1), Image: busybox, Command: []string{"sh", "-c", "sleep 100000"}, Resources: from, ResizePolicy: row.policy})
		}
		s.run(p)
		resize := func(to []corev1.ResourceRequirements, restarts int32) {
			t.Helper()
			var containers []string
			for i := range to {
				containers = append(containers, fmt.Sprintf(`{"name":"c%d","resources":%s}`, i+1, text(&to[i])))
			}
			patched, err := s.client.CoreV1().Pods(s.ns).Patch(t.Context(), p.Name, types.StrategicMergePatchType, []byte(`{"spec":{"containers":[`+strings.Join(containers, ",")+`]}}`), metav1.PatchOptions{}, "resize")
			s.must(err)
			for i := range to {
				s.equal(p.Name+"'s spec", text(&patched.Spec.Containers[i].Resources), text(&to[i]))
			}
			var now *corev1.Pod
			s.eventually(p.Name+" is resized", func() string {
				now = s.pod(p.Name)
				for i, c := range now.Status.ContainerStatuses {
					if c.Resources == nil || text(c.Resources) != text(&to[i]) || c.RestartCount != restarts {
						return fmt.Sprintf("%s: %s, %d restarts, want %s, %d; conditions %+v", c.Name, text(c.Resources), c.RestartCount, text(&to[i]), restarts, now.Status.Conditions)
					}
				}
				if condition(now, corev1.PodResizePending) != nil || condition(now, corev1.PodResizeInProgress) != nil || !ready(now) {
					return fmt.Sprintf("%+v", now.Status.Conditions)
				}
				return ""
			})
		}
		restarts := int32(0)
		if row.policy != nil {
			restarts = 1
		}
		resize(row.to, restarts)
		if row.back {
			resize(row.from, 2*restarts)
		}
	}
	s.run(needing(shell("refused", "sleep 100000"), corev1.ResourceCPU, "10m"))
	for patch, why := range map[string]string{
		`{"spec":{"containers":[{"name":"c","resources":{"requests":{"cpu":"20m"},"limits":{"cpu":"15m"}}}]}}`:                 "must be less than or equal to cpu limit",
		`{"spec":{"containers":[{"name":"c","resources":{"requests":{"ephemeral-storage":"1Gi"}}}]}}`:                          "only cpu and memory resources are mutable",
		`{"spec":{"containers":[{"name":"c","resources":{"requests":{"memory":"400Mi"}}}]}}`:                                   "",
		`{"spec":{"containers":[{"name":"c","resources":{"requests":null,"limits":null}}]}}`:                                   "",
		`{"spec":{"containers":[{"name":"c","resources":{"requests":{"cpu":"-1m"}}}]}}`:                                        "must be greater than or equal to 0",
		`{"spec":{"containers":[{"name":"c","image":"nginx","resources":{"requests":{"cpu":"11m"},"limits":{"cpu":"11m"}}}]}}`: "",
		`{"spec":{"activeDeadlineSeconds":5}}`:                                                                                 "",
	} {
		_, err := s.client.CoreV1().Pods(s.ns).Patch(t.Context(), "refused", types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}, "resize")
		t.Logf("%s: %v", patch, err)
		if why != "" && (err == nil || !strings.Contains(err.Error(), why)) {
			t.Errorf("%s: %v, want %q", patch, err, why)
		}
	}
	// More than the node has: deferred or infeasible, told by a condition.
	_, err := s.client.CoreV1().Pods(s.ns).Patch(t.Context(), "refused", types.StrategicMergePatchType, []byte(`{"spec":{"containers":[{"name":"c","resources":{"requests":{"cpu":"1000"},"limits":{"cpu":"1000"}}}]}}`), metav1.PatchOptions{}, "resize")
	s.must(err)
	pending := s.until("refused", "says that it cannot", func(p *corev1.Pod) bool { return condition(p, corev1.PodResizePending) != nil })
	s.equal("why", condition(pending, corev1.PodResizePending).Reason, corev1.PodReasonInfeasible)
}
