package kubelet

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"keelson.dev/keelson/kubelet/act"
	"keelson.dev/keelson/kubelet/criclient"
	"keelson.dev/keelson/kubelet/observe"
	"keelson.dev/keelson/kubelet/plan"
	"keelson.dev/keelson/kubelet/pull"
)

// Names of tasks that run beside the worker.
const (
	mountTask = "mount"
	pullTask  = "pull/" // and the container's name
	stopTask  = "stop/" // and the container's ID
)

// execute carries out a plan's actions, in order, and tells whether the pod should be looked at again at once: when
// something was done that the runtime now shows.
func (k *Kubelet) execute(ctx context.Context, pod *corev1.Pod, rec *podRecord, seen observe.Pod, actions []plan.Action) (again bool) {
	for _, a := range actions {
		if ctx.Err() != nil {
			return again
		}
		k.log.Debug("act", "pod", full(pod), "action", a.String())
		switch a.Op {
		case plan.MountVolumes:
			k.mount(pod, rec)
		case plan.Pull:
			k.pull(pod, rec, a)
		case plan.StopContainer:
			k.stop(pod, rec, seen, a)
		case plan.CreateSandbox:
			again = k.createSandbox(ctx, pod, rec, a) || again
		case plan.Start:
			again = k.start(ctx, pod, rec, seen, a) || again
		case plan.Resize:
			again = k.resize(ctx, pod, rec, seen, a) || again
		case plan.StopSandbox:
			err := k.parts.exec.StopSandbox(ctx, a.ID)
			k.noteSandbox(pod, rec, err)
			again = again || err == nil
		case plan.Remove:
			k.removed(pod, k.parts.exec.RemoveContainer(ctx, pod, byID(seen, a.ID)))
		case plan.RemoveSandbox:
			k.removed(pod, k.parts.exec.RemoveSandbox(ctx, a.ID))
		}
	}
	return again
}

// waker wakes the pod's worker when a task is over.
func (k *Kubelet) waker(pod *corev1.Pod) func() {
	uid := pod.UID
	return func() { k.parts.workers.Wake(uid) }
}

// removed notes a removal. A failure is tried again with the next look at the pod: leftovers harm nobody.
func (k *Kubelet) removed(pod *corev1.Pod, err error) {
	k.parts.cache.Touch(pod.UID)
	if err != nil {
		k.log.Warn("remove leftovers of pod", "pod", full(pod), "err", err)
	}
}

func byID(seen observe.Pod, id string) observe.Container {
	for _, c := range seen.Containers {
		if c.ID == id {
			return c
		}
	}
	return observe.Container{ID: id}
}

// retry is the step after a failure: failed, with a delay that doubles from base to most.
func retry(old plan.Step, base, most time.Duration, reason, message string) plan.Step {
	d := base
	for range min(old.Failures, 20) {
		if d *= 2; d >= most {
			d = most
			break
		}
	}
	return plan.Step{
		Progress: plan.Failed, Reason: reason, Message: message,
		RetryAt: time.Now().Add(d), Failures: old.Failures + 1,
	}
}

func (k *Kubelet) mount(pod *corev1.Pod, rec *podRecord) {
	rec.with(func() { rec.mem.Volumes.Progress = plan.Busy })
	rec.spawn(k.background(), mountTask, k.waker(pod), func(ctx context.Context) func() {
		err := k.parts.exec.Prepare(pod)
		var vols map[string]act.Mounted
		if err == nil {
			vols, err = k.volumes.Mount(ctx, pod)
		}
		if err == nil {
			err = k.pullVolumes(ctx, pod, vols)
		}
		if err != nil && ctx.Err() == nil {
			k.parts.exec.Event(pod, corev1.EventTypeWarning, "FailedMount", "%s", err)
		}
		if ctx.Err() == nil {
			k.parts.objects.set(k.background(), pod.UID, sources(pod))
		}
		return func() {
			if err != nil {
				rec.mem.Volumes = retry(rec.mem.Volumes, 500*time.Millisecond, 2*time.Minute, "FailedMount", err.Error())
				return
			}
			rec.vols, rec.mem.Volumes = vols, plan.Step{Progress: plan.Done}
		}
	})
}

