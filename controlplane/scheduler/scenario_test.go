package scheduler

import (
	"fmt"
	"maps"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/scenario"
)

// story is a cluster that a file in testdata builds up line by line. Commands:
//
//	node NAME cpu= memory= labels=k=v,.. taint=k=v:Effect cordoned image=NAME (of 500 MiB) features=NAME,..
//	remove-node NAME
//	pod NAME on=NODE [pod words]
//	end POD                      a pod is gone
//	budget NAME selector=k=v allows=N
//	class NAME wait made         a StorageClass: its claims wait for a pod; volumes are made for them
//	volume NAME class= at=k=v driver=   a PersistentVolume of 1Gi, on nodes with the label only, of a CSI driver
//	driver NAME                  a CSI driver that tells its capacity
//	capacity NAME class= of=SIZE most=SIZE at=k=v   what its driver has on nodes with the label
//	takes NODE driver= most=N    a node's limit of attached volumes
//	attached NAME on=NODE volume=
//	claim NAME class= volume= alone   a PersistentVolumeClaim, bound to the volume, for one pod alone
//	nominate NAME NODE [pod words]   the pod has no node, but was promised one
//	schedule NAME [pod words]    prints the node or the message
//	preempt NAME [pod words]     prints the node and the victims, or what there is to say about it
//	cures NAME [pod words]       prints which changes could help a pod that fits nowhere
//
// Pod words: cpu= memory= labels= selector=k=v tolerates=KEY hostport= priority= never (preempts nobody) leaving (is being
// deleted) owner=UID promised=NODE apart=TOPOLOGY near=TOPOLOGY nearapp=APP likes=TOPOLOGY:APP avoids=TOPOLOGY:APP,
// prefers=k=v (a node), spread=TOPOLOGY:SKEW and soft=TOPOLOGY:SKEW over its own labels, with domains= (the fewest) taints=Honor
// affinity=Ignore key=LABEL for both; claim=NAME image=NAME, restartsall (an end of its container restarts all).
type story struct {
	cluster *Cluster
	budgets []*policyv1.PodDisruptionBudget
}

func TestScenarios(t *testing.T) {
	scenario.Play(t, func() scenario.Do { return (&story{cluster: NewCluster()}).do })
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
	case "class", "volume", "claim", "driver", "capacity", "takes", "attached":
		s.store(t, words, args)
	case "end":
		s.cluster.RemovePod(types.UID(words[1]))
	case "budget":
		b := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: words[1]}}
		b.Spec.Selector = &metav1.LabelSelector{MatchLabels: pairs(args["selector"])}
		n, err := strconv.Atoi(args["allows"])
		if err != nil {
			t.Fatal(err)
		}
		b.Status.DisruptionsAllowed = int32(n)
		s.budgets = append(s.budgets, b)
	case "nominate":
		args["promised"] = words[2]
		s.cluster.Nominate(makePod(words[1], args))
	case "cures":
		return cures(Decide(s.cluster, NewPod(makePod(words[1], args))).Cures())
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
	p, said := Preempt(s.cluster, pod, d, s.budgets)
	if p == nil {
		return said
	}
	out := p.Node + ":"
	if len(p.Victims) == 0 {
		out += " " + said
	}
	for _, v := range p.Victims {
		out += " " + v.Name
	}
	return out
}

func cures(c Change) string {
	var out []string
	for _, k := range []struct {
		change Change
		name   string
	}{{NodesChanged, "nodes"}, {RoomChanged, "room"}, {PodsChanged, "pods"}, {StorageChanged, "storage"}} {
		if c&k.change != 0 {
			out = append(out, k.name)
		}
	}
	return strings.Join(out, " ")
}

