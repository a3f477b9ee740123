package admission

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/utils/ptr"
)

// evictAfter is how long, in seconds, a pod stays bound to a node that is gone.
const evictAfter = 300

// newTolerationSeconds lets pods stay on a lost node for a while, in case it comes back.
func newTolerationSeconds() admission.Interface {
	return admitter{admission.NewHandler(admission.Create, admission.Update), func(_ context.Context, a admission.Attributes) error {
		pod, ok := object[*corev1.Pod](a, pods)
		if !ok {
			return nil
		}
		for _, taint := range []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable} {
			tolerated := slices.ContainsFunc(pod.Spec.Tolerations, func(t corev1.Toleration) bool {
				return (t.Key == taint || t.Key == "") && (t.Effect == corev1.TaintEffectNoExecute || t.Effect == "")
			})
			if !tolerated {
				pod.Spec.Tolerations = append(pod.Spec.Tolerations, corev1.Toleration{
					Key: taint, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: ptr.To[int64](evictAfter),
				})
			}
		}
		return nil
	}}
}

// newTaintNodes taints a new node until the node controller has seen it ready: no pod may land before that.
func newTaintNodes() admission.Interface {
	return admitter{admission.NewHandler(admission.Create), func(_ context.Context, a admission.Attributes) error {
		node, ok := object[*corev1.Node](a, nodes)
		if !ok {
			return nil
		}
		taint := corev1.Taint{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule}
		if !slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool { return t.MatchTaint(&taint) }) {
			node.Spec.Taints = append(node.Spec.Taints, taint)
		}
		return nil
	}}
}
