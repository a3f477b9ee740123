package scheduler

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"keelson.dev/keelson/controlplane/scenario"
)

// story is a cluster that a file in testdata builds up line by line. Commands:
//
//	node NAME cpu= memory= labels=k=v,.. taint=k=v:Effect cordoned
//	remove-node NAME
//	pod NAME on=NODE [pod words]
//	protect POD                  its disruption budget allows nothing
//	schedule NAME [pod words]    prints the node or the message
//	preempt NAME [pod words]     prints the node and the victims
//
// Pod words: cpu= memory= labels= selector=k=v tolerates=KEY hostport= priority= apart=TOPOLOGY near=TOPOLOGY nearapp=APP.
// What a printing command prints follows it behind "----".
type story struct {
	cluster   *Cluster
	protected map[string]bool
}

func TestScenarios(t *testing.T) {
	scenario.Play(t, func() scenario.Do { return (&story{cluster: NewCluster(), protected: map[string]bool{}}).do })
}

func (s *story) do(t *testing.T, words []string) string {
	args := map[string]string{}
	for _, w := range words[2:] {
		k, v, _ := strings.Cut(w, "=")
		args[k] = v
	}
	switch words[0] {
	case "node":
		s.cluster.SetNode(makeNode(words[1], args))
	case "remove-node":
		s.cluster.RemoveNode(words[1])
	case "pod":
		s.cluster.SetPod(makePod(words[1], args))
	case "protect":
		s.protected[words[1]] = true
	case "schedule":
		d := Decide(s.cluster, NewPod(makePod(words[1], args)))
		if d.Node != "" {
			return d.Node
		}
		return d.Message()
	case "preempt":
		return s.preempt(NewPod(makePod(words[1], args)))
	default:
		t.Fatalf("unknown command %q", words[0])
	}
	return ""
}

func (s *story) preempt(pod *Pod) string {
	d := Decide(s.cluster, pod)
	p := Preempt(s.cluster, pod, d, func(v *corev1.Pod) bool { return !s.protected[v.Name] })
	if p == nil {
		return "none"
	}
	out := p.Node + ":"
	for _, v := range p.Victims {
		out += " " + v.Name
	}
	return out
}

func makeNode(name string, args map[string]string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: pairs(args["labels"])}}
	n.Status.Allocatable = quantities(args)
	n.Status.Allocatable[corev1.ResourcePods] = resource.MustParse("110")
	_, n.Spec.Unschedulable = args["cordoned"]
	if taint, ok := args["taint"]; ok {
		kv, effect, _ := strings.Cut(taint, ":")
		k, v, _ := strings.Cut(kv, "=")
		n.Spec.Taints = []corev1.Taint{{Key: k, Value: v, Effect: corev1.TaintEffect(effect)}}
	}
	return n
}

func makePod(name string, args map[string]string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID(name), Labels: pairs(args["labels"])}}
	p.Spec.NodeName = args["on"]
	p.Spec.NodeSelector = pairs(args["selector"])
	c := corev1.Container{Name: "c", Resources: corev1.ResourceRequirements{Requests: quantities(args)}}
	if port, err := strconv.Atoi(args["hostport"]); err == nil {
		c.Ports = []corev1.ContainerPort{{HostPort: int32(port), ContainerPort: 80, Protocol: corev1.ProtocolTCP}}
	}
	p.Spec.Containers = []corev1.Container{c}
	if key := args["tolerates"]; key != "" {
		p.Spec.Tolerations = []corev1.Toleration{{Key: key, Operator: corev1.TolerationOpExists}}
	}
	if n, err := strconv.Atoi(args["priority"]); err == nil {
		priority := int32(n)
		p.Spec.Priority = &priority
	}
	if topology := args["apart"]; topology != "" {
		p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{term(topology, p.Labels)}}}
	}
	if topology := args["near"]; topology != "" {
		p.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{term(topology, map[string]string{"app": args["nearapp"]})}}}
	}
	return p
}

func term(topology string, labels map[string]string) corev1.PodAffinityTerm {
	return corev1.PodAffinityTerm{TopologyKey: topology, LabelSelector: &metav1.LabelSelector{MatchLabels: labels}}
}

func quantities(args map[string]string) corev1.ResourceList {
	out := corev1.ResourceList{}
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		if v := args[string(name)]; v != "" {
			out[name] = resource.MustParse(v)
		}
	}
	return out
}

func pairs(s string) map[string]string {
	out := map[string]string{}
	for _, kv := range strings.Split(s, ",") {
		if k, v, ok := strings.Cut(kv, "="); ok {
			out[k] = v
		}
	}
	return out
}

// TestDecideNeverOverfills: whatever is asked, no node's requests exceed what it has.
func TestDecideNeverOverfills(t *testing.T) {
	c := NewCluster()
	for i := range 3 {
		c.SetNode(makeNode(fmt.Sprintf("n%d", i), map[string]string{"cpu": "2", "memory": "4Gi"}))
	}
	placed := 0
	for i := range 100 {
		pod := makePod(fmt.Sprintf("p%d", i), map[string]string{"cpu": fmt.Sprintf("%dm", 70+(i*37)%200)})
		if d := Decide(c, NewPod(pod)); d.Node != "" {
			pod.Spec.NodeName = d.Node
			c.SetPod(pod)
			placed++
		}
	}
	if placed < 20 {
		t.Fatalf("placed only %d pods", placed)
	}
	for name, n := range c.Nodes {
		if n.Requested[corev1.ResourceCPU] > n.Allocatable[corev1.ResourceCPU] {
			t.Errorf("node %s: %dm requested of %dm", name, n.Requested[corev1.ResourceCPU], n.Allocatable[corev1.ResourceCPU])
		}
	}
}