// pullVolumes makes sure that the images of image volumes are there, which the runtime mounts itself.
func (k *Kubelet) pullVolumes(ctx context.Context, pod *corev1.Pod, vols map[string]act.Mounted) error {
	for _, v := range pod.Spec.Volumes {
		if v.Image == nil {
			continue
		}
		box, err := k.parts.exec.SandboxConfig(pod, 0)
		if err != nil {
			return err
		}
		ref, err := k.parts.puller.Ensure(ctx, pod, &corev1.Container{Image: v.Image.Reference, ImagePullPolicy: v.Image.PullPolicy}, box)
		if err != nil {
			return fmt.Errorf("volume %q: %w", v.Name, err)
		}
		m := vols[v.Name]
		m.Image, m.ReadOnly = ref, true
		vols[v.Name] = m
	}
	return nil
}

func (k *Kubelet) pull(pod *corev1.Pod, rec *podRecord, a plan.Action) {
	c := plan.Find(pod, a.Container)
	if c == nil {
		return
	}
	rec.with(func() {
		s := rec.mem.Images[a.Container]
		s.Progress = plan.Busy
		rec.mem.Images[a.Container] = s
		if rec.pulls[0].IsZero() {
			rec.pulls[0] = time.Now()
		}
	})
	rec.spawn(k.background(), pullTask+a.Container, k.waker(pod), func(ctx context.Context) func() {
		box, err := k.parts.exec.SandboxConfig(pod, 0)
		ref := ""
		if err == nil {
			ref, err = k.parts.puller.Ensure(ctx, pod, c, box)
		}
		return func() {
			rec.pulls[1] = time.Now()
			if err == nil {
				rec.refs[a.Container] = ref
				rec.mem.Images[a.Container] = plan.Step{Progress: plan.Done}
				return
			}
			old := rec.mem.Images[a.Container]
			next := plan.Step{Progress: plan.Failed, Reason: "ErrImagePull", Message: err.Error(), Failures: old.Failures + 1}
			if f := (*pull.Failure)(nil); errors.As(err, &f) {
				next.Reason, next.Message = f.Reason, f.Message()
			}
			next.RetryAt = time.Now().Add(plan.PullDelay(next.Failures))
			rec.mem.Images[a.Container] = next
		}
	})
}

func (k *Kubelet) stop(pod *corev1.Pod, rec *podRecord, seen observe.Pod, a plan.Action) {
	c, ips := byID(seen, a.ID), k.addresses(pod, seen)
	var again bool
	rec.with(func() {
		old, known := rec.mem.Stops[a.ID]
		again = known
		rec.mem.Stops[a.ID] = plan.Stop{Deadline: a.Deadline, Failures: old.Failures}
	})
	rec.spawn(k.background(), stopTask+a.ID, k.waker(pod), func(ctx context.Context) func() {
		err := k.parts.exec.Stop(ctx, pod, c, ips, act.Stopping{Grace: a.Grace, Reason: a.Reason, Again: again})
		if err == nil && c.State == observe.Unknown {
			err = k.parts.exec.RemoveContainer(ctx, pod, c) // stopped, it would go on being unknown, and be stopped for ever
		}
		k.parts.cache.Touch(pod.UID)
		return func() {
			if err == nil {
				delete(rec.mem.Stops, a.ID)
				return
			}
			if ctx.Err() == nil {
				k.log.Warn("stop container: will try again", "pod", full(pod), "container", a.Container, "err", err)
			}
			s := rec.mem.Stops[a.ID]
			s.Failures++
			s.RetryAt = time.Now().Add(min(time.Duration(s.Failures)*time.Second, 30*time.Second))
			rec.mem.Stops[a.ID] = s
		}
	})
}

