package plan

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"keelson.dev/keelson/kubelet/observe"
)

// containers says which containers are to be started now, in order, and whether the pod has run to its end. It
// also asks for the stop of containers that are unhealthy or whose definition changed.
func (p *planner) containers(box *observe.Sandbox, ready bool) (starts []Action, finished bool) {
	initialized := p.initialized(box, ready)
	starts, passed, failed := p.inits(box, ready, initialized)
	if failed {
		return nil, true
	}
	if !passed && !initialized {
		return starts, false
	}
	for i := range p.Pod.Spec.EphemeralContainers {
		e := &p.Pod.Spec.EphemeralContainers[i]
		if ready && p.Observed.Newest(e.Name) == nil {
			starts = append(starts, Action{Op: Start, Container: e.Name, Kind: Ephemeral, Attempt: p.attempt(e.Name)})
		}
	}
	over := true
	for i := range p.Pod.Spec.Containers {
		c := &p.Pod.Spec.Containers[i]
		action, done := p.app(c, box)
		over = over && done
		if action != nil {
			starts = append(starts, *action)
		}
	}
	return starts, over
}

// app decides about one ordinary container. done means that it has run and will not run again.
func (p *planner) app(c *corev1.Container, box *observe.Sandbox) (start *Action, done bool) {
	last := p.Observed.Newest(c.Name)
	if last == nil {
		if p.lost(c.Name, box) {
			return nil, true
		}
		return &Action{Op: Start, Container: c.Name, Kind: App, Attempt: p.attempt(c.Name)}, false
	}
	if last.Round < p.round {
		return p.anew(c.Name, App, *last), false
	}
	switch last.State {
	case observe.Running, observe.Unknown:
		p.health(c, *last)
		return nil, false
	case observe.Exited:
		if !ShouldRestart(p.Pod, c, *last) {
			return nil, true
		}
	}
	return p.restart(c.Name, App, *last), false
}

// lost tells of a container without any record in a pod that must not run anything twice: its record went with a
// sandbox that died, so it is taken as ended.
func (p *planner) lost(name string, box *observe.Sandbox) bool {
	if p.Pod.Spec.RestartPolicy != corev1.RestartPolicyNever {
		return false
	}
	if s := PreviousStatus(p.Pod, name); s != nil && s.ContainerID != "" {
		return true
	}
	return box != nil && !box.Ready && len(p.Observed.Containers) > 0
}

// health stops a running container that its probes condemned or whose definition changed. Its exit brings the
// restart, if there is to be one.
func (p *planner) health(c *corev1.Container, last observe.Container) {
	if msg, bad := p.Memory.Unhealthy[last.ID]; bad {
		p.stop(last, probeGrace(p.Pod, c, p.Memory.Started[last.ID]), msg)
		return
	}
	if last.Hash != "" && last.Hash != Hash(c) {
		p.stop(last, Grace(p.Pod), fmt.Sprintf("Container %s definition changed, will be restarted", c.Name))
		return
	}
	p.resize(c, last)
}

// resize brings a running container's cgroup in line with its resources, or restarts it where its policy asks for
// that. Values that the runtime reports are rounded by the kernel, so they are only trusted to be nearly right, and
// only where our own memory has a gap.
func (p *planner) resize(c *corev1.Container, last observe.Container) {
	want, wanted := p.Resources[c.Name]
	if !wanted || last.State != observe.Running {
		return
	}
	have, known := p.Memory.Applied[last.ID]
	if !known {
		have = Resources{Shares: last.CPUShares, Quota: last.CPUQuota, Memory: last.MemoryLimit}
		if have == (Resources{}) || near(have.Shares, want.Shares) && near(have.Quota, want.Quota) && near(have.Memory, want.Memory) {
			return
		}
	}
	if have == want {
		return
	}
	for _, r := range c.ResizePolicy {
		cpu := r.ResourceName == corev1.ResourceCPU && (have.Shares != want.Shares || have.Quota != want.Quota)
		memory := r.ResourceName == corev1.ResourceMemory && have.Memory != want.Memory
		if r.RestartPolicy == corev1.RestartContainer && (cpu || memory) {
			p.stop(last, Grace(p.Pod), fmt.Sprintf("Container %s resize requires restart", c.Name))
			return
		}
	}
	p.write(c.Name, last.ID)
}

