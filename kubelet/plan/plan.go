package plan

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"keelson.dev/keelson/kubelet/observe"
)

// Restart back-off as users know it: the first restart at once, then 10 s doubling to 5 min; ten quiet minutes
// start it anew.
const (
	crashBase  = 10 * time.Second
	crashMax   = 5 * time.Minute
	crashReset = 10 * time.Minute
)

// minGrace is the least that a container gets between its signal and its kill, however short the asked time: an
// orderly end within it is cheaper for everyone than a kill.
const minGrace = 2 * time.Second

// backOffShown is how long a failed pull is shown as ErrImagePull before it is shown as ImagePullBackOff.
const backOffShown = time.Second

// Plan decides what to do now. See the package comment for what it promises.
func Plan(in In) Out {
	p := &planner{In: in, out: Out{Waiting: map[string]Waiting{}}}
	p.round, _ = Round(in.Pod, in.Observed)
	if in.Ending != nil {
		p.end()
		return p.out
	}
	if p.deadline() {
		return p.out
	}
	p.run()
	p.prune()
	return p.out
}

type planner struct {
	In
	out   Out
	round uint32
}

func (p *planner) do(a Action) { p.out.Actions = append(p.out.Actions, a) }

// wake asks for another plan at t, if none is asked for before that.
func (p *planner) wake(t time.Time) {
	if !t.IsZero() && (p.out.Wake.IsZero() || t.Before(p.out.Wake)) {
		p.out.Wake = t
	}
}

// deadline ends a pod that ran longer than activeDeadlineSeconds.
func (p *planner) deadline() bool {
	limit, start := p.Pod.Spec.ActiveDeadlineSeconds, p.Pod.Status.StartTime
	if limit == nil || start == nil {
		return false
	}
	at := start.Add(time.Duration(*limit) * time.Second)
	if p.Now.Before(at) {
		p.wake(at)
		return false
	}
	p.out.End = &Ending{
		Since: p.Now, Grace: Grace(p.Pod), Reason: "DeadlineExceeded",
		Message: "Pod was active on the node longer than the specified deadline",
	}
	return true
}

// Grace is the pod's own termination grace period.
func Grace(pod *corev1.Pod) time.Duration {
	if s := pod.Spec.TerminationGracePeriodSeconds; s != nil {
		return time.Duration(*s) * time.Second
	}
	return 30 * time.Second
}

// run plans a pod that is to run.
func (p *planner) run() {
	box := p.Observed.Sandbox()
	ready := box != nil && box.Ready
	if p.stopStrays(box, ready) || p.stopRound() {
		return
	}
	starts, finished := p.containers(box, ready)
	if finished {
		p.out.Finished = true
		return
	}
	if ready {
		p.resizePod()
	}
	if p.Memory.Volumes.due(p.Now) {
		p.do(Action{Op: MountVolumes})
	} else if p.Memory.Volumes.Progress == Failed {
		p.wake(p.Memory.Volumes.RetryAt)
	}
	mounted := p.Memory.Volumes.Progress == Done
	if len(starts) > 0 && !ready && mounted {
		p.sandbox(box)
	}
	p.images(starts)
	if ready && mounted {
		p.starts(starts)
	}
}

// stopStrays stops whatever runs outside the newest ready sandbox: a container whose sandbox died has lost its
// network and its shared namespaces, so it is of no use and must be gone before its successor comes.
func (p *planner) stopStrays(box *observe.Sandbox, ready bool) bool {
	stray := false
	for _, c := range p.Observed.Live() {
		if ready && c.SandboxID == box.ID {
			continue
		}
		stray = true
		p.stop(c, minGrace, "Pod sandbox changed, it will be killed and re-created.")
	}
	return stray
}

func (p *planner) sandbox(old *observe.Sandbox) {
	if !p.Memory.Sandbox.due(p.Now) {
		p.wake(p.Memory.Sandbox.RetryAt)
		return
	}
	a := Action{Op: CreateSandbox}
	if old != nil {
		a.Attempt = old.Attempt + 1
		a.Reason = "Pod sandbox changed, it will be killed and re-created."
	}
	p.do(a)
}

