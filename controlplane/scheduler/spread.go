package scheduler

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// topologySpread enforces constraints with whenUnsatisfiable: DoNotSchedule: the domain's count with the newcomer may
// exceed the smallest domain's by maxSkew at the most.
func topologySpread(c *Cluster, pod *Pod, node *Node) []Refusal {
	for i := range pod.Spec.TopologySpreadConstraints {
		t := &pod.Spec.TopologySpreadConstraints[i]
		if t.WhenUnsatisfiable != corev1.DoNotSchedule {
			continue
		}
		domain, has := node.Labels[t.TopologyKey]
		if !has {
			return refuse(true, "node(s) didn't match pod topology spread constraints (missing required label)", t.TopologyKey)
		}
		counts := domainCounts(c, pod, t, node)
		least := smallest(counts)
		if t.MinDomains != nil && int32(len(counts)) < *t.MinDomains {
			least = 0
		}
		self := 0
		if labelsMatch(spreadSelector(pod.Pod, t), pod.Labels) {
			self = 1
		}
		if skew := counts[domain] + self - least; skew > int(t.MaxSkew) {
			return refuse(false, "node(s) didn't match pod topology spread constraints",
				fmt.Sprintf("%s=%s would be %d ahead, maxSkew %d", t.TopologyKey, domain, skew, t.MaxSkew))
		}
	}
	return nil
}

// domainCounts counts the selected pods per domain over the nodes that the constraint's policies include.
// node stands for its original, so that a what-if copy counts.
func domainCounts(c *Cluster, pod *Pod, t *corev1.TopologySpreadConstraint, node *Node) map[string]int {
	counts := map[string]int{}
	selector := spreadSelector(pod.Pod, t)
	for _, n := range c.Nodes {
		if node != nil && n.Name == node.Name {
			n = node
		}
		domain, has := n.Labels[t.TopologyKey]
		if !has || !labelled(pod, t, n) || !included(pod, t, n) {
			continue
		}
		counts[domain] += 0
		for _, p := range n.Pods {
			if p.Namespace == pod.Namespace && p.DeletionTimestamp == nil && labelsMatch(selector, p.Labels) {
				counts[domain]++
			}
		}
	}
	return counts
}

// labelled: a node counts only if it is in a domain of every constraint of the same kind.
func labelled(pod *Pod, t *corev1.TopologySpreadConstraint, n *Node) bool {
	for i := range pod.Spec.TopologySpreadConstraints {
		other := &pod.Spec.TopologySpreadConstraints[i]
		if _, has := n.Labels[other.TopologyKey]; other.WhenUnsatisfiable == t.WhenUnsatisfiable && !has {
			return false
		}
	}
	return true
}

// included applies nodeAffinityPolicy (default Honor) and nodeTaintsPolicy (default Ignore).
func included(pod *Pod, t *corev1.TopologySpreadConstraint, n *Node) bool {
	if t.NodeAffinityPolicy == nil || *t.NodeAffinityPolicy == corev1.NodeInclusionPolicyHonor {
		if ok, err := nodeaffinity.GetRequiredNodeAffinity(pod.Pod).Match(n.Node); !ok || err != nil {
			return false
		}
	}
	if t.NodeTaintsPolicy != nil && *t.NodeTaintsPolicy == corev1.NodeInclusionPolicyHonor {
		return taints(nil, pod, n) == nil
	}
	return true
}

func spreadSelector(pod *corev1.Pod, t *corev1.TopologySpreadConstraint) *metav1.LabelSelector {
	if len(t.MatchLabelKeys) == 0 {
		return t.LabelSelector
	}
	selector := &metav1.LabelSelector{}
	if t.LabelSelector != nil {
		selector = t.LabelSelector.DeepCopy()
	}
	for _, key := range t.MatchLabelKeys {
		if v, has := pod.Labels[key]; has {
			selector.MatchExpressions = append(selector.MatchExpressions,
				metav1.LabelSelectorRequirement{Key: key, Operator: metav1.LabelSelectorOpIn, Values: []string{v}})
		}
	}
	return selector
}

func smallest(counts map[string]int) int {
	least, first := 0, true
	for _, n := range counts {
		if first || n < least {
			least, first = n, false
		}
	}
	return least
}
