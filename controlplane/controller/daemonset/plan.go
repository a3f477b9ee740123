package daemonset

import (
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	corehelpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"

	"keelson.dev/keelson/controlplane/controller/backend"
)

// input is everything that a plan is made from.
type input struct {
	set   *appsv1.DaemonSet
	hash  string // of the newest template
	nodes []*corev1.Node
	pods  []*corev1.Pod
	now   time.Time
}

// plan is one step.
type plan struct {
	create []string // nodes
	remove []*corev1.Pod
	failed []*corev1.Pod // removed because they had failed, for an event
	status appsv1.DaemonSetStatus
	again  time.Duration
}

// verdict is whether a daemon belongs on a node: may it start there, may it stay.
type verdict struct{ run, stay bool }

func decide(in input) plan {
	p := plan{status: appsv1.DaemonSetStatus{ObservedGeneration: in.set.Generation, CollisionCount: in.set.Status.CollisionCount, Conditions: in.set.Status.Conditions}}
	byNode := map[string][]*corev1.Pod{}
	for _, pod := range in.pods {
		byNode[nodeOf(pod)] = append(byNode[nodeOf(pod)], pod)
	}
	slices.SortFunc(in.nodes, func(a, b *corev1.Node) int { return strings.Compare(a.Name, b.Name) })
	wanted := map[string]bool{}
	for _, node := range in.nodes {
		v := judge(in.set, node)
		wanted[node.Name] = v.run
		p.node(in, node.Name, v, byNode[node.Name])
		delete(byNode, node.Name)
	}
	for _, pods := range byNode { // of nodes that are gone
		for _, pod := range pods {
			if pod.DeletionTimestamp == nil && nodeOf(pod) != "" {
				p.remove = append(p.remove, pod)
			}
		}
	}
	if in.set.Spec.UpdateStrategy.Type != appsv1.OnDeleteDaemonSetStrategyType {
		p.roll(in, wanted)
	}
	p.status.NumberUnavailable = p.status.DesiredNumberScheduled - p.status.NumberAvailable
	return p
}