// images asks for the images that are missing and not being fetched.
func (p *planner) images(starts []Action) {
	for _, s := range starts {
		step := p.Memory.Images[s.Container]
		if step.due(p.Now) {
			p.do(Action{Op: Pull, Container: s.Container, Kind: s.Kind})
		}
		if step.Progress != Failed {
			continue
		}
		if p.Now.Before(step.RetryAt) {
			p.wake(step.RetryAt)
		}
		p.out.Waiting[s.Container] = p.pullWaiting(s.Container, step)
	}
}

// pullWaiting shows a fresh failure as itself and an older one as back-off, as kubectl's users know it.
func (p *planner) pullWaiting(name string, step Step) Waiting {
	if step.Reason != "ErrImagePull" {
		return Waiting{step.Reason, step.Message}
	}
	shown := step.RetryAt.Add(-PullDelay(step.Failures) + backOffShown)
	if p.Now.Before(shown) {
		p.wake(shown)
		return Waiting{step.Reason, step.Message}
	}
	image := ""
	if c := Find(p.Pod, name); c != nil {
		image = c.Image
	}
	return Waiting{"ImagePullBackOff", fmt.Sprintf("Back-off pulling image %q: ErrImagePull: %s", image, step.Message)}
}

// PullDelay is how long to wait after the n-th failed pull in a row (n from 1).
func PullDelay(n int) time.Duration {
	d := crashBase
	for ; n > 1 && d < crashMax; n-- {
		d *= 2
	}
	return min(d, crashMax)
}

// starts starts, in order, what has its image. A container still being pulled holds back those after it, because
// a post-start hook is allowed to delay its successors; one that failed does not.
func (p *planner) starts(starts []Action) {
	for _, s := range starts {
		switch p.Memory.Images[s.Container].Progress {
		case Failed:
			continue
		case Done:
		default:
			return
		}
		step := p.Memory.Starts[s.Container]
		if step.Progress == Failed {
			p.out.Waiting[s.Container] = Waiting{step.Reason, step.Message}
			if p.Now.Before(step.RetryAt) {
				p.wake(step.RetryAt)
				continue
			}
		}
		if s.ID != "" { // an instance that was made and not started, as when the daemon died between the two
			p.do(Action{Op: Remove, Container: s.Container, ID: s.ID})
			s.ID = ""
		}
		s.Round = p.round
		p.do(s)
	}
}

// stop asks for the stop of a live container, unless one that ends no later is under way.
func (p *planner) stop(c observe.Container, grace time.Duration, reason string) {
	grace = max(grace, minGrace)
	s, known := p.Memory.Stops[c.ID]
	if known && !s.RetryAt.IsZero() {
		if p.Now.Before(s.RetryAt) {
			p.wake(s.RetryAt)
			return
		}
	} else if known && !s.Deadline.After(p.Now.Add(grace)) {
		return
	}
	p.do(Action{Op: StopContainer, Container: c.Name, Kind: KindOf(p.Pod, c.Name), ID: c.ID, Grace: grace, Deadline: p.Now.Add(grace), Reason: reason})
}

// prune removes what nobody asks about any more: of each name the newest instance and the one before it are kept
// (state and last state, logs and previous logs); a replaced sandbox goes when its last container has gone.
func (p *planner) prune() {
	seen := map[string]int{}
	kept := map[string]bool{}
	for _, c := range p.Observed.Containers {
		seen[c.Name]++
		if seen[c.Name] > 2 && (c.State == observe.Exited || c.State == observe.Created) {
			p.do(Action{Op: Remove, Container: c.Name, ID: c.ID})
			continue
		}
		kept[c.SandboxID] = true
	}
	for i, s := range p.Observed.Sandboxes {
		switch {
		case i == 0:
		case s.Ready:
			p.do(Action{Op: StopSandbox, ID: s.ID})
		case !kept[s.ID]:
			p.do(Action{Op: RemoveSandbox, ID: s.ID})
		}
	}
}
