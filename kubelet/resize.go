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
	for i := range out.Spec.Containers {
		if s := plan.PreviousStatus(pod, out.Spec.Containers[i].Name); s != nil && s.Resources != nil {
			out.Spec.Containers[i].Resources = *s.Resources.DeepCopy()
		}
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
	same := func(x, y corev1.ResourceList) bool {
		return maps.EqualFunc(x, y, func(p, q resource.Quantity) bool { return p.Cmp(q) == 0 })
	}
	for i := range b.Spec.Containers {
		old := plan.Find(a, b.Spec.Containers[i].Name)
		now := b.Spec.Containers[i].Resources
		if old == nil || !same(old.Resources.Requests, now.Requests) || !same(old.Resources.Limits, now.Limits) {
			return false
		}
	}
	return true
}

// withResources is pod with the resources of granted.
func withResources(pod, granted *corev1.Pod) *corev1.Pod {
	out := pod.DeepCopy()
	for i := range out.Spec.Containers {
		if g := plan.Find(granted, out.Spec.Containers[i].Name); g != nil {
			out.Spec.Containers[i].Resources = g.Resources
		}
	}
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
	return out
}

// resize writes a container's values into its cgroup. The pod's own cgroup is widened before and narrowed after, so
// that it is never smaller than what it holds.
func (k *Kubelet) resize(ctx context.Context, pod *corev1.Pod, rec *podRecord, a plan.Action) bool {
	c := plan.Find(pod, a.Container)
	if c == nil {
		return false
	}
	want := k.wanted(pod)[a.Container]
	r := qos.Container(pod, c, k.nodeMemory, k.parts.tree.Unified())
	r.OomScoreAdj, r.Unified = 0, nil // fixed at creation
	if want.Quota == 0 {
		r.CpuQuota, r.CpuPeriod = -1, 100_000
	}
	err := k.parts.tree.Widen(pod)
	if err == nil {
		_, err = k.parts.cri.Runtime.UpdateContainerResources(ctx, &runtimeapi.UpdateContainerResourcesRequest{ContainerId: a.ID, Linux: r})
	}
	if err == nil {
		err = k.parts.tree.Ensure(pod)
	}
	if err != nil {
		k.log.Warn("resize container: will try again", "pod", full(pod), "container", a.Container, "err", err)
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

// resizing is how far a change of resources has come.
func (r *podRecord) resizing(out plan.Out) podstatus.Resize {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.pending
	for _, a := range out.Actions {
		s.Progress = s.Progress || a.Op == plan.Resize
	}
	for _, step := range r.mem.Resizes {
		s.Progress, s.Trouble = true, step.Message
	}
	return s
}