func makeNode(name string, args map[string]string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: pairs(args["labels"])}}
	n.Status.Allocatable = quantities(args)
	n.Status.Allocatable[corev1.ResourcePods] = resource.MustParse("110")
	_, n.Spec.Unschedulable = args["cordoned"]
	if names := args["features"]; names != "" {
		n.Status.DeclaredFeatures = strings.Split(names, ",")
	}
	if name := args["image"]; name != "" {
		n.Status.Images = []corev1.ContainerImage{{Names: []string{name}, SizeBytes: 500 << 20}}
	}
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
	c := corev1.Container{Name: "c", Image: args["image"], Resources: corev1.ResourceRequirements{Requests: quantities(args)}}
	if port, err := strconv.Atoi(args["hostport"]); err == nil {
		c.Ports = []corev1.ContainerPort{{HostPort: int32(port), ContainerPort: 80, Protocol: corev1.ProtocolTCP}}
	}
	if _, all := args["restartsall"]; all {
		c.RestartPolicyRules = []corev1.ContainerRestartRule{{Action: corev1.ContainerRestartRuleActionRestartAllContainers}}
	}
	p.Spec.Containers = []corev1.Container{c}
	if key := args["tolerates"]; key != "" {
		p.Spec.Tolerations = []corev1.Toleration{{Key: key, Operator: corev1.TolerationOpExists}}
	}
	if n, err := strconv.Atoi(args["priority"]); err == nil {
		priority := int32(n)
		p.Spec.Priority = &priority
	}
	if _, never := args["never"]; never {
		p.Spec.PreemptionPolicy = ptr.To(corev1.PreemptNever)
	}
	if _, leaving := args["leaving"]; leaving {
		p.DeletionTimestamp = ptr.To(metav1.Now())
	}
	if claim := args["claim"]; claim != "" {
		p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim}}}}
	}
	if owner := args["owner"]; owner != "" {
		p.OwnerReferences = []metav1.OwnerReference{{UID: types.UID(owner), Controller: ptr.To(true)}}
	}
	p.Status.NominatedNodeName = args["promised"]
	p.Spec.Affinity = makeAffinity(p.Labels, args)
	for word, how := range map[string]corev1.UnsatisfiableConstraintAction{"spread": corev1.DoNotSchedule, "soft": corev1.ScheduleAnyway} {
		if args[word] != "" {
			p.Spec.TopologySpreadConstraints = append(p.Spec.TopologySpreadConstraints, makeSpread(p.Labels, how, args[word], args))
		}
	}
	return p
}

func makeSpread(labels map[string]string, how corev1.UnsatisfiableConstraintAction, word string, args map[string]string) corev1.TopologySpreadConstraint {
	topology, skew, _ := strings.Cut(word, ":")
	n, _ := strconv.Atoi(skew)
	t := corev1.TopologySpreadConstraint{TopologyKey: topology, MaxSkew: int32(n), WhenUnsatisfiable: how, LabelSelector: &metav1.LabelSelector{MatchLabels: labels}}
	if n, err := strconv.Atoi(args["domains"]); err == nil {
		t.MinDomains = ptr.To(int32(n))
	}
	if v := args["taints"]; v != "" {
		t.NodeTaintsPolicy = ptr.To(corev1.NodeInclusionPolicy(v))
	}
	if v := args["affinity"]; v != "" {
		t.NodeAffinityPolicy = ptr.To(corev1.NodeInclusionPolicy(v))
	}
	if key := args["key"]; key != "" {
		t.MatchLabelKeys = []string{key}
		rest := maps.Clone(labels)
		delete(rest, key)
		t.LabelSelector.MatchLabels = rest
	}
	return t
}

func makeAffinity(labels, args map[string]string) *corev1.Affinity {
	a := &corev1.Affinity{PodAffinity: &corev1.PodAffinity{}, PodAntiAffinity: &corev1.PodAntiAffinity{}, NodeAffinity: &corev1.NodeAffinity{}}
	if topology := args["apart"]; topology != "" {
		a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution = []corev1.PodAffinityTerm{term(topology, labels)}
	}
	if topology := args["near"]; topology != "" {
		a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution = []corev1.PodAffinityTerm{term(topology, map[string]string{"app": args["nearapp"]})}
	}
	soft := func(word string) []corev1.WeightedPodAffinityTerm {
		topology, app, ok := strings.Cut(args[word], ":")
		if !ok {
			return nil
		}
		return []corev1.WeightedPodAffinityTerm{{Weight: 10, PodAffinityTerm: term(topology, map[string]string{"app": app})}}
	}
	a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution = soft("likes")
	a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution = soft("avoids")
	for k, v := range pairs(args["prefers"]) {
		a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution = []corev1.PreferredSchedulingTerm{{Weight: 1, Preference: corev1.NodeSelectorTerm{
			MatchExpressions: []corev1.NodeSelectorRequirement{{Key: k, Operator: corev1.NodeSelectorOpIn, Values: []string{v}}}}}}
	}
	return a
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
