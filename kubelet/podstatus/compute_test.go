package podstatus

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/kubelet/observe"
	"keelson.dev/keelson/kubelet/plan"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func input(policy corev1.RestartPolicy, containers ...string) In {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "u", Generation: 3}}
	p.Spec.RestartPolicy = policy
	for _, c := range containers {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: c, Image: c + ":1"})
	}
	return In{Pod: p, Runtime: "keelson", HostIPs: []string{"192.0.2.1"}, Now: noon, QOS: corev1.PodQOSBestEffort,
		Observed: observe.Pod{Sandboxes: []observe.Sandbox{{ID: "box", Ready: true, IPs: []string{"10.244.0.2"}}}}}
}

func running(name string, attempt uint32) observe.Container {
	return observe.Container{ID: name + "-id", SandboxID: "box", Name: name, Attempt: attempt, State: observe.Running, StartedAt: noon}
}

func exited(name string, attempt uint32, code int32) observe.Container {
	return observe.Container{ID: name + "-dead", SandboxID: "box", Name: name, Attempt: attempt, State: observe.Exited, ExitCode: code, FinishedAt: noon}
}

func TestPhase(t *testing.T) {
	for _, c := range []struct {
		name   string
		policy corev1.RestartPolicy
		have   []observe.Container
		over   bool
		want   corev1.PodPhase
	}{
		{"nothing yet", corev1.RestartPolicyAlways, nil, false, corev1.PodPending},
		{"one of two runs", corev1.RestartPolicyAlways, []observe.Container{running("a", 0)}, false, corev1.PodPending},
		{"both run", corev1.RestartPolicyAlways, []observe.Container{running("a", 0), running("b", 0)}, false, corev1.PodRunning},
		{"one between two lives", corev1.RestartPolicyAlways, []observe.Container{running("a", 0), exited("b", 0, 1)}, false, corev1.PodRunning},
		{"both done, more to come", corev1.RestartPolicyOnFailure, []observe.Container{exited("a", 0, 0), exited("b", 0, 1)}, false, corev1.PodRunning},
		{"over, all well", corev1.RestartPolicyNever, []observe.Container{exited("a", 0, 0), exited("b", 0, 0)}, true, corev1.PodSucceeded},
		{"over, one failed", corev1.RestartPolicyNever, []observe.Container{exited("a", 0, 0), exited("b", 0, 1)}, true, corev1.PodFailed},
		{"over before it began", corev1.RestartPolicyAlways, nil, true, corev1.PodFailed},
	} {
		in := input(c.policy, "a", "b")
		in.Observed.Containers, in.Over = c.have, c.over
		if got := Compute(in).Phase; got != c.want {
			t.Errorf("%s: phase = %s, want %s", c.name, got, c.want)
		}
	}
}

func TestTerminalPhaseStays(t *testing.T) {
	for _, p := range []corev1.PodPhase{corev1.PodSucceeded, corev1.PodFailed} {
		in := input(corev1.RestartPolicyAlways, "a")
		in.Pod.Status.Phase = p
		in.Observed.Containers = []observe.Container{running("a", 0)}
		got := Compute(in)
		if got.Phase != p || got.ContainerStatuses[0].Ready || got.ContainerStatuses[0].State.Running != nil {
			t.Errorf("a %s pod became %+v", p, got)
		}
	}
}

func TestContainerStates(t *testing.T) {
	in := input(corev1.RestartPolicyAlways, "a")
	in.Observed.Containers = []observe.Container{exited("a", 1, 3), exited("a", 0, 2)}
	in.Waiting = map[string]plan.Waiting{"a": {Reason: "CrashLoopBackOff", Message: "back-off 10s"}}
	s := Compute(in).ContainerStatuses[0]
	if s.State.Waiting == nil || s.State.Waiting.Reason != "CrashLoopBackOff" || s.RestartCount != 1 ||
		s.LastTerminationState.Terminated == nil || s.LastTerminationState.Terminated.ExitCode != 3 {
		t.Errorf("back-off: %+v", s)
	}
	in.Observed.Containers = []observe.Container{running("a", 2), exited("a", 1, 137)}
	in.Observed.Containers[1].Reason = "OOMKilled"
	in.Waiting = nil
	s = Compute(in).ContainerStatuses[0]
	if s.State.Running == nil || !s.Ready || s.LastTerminationState.Terminated.Reason != "OOMKilled" || s.ContainerID != "keelson://a-id" {
		t.Errorf("running again: %+v", s)
	}
}

