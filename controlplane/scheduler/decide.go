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
	// Whole: it is the pod's own affair, whatever the node.
	Whole bool

	cures Change
}

// Change is a kind of change in the cluster, or several.
type Change uint8

// The kinds of changes that can make a pod fit that did not.
const (
	NodesChanged   Change = 1 << iota // a node came or went, or its labels, taints, features or size changed
	RoomChanged                       // a bound pod ended, left or asks for less
	PodsChanged                       // a bound pod came, left or changed its labels, or a namespace did
	StorageChanged                    // a claim, a volume or a class
)

// filter says whether a pod may run on a node. It returns nil if so. Only changes of these kinds can make it think again.
type filter struct {
	name  string
	cures Change
	check func(*Cluster, *Pod, *Node) []Refusal
}

// filters in the order in which they are asked: the cheap and final ones first. A node is refused by the first that objects.
func filters() []filter {
	return []filter{
		{"NodeUnschedulable", NodesChanged, unschedulable},
		{"NodeName", NodesChanged, nodeName},
		{"TaintToleration", NodesChanged, taints},
		{"NodeAffinity", NodesChanged, nodeAffinity},
		{"NodePorts", RoomChanged, ports},
		{"NodeResourcesFit", NodesChanged | RoomChanged, fits},
		{"NodeVolumeLimits", NodesChanged | StorageChanged | RoomChanged, volumeLimits},
		{"VolumeBinding", NodesChanged | StorageChanged | RoomChanged, volumes},
		{"PodTopologySpread", NodesChanged | PodsChanged | RoomChanged, topologySpread},
		{"InterPodAffinity", NodesChanged | PodsChanged | RoomChanged, podAffinity},
		{"NodeDeclaredFeatures", NodesChanged, declaredFeatures},
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

// Check asks every filter about one node and returns the first objection's reasons. What was promised to pods of at least
// the same priority counts as taken, but nobody may lean on a pod that has not come yet.
func Check(c *Cluster, pod *Pod, node *Node) []Refusal {
	if promised := c.promised(pod, node.Name); len(promised) > 0 {
		if refused := ask(c, pod, node.with(promised)); refused != nil {
			return refused
		}
	}
	return ask(c, pod, node)
}

func ask(c *Cluster, pod *Pod, node *Node) []Refusal {
	for _, f := range filters() {
		refused := f.check(c, pod, node)
		for i := range refused {
			refused[i].cures = f.cures
		}
		if len(refused) > 0 {
			return refused
		}
	}
	return nil
}

// Cures are the changes that could make the pod fit somewhere. A new node always could.
func (d Decision) Cures() Change {
	out := NodesChanged
	for _, refusals := range d.Refusals {
		for _, r := range refusals {
			out |= r.cures
		}
	}
	return out
}

// Message explains a decision without a node as upstream's events do, and adds the figures where one node gives the reason:
// "0/1 nodes are available: 1 Insufficient cpu (asks 4, 1.5 of 2 free)."
func (d Decision) Message() string {
	if d.Nodes == 0 {
		return "no nodes available to schedule pods"
	}
	counts, last := map[string]int{}, map[string]Refusal{}
	for _, refusals := range d.Refusals {
		for _, r := range refusals {
			counts[r.Reason]++
			last[r.Reason] = r
		}
	}
	parts := make([]string, 0, len(counts))
	for reason, n := range counts {
		r, text := last[reason], reason
		if !r.Whole {
			text = fmt.Sprintf("%d %s", n, reason)
		}
		if (r.Whole || n == 1) && r.Detail != "" {
			text += " (" + r.Detail + ")"
		}
		parts = append(parts, text)
	}
	sort.Strings(parts)
	return fmt.Sprintf("%d/%d nodes are available: %s.", d.Feasible, d.Nodes, strings.Join(parts, ", "))
}
