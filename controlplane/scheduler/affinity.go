package scheduler

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// podAffinity enforces the pod's required affinity and anti-affinity, and the required anti-affinity of the pods that
// already run (their wish counts as much as the newcomer's).
func podAffinity(c *Cluster, pod *Pod, node *Node) []Refusal {
	if refusesNewcomer(c, pod, node) {
		return refuse(false, "node(s) didn't satisfy existing pods anti-affinity rules", "")
	}
	affinity := pod.Spec.Affinity
	if affinity == nil {
		return nil
	}
	if anti := affinity.PodAntiAffinity; anti != nil {
		for i := range anti.RequiredDuringSchedulingIgnoredDuringExecution {
			if present(c, pod, node, &anti.RequiredDuringSchedulingIgnoredDuringExecution[i]) {
				return refuse(false, "node(s) didn't match pod anti-affinity rules", "")
			}
		}
	}
	if affinity.PodAffinity == nil {
		return nil
	}
	terms := affinity.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution
	missing := false
	for i := range terms {
		if _, has := node.Labels[terms[i].TopologyKey]; !has {
			return refuse(true, "node(s) didn't match pod affinity rules", "the node has no label "+terms[i].TopologyKey)
		}
		missing = missing || !present(c, pod, node, &terms[i])
	}
	// The first pod of a group that wants to be near its own kind must be allowed somewhere.
	if missing && !(nobodyMatches(c, pod, terms) && matchesAll(c, pod, pod.Pod, terms)) {
		return refuse(true, "node(s) didn't match pod affinity rules", "")
	}
	return nil
}

// present reports whether a pod that the term selects runs in node's topology domain.
func present(c *Cluster, owner *Pod, node *Node, term *corev1.PodAffinityTerm) bool {
	domain, has := node.Labels[term.TopologyKey]
	if !has {
		return false
	}
	for _, other := range c.Nodes {
		if v, ok := other.Labels[term.TopologyKey]; !ok || v != domain {
			continue
		}
		if other.Name == node.Name {
			other = node // a what-if copy counts instead of the original
		}
		for _, p := range other.Pods {
			if p.UID != owner.UID && selects(c, owner.Pod, term, p.Pod) {
				return true
			}
		}
	}
	return false
}

func refusesNewcomer(c *Cluster, pod *Pod, node *Node) bool {
	for _, other := range c.Nodes {
		pods := other.Pods
		if other.Name == node.Name {
			pods = node.Pods
		}
		for _, p := range pods {
			if p.Spec.Affinity == nil || p.Spec.Affinity.PodAntiAffinity == nil {
				continue
			}
			terms := p.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution
			for i := range terms {
				here, hasHere := node.Labels[terms[i].TopologyKey]
				there, hasThere := other.Labels[terms[i].TopologyKey]
				if hasHere && hasThere && here == there && selects(c, p.Pod, &terms[i], pod.Pod) {
					return true
				}
			}
		}
	}
	return false
}

func nobodyMatches(c *Cluster, pod *Pod, terms []corev1.PodAffinityTerm) bool {
	for _, n := range c.Nodes {
		for _, p := range n.Pods {
			if matchesAll(c, pod, p.Pod, terms) {
				return false
			}
		}
	}
	return true
}

func matchesAll(c *Cluster, owner *Pod, candidate *corev1.Pod, terms []corev1.PodAffinityTerm) bool {
	for i := range terms {
		if !selects(c, owner.Pod, &terms[i], candidate) {
			return false
		}
	}
	return true
}

// selects reports whether a term of owner's affinity selects the candidate: namespace and labels.
func selects(c *Cluster, owner *corev1.Pod, term *corev1.PodAffinityTerm, candidate *corev1.Pod) bool {
	if !namespaceSelected(c, owner, term, candidate.Namespace) {
		return false
	}
	if !labelsMatch(term.LabelSelector, candidate.Labels) {
		return false
	}
	for _, key := range term.MatchLabelKeys {
		if v, has := owner.Labels[key]; has && candidate.Labels[key] != v {
			return false
		}
	}
	for _, key := range term.MismatchLabelKeys {
		if v, has := owner.Labels[key]; has && candidate.Labels[key] == v {
			return false
		}
	}
	return true
}

func namespaceSelected(c *Cluster, owner *corev1.Pod, term *corev1.PodAffinityTerm, namespace string) bool {
	if slices.Contains(term.Namespaces, namespace) {
		return true
	}
	if term.NamespaceSelector != nil {
		return labelsMatch(term.NamespaceSelector, c.Namespaces[namespace])
	}
	return len(term.Namespaces) == 0 && namespace == owner.Namespace
}

// labelsMatch: a nil selector selects nothing, an empty one everything.
func labelsMatch(selector *metav1.LabelSelector, set map[string]string) bool {
	s, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && s.Matches(labels.Set(set))
}