func TestReadiness(t *testing.T) {
	in := input(corev1.RestartPolicyAlways, "a")
	in.Pod.Spec.Containers[0].ReadinessProbe = &corev1.Probe{}
	in.Pod.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "example.com/gate"}}
	in.Observed.Containers = []observe.Container{running("a", 0)}
	check := func(what string, ready, containers corev1.ConditionStatus) {
		t.Helper()
		s := Compute(in)
		if g := get(&s, corev1.PodReady); g.Status != ready {
			t.Errorf("%s: Ready = %+v, want %s", what, g, ready)
		}
		if g := get(&s, corev1.ContainersReady); g.Status != containers {
			t.Errorf("%s: ContainersReady = %+v, want %s", what, g, containers)
		}
		in.Pod.Status = s
		in.Now = in.Now.Add(time.Minute)
	}
	check("not probed yet", "False", "False")
	in.Probes = map[string]Probe{"a-id": {Started: true, Ready: true}}
	check("gate missing", "False", "True")
	in.Pod.Status.Conditions = append(in.Pod.Status.Conditions, corev1.PodCondition{Type: "example.com/gate", Status: "True"})
	check("gate open", "True", "True")
	since := get(&in.Pod.Status, corev1.PodReady).LastTransitionTime
	check("unchanged", "True", "True")
	if now := get(&in.Pod.Status, corev1.PodReady).LastTransitionTime; !now.Equal(&since) {
		t.Errorf("transition time moved from %s to %s without a transition", since, now)
	}
	if get(&in.Pod.Status, "example.com/gate") == nil {
		t.Error("someone else's condition was lost")
	}
}

func TestInitContainers(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	in := input(corev1.RestartPolicyAlways, "app")
	in.Pod.Spec.InitContainers = []corev1.Container{{Name: "setup"}, {Name: "proxy", RestartPolicy: &always}}
	s := Compute(in)
	for _, c := range append(s.InitContainerStatuses, s.ContainerStatuses...) {
		if w := c.State.Waiting; w == nil || w.Reason != "PodInitializing" {
			t.Errorf("%s waits for %+v, want PodInitializing", c.Name, w)
		}
	}
	in.Observed.Containers = []observe.Container{{Name: "setup", State: observe.Created}}
	if w := Compute(in).InitContainerStatuses[0].State.Waiting; w == nil || w.Reason != "PodInitializing" {
		t.Errorf("a created one waits for %+v, want PodInitializing", w)
	}
	if c := get(&s, corev1.PodInitialized); c.Status != "False" || c.Message != "containers with incomplete status: [setup proxy]" {
		t.Errorf("Initialized = %+v", c)
	}
	in.Observed.Containers = []observe.Container{running("proxy", 0), exited("setup", 0, 0)}
	s = Compute(in)
	if c := get(&s, corev1.PodInitialized); c.Status != "True" || s.Phase != corev1.PodPending {
		t.Errorf("Initialized = %+v in phase %s, want True in Pending", c, s.Phase)
	}
}

// In a pod that is over, init containers that did their work stay ready, and those that did not are named.
func TestInitContainersOfFinishedPods(t *testing.T) {
	in := input(corev1.RestartPolicyNever, "app")
	in.Pod.Spec.InitContainers = []corev1.Container{{Name: "one"}, {Name: "two"}}
	in.Over = true
	in.Observed.Containers = []observe.Container{exited("one", 0, 0), exited("two", 0, 1)}
	s := Compute(in)
	if s.Phase != corev1.PodFailed || !s.InitContainerStatuses[0].Ready || s.InitContainerStatuses[1].Ready {
		t.Errorf("phase %s, ready %v %v, want Failed, true false", s.Phase, s.InitContainerStatuses[0].Ready, s.InitContainerStatuses[1].Ready)
	}
	if c := get(&s, corev1.PodInitialized); c.Status != "False" || c.Message != "containers with incomplete status: [two]" {
		t.Errorf("Initialized = %+v", c)
	}
	in.Observed.Containers = []observe.Container{exited("one", 0, 0), exited("two", 0, 0), exited("app", 0, 0)}
	if s = Compute(in); s.Phase != corev1.PodSucceeded || !s.InitContainerStatuses[0].Ready || !s.InitContainerStatuses[1].Ready || s.ContainerStatuses[0].Ready {
		t.Errorf("a pod that succeeded: %+v", s)
	}
}

