package podstatus

import (
	"math"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/kubelet/observe"
	"keelson.dev/keelson/kubelet/plan"
)

type builder struct {
	In
	round uint32
}

// statuses builds the list for one kind of container, in the order of the spec. Init stands for all init
// containers, sidecars too.
func (b builder) statuses(kind plan.Kind, old []corev1.ContainerStatus) []corev1.ContainerStatus {
	var out []corev1.ContainerStatus
	add := func(c *corev1.Container, kind plan.Kind) {
		s := b.status(c, kind, find(old, c.Name))
		out = append(out, s)
	}
	spec := &b.Pod.Spec
	switch kind {
	case plan.Init:
		for i := range spec.InitContainers {
			add(&spec.InitContainers[i], plan.KindOf(b.Pod, spec.InitContainers[i].Name))
		}
	case plan.App:
		for i := range spec.Containers {
			add(&spec.Containers[i], kind)
		}
	case plan.Ephemeral:
		for i := range spec.EphemeralContainers {
			add((*corev1.Container)(&spec.EphemeralContainers[i].EphemeralContainerCommon), kind)
		}
	}
	return out
}

func (b builder) status(c *corev1.Container, kind plan.Kind, old *corev1.ContainerStatus) corev1.ContainerStatus {
	s := corev1.ContainerStatus{Name: c.Name, Image: c.Image}
	all := b.Observed.Instances(c.Name)
	if len(all) == 0 {
		b.unseen(c, &s, old)
		b.flags(c, kind, &s, nil)
		return s
	}
	now := all[0]
	s.RestartCount = int32(now.Attempt)
	s.ContainerID = b.Runtime + "://" + now.ID
	s.ImageID = now.ImageID
	if now.Image != "" && !strings.HasPrefix(now.Image, "sha256:") {
		s.Image = now.Image
	}
	s.State = b.state(now)
	b.overtaken(s.State.Terminated, now, b.round)
	if len(all) > 1 && all[1].State == observe.Exited {
		s.LastTerminationState.Terminated = b.terminated(all[1])
		b.overtaken(s.LastTerminationState.Terminated, all[1], now.Round)
	} else if old != nil {
		s.LastTerminationState = lastKnown(old, s.ContainerID) // the record before it is gone, its story is not
	}
	if w, waits := b.Waiting[c.Name]; waits && now.State != observe.Running {
		if s.State.Terminated != nil {
			s.LastTerminationState = corev1.ContainerState{Terminated: s.State.Terminated}
		}
		s.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: w.Reason, Message: w.Message}}
	}
	s.Resources = resourcesInForce(c, now)
	s.AllocatedResourcesStatus = b.Devices[c.Name]
	s.AllocatedResources = c.Resources.Requests
	s.User = user(now.User)
	s.VolumeMounts = volumeMounts(c, now)
	b.flags(c, kind, &s, &now)
	return s
}

// lastKnown is how the container before the one of that ID ended, from what the status said: the runtime knows nothing of it after
// a reboot of the machine.
func lastKnown(old *corev1.ContainerStatus, now string) corev1.ContainerState {
	switch last := old.LastTerminationState.Terminated; {
	case old.ContainerID == now:
		return old.LastTerminationState
	case old.State.Terminated != nil:
		return old.State
	case last != nil && last.ContainerID == old.ContainerID:
		return old.LastTerminationState
	case old.State.Running != nil:
		return corev1.ContainerState{Terminated: unknown(old.ContainerID, "The container could not be located when the pod was restarted")}
	}
	return corev1.ContainerState{}
}

// user is the identity as the API takes it: it refuses groups beyond 2^31, and a status that it refuses would hide all the
// rest of the pod's story.
func user(u *observe.User) *corev1.ContainerUser {
	if u == nil {
		return nil
	}
	for _, g := range append([]int64{u.GID}, u.Groups...) {
		if g < 0 || g > math.MaxInt32 {
			return nil
		}
	}
	return &corev1.ContainerUser{Linux: &corev1.LinuxContainerUser{UID: u.UID, GID: u.GID, SupplementalGroups: u.Groups}}
}

// volumeMounts says of each mount of the spec whether it is read-only, and all below it (KEP-3857).
func volumeMounts(c *corev1.Container, now observe.Container) []corev1.VolumeMountStatus {
	var out []corev1.VolumeMountStatus
	for _, m := range c.VolumeMounts {
		s := corev1.VolumeMountStatus{Name: m.Name, MountPath: m.MountPath, ReadOnly: m.ReadOnly}
		if m.ReadOnly {
			mode := corev1.RecursiveReadOnlyDisabled
			if slices.Contains(now.Recursive, m.MountPath) {
				mode = corev1.RecursiveReadOnlyEnabled
			}
			s.RecursiveReadOnly = &mode
		}
		out = append(out, s)
	}
	return out
}

