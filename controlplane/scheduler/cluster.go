package scheduler

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	resourcehelper "k8s.io/component-helpers/resource"
	corehelpers "k8s.io/component-helpers/scheduling/corev1"
)

// Resources are amounts by name: cpu in millicores, everything else in its base unit (bytes, counts).
type Resources map[corev1.ResourceName]int64

// Cluster is what a decision is made from. It is owned by one goroutine; Decide and Preempt only read it.
type Cluster struct {
	// Nodes by name.
	Nodes map[string]*Node
	// Namespaces' labels, for affinity terms with a namespaceSelector.
	Namespaces map[string]map[string]string
	// Volumes answers questions about claims; nil where the cluster has none.
	Volumes  Volumes
	pods     map[types.UID]*Pod
	nominees map[types.UID]*Pod // without a node, but promised one (status.nominatedNodeName)
	leaving  map[types.UID]bool // asked to go for a nominee; the watch will show it
}

// Node is a node with the pods that are bound or assumed to it.
type Node struct {
	*corev1.Node
	Pods        map[types.UID]*Pod
	Allocatable Resources
	Requested   Resources
	images      map[string]int64 // sizes in bytes, by every name that a pod may give an image
}

// Pod is a pod with what a decision needs of it worked out once.
type Pod struct {
	*corev1.Pod
	Requests Resources
	needs    []string // features of its node's kubelet
}

// NewCluster returns an empty picture.
func NewCluster() *Cluster {
	return &Cluster{Nodes: map[string]*Node{}, Namespaces: map[string]map[string]string{}, pods: map[types.UID]*Pod{},
		nominees: map[types.UID]*Pod{}, leaving: map[types.UID]bool{}}
}

// NewPod works out a pod's requests: init containers, sidecars, overhead and pod-level resources included.
func NewPod(pod *corev1.Pod) *Pod {
	requests := amounts(resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{UseStatusResources: true, InPlacePodLevelResourcesVerticalScalingEnabled: true}))
	requests[corev1.ResourcePods] = 1
	return &Pod{Pod: pod, Requests: requests, needs: needs(&pod.Spec)}
}

// SetNode adds or replaces a node. Pods that were seen before their node are attached now.
func (c *Cluster) SetNode(node *corev1.Node) {
	n, known := c.Nodes[node.Name]
	if !known {
		n = &Node{Pods: map[types.UID]*Pod{}, Requested: Resources{}}
		c.Nodes[node.Name] = n
	}
	n.Node, n.Allocatable, n.images = node, amounts(node.Status.Allocatable), imageSizes(node.Status.Images)
	if known {
		return
	}
	for uid, pod := range c.pods {
		if pod.Spec.NodeName == node.Name {
			n.attach(uid, pod)
		}
	}
}

// RemoveNode forgets a node. Its pods stay known until they are removed themselves.
func (c *Cluster) RemoveNode(name string) { delete(c.Nodes, name) }

// SetPod records a bound (or assumed) pod; a pod that has ended, or has no node, is removed.
func (c *Cluster) SetPod(pod *corev1.Pod) {
	leaving := c.leaving[pod.UID]
	c.RemovePod(pod.UID)
	if pod.Spec.NodeName == "" || ended(pod) {
		return
	}
	p := NewPod(pod)
	c.pods[pod.UID] = p
	if leaving {
		c.leaving[pod.UID] = true
	}
	if n := c.Nodes[pod.Spec.NodeName]; n != nil {
		n.attach(pod.UID, p)
	}
}

// RemovePod forgets a pod; it is safe for a pod that was never known.
func (c *Cluster) RemovePod(uid types.UID) {
	delete(c.nominees, uid)
	delete(c.leaving, uid)
	p := c.pods[uid]
	if p == nil {
		return
	}
	delete(c.pods, uid)
	if n := c.Nodes[p.Spec.NodeName]; n != nil && n.Pods[uid] != nil {
		delete(n.Pods, uid)
		n.Requested.add(p.Requests, -1)
	}
}

// Nominate records which node a pod without one was promised, or that it is promised none.
func (c *Cluster) Nominate(pod *corev1.Pod) {
	delete(c.nominees, pod.UID)
	if pod.Status.NominatedNodeName != "" {
		c.nominees[pod.UID] = NewPod(pod)
	}
}

// promise is the node that a pod was promised, "" for none. What the API shows of it may be older than what is known here.
func (c *Cluster) promise(pod *Pod) string {
	if p := c.nominees[pod.UID]; p != nil {
		return p.Status.NominatedNodeName
	}
	return pod.Status.NominatedNodeName
}

// promised are the other pods to whom the node's room was promised and that are as important.
func (c *Cluster) promised(pod *Pod, node string) (out []*Pod) {
	for uid, p := range c.nominees {
		if uid != pod.UID && p.Status.NominatedNodeName == node && corehelpers.PodPriority(p.Pod) >= corehelpers.PodPriority(pod.Pod) {
			out = append(out, p)
		}
	}
	return out
}

// with returns a copy of n that has more pods.
func (n *Node) with(more []*Pod) *Node {
	out := n.without(nil)
	for _, p := range more {
		out.attach(p.UID, p)
	}
	return out
}

func (n *Node) attach(uid types.UID, p *Pod) {
	n.Pods[uid] = p
	n.Requested.add(p.Requests, 1)
}

// without returns a copy of n that lacks the given pods, for asking "what if".
func (n *Node) without(gone map[types.UID]bool) *Node {
	out := &Node{Node: n.Node, Allocatable: n.Allocatable, Pods: map[types.UID]*Pod{}, Requested: Resources{}}
	for uid, p := range n.Pods {
		if !gone[uid] {
			out.attach(uid, p)
		}
	}
	return out
}

func (r Resources) add(other Resources, sign int64) {
	for name, v := range other {
		r[name] += sign * v
	}
}

func amounts(list corev1.ResourceList) Resources {
	out := make(Resources, len(list)+1)
	for name, q := range list {
		if name == corev1.ResourceCPU {
			out[name] = q.MilliValue()
		} else {
			out[name] = q.Value()
		}
	}
	return out
}

func ended(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}
