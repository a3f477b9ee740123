package scheduler

import (
	"fmt"
	"slices"
	"sort"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	corehelpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"
)

func refuse(final bool, reason, detail string) []Refusal {
	return []Refusal{{Reason: reason, Detail: detail, Final: final}}
}

// refuseEverywhere is of a reason that no node can mend.
func refuseEverywhere(reason, detail string) []Refusal {
	return []Refusal{{Reason: reason, Detail: detail, Final: true, Whole: true}}
}

// unschedulable refuses a cordoned node, unless the pod tolerates the taint that stands for it (daemons do).
func unschedulable(_ *Cluster, pod *Pod, node *Node) []Refusal {
	if !node.Spec.Unschedulable {
		return nil
	}
	taint := corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule}
	if tolerates(pod.Spec.Tolerations, &taint) {
		return nil
	}
	return refuse(true, "node(s) were unschedulable", "cordoned: kubectl uncordon "+node.Name)
}

func nodeName(_ *Cluster, pod *Pod, node *Node) []Refusal {
	if pod.Spec.NodeName == "" || pod.Spec.NodeName == node.Name {
		return nil
	}
	return refuse(true, "node(s) didn't match the requested node name", "")
}

func taints(_ *Cluster, pod *Pod, node *Node) []Refusal {
	taint, found := corehelpers.FindMatchingUntoleratedTaint(klog.Logger{}, node.Spec.Taints, pod.Spec.Tolerations, func(t *corev1.Taint) bool {
		return t.Effect == corev1.TaintEffectNoSchedule || t.Effect == corev1.TaintEffectNoExecute
	}, true)
	if !found {
		return nil
	}
	return refuse(true, "node(s) had untolerated taint(s)", taint.ToString())
}

func tolerates(tolerations []corev1.Toleration, taint *corev1.Taint) bool {
	return corehelpers.TolerationsTolerateTaint(klog.Logger{}, tolerations, taint, true)
}

func nodeAffinity(_ *Cluster, pod *Pod, node *Node) []Refusal {
	if ok, err := nodeaffinity.GetRequiredNodeAffinity(pod.Pod).Match(node.Node); ok && err == nil {
		return nil
	}
	detail := ""
	for key, want := range pod.Spec.NodeSelector {
		if got, has := node.Labels[key]; !has || got != want {
			detail = fmt.Sprintf("nodeSelector wants %s=%s", key, want)
		}
	}
	return refuse(true, "node(s) didn't match Pod's node affinity/selector", detail)
}

// needs are the features that a pod needs of its node's kubelet (KEP-5328). Of all that kubelets declare only this one matters to
// where a pod can run.
func needs(spec *corev1.PodSpec) []string {
	for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			for _, rule := range list[i].RestartPolicyRules {
				if rule.Action == corev1.ContainerRestartRuleActionRestartAllContainers {
					return []string{"RestartAllContainersOnContainerExits"}
				}
			}
		}
	}
	return nil
}

// declaredFeatures refuses a node whose kubelet does not declare all of them.
func declaredFeatures(_ *Cluster, pod *Pod, node *Node) []Refusal {
	for _, feature := range pod.needs {
		if !slices.Contains(node.Status.DeclaredFeatures, feature) {
			return refuse(true, "node(s) didn't match Pod's required features", "lacks "+feature)
		}
	}
	return nil
}

// hostPort is a port claimed on the node itself.
type hostPort struct {
	protocol corev1.Protocol
	ip       string
	port     int32
}

// ports refuses a node on which another pod holds a wanted host port. 0.0.0.0 collides with every address.
func ports(_ *Cluster, pod *Pod, node *Node) []Refusal {
	wanted := hostPorts(pod.Pod)
	if len(wanted) == 0 {
		return nil
	}
	for _, other := range node.Pods {
		for _, held := range hostPorts(other.Pod) {
			for _, want := range wanted {
				if want.collides(held) {
					return refuse(false, "node(s) didn't have free ports for the requested pod ports",
						fmt.Sprintf("%d/%s is held by pod %s/%s", want.port, want.protocol, other.Namespace, other.Name))
				}
			}
		}
	}
	return nil
}

func (p hostPort) collides(other hostPort) bool {
	return p.port == other.port && p.protocol == other.protocol &&
		(p.ip == other.ip || p.ip == "0.0.0.0" || other.ip == "0.0.0.0")
}

func hostPorts(pod *corev1.Pod) []hostPort {
	var out []hostPort
	collect := func(c *corev1.Container) {
		for _, p := range c.Ports {
			if p.HostPort == 0 {
				continue
			}
			hp := hostPort{protocol: p.Protocol, ip: p.HostIP, port: p.HostPort}
			if hp.protocol == "" {
				hp.protocol = corev1.ProtocolTCP
			}
			if hp.ip == "" || hp.ip == "::" {
				hp.ip = "0.0.0.0"
			}
			out = append(out, hp)
		}
	}
	for i := range pod.Spec.Containers {
		collect(&pod.Spec.Containers[i])
	}
	for i := range pod.Spec.InitContainers {
		if c := &pod.Spec.InitContainers[i]; c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			collect(c)
		}
	}
	return out
}

// fits compares requests with what is left of the node's allocatable.
func fits(_ *Cluster, pod *Pod, node *Node) []Refusal {
	names := make([]corev1.ResourceName, 0, len(pod.Requests))
	for name := range pod.Requests {
		names = append(names, name)
	}
	sort.Slice(names, func(i, j int) bool { return names[i] < names[j] })
	var out []Refusal
	for _, name := range names {
		want, total := pod.Requests[name], node.Allocatable[name]
		free := total - node.Requested[name]
		if want == 0 || want <= free {
			continue
		}
		r := Refusal{Reason: "Insufficient " + string(name), Final: want > total,
			Detail: fmt.Sprintf("asks %s, %s of %s free", show(name, want), show(name, max(free, 0)), show(name, total))}
		if name == corev1.ResourcePods {
			r.Reason, r.Detail = "Too many pods", fmt.Sprintf("the node takes %d", total)
		}
		out = append(out, r)
	}
	return out
}

// show writes an amount as a user would: cpu in cores, bytes with binary suffixes.
func show(name corev1.ResourceName, v int64) string {
	switch name {
	case corev1.ResourceCPU:
		return resource.NewMilliQuantity(v, resource.DecimalSI).String()
	case corev1.ResourceMemory, corev1.ResourceEphemeralStorage, corev1.ResourceStorage:
		const gi, mi = 1 << 30, 1 << 20
		if v >= gi {
			return strconv.FormatFloat(float64(v)/gi, 'f', 1, 64) + "Gi"
		}
		return strconv.FormatInt(v/mi, 10) + "Mi"
	}
	return strconv.FormatInt(v, 10)
}
