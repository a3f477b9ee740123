package podstatus

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	helpers "k8s.io/component-helpers/resource"

	"keelson.dev/keelson/kubelet/observe"
	"keelson.dev/keelson/kubelet/plan"
)

// In is what a status is computed from.
type In struct {
	// Pod with the status last reported (by us or others).
	Pod      *corev1.Pod
	Observed observe.Pod
	// Waiting says by container name why it waits (plan.Out.Waiting and failures).
	Waiting map[string]plan.Waiting
	// Probes is keyed by container ID; an ID without entry counts as started, and as ready while it runs.
	Probes map[string]Probe
	// HostIPs of the node, the primary one first.
	HostIPs []string
	// Runtime is the scheme of container IDs: "keelson" in keelson://<id>.
	Runtime string
	// Over: nothing of the pod will run again (all stopped or never begun), so the phase becomes terminal.
	Over bool
	// Failure, when its Reason is set, makes the pod Failed for that reason (Evicted, OutOfcpu, DeadlineExceeded).
	Failure Failure
	// Resize says how far a change of resources has come.
	Resize Resize
	// Devices says by container name how the devices are that it was given.
	Devices map[string][]corev1.ResourceStatus
	// QOS is the pod's quality of service class.
	QOS corev1.PodQOSClass
	Now time.Time
}

// Resize is a change of resources in place (KEP-1287).
type Resize struct {
	// Pending is Deferred (no room now) or Infeasible (never), with a message; "" when the newest resources are granted.
	Pending, Message string
	// Progress: granted, but not yet in force; Trouble says why not, if it failed.
	Progress bool
	Trouble  string
	// Whole: those of the pod as a whole are not yet in force.
	Whole bool
}

// Failure is why the node ended a pod.
type Failure struct{ Reason, Message string }

// Probe is what the probes say of one container instance.
type Probe struct{ Started, Ready bool }

// Compute returns the pod's status. Phase and ready conditions follow from the container statuses, which follow
// from the observed containers.
func Compute(in In) corev1.PodStatus {
	old := in.Pod.Status
	out := *old.DeepCopy()
	out.ObservedGeneration = in.Pod.Generation
	if out.StartTime == nil {
		now := metav1.NewTime(in.Now).Rfc3339Copy()
		out.StartTime = &now
	}
	out.QOSClass = in.QOS
	podResources(&out, in)
	if len(in.HostIPs) > 0 {
		out.HostIP, out.HostIPs = in.HostIPs[0], nil
		for _, ip := range in.HostIPs {
			out.HostIPs = append(out.HostIPs, corev1.HostIP{IP: ip})
		}
	}
	podIPs(&out, in)
	b := builder{In: in}
	b.round, _ = plan.Round(in.Pod, in.Observed)
	out.InitContainerStatuses = b.statuses(plan.Init, old.InitContainerStatuses)
	out.ContainerStatuses = b.statuses(plan.App, old.ContainerStatuses)
	out.EphemeralContainerStatuses = b.statuses(plan.Ephemeral, old.EphemeralContainerStatuses)
	out.Phase = phase(in, &out)
	if in.Failure.Reason != "" {
		out.Reason, out.Message = in.Failure.Reason, in.Failure.Message
	}
	if Terminal(old.Phase) {
		out.Phase = old.Phase // never back, not even from Failed to Succeeded
	}
	if Terminal(out.Phase) {
		settle(out.ContainerStatuses)
		settle(out.InitContainerStatuses)
		settle(out.EphemeralContainerStatuses)
	}
	conditions(&out, in)
	return out
}

// Terminal tells whether a phase is final.
func Terminal(p corev1.PodPhase) bool {
	return p == corev1.PodSucceeded || p == corev1.PodFailed
}

// podResources tells what the pod as a whole was granted, and what of it is in force (KEP-5419).
func podResources(out *corev1.PodStatus, in In) {
	bare := helpers.PodResourcesOptions{ExcludeOverhead: true}
	requests, limits := helpers.PodRequests(in.Pod, bare), helpers.PodLimits(in.Pod, bare)
	if len(requests)+len(limits) == 0 {
		out.AllocatedResources, out.Resources = nil, nil
		return
	}
	out.AllocatedResources = requests
	if !in.Resize.Whole || out.Resources == nil {
		out.Resources = &corev1.ResourceRequirements{Requests: requests, Limits: limits}
	}
}

