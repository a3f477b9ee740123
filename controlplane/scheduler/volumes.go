package scheduler

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"keelson.dev/keelson/controlplane/controller"
)

// Volumes answers what the storage objects say about a pod. It is read from informers' stores; see claims.go.
type Volumes interface {
	// Refuses says why the pod's claims keep it off the node, or off every node; nil if they do not.
	Refuses(pod *corev1.Pod, node *corev1.Node, podsOnNode int) []Refusal
	// Alone lists the pod's claims that one pod alone may use (ReadWriteOncePod).
	Alone(pod *corev1.Pod) []string
	// Full says that the node takes no more of the volumes that the pod would have attached to it; nil if it does.
	Full(pod *Pod, node *Node) []Refusal
}

func volumeLimits(c *Cluster, pod *Pod, node *Node) []Refusal {
	if c.Volumes == nil {
		return nil
	}
	return c.Volumes.Full(pod, node)
}

// volumes asks the storage objects. Without any, a pod's claims do not restrict it.
func volumes(c *Cluster, pod *Pod, node *Node) []Refusal {
	if c.Volumes == nil {
		return nil
	}
	for _, claim := range c.Volumes.Alone(pod.Pod) {
		for uid, other := range c.pods {
			if uid != pod.UID && other.Namespace == pod.Namespace && slices.Contains(controller.ClaimNames(other.Pod), claim) {
				return refuse(true, "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode", "claim "+claim+", pod "+other.Name)
			}
		}
	}
	return c.Volumes.Refuses(pod.Pod, node.Node, len(node.Pods))
}
