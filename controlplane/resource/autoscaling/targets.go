package autoscaling

import (
	"fmt"
	"strings"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
)

// targets is the cell TARGETS: current and wanted value of the first two metrics.
func targets(specs []autoscalingv2.MetricSpec, statuses []autoscalingv2.MetricStatus) string {
	if len(specs) == 0 {
		return "<none>"
	}
	const most = 2
	list := make([]string, len(specs))
	for i := range specs {
		var status autoscalingv2.MetricStatus
		if i < len(statuses) {
			status = statuses[i]
		}
		list[i] = target(&specs[i], &status)
	}
	if len(list) > most {
		return fmt.Sprintf("%s + %d more...", strings.Join(list[:most], ", "), len(list)-most)
	}
	return strings.Join(list, ", ")
}

func target(m *autoscalingv2.MetricSpec, s *autoscalingv2.MetricStatus) string {
	var now *autoscalingv2.MetricValueStatus
	switch {
	case m.Type == autoscalingv2.ExternalMetricSourceType && m.External != nil:
		if s.External != nil {
			now = &s.External.Current
		}
		return amount(m.External.Target, now)
	case m.Type == autoscalingv2.ObjectMetricSourceType && m.Object != nil:
		if s.Object != nil {
			now = &s.Object.Current
		}
		return amount(m.Object.Target, now)
	case m.Type == autoscalingv2.PodsMetricSourceType && m.Pods != nil:
		var value *apiresource.Quantity
		if s.Pods != nil {
			value = s.Pods.Current.AverageValue
		}
		return text(value) + "/" + text(m.Pods.Target.AverageValue)
	case m.Type == autoscalingv2.ResourceMetricSourceType && m.Resource != nil:
		if s.Resource != nil {
			now = &s.Resource.Current
		}
		return string(m.Resource.Name) + ": " + usage(m.Resource.Target, now)
	case m.Type == autoscalingv2.ContainerResourceMetricSourceType && m.ContainerResource != nil:
		if s.ContainerResource != nil {
			now = &s.ContainerResource.Current
		}
		return string(m.ContainerResource.Name) + ": " + usage(m.ContainerResource.Target, now)
	}
	return "<unknown type>"
}

// amount prints a target that is a total or an average per pod.
func amount(t autoscalingv2.MetricTarget, now *autoscalingv2.MetricValueStatus) string {
	var total, each *apiresource.Quantity
	if now != nil {
		total, each = now.Value, now.AverageValue
	}
	if t.AverageValue != nil {
		return text(each) + "/" + t.AverageValue.String() + " (avg)"
	}
	return text(total) + "/" + text(t.Value)
}

// usage prints a target that is an amount or a share of the request.
func usage(t autoscalingv2.MetricTarget, now *autoscalingv2.MetricValueStatus) string {
	if t.AverageValue != nil {
		if now == nil {
			return "<unknown>/" + t.AverageValue.String()
		}
		return text(now.AverageValue) + "/" + t.AverageValue.String()
	}
	current, wanted := "<unknown>", "<auto>"
	if now != nil && now.AverageUtilization != nil {
		current = fmt.Sprintf("%d%%", *now.AverageUtilization)
	}
	if t.AverageUtilization != nil {
		wanted = fmt.Sprintf("%d%%", *t.AverageUtilization)
	}
	return current + "/" + wanted
}

func text(q *apiresource.Quantity) string {
	if q == nil {
		return "<unknown>"
	}
	return q.String()
}