// podIPs keeps the last known addresses while the runtime has none to show, as clients expect of finished pods.
func podIPs(out *corev1.PodStatus, in In) {
	var ips []string
	if box := in.Observed.Sandbox(); box != nil {
		switch {
		case in.Pod.Spec.HostNetwork && (box.Ready || len(out.PodIPs) > 0):
			ips = in.HostIPs
		case box.Ready:
			ips = box.IPs
		}
	}
	if len(ips) == 0 {
		return
	}
	out.PodIP, out.PodIPs = ips[0], nil
	for _, ip := range ips {
		out.PodIPs = append(out.PodIPs, corev1.PodIP{IP: ip})
	}
}

// settle makes container statuses fit a terminal pod: nothing runs, and nothing is ready but init containers that did their work.
func settle(list []corev1.ContainerStatus) {
	no := false
	for i := range list {
		s := &list[i]
		s.Ready, s.Started = s.Ready && s.State.Terminated != nil, &no
		switch {
		case s.State.Running != nil:
			s.State = corev1.ContainerState{Terminated: unknown(s.ContainerID,
				"The container could not be located when the pod was terminated")}
		case s.State.Waiting != nil && s.LastTerminationState.Terminated != nil:
			s.State, s.LastTerminationState = s.LastTerminationState, corev1.ContainerState{}
		}
	}
}

func unknown(id, message string) *corev1.ContainerStateTerminated {
	return &corev1.ContainerStateTerminated{
		Reason: "ContainerStatusUnknown", Message: message, ExitCode: 137, ContainerID: id,
	}
}

// tally counts containers as the phase sees them.
type tally struct {
	waiting, running, stopped, succeeded int
	initPending, initFailed              bool
}

func count(in In, out *corev1.PodStatus) tally {
	var t tally
	for i := range in.Pod.Spec.InitContainers {
		t.init(&in.Pod.Spec.InitContainers[i], find(out.InitContainerStatuses, in.Pod.Spec.InitContainers[i].Name))
	}
	for i := range in.Pod.Spec.Containers {
		s := find(out.ContainerStatuses, in.Pod.Spec.Containers[i].Name)
		switch {
		case s == nil:
			t.waiting++
		case s.State.Running != nil:
			t.running++
		case s.State.Terminated != nil:
			t.stopped++
			if s.State.Terminated.ExitCode == 0 {
				t.succeeded++
			}
		case s.LastTerminationState.Terminated != nil:
			t.stopped++
		default:
			t.waiting++
		}
	}
	return t
}

func (t *tally) init(c *corev1.Container, s *corev1.ContainerStatus) {
	if plan.IsSidecar(c) {
		if s == nil || s.Started == nil || !*s.Started {
			// A sidecar that has run and is down for a restart does not take initialisation back.
			t.initPending = t.initPending || s == nil || s.LastTerminationState.Terminated == nil && s.State.Terminated == nil
		}
		return
	}
	switch {
	case s != nil && s.State.Waiting != nil && s.State.Waiting.Reason == plan.RestartingAll:
	case s == nil, s.State.Running != nil, s.State.Waiting != nil && s.LastTerminationState.Terminated == nil:
		t.initPending = true
	case s.State.Terminated != nil && s.State.Terminated.ExitCode != 0, s.State.Waiting != nil:
		t.initPending, t.initFailed = true, true
	}
}

// phase applies the documented meaning of each phase.
func phase(in In, out *corev1.PodStatus) corev1.PodPhase {
	if in.Failure.Reason != "" && in.Over {
		return corev1.PodFailed
	}
	t := count(in, out)
	never := in.Pod.Spec.RestartPolicy == corev1.RestartPolicyNever
	switch {
	case in.Over && t.initFailed:
		return corev1.PodFailed
	case in.Over && t.waiting > 0:
		// Stopped before everything had begun: nobody will ever begin it.
		return corev1.PodFailed
	case in.Over && t.stopped == t.succeeded && t.running == 0:
		return corev1.PodSucceeded
	case in.Over:
		return corev1.PodFailed
	case t.initFailed && never:
		return corev1.PodPending // until all has stopped
	case t.initPending && t.running == 0 && t.stopped == 0, t.waiting > 0:
		return corev1.PodPending
	}
	return corev1.PodRunning
}

func find(list []corev1.ContainerStatus, name string) *corev1.ContainerStatus {
	for i := range list {
		if list[i].Name == name {
			return &list[i]
		}
	}
	return nil
}
