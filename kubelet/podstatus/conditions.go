package podstatus

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/kubelet/plan"
)

const (
	podCompleted       = "PodCompleted"
	podFailed          = "PodFailed"
	containersNotReady = "ContainersNotReady"
	notInitialized     = "ContainersNotInitialized"
	gatesNotReady      = "ReadinessGatesNotReady"
)

// Owned tells whether a condition is the kubelet's to write.
func Owned(t corev1.PodConditionType) bool {
	switch t {
	case corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.PodReady, corev1.ContainersReady,
		corev1.PodScheduled, corev1.PodResizePending, corev1.PodResizeInProgress, corev1.AllContainersRestarting:
		return true
	}
	return false
}

// verdict is a condition's status with its reason.
type verdict struct {
	ok              bool
	reason, message string
}

// conditions sets the conditions that the kubelet owns; all others stay.
func conditions(out *corev1.PodStatus, in In) {
	box := in.Observed.Sandbox()
	hasNet := box != nil && box.Ready && (in.Pod.Spec.HostNetwork || len(box.IPs) > 0)
	containers := containersReady(in, out)
	ready := containers
	if ready.ok {
		ready = gates(in.Pod, out)
	}
	set(out, in, corev1.PodReadyToStartContainers, verdict{ok: hasNet && !Terminal(out.Phase)})
	set(out, in, corev1.PodInitialized, initialized(in, out))
	set(out, in, corev1.PodReady, ready)
	set(out, in, corev1.ContainersReady, containers)
	resize(out, in)
	if in.Failure.Reason == "Evicted" || in.Failure.Reason == "Terminated" {
		set(out, in, corev1.DisruptionTarget, verdict{ok: true, reason: corev1.PodReasonTerminationByKubelet, message: in.Failure.Message})
	}
	set(out, in, corev1.PodScheduled, verdict{ok: true}) // it is here
	if plan.CanRestartAll(in.Pod) {
		set(out, in, corev1.AllContainersRestarting, restarting(in, out))
	}
}

// restarting tells whether all containers are being stopped to begin anew (KEP-5532).
func restarting(in In, out *corev1.PodStatus) verdict {
	_, coming := plan.Round(in.Pod, in.Observed)
	switch {
	case out.Phase == corev1.PodSucceeded:
		return verdict{reason: podCompleted}
	case out.Phase == corev1.PodFailed:
		return verdict{reason: podFailed}
	case coming:
		return verdict{ok: true, reason: "RestartAllContainersStarted", message: "container exited with restart policy rule"}
	}
	return verdict{}
}

// resize sets or takes away the two conditions of a change of resources.
func resize(out *corev1.PodStatus, in In) {
	out.Conditions = slices.DeleteFunc(out.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodResizePending && in.Resize.Pending == "" ||
			c.Type == corev1.PodResizeInProgress && !in.Resize.Progress
	})
	if in.Resize.Pending != "" {
		set(out, in, corev1.PodResizePending, verdict{ok: true, reason: in.Resize.Pending, message: in.Resize.Message})
	}
	if in.Resize.Progress {
		v := verdict{ok: true, message: in.Resize.Trouble}
		if v.message != "" {
			v.reason = corev1.PodReasonError
		}
		set(out, in, corev1.PodResizeInProgress, v)
	}
}

func initialized(in In, out *corev1.PodStatus) verdict {
	var open []string
	for i := range in.Pod.Spec.InitContainers {
		c := &in.Pod.Spec.InitContainers[i]
		s := find(out.InitContainerStatuses, c.Name)
		done := s != nil && s.Ready
		if plan.IsSidecar(c) {
			done = s != nil && (s.Started != nil && *s.Started || s.RestartCount > 0 || s.State.Terminated != nil)
		}
		if !done {
			open = append(open, c.Name)
		}
	}
	switch {
	case out.Phase == corev1.PodSucceeded:
		return verdict{ok: true, reason: podCompleted}
	case len(open) > 0 && begun(out):
		return verdict{ok: true} // the ordinary containers came after it, so it was
	case len(open) > 0:
		return verdict{reason: notInitialized, message: "containers with incomplete status: " + brackets(open)}
	}
	return verdict{ok: true}
}

// begun tells whether any ordinary container has ever been made.
func begun(out *corev1.PodStatus) bool {
	for _, s := range out.ContainerStatuses {
		if s.ContainerID != "" {
			return true
		}
	}
	return false
}

func containersReady(in In, out *corev1.PodStatus) verdict {
	switch out.Phase {
	case corev1.PodSucceeded:
		return verdict{reason: podCompleted}
	case corev1.PodFailed:
		return verdict{reason: podFailed}
	}
	var unready []string
	for i := range in.Pod.Spec.InitContainers {
		c := &in.Pod.Spec.InitContainers[i]
		if s := find(out.InitContainerStatuses, c.Name); plan.IsSidecar(c) && (s == nil || !s.Ready) {
			unready = append(unready, c.Name)
		}
	}
	for i := range in.Pod.Spec.Containers {
		if s := find(out.ContainerStatuses, in.Pod.Spec.Containers[i].Name); s == nil || !s.Ready {
			unready = append(unready, in.Pod.Spec.Containers[i].Name)
		}
	}
	if len(unready) > 0 {
		return verdict{reason: containersNotReady, message: "containers with unready status: " + brackets(unready)}
	}
	return verdict{ok: true}
}

// gates asks the readiness gates, whose conditions others write.
func gates(pod *corev1.Pod, out *corev1.PodStatus) verdict {
	var missing []string
	for _, g := range pod.Spec.ReadinessGates {
		switch c := get(out, g.ConditionType); {
		case c == nil:
			missing = append(missing, fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist.", g.ConditionType))
		case c.Status != corev1.ConditionTrue:
			missing = append(missing, fmt.Sprintf("the status of pod readiness gate %q is not \"True\", but %s", g.ConditionType, c.Status))
		}
	}
	if len(missing) > 0 {
		return verdict{reason: gatesNotReady, message: strings.Join(missing, ", ")}
	}
	return verdict{ok: true}
}

func brackets(names []string) string { return "[" + strings.Join(names, " ") + "]" }

func get(s *corev1.PodStatus, t corev1.PodConditionType) *corev1.PodCondition {
	for i := range s.Conditions {
		if s.Conditions[i].Type == t {
			return &s.Conditions[i]
		}
	}
	return nil
}

func set(s *corev1.PodStatus, in In, t corev1.PodConditionType, v verdict) {
	c := corev1.PodCondition{
		Type: t, Status: corev1.ConditionFalse, Reason: v.reason, Message: v.message,
		LastTransitionTime: metav1.NewTime(in.Now).Rfc3339Copy(), ObservedGeneration: in.Pod.Generation,
	}
	if v.ok {
		c.Status = corev1.ConditionTrue
	}
	old := get(s, t)
	if old == nil {
		s.Conditions = append(s.Conditions, c)
		return
	}
	c.LastProbeTime = old.LastProbeTime
	if old.Status == c.Status {
		c.LastTransitionTime = old.LastTransitionTime
	}
	*old = c
}

// Changed tells whether b says anything that a does not.
func Changed(a, b corev1.PodStatus) bool { return !equality.Semantic.DeepEqual(a, b) }
