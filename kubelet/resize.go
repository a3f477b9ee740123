package kubelet

import (
	"context"
	"fmt"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	helpers "k8s.io/component-helpers/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/kubelet/criclient"
	"keelson.dev/keelson/kubelet/observe"
	"keelson.dev/keelson/kubelet/plan"
	"keelson.dev/keelson/kubelet/podstatus"
	"keelson.dev/keelson/kubelet/podworker"
	"keelson.dev/keelson/kubelet/qos"
)

// grant decides about a change of a running pod's resources (KEP-1287) and returns the pod as it is to be run: with
// the newest resources if the node has room for them, with those granted before if not.
func (k *Kubelet) grant(pod *corev1.Pod, rec *podRecord) *corev1.Pod {
	var granted *corev1.Pod
	rec.with(func() {
		if rec.granted == nil {
			rec.granted = remembered(pod)
		}
		granted = rec.granted
	})
	if sameResources(granted, pod) {
		rec.with(func() { rec.pending, rec.granted = podstatus.Resize{}, pod })
		return pod
	}
	reason, message := k.feasible(pod)
	if reason == "" {
		rec.with(func() { rec.pending, rec.granted = podstatus.Resize{}, pod })
		return pod
	}
	rec.with(func() { rec.pending = podstatus.Resize{Pending: reason, Message: message} })
	return withResources(pod, granted)
}

// remembered is what a restarted daemon takes as granted: the newest resources, unless the status says that they
// were still waiting; then what the status says is in force.
func remembered(pod *corev1.Pod) *corev1.Pod {
	waits := false
	for _, c := range pod.Status.Conditions {
		waits = waits || c.Type == corev1.PodResizePending && c.Status == corev1.ConditionTrue
	}
	if !waits {
		return pod
	}
	out := pod.DeepCopy()
	for _, list := range [][]corev1.Container{out.Spec.InitContainers, out.Spec.Containers} {
		for i := range list {
			if s := plan.PreviousStatus(pod, list[i].Name); s != nil && s.Resources != nil {
				list[i].Resources = *s.Resources.DeepCopy()
			}
		}
	}
	if out.Spec.Resources != nil && pod.Status.Resources != nil {
		out.Spec.Resources = pod.Status.Resources.DeepCopy()
	}
	return out
}

// feasible tells why the pod's newest resources cannot be granted: Infeasible if the node is too small, Deferred if
// others have the room; "" when they can.
func (k *Kubelet) feasible(pod *corev1.Pod) (reason, message string) {
	node, err := k.parts.cluster.Node()
	if err != nil {
		return corev1.PodReasonDeferred, err.Error()
	}
	want := helpers.PodRequests(pod, helpers.PodResourcesOptions{})
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		q, have := want[name], node.Status.Allocatable[name]
		if !q.IsZero() && q.Cmp(have) > 0 {
			return corev1.PodReasonInfeasible, fmt.Sprintf("Node didn't have enough capacity: %s, requested: %s, capacity: %s",
				name, amount(name, q.MilliValue(), q.Value()), amount(name, have.MilliValue(), have.Value()))
		}
	}
	var others []*corev1.Pod
	k.parts.workers.Each(func(r podworker.Request, _ podworker.State) {
		if r.Pod.UID != pod.UID && r.Ending == nil {
			others = append(others, r.Pod)
		}
	})
	short, message := Fits(withoutPlacement(pod), node, others)
	if short == "" {
		return "", ""
	}
	return corev1.PodReasonDeferred, message
}

// withoutPlacement leaves only the pod's requests to be judged: it is on this node already.
func withoutPlacement(pod *corev1.Pod) *corev1.Pod {
	out := pod.DeepCopy()
	out.Spec.NodeSelector, out.Spec.Affinity = nil, nil
	out.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	return out
}

func sameResources(a, b *corev1.Pod) bool {
	same := func(x, y *corev1.ResourceRequirements) bool {
		equal := func(p, q resource.Quantity) bool { return p.Cmp(q) == 0 }
		return maps.EqualFunc(x.Requests, y.Requests, equal) && maps.EqualFunc(x.Limits, y.Limits, equal)
	}
	for _, list := range [][]corev1.Container{b.Spec.InitContainers, b.Spec.Containers} {
		for i := range list {
			if old := plan.Find(a, list[i].Name); old == nil || !same(&old.Resources, &list[i].Resources) {
				return false
			}
		}
	}
	x, y := a.Spec.Resources, b.Spec.Resources
	return x == nil && y == nil || x != nil && y != nil && same(x, y)
}

// withResources is pod with the resources of granted.
func withResources(pod, granted *corev1.Pod) *corev1.Pod {
	out := pod.DeepCopy()
	for _, list := range [][]corev1.Container{out.Spec.InitContainers, out.Spec.Containers} {
		for i := range list {
			if g := plan.Find(granted, list[i].Name); g != nil {
				list[i].Resources = g.Resources
			}
		}
	}
	out.Spec.Resources = granted.Spec.Resources
	return out
}