// unseen describes a container of which the runtime knows nothing.
func (b builder) unseen(c *corev1.Container, s *corev1.ContainerStatus, old *corev1.ContainerStatus) {
	wait := b.creating()
	if w, waits := b.Waiting[c.Name]; waits {
		wait.Reason, wait.Message = w.Reason, w.Message
	}
	s.State.Waiting = &wait
	if old == nil || old.ContainerID == "" {
		return
	}
	// It did run once: keep its count and the story of its last end.
	s.RestartCount, s.ContainerID, s.ImageID, s.Image = old.RestartCount, old.ContainerID, old.ImageID, old.Image
	s.LastTerminationState = old.LastTerminationState
	switch {
	case old.State.Terminated != nil:
		s.State = old.State
	case old.State.Running != nil:
		gone := corev1.ContainerState{Terminated: unknown(old.ContainerID,
			"The container could not be located when the pod was restarted")}
		if b.Over {
			s.State = gone
		} else {
			s.LastTerminationState = gone
		}
	}
}

// creating is why a container waits of which nothing else is known: in a pod with init containers, for the pod to be initialized,
// whichever it is.
func (b builder) creating() corev1.ContainerStateWaiting {
	if len(b.Pod.Spec.InitContainers) > 0 {
		return corev1.ContainerStateWaiting{Reason: "PodInitializing"}
	}
	return corev1.ContainerStateWaiting{Reason: "ContainerCreating"}
}

func (b builder) state(c observe.Container) corev1.ContainerState {
	switch c.State {
	case observe.Running:
		return corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(c.StartedAt)}}
	case observe.Exited:
		return corev1.ContainerState{Terminated: b.terminated(c)}
	case observe.Created:
		wait := b.creating()
		return corev1.ContainerState{Waiting: &wait}
	}
	return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ContainerStatusUnknown"}}
}

func (b builder) terminated(c observe.Container) *corev1.ContainerStateTerminated {
	t := &corev1.ContainerStateTerminated{
		ExitCode: c.ExitCode, Reason: c.Reason, Message: c.Message,
		StartedAt: metav1.NewTime(c.StartedAt), FinishedAt: metav1.NewTime(c.FinishedAt),
		ContainerID: b.Runtime + "://" + c.ID,
	}
	switch {
	case t.Reason != "":
	case c.ExitCode == 0:
		t.Reason = "Completed"
	default:
		t.Reason = "Error"
	}
	return t
}

// overtaken gives the reason for the end of a container that was stopped because all were to begin anew.
func (b builder) overtaken(t *corev1.ContainerStateTerminated, c observe.Container, round uint32) {
	if t != nil && c.Round < round && c.ExitCode != 0 && !plan.AsksAll(b.Pod, c) {
		t.Reason = plan.RestartingAll
	}
}

// flags sets started and ready.
func (b builder) flags(c *corev1.Container, kind plan.Kind, s *corev1.ContainerStatus, now *observe.Container) {
	running := now != nil && now.State == observe.Running
	started, ready := running, running
	if running {
		if p, probed := b.Probes[now.ID]; probed {
			started, ready = p.Started, p.Started && p.Ready
		} else {
			started = c.StartupProbe == nil
			ready = started && c.ReadinessProbe == nil
		}
	}
	switch kind {
	case plan.Init:
		ready = s.State.Terminated != nil && s.State.Terminated.ExitCode == 0
	case plan.Ephemeral:
		ready = false
	}
	s.Started, s.Ready = &started, ready
}

// resourcesInForce reports what the cgroup holds: the spec's own words where they mean the same, the measured
// value where they do not (a resize that has not come through).
func resourcesInForce(c *corev1.Container, now observe.Container) *corev1.ResourceRequirements {
	out := c.Resources.DeepCopy()
	if now.State != observe.Running {
		return out
	}
	if now.MemoryLimit > 0 && out.Limits != nil {
		if want, has := out.Limits[corev1.ResourceMemory]; has && want.Value() != now.MemoryLimit {
			out.Limits[corev1.ResourceMemory] = *resource.NewQuantity(now.MemoryLimit, resource.BinarySI)
		}
	}
	if now.CPUQuota > 0 && now.CPUPeriod > 0 && out.Limits != nil {
		milli := now.CPUQuota * 1000 / now.CPUPeriod
		if want, has := out.Limits[corev1.ResourceCPU]; has && want.MilliValue() != milli && milli > 10 {
			out.Limits[corev1.ResourceCPU] = *resource.NewMilliQuantity(milli, resource.DecimalSI)
		}
	}
	return out
}
