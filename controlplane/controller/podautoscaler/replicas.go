package podautoscaler

import (
	"errors"
	"fmt"
	"math"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// The figures are the defaults of upstream's controller manager.
const (
	// initialization is how long after a pod's start its cpu counts only while it is ready, and only once it was measured
	// over a whole window of being so: starting costs more than serving.
	initialization = 5 * time.Minute
	// firstReadiness is how long after a pod's start a change to "not ready" means that it never was ready.
	firstReadiness = 30 * time.Second
)

// sample is what one pod was measured at, in thousandths of the metric's unit.
type sample struct {
	value  int64
	at     time.Time
	window time.Duration
}

// tolerance is how far below and above 1 a ratio may be without changing anything.
type tolerance struct{ down, up float64 }

func (t tolerance) within(ratio float64) bool { return 1-t.down <= ratio && ratio <= 1+t.up }

// crowd is a target's pods by what their samples are worth.
type crowd struct {
	ready            int      // measured, and counted as it is
	unready, missing []string // not to be trusted yet; not measured
}

// sort drops the samples of pods that are no help from samples.
func (l *look) sort(samples map[string]sample, of corev1.ResourceName) (c crowd) {
	for _, pod := range l.pods {
		s, measured := samples[pod.Name]
		switch {
		case pod.DeletionTimestamp != nil || pod.Status.Phase == corev1.PodFailed:
			delete(samples, pod.Name)
		case pod.Status.Phase == corev1.PodPending:
			c.unready = append(c.unready, pod.Name)
		case !measured:
			c.missing = append(c.missing, pod.Name)
		case of == corev1.ResourceCPU && warming(pod, s, l.now):
			c.unready = append(c.unready, pod.Name)
		default:
			c.ready++
		}
	}
	for _, name := range c.unready {
		delete(samples, name)
	}
	return c
}

// warming tells whether a pod's cpu says nothing about its load yet.
func warming(pod *corev1.Pod, s sample, now time.Time) bool {
	ready := readiness(pod)
	if ready == nil || pod.Status.StartTime == nil {
		return true
	}
	start, changed := pod.Status.StartTime.Time, ready.LastTransitionTime.Time
	if start.Add(initialization).After(now) {
		return ready.Status == corev1.ConditionFalse || s.at.Before(changed.Add(s.window))
	}
	return ready.Status == corev1.ConditionFalse && start.Add(firstReadiness).After(changed)
}

func readiness(pod *corev1.Pod) *corev1.PodCondition {
	for i := range pod.Status.Conditions {
		if pod.Status.Conditions[i].Type == corev1.PodReady {
			return &pod.Status.Conditions[i]
		}
	}
	return nil
}

// gauge is a metric that each pod has.
type gauge struct {
	// of is the resource that is measured; none for a metric of somebody else's.
	of corev1.ResourceName
	// measure compares samples with the target: 1 is as wanted.
	measure func(map[string]sample) (ratio float64, now autoscalingv2.MetricValueStatus, err error)
	// most is what a pod that was not measured is assumed at when the others ask for fewer pods.
	most func(pod string) int64
}

// perPod is how many pods a gauge asks for.
func (l *look) perPod(g gauge, samples map[string]sample) (int32, autoscalingv2.MetricValueStatus, error) {
	none := autoscalingv2.MetricValueStatus{}
	if len(l.pods) == 0 {
		return 0, none, errors.New("no pods returned by selector while calculating replica count")
	}
	c := l.sort(samples, g.of)
	if len(samples) == 0 {
		return 0, none, errors.New("did not receive metrics for targeted pods (pods might be unready)")
	}
	ratio, now, err := g.measure(samples)
	if err != nil {
		return 0, none, err
	}
	current := l.scale.Spec.Replicas
	growing := ratio > 1
	if len(c.missing) == 0 && (len(c.unready) == 0 || !growing) {
		if l.tolerance().within(ratio) {
			return current, now, nil
		}
		return ceil(ratio * float64(c.ready)), now, nil
	}
	// Who is not known is assumed to be where the change is smaller.
	for _, name := range c.missing {
		if growing {
			samples[name] = sample{}
		} else if ratio < 1 {
			samples[name] = sample{value: g.most(name)}
		}
	}
	if growing {
		for _, name := range c.unready {
			samples[name] = sample{}
		}
	}
	assumed, _, err := g.measure(samples)
	if err != nil {
		return 0, none, err
	}
	if l.tolerance().within(assumed) || growing != (assumed > 1) {
		return current, now, nil
	}
	if n := ceil(assumed * float64(len(samples))); growing == (n > current) {
		return n, now, nil
	}
	return current, now, nil
}

// utilization compares with a share, in percent, of what the pods request. Of all containers, or one.
func (l *look) utilization(of corev1.ResourceName, container string, target int32) (gauge, error) {
	requests, err := l.requests(of, container)
	return gauge{of: of,
		measure: func(samples map[string]sample) (float64, autoscalingv2.MetricValueStatus, error) {
			var used, requested, n int64
			for name, s := range samples {
				if r, known := requests[name]; known {
					used, requested, n = used+s.value, requested+r, n+1
				}
			}
			if requested == 0 {
				return 0, autoscalingv2.MetricValueStatus{}, errors.New("no metrics returned matched known pods")
			}
			percent := int32(used * 100 / requested)
			return float64(percent) / float64(target), autoscalingv2.MetricValueStatus{AverageUtilization: &percent, AverageValue: milli(used / n)}, nil
		},
		most: func(pod string) int64 { return requests[pod] * int64(max(100, target)) / 100 },
	}, err
}

// average compares with an amount for each pod, in thousandths.
func average(of corev1.ResourceName, target int64) gauge {
	return gauge{of: of,
		measure: func(samples map[string]sample) (float64, autoscalingv2.MetricValueStatus, error) {
			var sum int64
			for _, s := range samples {
				sum += s.value
			}
			mean := sum / int64(len(samples))
			return float64(mean) / float64(target), autoscalingv2.MetricValueStatus{AverageValue: milli(mean)}, nil
		},
		most: func(string) int64 { return target },
	}
}

// requests are the pods' requests in thousandths. All must have one: a share of nothing is nothing.
func (l *look) requests(of corev1.ResourceName, container string) (map[string]int64, error) {
	out := make(map[string]int64, len(l.pods))
	for _, pod := range l.pods {
		if r := pod.Spec.Resources; r != nil && container == "" {
			if q, ok := r.Requests[of]; ok {
				out[pod.Name] = q.MilliValue()
				continue
			}
		}
		var sum int64
		for _, c := range lasting(pod) {
			if container != "" && c.Name != container {
				continue
			}
			q, ok := c.Resources.Requests[of]
			if !ok {
				return nil, fmt.Errorf("missing request for %s in container %s of Pod %s", of, c.Name, pod.Name)
			}
			sum += q.MilliValue()
		}
		out[pod.Name] = sum
	}
	return out, nil
}

// lasting are the containers that run as long as the pod does.
func lasting(pod *corev1.Pod) []corev1.Container {
	out := pod.Spec.Containers[:len(pod.Spec.Containers):len(pod.Spec.Containers)]
	for _, c := range pod.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			out = append(out, c)
		}
	}
	return out
}

