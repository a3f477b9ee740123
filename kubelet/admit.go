package kubelet

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	helpers "k8s.io/component-helpers/resource"
	corehelpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"

	"keelson.dev/keelson/kubelet/plan"
	"keelson.dev/keelson/kubelet/podworker"
	"keelson.dev/keelson/kubelet/qos"
	"keelson.dev/keelson/kubelet/source"
)

// admit decides, once per pod, whether the node takes it: nodeName can be written by anyone, past every scheduler
// (HOSTILE PS12). A refusal ends the pod as Failed.
func (k *Kubelet) admit(ctx context.Context, pod *corev1.Pod, rec *podRecord) *plan.Ending {
	done := false
	rec.with(func() { done = rec.admitted })
	if done {
		return nil
	}
	started := slices.ContainsFunc(pod.Status.ContainerStatuses, func(s corev1.ContainerStatus) bool { return s.ContainerID != "" })
	if end := k.judge(pod, rec, started); end != nil || started {
		return end
	}
	// Outside of the judgement: a device plugin may take its time, and only those wait who want its devices.
	err := k.parts.devices.Allocate(ctx, pod)
	if err == nil || ctx.Err() != nil {
		return nil
	}
	message := "Allocate failed due to " + err.Error() + ", which is unexpected"
	k.parts.exec.Event(pod, corev1.EventTypeWarning, "UnexpectedAdmissionError", "%s", message)
	return &plan.Ending{Since: time.Now(), Reason: "UnexpectedAdmissionError", Message: "Pod was rejected: " + message}
}

// judge is admit without devices. Judgements come one at a time, each against all before it.
func (k *Kubelet) judge(pod *corev1.Pod, rec *podRecord, started bool) *plan.Ending {
	if k.parts.leaving.is() && !started {
		return &plan.Ending{Since: time.Now(), Reason: "NodeShutdown", Message: "Pod was rejected as the node is shutting down."}
	}
	k.admission <- struct{}{}
	defer func() { <-k.admission }()
	node, err := k.parts.cluster.Node()
	if err != nil || started || source.IsStatic(pod) || qos.Critical(pod) {
		// An unregistered node can hold static pods only; one that ran before a restart stays; a critical one must
		// not be lost to it.
		rec.with(func() { rec.admitted = true })
		return nil
	}
	var others []*corev1.Pod
	k.parts.workers.Each(func(r podworker.Request, s podworker.State) {
		if r.Pod.UID != pod.UID && r.Ending == nil && k.isAdmitted(r.Pod.UID) {
			others = append(others, r.Pod)
		}
	})
	if why := Sysctls(pod, k.cfg.UnsafeSysctls); why != "" {
		k.parts.exec.Event(pod, corev1.EventTypeWarning, "SysctlForbidden", "%s", why)
		return &plan.Ending{Since: time.Now(), Reason: "SysctlForbidden", Message: "Pod was rejected: " + why}
	}
	if reason, message := Fits(pod, node, others); reason != "" {
		k.parts.exec.Event(pod, corev1.EventTypeWarning, reason, "%s", message)
		return &plan.Ending{Since: time.Now(), Reason: reason, Message: "Pod was rejected: " + message}
	}
	rec.with(func() { rec.admitted = true })
	return nil
}

func (k *Kubelet) isAdmitted(uid types.UID) (yes bool) {
	if rec, _ := k.known(uid); rec != nil {
		rec.with(func() { yes = rec.admitted })
	}
	return yes
}

// Fits tells why a node cannot take a pod beside the others that it has; reason is "" when it can. It is pure.
func Fits(pod *corev1.Pod, node *corev1.Node, others []*corev1.Pod) (reason, message string) {
	if ok, err := nodeaffinity.GetRequiredNodeAffinity(pod).Match(node); err != nil || !ok {
		return "NodeAffinity", "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"
	}
	taint, bad := corehelpers.FindMatchingUntoleratedTaint(klog.Background(), node.Spec.Taints, pod.Spec.Tolerations,
		func(t *corev1.Taint) bool { return t.Effect == corev1.TaintEffectNoExecute }, true)
	if bad {
		return "TaintToleration", fmt.Sprintf("Predicate TaintToleration failed: the pod does not tolerate the taint {%s: %s}", taint.Key, taint.Value)
	}
	if port := portTaken(pod, others); port != "" {
		return "NodePorts", "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports: " + port
	}
	alloc := node.Status.Allocatable
	if most, has := alloc[corev1.ResourcePods]; has && int64(len(others)+1) > most.Value() {
		return "OutOfpods", fmt.Sprintf("Node didn't have enough resource: pods, requested: 1, used: %d, capacity: %d", len(others), most.Value())
	}
	want := helpers.PodRequests(pod, helpers.PodResourcesOptions{})
	for name, q := range want {
		if q.IsZero() {
			continue
		}
		have, listed := alloc[name]
		if !listed && !strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix) {
			continue // not the node's to give: an extended resource of the cluster's
		}
		used := have.DeepCopy()
		used.Set(0)
		for _, o := range others {
			used.Add(helpers.PodRequests(o, helpers.PodResourcesOptions{})[name])
		}
		sum := used.DeepCopy()
		sum.Add(q)
		if sum.Cmp(have) > 0 {
			return "OutOf" + string(name), fmt.Sprintf("Node didn't have enough resource: %s, requested: %s, used: %s, capacity: %s",
				name, amount(name, q.MilliValue(), q.Value()), amount(name, used.MilliValue(), used.Value()), amount(name, have.MilliValue(), have.Value()))
		}
	}
	return "", ""
}

func amount(name corev1.ResourceName, milli, value int64) string {
	if name == corev1.ResourceCPU {
		return fmt.Sprint(milli)
	}
	return fmt.Sprint(value)
}

// portTaken names a host port of the pod that one of the others has, or "".
func portTaken(pod *corev1.Pod, others []*corev1.Pod) string {
	for _, p := range hostPorts(pod) {
		for _, o := range others {
			for _, q := range hostPorts(o) {
				any := p.HostIP == "" || q.HostIP == "" || p.HostIP == "0.0.0.0" || q.HostIP == "0.0.0.0"
				if p.HostPort == q.HostPort && p.Protocol == q.Protocol && (any || p.HostIP == q.HostIP) {
					return fmt.Sprintf("%d/%s", p.HostPort, p.Protocol)
				}
			}
		}
	}
	return ""
}

func hostPorts(pod *corev1.Pod) []corev1.ContainerPort {
	var out []corev1.ContainerPort
	add := func(c corev1.Container) {
		for _, p := range c.Ports {
			if p.HostPort > 0 {
				out = append(out, p)
			}
		}
	}
	for _, c := range pod.Spec.Containers {
		add(c)
	}
	for i := range pod.Spec.InitContainers {
		if plan.IsSidecar(&pod.Spec.InitContainers[i]) {
			add(pod.Spec.InitContainers[i])
		}
	}
	return out
}