func (k *Kubelet) createSandbox(ctx context.Context, pod *corev1.Pod, rec *podRecord, a plan.Action) bool {
	if a.Reason != "" {
		k.parts.exec.Event(pod, corev1.EventTypeNormal, "SandboxChanged", "%s", a.Reason)
	}
	id, err := k.parts.exec.CreateSandbox(ctx, pod, a.Attempt)
	k.parts.cache.Made(pod.UID, id)
	if err != nil && ctx.Err() == nil {
		k.parts.exec.Event(pod, corev1.EventTypeWarning, "FailedCreatePodSandBox",
			"Failed to create pod sandbox: %s", message(err))
	}
	k.noteSandbox(pod, rec, err)
	if whole, is := k.wanted(pod)[plan.PodLevel]; is && err == nil {
		rec.with(func() { rec.mem.Applied[plan.PodLevel] = whole })
	}
	return true // also after a failure: half a sandbox may be there to be seen
}

func (k *Kubelet) noteSandbox(pod *corev1.Pod, rec *podRecord, err error) {
	if err != nil {
		k.log.Warn("pod sandbox: will try again", "pod", full(pod), "err", err)
	}
	rec.with(func() {
		if err == nil {
			rec.mem.Sandbox = plan.Step{}
			return
		}
		rec.mem.Sandbox = retry(rec.mem.Sandbox, time.Second, 30*time.Second, "FailedCreatePodSandBox", message(err))
	})
}

func message(err error) string {
	if e := (*act.Error)(nil); errors.As(err, &e) {
		return e.Message()
	}
	return criclient.Message(err)
}

// start starts one container. It must not begin in another sandbox than the one that was planned for.
func (k *Kubelet) start(ctx context.Context, pod *corev1.Pod, rec *podRecord, seen observe.Pod, a plan.Action) bool {
	box := seen.Sandbox()
	if box == nil || !box.Ready {
		return true
	}
	t := act.Target{
		Pod: pod, Container: a.Container, Kind: a.Kind, Attempt: a.Attempt, Round: a.Round,
		SandboxID: box.ID, SandboxAttempt: box.Attempt, IPs: k.addresses(pod, seen),
	}
	rec.with(func() { t.ImageRef, t.Volumes = rec.refs[a.Container], rec.vols })
	if a.Kind == plan.Ephemeral {
		t.Beside = beside(pod, seen, a.Container)
	}
	id, err := k.parts.exec.Start(ctx, t)
	rec.with(func() {
		if id != "" {
			rec.mem.Applied[id] = k.wanted(pod)[a.Container]
		}
		if a.Crash.Delay > 0 {
			rec.mem.Crashes[a.Container] = a.Crash
		}
		e := (*act.Error)(nil)
		switch {
		case err == nil:
			delete(rec.mem.Images, a.Container)
			delete(rec.mem.Starts, a.Container)
			return
		case errors.As(err, &e):
			rec.mem.Starts[a.Container] = retry(rec.mem.Starts[a.Container], time.Second, 10*time.Second, e.Reason, e.Message())
			if e.Reason != "CreateContainerConfigError" || errors.Is(err, act.ErrImageGone) {
				delete(rec.mem.Images, a.Container)
			}
		default:
			rec.mem.Starts[a.Container] = retry(rec.mem.Starts[a.Container], time.Second, 10*time.Second, "CreateContainerError", err.Error())
		}
	})
	if err != nil && ctx.Err() == nil {
		k.log.Warn("start container", "pod", full(pod), "container", a.Container, "err", err)
	}
	return true
}

// beside is the container whose processes an ephemeral container is to see.
func beside(pod *corev1.Pod, seen observe.Pod, name string) string {
	for i := range pod.Spec.EphemeralContainers {
		e := &pod.Spec.EphemeralContainers[i]
		if e.Name != name || e.TargetContainerName == "" {
			continue
		}
		if c := seen.Newest(e.TargetContainerName); c != nil && c.State == observe.Running {
			return c.ID
		}
	}
	return ""
}
