package podautoscaler

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/scenario"
)

// tale is the life of an autoscaler that a file in testdata tells line by line. Commands:
//
//	hpa WORDS...             anew: min= max= up.window= up.select= up.policies=Pods:4:15,Percent:100:15 up.tolerance= and the same
//	                         of down; metrics, each a word: cpu=50% cpu=100m memory=100Mi c/cpu=50% pods:q=10 object:q=10 object:q=10/pod external:q=10
//	min N                    somebody changes minReplicas
//	size N                   somebody scales the target; its pods are then set with "pods" and "pod"
//	pods N WORDS...          N ready pods that are old; each requests 100m of cpu and 100Mi of memory. Words: cpu=60m memory=50Mi q=3,
//	                         unmeasured, pending, failed, going, new (started 10s ago and ready since), cold (and not ready), request=none
//	pod NAME WORDS...        one more
//	value NAME=V ...         what metrics of no pod read; V "none" is an error
//	after DURATION
//	look                     prints what is done; the target then has that size
//	condition TYPE           prints a condition of the latest look
//
// What a printing command prints follows it behind "----".
type tale struct {
	l      look
	past   past
	last   verdict
	values map[string]string
	used   map[string]map[string]string // pod -> metric -> value
}

func TestScenarios(t *testing.T) {
	scenario.Play(t, func() scenario.Do { return (&tale{}).do })
}

func (s *tale) do(t *testing.T, words []string) string {
	switch words[0] {
	case "hpa":
		*s = tale{values: map[string]string{}}
		s.l = look{hpa: autoscaler(t, words[1:]), scale: &autoscalingv1.Scale{}, now: time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)}
		s.size(1)
	case "size":
		s.size(number(t, words[1]))
	case "min":
		s.l.hpa.Spec.MinReplicas = ptr.To(number(t, words[1]))
	case "pods":
		s.l.pods, s.used = nil, map[string]map[string]string{}
		for i := range number(t, words[1]) {
			s.pod(fmt.Sprintf("p%d", i), words[2:])
		}
	case "pod":
		s.pod(words[1], words[2:])
	case "value":
		for _, w := range words[1:] {
			k, v, _ := strings.Cut(w, "=")
			s.values[k] = v
		}
	case "after":
		d, err := time.ParseDuration(words[1])
		if err != nil {
			t.Fatal(err)
		}
		s.l.now = s.l.now.Add(d)
	case "look":
		return s.look()
	case "condition":
		for _, c := range s.last.status.Conditions {
			if string(c.Type) == words[1] {
				return fmt.Sprintf("%s %s: %s", c.Status, c.Reason, c.Message)
			}
		}
		return "none"
	default:
		t.Fatalf("unknown command %q", words[0])
	}
	return ""
}

func number(t *testing.T, s string) int32 {
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return int32(n)
}

func (s *tale) size(n int32) { s.l.scale.Spec.Replicas, s.l.scale.Status.Replicas = n, n }

func (s *tale) look() string {
	l := s.l
	if l.measures() {
		for i := range l.hpa.Spec.Metrics {
			l.readings = append(l.readings, s.read(&l.hpa.Spec.Metrics[i]))
		}
	}
	from := l.scale.Spec.Replicas
	s.last = decide(l, s.past)
	s.past, s.l.hpa.Status = s.last.past, s.last.status
	var told []string
	for _, e := range s.last.events {
		told = append(told, e.reason+": "+e.message)
	}
	if !s.last.scale {
		return strings.Join(append([]string{fmt.Sprint(from)}, told...), "; ")
	}
	to := s.last.status.DesiredReplicas
	s.past = s.past.scaled(from, to, l.now)
	l.scaled(story{&s.l.hpa.Status, l.hpa.Generation, l.now}, to)
	s.last.status = s.l.hpa.Status
	s.size(to)
	return strings.Join(append([]string{fmt.Sprintf("%d -> %d, %s", from, to, s.last.why)}, told...), "; ")
}

// read is a reading as the shell would make it.
func (s *tale) read(m *autoscalingv2.MetricSpec) (r reading) {
	of := func(name string) map[string]sample {
		out := map[string]sample{}
		for pod, used := range s.used {
			if v, ok := used[name]; ok {
				out[pod] = sample{value: ptr.To(resource.MustParse(v)).MilliValue(), at: s.l.now, window: 15 * time.Second}
			}
		}
		return out
	}
	single := func(name string) (int64, error) {
		if v := s.values[name]; v != "none" {
			return ptr.To(resource.MustParse(v)).MilliValue(), nil
		}
		return 0, errors.New("no metrics returned")
	}
	switch {
	case m.Resource != nil:
		r.pods = of(string(m.Resource.Name))
	case m.ContainerResource != nil:
		r.pods = of(string(m.ContainerResource.Name))
	case m.Pods != nil:
		r.pods = of(m.Pods.Metric.Name)
	case m.Object != nil:
		r.total, r.err = single(m.Object.Metric.Name)
	case m.External != nil:
		r.total, r.err = single(m.External.Metric.Name)
	}
	if r.err == nil && r.pods != nil && len(r.pods) == 0 {
		r.err = errors.New("no metrics returned")
	}
	return r
}

