package scheduler

import corev1 "k8s.io/api/core/v1"

// Volumes answers what the storage objects say about a pod. It is read from informers' stores; see claims.go.
type Volumes interface {
	// Refuses says why the pod's claims keep it off the node, or off every node; nil if they do not.
	Refuses(pod *corev1.Pod, node *corev1.Node, podsOnNode int) []Refusal
}

// volumes asks the storage objects. Without any, a pod's claims do not restrict it.
func volumes(c *Cluster, pod *Pod, node *Node) []Refusal {
	if c.Volumes == nil {
		return nil
	}
	return c.Volumes.Refuses(pod.Pod, node.Node, len(node.Pods))
}