// node plans for one node and counts its pods.
func (p *plan) node(in input, name string, v verdict, pods []*corev1.Pod) {
	if v.run {
		p.status.DesiredNumberScheduled++
	}
	var live []*corev1.Pod
	terminating := false
	for _, pod := range pods {
		switch {
		case pod.DeletionTimestamp != nil:
			terminating = true
		case pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded:
			p.remove, p.failed = append(p.remove, pod), append(p.failed, pod)
			terminating = true
		case !v.stay:
			p.remove = append(p.remove, pod)
		default:
			live = append(live, pod)
		}
	}
	slices.SortFunc(live, func(a, b *corev1.Pod) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
	switch {
	case len(live) == 0 && v.run && !terminating:
		p.create = append(p.create, name)
	case len(live) > 1 && !surging(in.set):
		p.remove = append(p.remove, live[1:]...)
	}
	p.count(in, v, live)
}

func (p *plan) count(in input, v verdict, live []*corev1.Pod) {
	if len(live) == 0 {
		return
	}
	if !v.run {
		p.status.NumberMisscheduled++
		return
	}
	p.status.CurrentNumberScheduled++
	newest := live[len(live)-1]
	if newest.Labels[appsv1.DefaultDaemonSetUniqueLabelKey] == in.hash {
		p.status.UpdatedNumberScheduled++
	}
	for _, pod := range live {
		if backend.Ready(pod) {
			p.status.NumberReady++
			if p.available(in, pod) {
				p.status.NumberAvailable++
			}
			return
		}
	}
}

// roll replaces pods of older templates: with maxSurge, new ones first; else within maxUnavailable.
func (p *plan) roll(in input, wanted map[string]bool) {
	maxUnavailable, maxSurge := limits(in.set, int(p.status.DesiredNumberScheduled))
	down, surged := 0, 0
	var old []*corev1.Pod
	fresh := map[string]*corev1.Pod{}
	for _, pod := range in.pods {
		if !wanted[nodeOf(pod)] || slices.Contains(p.remove, pod) {
			continue
		}
		if pod.Labels[appsv1.DefaultDaemonSetUniqueLabelKey] == in.hash {
			fresh[nodeOf(pod)] = pod
		} else if pod.DeletionTimestamp == nil {
			old = append(old, pod)
		}
	}
	for node, want := range wanted {
		if want && !p.served(in, node) {
			down++
		}
	}
	slices.SortFunc(old, func(a, b *corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
	for _, pod := range old {
		isReady := backend.Ready(pod)
		next := fresh[nodeOf(pod)]
		switch {
		case next != nil && p.available(in, next):
			p.remove = append(p.remove, pod)
		case maxSurge > 0:
			if next == nil && surged < maxSurge {
				p.create = append(p.create, nodeOf(pod))
			}
			surged++
		case !isReady: // it serves nobody: replacing it costs nothing
			p.remove = append(p.remove, pod)
		case down < maxUnavailable:
			p.remove = append(p.remove, pod)
			down++
		}
	}
}

// served reports whether a node has an available pod that stays.
func (p *plan) served(in input, node string) bool {
	for _, pod := range in.pods {
		if nodeOf(pod) == node && pod.DeletionTimestamp == nil && !slices.Contains(p.remove, pod) && p.available(in, pod) {
			return true
		}
	}
	return false
}

func surging(set *appsv1.DaemonSet) bool {
	_, surge := limits(set, 1)
	return surge > 0
}

func limits(set *appsv1.DaemonSet, nodes int) (maxUnavailable, maxSurge int) {
	r := set.Spec.UpdateStrategy.RollingUpdate
	if r == nil {
		return 1, 0
	}
	maxSurge = scaled(r.MaxSurge, nodes)
	if maxUnavailable = scaled(r.MaxUnavailable, nodes); maxUnavailable == 0 && maxSurge == 0 {
		maxUnavailable = 1
	}
	return maxUnavailable, maxSurge
}

func scaled(v *intstr.IntOrString, total int) int {
	if v == nil {
		return 0
	}
	n, err := intstr.GetScaledValueFromIntOrPercent(v, total, true)
	if err != nil {
		return 0
	}
	return n
}

func (p *plan) available(in input, pod *corev1.Pod) bool {
	since, ready := backend.ReadySince(pod)
	if !ready {
		return false
	}
	wait := time.Duration(in.set.Spec.MinReadySeconds)*time.Second - in.now.Sub(since)
	if in.set.Spec.MinReadySeconds == 0 || wait <= 0 {
		return true
	}
	if p.again == 0 || wait < p.again {
		p.again = wait
	}
	return false
}

// judge asks of a node what the scheduler will ask of the pod.
func judge(set *appsv1.DaemonSet, node *corev1.Node) verdict {
	pod := podFor(set, "", node.Name)
	if ok, err := nodeaffinity.GetRequiredNodeAffinity(pod).Match(node); !ok || err != nil {
		return verdict{}
	}
	untolerated := func(effects ...corev1.TaintEffect) bool {
		_, found := corehelpers.FindMatchingUntoleratedTaint(klog.Logger{}, node.Spec.Taints, pod.Spec.Tolerations,
			func(t *corev1.Taint) bool { return slices.Contains(effects, t.Effect) }, true)
		return found
	}
	return verdict{run: !untolerated(corev1.TaintEffectNoSchedule, corev1.TaintEffectNoExecute), stay: !untolerated(corev1.TaintEffectNoExecute)}
}

// tolerations that every daemon has: a node's troubles are no reason to take its daemons away.
func daemonTolerations(hostNetwork bool) []corev1.Toleration {
	exists := func(key string, effect corev1.TaintEffect) corev1.Toleration {
		return corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, Effect: effect}
	}
	out := []corev1.Toleration{
		exists(corev1.TaintNodeNotReady, corev1.TaintEffectNoExecute), exists(corev1.TaintNodeUnreachable, corev1.TaintEffectNoExecute),
		exists(corev1.TaintNodeDiskPressure, corev1.TaintEffectNoSchedule), exists(corev1.TaintNodeMemoryPressure, corev1.TaintEffectNoSchedule),
		exists(corev1.TaintNodePIDPressure, corev1.TaintEffectNoSchedule), exists(corev1.TaintNodeUnschedulable, corev1.TaintEffectNoSchedule),
	}
	if hostNetwork {
		out = append(out, exists(corev1.TaintNodeNetworkUnavailable, corev1.TaintEffectNoSchedule))
	}
	return out
}

// podFor builds the pod for a node.
func podFor(set *appsv1.DaemonSet, hash, node string) *corev1.Pod {
	t := set.Spec.Template.DeepCopy()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: set.Namespace, GenerateName: set.Name + "-", Labels: t.Labels, Annotations: t.Annotations,
		Finalizers: t.Finalizers, OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(set, kind)}}, Spec: t.Spec}
	if pod.Labels == nil {
		pod.Labels = map[string]string{}
	}
	if hash != "" {
		pod.Labels[appsv1.DefaultDaemonSetUniqueLabelKey] = hash
	}
	for _, toleration := range daemonTolerations(pod.Spec.HostNetwork) {
		if !slices.Contains(pod.Spec.Tolerations, toleration) {
			pod.Spec.Tolerations = append(pod.Spec.Tolerations, toleration)
		}
	}
	pin(pod, node)
	return pod
}

// pin adds the node's name to every term of the required affinity.
func pin(pod *corev1.Pod, node string) {
	if pod.Spec.Affinity == nil {
		pod.Spec.Affinity = &corev1.Affinity{}
	}
	if pod.Spec.Affinity.NodeAffinity == nil {
		pod.Spec.Affinity.NodeAffinity = &corev1.NodeAffinity{}
	}
	a := pod.Spec.Affinity.NodeAffinity
	if a.RequiredDuringSchedulingIgnoredDuringExecution == nil || len(a.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms) == 0 {
		a.RequiredDuringSchedulingIgnoredDuringExecution = &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{}}}
	}
	for i := range a.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
		a.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms[i].MatchFields = []corev1.NodeSelectorRequirement{
			{Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{node}}}
	}
}

// nodeOf is the node that a pod runs on, or is pinned to as long as it waits.
func nodeOf(pod *corev1.Pod) string {
	if pod.Spec.NodeName != "" || pod.Spec.Affinity == nil || pod.Spec.Affinity.NodeAffinity == nil {
		return pod.Spec.NodeName
	}
	if r := pod.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution; r != nil {
		for _, term := range r.NodeSelectorTerms {
			for _, f := range term.MatchFields {
				if f.Key == metav1.ObjectNameField && f.Operator == corev1.NodeSelectorOpIn && len(f.Values) == 1 {
					return f.Values[0]
				}
			}
		}
	}
	return ""
}