func (s *tale) pod(name string, words []string) {
	start := s.l.now.Add(-time.Hour)
	ready := corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue}
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.PodStatus{Phase: corev1.PodRunning}}
	c := corev1.Container{Name: "c", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("100Mi")}}}
	used := map[string]string{}
	for _, w := range words {
		switch k, v, isValue := strings.Cut(w, "="); {
		case w == "request=none":
			c.Resources.Requests = nil
		case isValue:
			used[k] = v
		case w == "pending":
			p.Status.Phase = corev1.PodPending
		case w == "failed":
			p.Status.Phase = corev1.PodFailed
		case w == "going":
			p.DeletionTimestamp = ptr.To(metav1.NewTime(s.l.now))
		case w == "new":
			start = s.l.now.Add(-10 * time.Second)
		case w == "cold":
			start, ready.Status = s.l.now.Add(-10*time.Second), corev1.ConditionFalse
		case w == "unmeasured":
			used = nil
		}
	}
	p.Spec.Containers = []corev1.Container{c}
	p.Status.StartTime = ptr.To(metav1.NewTime(start))
	ready.LastTransitionTime = metav1.NewTime(start)
	p.Status.Conditions = []corev1.PodCondition{ready}
	s.l.pods = append(s.l.pods, p)
	s.used[name] = used
}

func autoscaler(t *testing.T, words []string) *autoscalingv2.HorizontalPodAutoscaler {
	h := &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "h", Generation: 1}}
	direction := func(name string) *autoscalingv2.HPAScalingRules {
		if h.Spec.Behavior == nil {
			h.Spec.Behavior = &autoscalingv2.HorizontalPodAutoscalerBehavior{}
		}
		at := &h.Spec.Behavior.ScaleUp
		if name == "down" {
			at = &h.Spec.Behavior.ScaleDown
		}
		if *at == nil {
			*at = &autoscalingv2.HPAScalingRules{}
		}
		return *at
	}
	for _, w := range words {
		k, v, _ := strings.Cut(w, "=")
		way, rule, isRule := strings.Cut(k, ".")
		switch {
		case k == "min":
			h.Spec.MinReplicas = ptr.To(number(t, v))
		case k == "max":
			h.Spec.MaxReplicas = number(t, v)
		case isRule && rule == "window":
			direction(way).StabilizationWindowSeconds = ptr.To(number(t, v))
		case isRule && rule == "select":
			direction(way).SelectPolicy = ptr.To(autoscalingv2.ScalingPolicySelect(v))
		case isRule && rule == "tolerance":
			direction(way).Tolerance = ptr.To(resource.MustParse(v))
		case isRule && rule == "policies":
			for _, p := range strings.Split(v, ",") {
				f := strings.Split(p, ":")
				direction(way).Policies = append(direction(way).Policies, autoscalingv2.HPAScalingPolicy{
					Type: autoscalingv2.HPAScalingPolicyType(f[0]), Value: number(t, f[1]), PeriodSeconds: number(t, f[2])})
			}
		default:
			h.Spec.Metrics = append(h.Spec.Metrics, metric(t, k, v))
		}
	}
	return h
}

func metric(t *testing.T, name, want string) autoscalingv2.MetricSpec {
	target := autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType}
	if share, ok := strings.CutSuffix(want, "%"); ok {
		target.Type, target.AverageUtilization = autoscalingv2.UtilizationMetricType, ptr.To(number(t, share))
	} else {
		each, ok := strings.CutSuffix(want, "/pod")
		q := resource.MustParse(each)
		target.AverageValue = &q
		if !ok && (strings.HasPrefix(name, "object:") || strings.HasPrefix(name, "external:")) {
			target = autoscalingv2.MetricTarget{Type: autoscalingv2.ValueMetricType, Value: &q}
		}
	}
	kind, of, _ := strings.Cut(name, ":")
	id := autoscalingv2.MetricIdentifier{Name: of}
	switch {
	case kind == "pods":
		return autoscalingv2.MetricSpec{Type: autoscalingv2.PodsMetricSourceType, Pods: &autoscalingv2.PodsMetricSource{Metric: id, Target: target}}
	case kind == "object":
		return autoscalingv2.MetricSpec{Type: autoscalingv2.ObjectMetricSourceType, Object: &autoscalingv2.ObjectMetricSource{Metric: id, Target: target,
			DescribedObject: autoscalingv2.CrossVersionObjectReference{Kind: "Service", Name: "s"}}}
	case kind == "external":
		return autoscalingv2.MetricSpec{Type: autoscalingv2.ExternalMetricSourceType, External: &autoscalingv2.ExternalMetricSource{Metric: id, Target: target}}
	}
	if container, of, ok := strings.Cut(name, "/"); ok {
		return autoscalingv2.MetricSpec{Type: autoscalingv2.ContainerResourceMetricSourceType, ContainerResource: &autoscalingv2.ContainerResourceMetricSource{
			Name: corev1.ResourceName(of), Container: container, Target: target}}
	}
	return autoscalingv2.MetricSpec{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{Name: corev1.ResourceName(name), Target: target}}
}