// resizePod brings the pod's own cgroup in line with the resources of the pod as a whole (KEP-5419). After a restart of the
// daemon nothing is known of it, and it is written once more.
func (p *planner) resizePod() {
	want, wanted := p.Resources[PodLevel]
	if have, known := p.Memory.Applied[PodLevel]; wanted && (!known || have != want) {
		p.write(PodLevel, PodLevel)
	}
}

func (p *planner) write(name, id string) {
	if step := p.Memory.Resizes[id]; !step.due(p.Now) {
		p.wake(step.RetryAt)
		return
	}
	p.do(Action{Op: Resize, Container: name, ID: id})
}

// near: equal but for rounding; a runtime may report "no quota" as -1 or 0.
func near(a, b int64) bool {
	if a <= 0 && b <= 0 {
		return true
	}
	return max(a-b, b-a) <= max(a, b)/50+2
}

func probeGrace(pod *corev1.Pod, c *corev1.Container, started bool) time.Duration {
	probe := c.LivenessProbe
	if c.StartupProbe != nil && !started {
		probe = c.StartupProbe
	}
	if probe != nil && probe.TerminationGracePeriodSeconds != nil {
		return time.Duration(*probe.TerminationGracePeriodSeconds) * time.Second
	}
	return Grace(pod)
}

// restart starts a dead container anew when its back-off is over, and says when that is otherwise.
func (p *planner) restart(name string, kind Kind, last observe.Container) *Action {
	ended := last.FinishedAt
	if ended.IsZero() {
		ended = last.CreatedAt
	}
	crash := p.Memory.Crashes[name]
	next := Crash{Delay: crashBase, Updated: p.Now}
	if crash.Delay > 0 && ended.Sub(crash.Updated) <= crashReset {
		if at := ended.Add(crash.Delay); p.Now.Before(at) {
			p.wake(at)
			p.out.Waiting[name] = Waiting{"CrashLoopBackOff", fmt.Sprintf(
				"back-off %s restarting failed container=%s pod=%s_%s(%s)",
				crash.Delay, name, p.Pod.Name, p.Pod.Namespace, p.Pod.UID)}
			return nil
		}
		next.Delay = min(2*crash.Delay, crashMax)
	}
	if last.State == observe.Created { // it never ran: another takes its place and its number
		return &Action{Op: Start, Container: name, Kind: kind, ID: last.ID, Attempt: last.Attempt, Crash: next}
	}
	return &Action{Op: Start, Container: name, Kind: kind, Attempt: last.Attempt + 1, Crash: next}
}

// attempt numbers the first instance that we know of: one after what the status last said, if it said anything
// (after a reboot the runtime has forgotten, the API has not).
func (p *planner) attempt(name string) uint32 {
	s := PreviousStatus(p.Pod, name)
	switch {
	case s == nil || s.ContainerID == "":
		return 0
	case s.State.Waiting != nil && s.LastTerminationState.Terminated == nil: // made, and never ran
		return uint32(s.RestartCount)
	}
	return uint32(s.RestartCount) + 1
}

// initialized: init containers are over for this sandbox and round once any ordinary container was made in it; their
// records may have been pruned since.
func (p *planner) initialized(box *observe.Sandbox, ready bool) bool {
	if !ready {
		return false
	}
	return slices.ContainsFunc(p.Observed.Containers, func(c observe.Container) bool {
		return c.SandboxID == box.ID && c.Round == p.round && KindOf(p.Pod, c.Name) == App
	})
}

