package autoscaling

import (
	"context"
	"fmt"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/check"
)

// defaultCPU is the utilisation, in percent of the request, that an autoscaler without metrics aims at.
const defaultCPU = 80

// Group is autoscaling.
func Group() resource.Group {
	return resource.Group{
		Name:        autoscalingv2.GroupName,
		Versions:    []string{"v2", "v1"},
		AddToScheme: []func(*runtime.Scheme) error{autoscalingv2.AddToScheme, autoscalingv1.AddToScheme},
		Convert:     convert,
		Kinds:       []resource.Kind{autoscaler()},
	}
}

func autoscaler() resource.Kind {
	type hpa = autoscalingv2.HorizontalPodAutoscaler
	doc := autoscalingv2.HorizontalPodAutoscalerSpec{}.SwaggerDoc()
	return resource.Of(resource.Kind{
		Kind: "HorizontalPodAutoscaler", Plural: "horizontalpodautoscalers", ShortNames: []string{"hpa"},
		Categories: []string{"all"}, Namespaced: true, HasStatus: true, HasGeneration: true,
		New:     func() runtime.Object { return &hpa{} },
		NewList: func() runtime.Object { return &autoscalingv2.HorizontalPodAutoscalerList{} },
		Columns: []resource.Column{
			resource.Col("Reference", "string", doc["scaleTargetRef"], 0, func(h *hpa) any {
				return h.Spec.ScaleTargetRef.Kind + "/" + h.Spec.ScaleTargetRef.Name
			}),
			resource.Col("Targets", "string", doc["metrics"], 0, func(h *hpa) any { return targets(h.Spec.Metrics, h.Status.CurrentMetrics) }),
			resource.Col("MinPods", "string", doc["minReplicas"], 0, func(h *hpa) any {
				if h.Spec.MinReplicas == nil {
					return "<unset>"
				}
				return fmt.Sprint(*h.Spec.MinReplicas)
			}),
			resource.Col("MaxPods", "string", doc["maxReplicas"], 0, func(h *hpa) any { return int64(h.Spec.MaxReplicas) }),
			resource.Col("Replicas", "string", autoscalingv2.HorizontalPodAutoscalerStatus{}.SwaggerDoc()["currentReplicas"], 0,
				func(h *hpa) any { return int64(h.Status.CurrentReplicas) }),
		},
	}, resource.Rules[*hpa]{
		Default:  defaultV2,
		Validate: func(_ context.Context, h *hpa) field.ErrorList { return validate(&h.Spec, nil, field.NewPath("spec")) },
		ValidateUpdate: func(_ context.Context, h, old *hpa) field.ErrorList {
			return validate(&h.Spec, &old.Spec, field.NewPath("spec"))
		},
		ValidateStatusUpdate: func(_ context.Context, h, _ *hpa) field.ErrorList {
			path := field.NewPath("status")
			var errs field.ErrorList
			for i, c := range h.Status.Conditions {
				errs = append(errs, check.NonNegativePtr(c.ObservedGeneration, path.Child("conditions").Index(i).Child("observedGeneration"))...)
			}
			errs = append(errs, check.NonNegative(h.Status.CurrentReplicas, path.Child("currentReplicas"))...)
			return append(errs, check.NonNegative(h.Status.DesiredReplicas, path.Child("desiredReplicas"))...)
		},
	})
}

func defaultV2(h *autoscalingv2.HorizontalPodAutoscaler) {
	if h.Spec.MinReplicas == nil {
		h.Spec.MinReplicas = ptr.To[int32](1)
	}
	if len(h.Spec.Metrics) == 0 {
		h.Spec.Metrics = []autoscalingv2.MetricSpec{cpuMetric(defaultCPU)}
	}
	if b := h.Spec.Behavior; b != nil {
		b.ScaleUp = behaviour(b.ScaleUp, autoscalingv2.HPAScalingRules{
			StabilizationWindowSeconds: ptr.To[int32](0),
			SelectPolicy:               ptr.To(autoscalingv2.MaxChangePolicySelect),
			Policies: []autoscalingv2.HPAScalingPolicy{
				{Type: autoscalingv2.PodsScalingPolicy, Value: 4, PeriodSeconds: 15},
				{Type: autoscalingv2.PercentScalingPolicy, Value: 100, PeriodSeconds: 15},
			},
		})
		// The window of scaling down is left unset: the controller's own setting decides.
		b.ScaleDown = behaviour(b.ScaleDown, autoscalingv2.HPAScalingRules{
			SelectPolicy: ptr.To(autoscalingv2.MaxChangePolicySelect),
			Policies:     []autoscalingv2.HPAScalingPolicy{{Type: autoscalingv2.PercentScalingPolicy, Value: 100, PeriodSeconds: 15}},
		})
	}
}

// behaviour is the default with what the user set.
func behaviour(set *autoscalingv2.HPAScalingRules, rules autoscalingv2.HPAScalingRules) *autoscalingv2.HPAScalingRules {
	if set == nil {
		return &rules
	}
	if set.SelectPolicy != nil {
		rules.SelectPolicy = set.SelectPolicy
	}
	if set.StabilizationWindowSeconds != nil {
		rules.StabilizationWindowSeconds = set.StabilizationWindowSeconds
	}
	if set.Policies != nil {
		rules.Policies = set.Policies
	}
	rules.Tolerance = set.Tolerance
	return &rules
}

func cpuMetric(percent int32) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{
		Type: autoscalingv2.ResourceMetricSourceType,
		Resource: &autoscalingv2.ResourceMetricSource{
			Name:   corev1.ResourceCPU,
			Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: &percent},
		},
	}
}
