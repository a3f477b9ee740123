package podautoscaler

import (
	"errors"
	"fmt"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
)

// proposal is what one metric asks for, and what it is called in events.
type proposal struct {
	replicas int32
	name     string
	status   autoscalingv2.MetricStatus
}

// failure is why a metric asks for nothing.
type failure struct {
	reason string // of the condition and the event
	metric string
	err    error
}

// propose is what a metric asks for.
func (l *look) propose(m *autoscalingv2.MetricSpec, r reading) (proposal, *failure) {
	p := proposal{status: autoscalingv2.MetricStatus{Type: m.Type}}
	var err error
	f := failure{}
	switch {
	case m.Type == autoscalingv2.ResourceMetricSourceType && m.Resource != nil:
		f.reason, f.metric = "FailedGetResourceMetric", string(m.Resource.Name)+" resource"
		p.name = f.metric
		s := &autoscalingv2.ResourceMetricStatus{Name: m.Resource.Name}
		p.status.Resource = s
		p.replicas, s.Current, err = l.usage(m.Resource.Target, r, string(m.Resource.Name), "", &p.name)
	case m.Type == autoscalingv2.ContainerResourceMetricSourceType && m.ContainerResource != nil:
		c := m.ContainerResource
		f.reason, f.metric = "FailedGetContainerResourceMetric", string(c.Name)+" container"
		p.name = string(c.Name) + " container resource"
		s := &autoscalingv2.ContainerResourceMetricStatus{Name: c.Name, Container: c.Container}
		p.status.ContainerResource = s
		p.replicas, s.Current, err = l.usage(c.Target, r, string(c.Name), c.Container, &p.name)
	case m.Type == autoscalingv2.PodsMetricSourceType && m.Pods != nil:
		f.reason, f.metric = "FailedGetPodsMetric", "pods"
		p.name = "pods metric " + m.Pods.Metric.Name
		s := &autoscalingv2.PodsMetricStatus{Metric: m.Pods.Metric}
		p.status.Pods = s
		switch {
		case r.err != nil:
			err = fmt.Errorf("unable to get metric %s: %w", m.Pods.Metric.Name, r.err)
		case m.Pods.Target.AverageValue == nil:
			err = errors.New("invalid pods metric source: no average value target was set")
		default:
			p.replicas, s.Current, err = l.perPod(average("", m.Pods.Target.AverageValue.MilliValue()), r.pods)
		}
	case m.Type == autoscalingv2.ObjectMetricSourceType && m.Object != nil:
		o := m.Object
		f.reason, f.metric = "FailedGetObjectMetric", "object"
		p.name = fmt.Sprintf("%s metric %s", o.DescribedObject.Kind, o.Metric.Name)
		s := &autoscalingv2.ObjectMetricStatus{DescribedObject: o.DescribedObject, Metric: o.Metric}
		p.status.Object = s
		if r.err != nil {
			r.err = fmt.Errorf("unable to get metric %s: %w on %s %s/%s", o.Metric.Name, r.err, o.DescribedObject.Kind, l.hpa.Namespace, o.DescribedObject.Name)
		}
		p.replicas, s.Current, err = l.amount(o.Target, r, "object")
	case m.Type == autoscalingv2.ExternalMetricSourceType && m.External != nil:
		f.reason, f.metric = "FailedGetExternalMetric", m.External.Metric.Name+" external"
		p.name = "external metric " + m.External.Metric.Name
		s := &autoscalingv2.ExternalMetricStatus{Metric: m.External.Metric}
		p.status.External = s
		if r.err != nil {
			r.err = fmt.Errorf("unable to get external metric %s/%s: %w", l.hpa.Namespace, m.External.Metric.Name, r.err)
		}
		p.replicas, s.Current, err = l.amount(m.External.Target, r, "external")
	default:
		f.reason, f.metric = "InvalidMetricSourceType", string(m.Type)
		err = fmt.Errorf("unknown metric source type %q", m.Type)
	}
	if err != nil {
		f.err = err
		return p, &f
	}
	return p, nil
}

// usage is of a metric that counts a resource, of all containers or one. The name in events says what is compared.
func (l *look) usage(target autoscalingv2.MetricTarget, r reading, of, container string, name *string) (n int32, now autoscalingv2.MetricValueStatus, err error) {
	if r.err != nil {
		r.err = fmt.Errorf("unable to get metrics for resource %s: %w", of, r.err)
	}
	switch {
	case target.AverageValue != nil:
		if err = r.err; err == nil {
			n, now, err = l.perPod(average(corev1.ResourceName(of), target.AverageValue.MilliValue()), r.pods)
		}
		if err != nil {
			err = fmt.Errorf("failed to get %s usage: %w", of, err)
		}
	case target.AverageUtilization != nil:
		*name += " utilization (percentage of request)"
		var g gauge
		if err = r.err; err == nil {
			g, err = l.utilization(corev1.ResourceName(of), container, *target.AverageUtilization)
		}
		if err == nil {
			n, now, err = l.perPod(g, r.pods)
		}
		if err != nil {
			err = fmt.Errorf("failed to get %s utilization: %w", of, err)
		}
	default:
		err = errors.New("invalid resource metric source: neither an average utilization target nor an average value target was set")
	}
	return n, now, err
}

// amount is of a metric that is one number, whatever the number of pods.
func (l *look) amount(target autoscalingv2.MetricTarget, r reading, what string) (n int32, now autoscalingv2.MetricValueStatus, err error) {
	switch {
	case r.err != nil:
		return 0, now, r.err
	case target.Value != nil && target.Type != autoscalingv2.AverageValueMetricType:
		return l.total(r.total, target.Value.MilliValue())
	case target.AverageValue != nil:
		n, now = l.shared(r.total, target.AverageValue.MilliValue())
		return n, now, nil
	}
	return 0, now, fmt.Errorf("invalid %s metric source: neither a value target nor an average value target was set", what)
}