// inits walks the init containers in order until one holds the others back. passed: all are through. failed: one
// failed for good.
func (p *planner) inits(box *observe.Sandbox, ready, initialized bool) (starts []Action, passed, failed bool) {
	for i := range p.Pod.Spec.InitContainers {
		c := &p.Pod.Spec.InitContainers[i]
		last := p.Observed.Newest(c.Name)
		here := last != nil && ready && last.SandboxID == box.ID
		var start *Action
		var through bool
		switch {
		case IsSidecar(c):
			start, through = p.sidecar(c, last, here)
		case initialized:
			continue
		default:
			if !ready && p.appsOver() {
				return nil, true, false
			}
			start, through, failed = p.init(c, last, here)
		}
		if failed {
			return nil, false, true
		}
		if start != nil {
			starts = append(starts, *start)
		}
		if !through && !initialized {
			return starts, false, false
		}
	}
	return starts, true, false
}

// appsOver: without a sandbox nothing is initialised again for containers that need not run again.
func (p *planner) appsOver() bool {
	for i := range p.Pod.Spec.Containers {
		c := &p.Pod.Spec.Containers[i]
		last := p.Observed.Newest(c.Name)
		if last == nil || last.State != observe.Exited || last.Round < p.round || ShouldRestart(p.Pod, c, *last) {
			return false
		}
	}
	return true
}

// sidecar keeps a restartable init container running; those after it may come when it has started.
func (p *planner) sidecar(c *corev1.Container, last *observe.Container, here bool) (start *Action, through bool) {
	switch {
	case last == nil:
		return &Action{Op: Start, Container: c.Name, Kind: Sidecar, Attempt: p.attempt(c.Name)}, false
	case last.Round < p.round:
		return p.anew(c.Name, Sidecar, *last), false
	case !here || last.State == observe.Exited || last.State == observe.Created:
		return p.restart(c.Name, Sidecar, *last), false
	}
	p.health(c, *last)
	return nil, c.StartupProbe == nil || p.Memory.Started[last.ID]
}

// init runs one ordinary init container to success.
func (p *planner) init(c *corev1.Container, last *observe.Container, here bool) (start *Action, through, failed bool) {
	never := p.Pod.Spec.RestartPolicy == corev1.RestartPolicyNever
	switch {
	case last == nil:
		return &Action{Op: Start, Container: c.Name, Kind: Init, Attempt: p.attempt(c.Name)}, false, false
	case last.Round < p.round:
		return p.anew(c.Name, Init, *last), false, false
	case !here:
		if never && last.State == observe.Exited && last.ExitCode != 0 {
			return nil, false, true
		}
		return &Action{Op: Start, Container: c.Name, Kind: Init, Attempt: last.Attempt + 1}, false, false
	case last.State == observe.Running, last.State == observe.Unknown:
		p.resize(c, *last)
		return nil, false, false
	case last.State == observe.Exited && last.ExitCode == 0:
		return nil, true, false
	case last.State == observe.Exited && !ShouldRestart(p.Pod, c, *last):
		return nil, false, true
	}
	return p.restart(c.Name, Init, *last), false, false
}

// end stops what lives, in order, and then the sandbox.
func (p *planner) end() {
	left := p.Ending.Grace - p.Now.Sub(p.Ending.Since)
	live := p.Observed.Live()
	mains := false
	for _, c := range live {
		if KindOf(p.Pod, c.Name) != Sidecar {
			mains = true
			p.stop(c, left, "Stopping container "+c.Name)
		}
	}
	if !mains {
		p.endSidecars(live, left)
	}
	if len(live) > 0 {
		return
	}
	p.out.Finished = true
	for _, s := range p.Observed.Sandboxes {
		if !s.Ready {
			continue
		}
		p.out.Finished = false
		if p.Memory.Sandbox.Progress == Failed && p.Now.Before(p.Memory.Sandbox.RetryAt) {
			p.wake(p.Memory.Sandbox.RetryAt)
			continue
		}
		p.do(Action{Op: StopSandbox, ID: s.ID})
	}
}

// endSidecars stops the last sidecar that lives; the one before it follows when this one is gone.
func (p *planner) endSidecars(live []observe.Container, left time.Duration) {
	for i := len(p.Pod.Spec.InitContainers) - 1; i >= 0; i-- {
		name, found := p.Pod.Spec.InitContainers[i].Name, false
		for _, c := range live {
			if c.Name == name {
				found = true
				p.stop(c, left, "Stopping container "+c.Name)
			}
		}
		if found {
			return
		}
	}
}
