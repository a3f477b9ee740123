package controller

import corev1 "k8s.io/api/core/v1"

// Ready tells whether a node's kubelet says that it works, and was heard of lately.
func Ready(node *corev1.Node) bool {
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// OutOfService tells whether an administrator's taint vouches that nothing runs any more on a node that does not answer (KEP-2268): its pods may go
// and its volumes be detached without it. A node that is ready is in service whatever it is tainted with.
func OutOfService(node *corev1.Node) bool {
	if Ready(node) {
		return false
	}
	for _, t := range node.Spec.Taints {
		if t.Key == corev1.TaintNodeOutOfService && (t.Effect == corev1.TaintEffectNoExecute || t.Effect == corev1.TaintEffectNoSchedule) {
			return true
		}
	}
	return false
}
