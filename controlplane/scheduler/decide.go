package scheduler

import (
	"fmt"
	"sort"
	"strings"
)

// Decision is the answer for one pod.
type Decision struct {
	// Node is the chosen node, "" if none fits.
	Node string
	// Nodes is how many nodes were looked at; Feasible, how many fit.
	Nodes, Feasible int
	// Refusals lists why the other nodes do not fit, by node name.
	Refusals map[string][]Refusal
}

// Refusal is one reason for which a node does not fit.
type Refusal struct {
	// Reason groups nodes, in upstream's words ("Insufficient cpu").
	Reason string
	// Detail says it with this node's figures, for a reader ("asks 4, 1.5 of 2 free").
	Detail string
	// Final: no preemption of other pods can change it.
	Final bool
}

// filter says whether a pod may run on a node. It returns nil if so.
type filter struct {
	name  string
	check func(*Cluster, *Pod, *Node) []Refusal
}

// filters in the order in which they are asked: the cheap and final ones first. A node is refused by the first that objects.
func filters() []filter {
	return []filter{
		{"NodeUnschedulable", unschedulable},
		{"NodeName", nodeName},
		{"TaintToleration", taints},
		{"NodeAffinity", nodeAffinity},
		{"NodePorts", ports},
		{"NodeResourcesFit", fits},
		{"VolumeBinding", volumes},
		{"PodTopologySpread", topologySpread},
		{"InterPodAffinity", podAffinity},
	}
}

// Decide filters the nodes on which the pod can run, scores them, and returns the best; equals go to the lowest name,
// so that the same picture always gives the same answer.
func Decide(c *Cluster, pod *Pod) Decision {
	d := Decision{Nodes: len(c.Nodes), Refusals: map[string][]Refusal{}}
	var feasible []*Node
	for name, node := range c.Nodes {
		if refused := Check(c, pod, node); refused != nil {
			d.Refusals[name] = refused
			continue
		}
		feasible = append(feasible, node)
	}
	d.Feasible = len(feasible)
	if len(feasible) == 0 {
		return d
	}
	sort.Slice(feasible, func(i, j int) bool { return feasible[i].Name < feasible[j].Name })
	best, bestScore := 0, int64(-1)
	for i, score := range scores(c, pod, feasible) {
		if score > bestScore {
			best, bestScore = i, score
		}
	}
	d.Node = feasible[best].Name
	return d
}

// Check asks every filter about one node and returns the first objection's reasons.
func Check(c *Cluster, pod *Pod, node *Node) []Refusal {
	for _, f := range filters() {
		if refused := f.check(c, pod, node); len(refused) > 0 {
			return refused
		}
	}
	return nil
}

// Message explains a decision without a node as upstream's events do, and adds the figures where one node gives the reason:
// "0/1 nodes are available: 1 Insufficient cpu (asks 4, 1.5 of 2 free)."
func (d Decision) Message() string {
	if d.Nodes == 0 {
		return "no nodes available to schedule pods"
	}
	counts, details := map[string]int{}, map[string]string{}
	for _, refusals := range d.Refusals {
		for _, r := range refusals {
			counts[r.Reason]++
			details[r.Reason] = r.Detail
		}
	}
	parts := make([]string, 0, len(counts))
	for reason, n := range counts {
		text := fmt.Sprintf("%d %s", n, reason)
		if n == 1 && details[reason] != "" {
			text += " (" + details[reason] + ")"
		}
		parts = append(parts, text)
	}
	sort.Strings(parts)
	return fmt.Sprintf("%d/%d nodes are available: %s.", d.Feasible, d.Nodes, strings.Join(parts, ", "))
}
