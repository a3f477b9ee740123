package podautoscaler

import (
	"context"
	"errors"
	"fmt"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	custommetrics "k8s.io/metrics/pkg/client/custom_metrics"
	externalmetrics "k8s.io/metrics/pkg/client/external_metrics"

	metricsv1beta1 "k8s.io/metrics/pkg/client/clientset/versioned/typed/metrics/v1beta1"
)

// Metrics are where metrics are read.
type Metrics struct {
	Resources metricsv1beta1.PodMetricsesGetter
	Custom    custommetrics.CustomMetricsClient
	External  externalmetrics.ExternalMetricsClient
}

// errElsewhere is of a metric that is not served here.
var errElsewhere = errors.New("metric of another server")

// elsewhere marks an error as one of another server's, without a word more.
type elsewhere struct{ error }

func (e elsewhere) Is(target error) bool { return target == errElsewhere }
func (e elsewhere) Unwrap() error        { return e.error }

// customWindow is what a custom metric was measured over if nobody says.
const customWindow = time.Minute

// read reads a metric of the pods that selector selects.
func (m Metrics) read(ctx context.Context, namespace string, spec *autoscalingv2.MetricSpec, selector labels.Selector) (r reading) {
	switch {
	case spec.Type == autoscalingv2.ResourceMetricSourceType && spec.Resource != nil:
		r.pods, r.err = m.resource(ctx, namespace, selector, spec.Resource.Name, "")
	case spec.Type == autoscalingv2.ContainerResourceMetricSourceType && spec.ContainerResource != nil:
		r.pods, r.err = m.resource(ctx, namespace, selector, spec.ContainerResource.Name, spec.ContainerResource.Container)
	case spec.Type == autoscalingv2.PodsMetricSourceType && spec.Pods != nil:
		r.pods, r.err = m.custom(namespace, selector, spec.Pods.Metric)
	case spec.Type == autoscalingv2.ObjectMetricSourceType && spec.Object != nil:
		r.total, r.err = m.object(namespace, spec.Object)
	case spec.Type == autoscalingv2.ExternalMetricSourceType && spec.External != nil:
		r.total, r.err = m.external(namespace, spec.External.Metric)
	}
	return r
}

// resource reads what pods use of a resource: all their containers, or one.
func (m Metrics) resource(ctx context.Context, namespace string, selector labels.Selector, of corev1.ResourceName, container string) (map[string]sample, error) {
	list, err := m.Resources.PodMetricses(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector.String()})
	if err != nil {
		return nil, fmt.Errorf("unable to fetch metrics from resource metrics API: %w", err)
	}
	if len(list.Items) == 0 {
		return nil, errors.New("no metrics returned from resource metrics API")
	}
	out := make(map[string]sample, len(list.Items))
	for _, pod := range list.Items {
		s := sample{at: pod.Timestamp.Time, window: pod.Window.Duration}
		found, whole := false, len(pod.Containers) > 0
		for _, c := range pod.Containers {
			if container != "" && c.Name != container {
				continue
			}
			found = true
			q, ok := c.Usage[of]
			whole = whole && ok
			s.value += q.MilliValue()
		}
		if container != "" && !found {
			return nil, fmt.Errorf("container %s not present in metrics for pod %s/%s", container, namespace, pod.Name)
		}
		if whole {
			out[pod.Name] = s
		}
	}
	return out, nil
}

func (m Metrics) custom(namespace string, selector labels.Selector, metric autoscalingv2.MetricIdentifier) (map[string]sample, error) {
	of, err := metricSelector(metric)
	if err != nil {
		return nil, err
	}
	list, err := m.Custom.NamespacedMetrics(namespace).GetForObjects(schema.GroupKind{Kind: "Pod"}, selector, metric.Name, of)
	if err != nil {
		return nil, elsewhere{fmt.Errorf("unable to fetch metrics from custom metrics API: %w", err)}
	}
	if len(list.Items) == 0 {
		return nil, errors.New("no metrics returned from custom metrics API")
	}
	out := make(map[string]sample, len(list.Items))
	for _, v := range list.Items {
		s := sample{value: v.Value.MilliValue(), at: v.Timestamp.Time, window: customWindow}
		if v.WindowSeconds != nil {
			s.window = time.Duration(*v.WindowSeconds) * time.Second
		}
		out[v.DescribedObject.Name] = s
	}
	return out, nil
}

func (m Metrics) object(namespace string, o *autoscalingv2.ObjectMetricSource) (int64, error) {
	of, err := metricSelector(o.Metric)
	if err != nil {
		return 0, err
	}
	gv, err := schema.ParseGroupVersion(o.DescribedObject.APIVersion)
	if err != nil {
		return 0, err
	}
	from, kind := m.Custom.NamespacedMetrics(namespace), schema.GroupKind{Group: gv.Group, Kind: o.DescribedObject.Kind}
	if kind == (schema.GroupKind{Kind: "Namespace"}) {
		from = m.Custom.RootScopedMetrics()
	}
	v, err := from.GetForObject(kind, o.DescribedObject.Name, o.Metric.Name, of)
	if err != nil {
		return 0, elsewhere{fmt.Errorf("unable to fetch metrics from custom metrics API: %w", err)}
	}
	return v.Value.MilliValue(), nil
}

func (m Metrics) external(namespace string, metric autoscalingv2.MetricIdentifier) (sum int64, err error) {
	of, err := metricSelector(metric)
	if err != nil {
		return 0, err
	}
	list, err := m.External.NamespacedMetrics(namespace).List(metric.Name, of)
	if err != nil {
		return 0, elsewhere{fmt.Errorf("unable to fetch metrics from external metrics API: %w", err)}
	}
	if len(list.Items) == 0 {
		return 0, errors.New("no metrics returned from external metrics API")
	}
	for _, v := range list.Items {
		sum += v.Value.MilliValue()
	}
	return sum, nil
}

// metricSelector selects a metric's series; none given selects all.
func metricSelector(metric autoscalingv2.MetricIdentifier) (labels.Selector, error) {
	if metric.Selector == nil {
		return labels.Everything(), nil
	}
	return metav1.LabelSelectorAsSelector(metric.Selector)
}
