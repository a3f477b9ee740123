package scheduler

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// Requests that a pod without any is counted with when free room is compared, so that nodes full of small unlabelled
// pods do not look empty (upstream's figures).
const (
	nominalCPU    = 100       // millicores
	nominalMemory = 200 << 20 // bytes
	top           = 100       // the best score of one scorer
)

// scorer rates every feasible node; raw scores are scaled to 0..top over the nodes unless absolute.
type scorer struct {
	weight   int64
	absolute bool
	score    func(*Cluster, *Pod, *Node) int64
}

func scorers() []scorer {
	return []scorer{
		{1, true, leastAllocated},
		{1, true, balanced},
		{3, false, fewestPreferTaints},
		{2, false, preferredNodes},
		{2, false, spreadEvenly},
		{2, false, preferredPods},
		{1, true, imagesThere},
	}
}

// scores returns the weighted sum for each node, in the order of nodes.
func scores(c *Cluster, pod *Pod, nodes []*Node) []int64 {
	total := make([]int64, len(nodes))
	for _, s := range scorers() {
		raw := make([]int64, len(nodes))
		for i, n := range nodes {
			raw[i] = s.score(c, pod, n)
		}
		if !s.absolute {
			scale(raw)
		}
		for i := range raw {
			total[i] += s.weight * raw[i]
		}
	}
	return total
}

// scale maps raw onto 0..top, keeping the order; all equal gives 0 everywhere.
func scale(raw []int64) {
	low, high := raw[0], raw[0]
	for _, v := range raw {
		low, high = min(low, v), max(high, v)
	}
	for i, v := range raw {
		raw[i] = 0
		if high > low {
			raw[i] = (v - low) * top / (high - low)
		}
	}
}

// leastAllocated prefers the node with the largest share of cpu and memory free after the pod: the course's second step.
func leastAllocated(_ *Cluster, pod *Pod, n *Node) int64 {
	cpu, memory := usage(pod, n)
	return int64((2 - cpu - memory) / 2 * top)
}

// balanced prefers the node on which cpu and memory are used alike, so that neither is stranded.
func balanced(_ *Cluster, pod *Pod, n *Node) int64 {
	cpu, memory := usage(pod, n)
	return int64((1 - max(cpu-memory, memory-cpu)) * top)
}

// usage returns the used shares (0..1) of cpu and memory with the pod on the node.
func usage(pod *Pod, n *Node) (cpu, memory float64) {
	usedCPU, usedMemory := nominal(pod)
	for _, p := range n.Pods {
		c, m := nominal(p)
		usedCPU, usedMemory = usedCPU+c, usedMemory+m
	}
	return share(usedCPU, n.Allocatable[corev1.ResourceCPU]), share(usedMemory, n.Allocatable[corev1.ResourceMemory])
}

func nominal(p *Pod) (cpu, memory int64) {
	cpu, memory = p.Requests[corev1.ResourceCPU], p.Requests[corev1.ResourceMemory]
	if cpu == 0 {
		cpu = nominalCPU
	}
	if memory == 0 {
		memory = nominalMemory
	}
	return cpu, memory
}

func share(used, total int64) float64 {
	if total <= 0 || used >= total {
		return 1
	}
	return float64(used) / float64(total)
}

func fewestPreferTaints(_ *Cluster, pod *Pod, n *Node) int64 {
	var hits int64
	for i := range n.Spec.Taints {
		if t := &n.Spec.Taints[i]; t.Effect == corev1.TaintEffectPreferNoSchedule && !tolerates(pod.Spec.Tolerations, t) {
			hits--
		}
	}
	return hits
}

func preferredNodes(_ *Cluster, pod *Pod, n *Node) int64 {
	if pod.Spec.Affinity == nil || pod.Spec.Affinity.NodeAffinity == nil {
		return 0
	}
	terms, err := nodeaffinity.NewPreferredSchedulingTerms(pod.Spec.Affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	if err != nil {
		return 0
	}
	return terms.Score(n.Node)
}

// spreadEvenly rates soft spread constraints; a pod without any is spread by its controller over the hosts.
func spreadEvenly(c *Cluster, pod *Pod, n *Node) int64 {
	var crowd int64
	constrained := false
	for i := range pod.Spec.TopologySpreadConstraints {
		t := &pod.Spec.TopologySpreadConstraints[i]
		constrained = true
		if t.WhenUnsatisfiable != corev1.ScheduleAnyway {
			continue
		}
		counts := domainCounts(c, pod, t, nil)
		if here, counted := counts[n.Labels[t.TopologyKey]]; counted {
			crowd -= int64(here)
			continue
		}
		crowd-- // beside all domains: worse than any
		for _, here := range counts {
			crowd -= int64(here)
		}
	}
	owner := metav1.GetControllerOf(pod)
	if constrained || owner == nil {
		return crowd
	}
	for _, p := range n.Pods {
		if o := metav1.GetControllerOf(p); o != nil && o.UID == owner.UID {
			crowd--
		}
	}
	return crowd
}

// preferredPods sums, over the pods in the node's domains, the weights of the preferred terms by which the newcomer wants
// to be near them, and they near it; terms of anti-affinity count against. A pod that must be near the newcomer's kind counts as
// one that would slightly like to.
func preferredPods(c *Cluster, pod *Pod, n *Node) int64 {
	own := wishes(pod.Pod)
	var sum int64
	for _, other := range c.Nodes {
		for _, p := range other.Pods {
			if p.UID == pod.UID {
				continue
			}
			for i := range own {
				if own[i].soft && own[i].joins(n, other) && selects(c, pod.Pod, own[i].term, p.Pod) {
					sum += own[i].weight
				}
			}
			for _, w := range wishes(p.Pod) {
				if w.joins(n, other) && selects(c, p.Pod, w.term, pod.Pod) {
					sum += w.weight
				}
			}
		}
	}
	return sum
}

// wish is a term of affinity; weight is negative for anti-affinity.
type wish struct {
	term   *corev1.PodAffinityTerm
	weight int64
	soft   bool
}

// joins tells whether two nodes are in one domain of the wish's topology.
func (w wish) joins(a, b *Node) bool {
	x, has := a.Labels[w.term.TopologyKey]
	return has && b.Labels[w.term.TopologyKey] == x
}

func wishes(pod *corev1.Pod) (out []wish) {
	if pod.Spec.Affinity == nil {
		return nil
	}
	if a := pod.Spec.Affinity.PodAffinity; a != nil {
		for i := range a.RequiredDuringSchedulingIgnoredDuringExecution {
			out = append(out, wish{&a.RequiredDuringSchedulingIgnoredDuringExecution[i], 1, false})
		}
		for i := range a.PreferredDuringSchedulingIgnoredDuringExecution {
			t := &a.PreferredDuringSchedulingIgnoredDuringExecution[i]
			out = append(out, wish{&t.PodAffinityTerm, int64(t.Weight), true})
		}
	}
	if a := pod.Spec.Affinity.PodAntiAffinity; a != nil {
		for i := range a.PreferredDuringSchedulingIgnoredDuringExecution {
			t := &a.PreferredDuringSchedulingIgnoredDuringExecution[i]
			out = append(out, wish{&t.PodAffinityTerm, -int64(t.Weight), true})
		}
	}
	return out
}