// A container that the runtime has forgotten keeps its restart count and says that its end is not known.
func TestForgottenContainer(t *testing.T) {
	in := input(corev1.RestartPolicyAlways, "a")
	in.Pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "a", ContainerID: "keelson://old", RestartCount: 4,
		State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
	s := Compute(in).ContainerStatuses[0]
	if s.RestartCount != 4 || s.LastTerminationState.Terminated == nil || s.LastTerminationState.Terminated.Reason != "ContainerStatusUnknown" {
		t.Errorf("status = %+v", s)
	}
}

// ND10: the end of a container that a reboot took the record of is told when the next one runs, whether or not somebody looked between.
func TestHostile_ND10(t *testing.T) {
	in := input(corev1.RestartPolicyAlways, "a")
	at := corev1.ContainerStateRunning{StartedAt: metav1.NewTime(noon)}
	in.Pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "a", ContainerID: "keelson://old", RestartCount: 4, State: corev1.ContainerState{Running: &at}}}
	between := Compute(in)
	for _, seen := range []bool{false, true} {
		if seen {
			in.Pod.Status = between
		}
		in.Observed.Containers = []observe.Container{running("a", 5)}
		s := Compute(in).ContainerStatuses[0]
		if last := s.LastTerminationState.Terminated; s.RestartCount != 5 || s.State.Running == nil || last == nil || last.Reason != "ContainerStatusUnknown" || last.ContainerID != "keelson://old" {
			t.Errorf("seen between: %v: status = %+v", seen, s)
		}
		in.Pod.Status.ContainerStatuses = []corev1.ContainerStatus{s}
		if again := Compute(in).ContainerStatuses[0]; again.LastTerminationState.Terminated == nil || again.LastTerminationState.Terminated.ContainerID != "keelson://old" {
			t.Errorf("the next look: %+v", again.LastTerminationState)
		}
	}
}

// UIDs beyond 2^31 and failures of the node.
func TestFailure(t *testing.T) {
	in := input(corev1.RestartPolicyAlways, "a")
	in.Over, in.Failure = true, Failure{"Evicted", "The node was low on resource: memory."}
	s := Compute(in)
	if s.Phase != corev1.PodFailed || s.Reason != "Evicted" || s.Message == "" {
		t.Errorf("status = %s %s %q", s.Phase, s.Reason, s.Message)
	}
}

// All containers begin anew: the condition tells of the time in which they are stopped, each container why it waits and what ended it.
func TestRestartingAll(t *testing.T) {
	in := input(corev1.RestartPolicyNever, "app", "other")
	in.Pod.Spec.InitContainers = []corev1.Container{{Name: "setup"}}
	in.Pod.Spec.Containers[0].RestartPolicyRules = []corev1.ContainerRestartRule{{Action: corev1.ContainerRestartRuleActionRestartAllContainers,
		ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: corev1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{42}}}}
	check := func(what string, coming corev1.ConditionStatus, phase corev1.PodPhase) corev1.PodStatus {
		t.Helper()
		s := Compute(in)
		if c := get(&s, corev1.AllContainersRestarting); c == nil || c.Status != coming || s.Phase != phase {
			t.Errorf("%s: %s, %+v", what, s.Phase, c)
		}
		if c := get(&s, corev1.PodInitialized); c.Status != corev1.ConditionTrue {
			t.Errorf("%s: %+v", what, c)
		}
		in.Pod.Status = s
		return s
	}
	in.Observed.Containers = []observe.Container{running("app", 0), running("other", 0), exited("setup", 0, 0)}
	check("before", corev1.ConditionFalse, corev1.PodRunning)
	in.Observed.Containers[0] = exited("app", 0, 42)
	check("asked for", corev1.ConditionTrue, corev1.PodRunning)
	in.Observed.Containers[1] = exited("other", 0, 137)
	in.Waiting = map[string]plan.Waiting{}
	for _, name := range []string{"app", "other", "setup"} {
		in.Waiting[name] = plan.Waiting{Reason: plan.RestartingAll}
	}
	s := check("all are down", corev1.ConditionTrue, corev1.PodRunning)
	if other := s.ContainerStatuses[1]; other.State.Waiting == nil || other.LastTerminationState.Terminated.Reason != plan.RestartingAll {
		t.Errorf("one that was stopped: %+v", other)
	}
	again := running("setup", 1)
	again.Round = 1
	in.Observed.Containers = append([]observe.Container{again}, in.Observed.Containers...)
	delete(in.Waiting, "setup")
	s = check("the first is back", corev1.ConditionFalse, corev1.PodRunning)
	if app := s.ContainerStatuses[0]; app.LastTerminationState.Terminated.Reason != "Error" || app.LastTerminationState.Terminated.ExitCode != 42 {
		t.Errorf("the one that asked for it: %+v", app)
	}
}
