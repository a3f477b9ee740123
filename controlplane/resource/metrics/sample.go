package metrics

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

// Counter is what a machine or a container has used up to a time.
type Counter struct {
	At, Start time.Time
	CPU       uint64 // core nanoseconds since Start
	Memory    uint64 // working set in bytes, now
}

// Sample is one look at a kubelet.
type Sample struct {
	At   time.Time // by the asker's clock
	Node *Counter
	Pods map[types.UID]map[string]Counter // by container; without those that could not be measured
}

// Read takes the counters out of a kubelet's summary, which were read as it was asked. Its own times are not used: on the
// wire they are whole seconds, too coarse for a short window, and by another machine's clock.
func Read(at time.Time, s *stats.Summary) Sample {
	out := Sample{At: at, Node: counter(at, s.Node.StartTime, s.Node.CPU, s.Node.Memory), Pods: map[types.UID]map[string]Counter{}}
	for _, p := range s.Pods {
		containers := map[string]Counter{}
		for _, c := range p.Containers {
			if k := counter(at, c.StartTime, c.CPU, c.Memory); k != nil {
				containers[c.Name] = *k
			}
		}
		out.Pods[types.UID(p.PodRef.UID)] = containers
	}
	return out
}

func counter(at time.Time, start metav1.Time, cpu *stats.CPUStats, mem *stats.MemoryStats) *Counter {
	if cpu == nil || cpu.UsageCoreNanoSeconds == nil || mem == nil || mem.WorkingSetBytes == nil {
		return nil
	}
	return &Counter{At: at, Start: start.Time, CPU: *cpu.UsageCoreNanoSeconds, Memory: *mem.WorkingSetBytes}
}

// usage is the mean between two counters.
type usage struct {
	at     time.Time
	window time.Duration
	list   corev1.ResourceList
}

// between returns the usage since old, or since the start if that was later (a container that began anew counts from
// nought); nothing if no time has passed.
func between(old *Counter, now Counter) (usage, bool) {
	since, was := now.Start, uint64(0)
	if old != nil && old.CPU <= now.CPU && !now.Start.After(old.At) {
		since, was = old.At, old.CPU
	}
	window := now.At.Sub(since)
	if since.IsZero() || window <= 0 {
		return usage{}, false
	}
	nano := int64(float64(now.CPU-was) / window.Seconds())
	return usage{at: now.At, window: window, list: corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewScaledQuantity(nano, resource.Nano),
		corev1.ResourceMemory: *resource.NewQuantity(int64(now.Memory), resource.BinarySI),
	}}, true
}

// OfNode returns what a node used between two looks; false if that is not known.
func OfNode(node *corev1.Node, old, now Sample) (*metricsv1beta1.NodeMetrics, bool) {
	if old.Node == nil || now.Node == nil || old.Node.CPU > now.Node.CPU {
		return nil, false // the machine's counter does not begin with the kubelet
	}
	was := *now.Node
	was.Start = time.Time{}
	u, ok := between(old.Node, was)
	if !ok {
		return nil, false
	}
	return &metricsv1beta1.NodeMetrics{ObjectMeta: meta(&node.ObjectMeta, now.At), Timestamp: metav1.NewTime(u.at),
		Window: metav1.Duration{Duration: u.window}, Usage: u.list}, true
}

// OfPod returns what a pod's running containers used between two looks; false if one of them is not known: half a pod's
// usage would make an autoscaler shrink what is busy.
func OfPod(pod *corev1.Pod, old, now Sample) (*metricsv1beta1.PodMetrics, bool) {
	if pod.Status.Phase != corev1.PodRunning {
		return nil, false
	}
	out := &metricsv1beta1.PodMetrics{ObjectMeta: meta(&pod.ObjectMeta, now.At), Containers: []metricsv1beta1.ContainerMetrics{}}
	for _, st := range running(pod) {
		c, known := now.Pods[pod.UID][st]
		if !known {
			return nil, false
		}
		var was *Counter
		if o, ok := old.Pods[pod.UID][st]; ok {
			was = &o
		}
		u, ok := between(was, c)
		if !ok {
			return nil, false
		}
		out.Containers = append(out.Containers, metricsv1beta1.ContainerMetrics{Name: st, Usage: u.list})
		if u.window > out.Window.Duration {
			out.Window, out.Timestamp = metav1.Duration{Duration: u.window}, metav1.NewTime(u.at)
		}
	}
	if len(out.Containers) == 0 {
		return nil, false
	}
	return out, true
}

// running are the names of a pod's running containers, sidecars included.
func running(pod *corev1.Pod) []string {
	var out []string
	for _, list := range [][]corev1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses} {
		for _, c := range list {
			if c.State.Running != nil {
				out = append(out, c.Name)
			}
		}
	}
	return out
}

func meta(of *metav1.ObjectMeta, at time.Time) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: of.Name, Namespace: of.Namespace, Labels: of.Labels, CreationTimestamp: metav1.NewTime(at)}
}