// wanted is what each container's cgroup is to hold.
func (k *Kubelet) wanted(pod *corev1.Pod) map[string]plan.Resources {
	out := map[string]plan.Resources{}
	add := func(list []corev1.Container) {
		for i := range list {
			r := qos.Container(pod, &list[i], 0, false)
			out[list[i].Name] = plan.Resources{Shares: r.GetCpuShares(), Quota: r.GetCpuQuota(), Memory: r.GetMemoryLimitInBytes()}
		}
	}
	add(pod.Spec.InitContainers)
	add(pod.Spec.Containers)
	if pod.Spec.Resources != nil {
		shares, quota, memory := qos.Pod(pod)
		out[plan.PodLevel] = plan.Resources{Shares: shares, Quota: quota, Memory: memory}
	}
	return out
}

// resize writes a container's values into its cgroup, or those of the pod as a whole into the pod's.
func (k *Kubelet) resize(ctx context.Context, pod *corev1.Pod, rec *podRecord, seen observe.Pod, a plan.Action) bool {
	want, wanted := k.wanted(pod)[a.Container]
	if !wanted {
		return false
	}
	err := k.enough(ctx, seen, a, want.Memory)
	if err == nil && a.Container != plan.PodLevel {
		err = k.resizeContainer(ctx, pod, a, want)
	}
	if err == nil {
		err = k.parts.tree.Ensure(pod)
	}
	if err != nil {
		k.log.Warn("resize: will try again", "pod", full(pod), "container", a.Container, "err", err)
		k.parts.exec.ContainerEvent(pod, a.Container, corev1.EventTypeWarning, "ResizeError", "Error resizing container: %s", criclient.Message(err))
	}
	rec.with(func() {
		if err != nil {
			rec.mem.Resizes[a.ID] = retry(rec.mem.Resizes[a.ID], time.Second, 30*time.Second, "Error", criclient.Message(err))
			return
		}
		delete(rec.mem.Resizes, a.ID)
		rec.mem.Applied[a.ID] = want
	})
	return true
}

// resizeContainer has the runtime write a container's values. The pod's own cgroup is widened before, so that it is never smaller
// than what it holds; the caller narrows it.
func (k *Kubelet) resizeContainer(ctx context.Context, pod *corev1.Pod, a plan.Action, want plan.Resources) error {
	r := qos.Container(pod, plan.Find(pod, a.Container), k.nodeMemory, false)
	r.OomScoreAdj = 0 // fixed at creation, as the whole container's end for memory is
	if want.Quota == 0 {
		r.CpuQuota, r.CpuPeriod = -1, 100_000
	}
	if err := k.parts.tree.Widen(pod); err != nil {
		return err
	}
	_, err := k.parts.cri.Runtime.UpdateContainerResources(ctx, &runtimeapi.UpdateContainerResourcesRequest{ContainerId: a.ID, Linux: r})
	return err
}

// enough tells whether what a container or pod uses fits into a new limit of memory (bytes; 0: none): the kernel would make it fit by
// killing. What it could give back is not counted.
func (k *Kubelet) enough(ctx context.Context, seen observe.Pod, a plan.Action, limit int64) error {
	box := seen.Sandbox()
	if limit == 0 || box == nil {
		return nil
	}
	var used uint64
	if a.Container == plan.PodLevel {
		s, err := k.parts.cri.Runtime.PodSandboxStats(ctx, &runtimeapi.PodSandboxStatsRequest{PodSandboxId: box.ID})
		if err != nil {
			return err
		}
		used = s.GetStats().GetLinux().GetMemory().GetWorkingSetBytes().GetValue()
	} else {
		s, err := k.parts.cri.Runtime.ContainerStats(ctx, &runtimeapi.ContainerStatsRequest{ContainerId: a.ID})
		if err != nil {
			return err
		}
		used = s.GetStats().GetMemory().GetWorkingSetBytes().GetValue()
	}
	if used > uint64(limit) {
		return fmt.Errorf("attempted to set memory limit (%d) below current usage (%d)", limit, used)
	}
	return nil
}

// resizing is how far a change of resources has come.
func (r *podRecord) resizing(out plan.Out) podstatus.Resize {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.pending
	for _, a := range out.Actions {
		_, known := r.mem.Applied[a.ID] // what is written again after a restart of the daemon changes nothing
		s.Progress = s.Progress || a.Op == plan.Resize && (known || a.Container != plan.PodLevel)
		s.Whole = s.Whole || a.Op == plan.Resize && a.Container == plan.PodLevel
	}
	for id, step := range r.mem.Resizes {
		s.Progress, s.Trouble = true, step.Message
		s.Whole = s.Whole || id == plan.PodLevel
	}
	return s
}
