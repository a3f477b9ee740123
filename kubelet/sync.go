package kubelet

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"keelson.dev/keelson/kubelet/act"
	"keelson.dev/keelson/kubelet/observe"
	"keelson.dev/keelson/kubelet/plan"
	"keelson.dev/keelson/kubelet/podstatus"
	"keelson.dev/keelson/kubelet/podworker"
	"keelson.dev/keelson/kubelet/qos"
)

// retryObserve is how soon a pod is looked at again after the runtime did not answer.
const retryObserve = time.Second

// Sync brings a pod closer to running as specified. It implements podworker.Syncer.
func (k *Kubelet) Sync(ctx context.Context, r podworker.Request) podworker.Result {
	begin := time.Now()
	defer func() { k.parts.metrics.sync("sync", time.Since(begin)) }()
	rec := k.entry(r.Pod)
	if end := k.admit(ctx, r.Pod, rec); end != nil {
		return podworker.Result{End: end}
	}
	r.Pod = k.grant(r.Pod, rec)
	token := k.refresh(r.Pod, rec)
	res := k.drive(ctx, r, rec)
	if !token.IsZero() && (res.Next.IsZero() || token.Before(res.Next)) {
		res.Next = token
	}
	return res
}

// Terminate stops the pod. It implements podworker.Syncer.
func (k *Kubelet) Terminate(ctx context.Context, r podworker.Request) podworker.Result {
	begin := time.Now()
	defer func() { k.parts.metrics.sync("terminate", time.Since(begin)) }()
	rec := k.entry(r.Pod)
	rec.cancel(func(what string) bool { return what[0] != stopTask[0] })
	return k.drive(ctx, r, rec)
}

// drive observes, plans and acts until there is nothing to do at once.
func (k *Kubelet) drive(ctx context.Context, r podworker.Request, rec *podRecord) podworker.Result {
	for {
		seen, err := k.parts.cache.Get(ctx, r.Pod.UID)
		if err != nil {
			if ctx.Err() == nil {
				k.log.Warn("observe pod: will try again", "pod", full(r.Pod), "err", err)
			}
			return podworker.Result{Next: time.Now().Add(retryObserve)}
		}
		rec.with(func() { rec.announce(seen) })
		probes, unhealthy := k.probe(r, seen)
		mem := rec.memory()
		mem.Unhealthy, mem.Started = unhealthy, map[string]bool{}
		for id, p := range probes {
			mem.Started[id] = p.Started
		}
		now := time.Now()
		out := plan.Plan(plan.In{Pod: r.Pod, Observed: seen, Memory: mem, Now: now, Ending: r.Ending, Resources: k.wanted(r.Pod)})
		k.tell(r.Pod, rec, seen, out.Waiting)
		over := r.Ending != nil && out.Finished
		status := k.report(r, rec, seen, out, probes, over, now)
		switch {
		case out.End != nil:
			return podworker.Result{End: out.End}
		case out.Finished:
			if over {
				rec.with(func() { rec.final = &status })
			}
			return podworker.Result{Done: true}
		case !k.execute(ctx, r.Pod, rec, seen, out.Actions):
			return podworker.Result{Next: out.Wake}
		}
		k.parts.cache.Touch(r.Pod.UID)
		if ctx.Err() != nil {
			return podworker.Result{}
		}
	}
}

// probe brings the pod's probes in line with its containers and returns what they know.
func (k *Kubelet) probe(r podworker.Request, seen observe.Pod) (map[string]podstatus.Probe, map[string]string) {
	k.parts.probes.Set(k.background(), r.Pod, k.addresses(r.Pod, seen), seen.Live(), r.Ending != nil)
	return k.parts.probes.Results(r.Pod.UID)
}

// addresses are where the pod's ports are: its own or, on the host network, the node's.
func (k *Kubelet) addresses(pod *corev1.Pod, seen observe.Pod) []string {
	if pod.Spec.HostNetwork {
		return k.hostIPs()
	}
	if box := seen.Sandbox(); box != nil {
		return box.IPs
	}
	return nil
}

func (k *Kubelet) hostIPs() []string {
	if n, err := k.parts.cluster.Node(); err == nil {
		if ips := act.HostIPs(n); len(ips) > 0 {
			return ips
		}
	}
	return k.parts.node.Addresses()
}

// report computes the pod's status and hands it to the writer.
func (k *Kubelet) report(r podworker.Request, rec *podRecord, seen observe.Pod, out plan.Out,
	probes map[string]podstatus.Probe, over bool, now time.Time,
) corev1.PodStatus {
	pod := r.Pod
	if s, known := k.parts.writer.Wanted(pod.UID); known { // newer than what the watch has brought back
		pod = pod.DeepCopy()
		foreign := pod.Status.Conditions
		pod.Status = s
		keepForeign(&pod.Status, foreign)
	}
	in := podstatus.In{
		Pod: pod, Observed: seen, Waiting: out.Waiting, Probes: probes, HostIPs: k.hostIPs(),
		Runtime: k.runtimeName(), Over: over, QOS: qos.Class(pod), Now: now,
		Devices: k.parts.devices.Health(pod.UID),
	}
	in.Resize = rec.resizing(out)
	if r.Ending != nil && r.Ending.Reason != "" {
		in.Failure = podstatus.Failure{Reason: r.Ending.Reason, Message: r.Ending.Message}
	}
	status := podstatus.Compute(in)
	k.noteStart(rec, pod, status)
	k.parts.writer.Set(pod.UID, status, len(out.Actions) > 0 && !over)
	return status
}

// noteStart counts how long the pod took to run, once, if it was not running when we came.
func (k *Kubelet) noteStart(rec *podRecord, before *corev1.Pod, now corev1.PodStatus) {
	if now.Phase != corev1.PodRunning {
		return
	}
	rec.with(func() {
		if !rec.began.IsZero() && before.Status.Phase == corev1.PodPending {
			k.parts.metrics.starts.Observe(time.Since(rec.began).Seconds())
			if len(before.Spec.InitContainers) == 0 && !before.CreationTimestamp.IsZero() {
				k.parts.metrics.startSLI.Observe(max(0, time.Since(before.CreationTimestamp.Time)-rec.pulls[1].Sub(rec.pulls[0])).Seconds())
			}
		}
		rec.began = time.Time{}
	})
}

// keepForeign takes over from the API the conditions that our own last word does not have.
func keepForeign(s *corev1.PodStatus, from []corev1.PodCondition) {
	have := map[corev1.PodConditionType]int{}
	for i, c := range s.Conditions {
		have[c.Type] = i
	}
	list := append([]corev1.PodCondition(nil), s.Conditions...)
	for _, c := range from {
		switch i, known := have[c.Type]; {
		case !known:
			list = append(list, c)
		case !podstatus.Owned(c.Type):
			list[i] = c
		}
	}
	s.Conditions = list
}

// Ended forgets a pod. It implements podworker.Syncer.
func (k *Kubelet) Ended(uid types.UID) {
	k.parts.probes.Forget(uid)
	k.parts.cache.Forget(uid)
	k.parts.writer.Forget(uid)
	rec, _ := k.known(uid)
	if rec != nil {
		rec.with(func() {
			for id := range rec.exits {
				rec.exits.close(id)
			}
		})
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.records, uid)
}

func full(pod *corev1.Pod) string { return pod.Namespace + "/" + pod.Name }