// total is how many pods a value that all pods together have asks for. Both in thousandths.
func (l *look) total(value, target int64) (int32, autoscalingv2.MetricValueStatus, error) {
	now := autoscalingv2.MetricValueStatus{Value: milli(value)}
	ratio := float64(value) / float64(target)
	switch current := l.scale.Spec.Replicas; {
	case current == 0:
		return ceil(ratio), now, nil
	case l.tolerance().within(ratio):
		return current, now, nil
	}
	if len(l.pods) == 0 {
		return 0, now, errors.New("unable to calculate ready pods: no pods returned by selector while calculating replica count")
	}
	ready := 0
	for _, pod := range l.pods {
		if c := readiness(pod); pod.Status.Phase == corev1.PodRunning && c != nil && c.Status == corev1.ConditionTrue {
			ready++
		}
	}
	return ceil(ratio * float64(ready)), now, nil
}

// shared is how many pods a value asks for of which each pod is to have target. Both in thousandths.
func (l *look) shared(value, target int64) (int32, autoscalingv2.MetricValueStatus) {
	pods := l.scale.Status.Replicas
	each := int64(math.Ceil(float64(value) / float64(max(pods, 1))))
	now := autoscalingv2.MetricValueStatus{AverageValue: milli(each)}
	if pods > 0 && l.tolerance().within(float64(value)/(float64(target)*float64(pods))) {
		return pods, now
	}
	return ceil(float64(value) / float64(target)), now
}

// ceil is the next whole number of pods; what no int32 holds is as many as one can.
func ceil(f float64) int32 { return int32(math.Min(math.Ceil(f), math.MaxInt32)) }

func milli(v int64) *resource.Quantity { return resource.NewMilliQuantity(v, resource.DecimalSI) }
