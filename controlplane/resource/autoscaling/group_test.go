package autoscaling

import (
	"strings"
	"testing"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/equality"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/resource/resourcetest"
)

func TestNames(t *testing.T) {
	resourcetest.CheckNames(t, Group(), resourcetest.Row{Plural: "horizontalpodautoscalers", Short: "hpa", Kind: "HorizontalPodAutoscaler", Namespaced: true, Categories: "all"})
}

func sample() *autoscalingv2.HorizontalPodAutoscaler {
	h := &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Name: "h", Annotations: map[string]string{"mine": "kept"}},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "d"},
			MaxReplicas:    5,
			Behavior:       &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleUp: &autoscalingv2.HPAScalingRules{StabilizationWindowSeconds: ptr.To[int32](7)}},
			Metrics: []autoscalingv2.MetricSpec{
				{Type: "Pods", Pods: &autoscalingv2.PodsMetricSource{Metric: autoscalingv2.MetricIdentifier{Name: "qps"},
					Target: autoscalingv2.MetricTarget{Type: "AverageValue", AverageValue: ptr.To(apiresource.MustParse("10"))}}},
				cpuMetric(50),
			},
		},
		Status: autoscalingv2.HorizontalPodAutoscalerStatus{
			Conditions: []autoscalingv2.HorizontalPodAutoscalerCondition{{Type: "AbleToScale", Status: "True"}},
		},
	}
	defaultV2(h)
	return h
}

func TestDefaults(t *testing.T) {
	k := resourcetest.Kind(t, Group(), "HorizontalPodAutoscaler")
	h := sample()
	resourcetest.CheckDefaults(t, k, h.DeepCopy(), h)
	if up, down := h.Spec.Behavior.ScaleUp, h.Spec.Behavior.ScaleDown; *up.StabilizationWindowSeconds != 7 || len(up.Policies) != 2 ||
		down.StabilizationWindowSeconds != nil || *down.SelectPolicy != "Max" {
		t.Errorf("up %+v, down %+v", up, down)
	}
	bare := &autoscalingv2.HorizontalPodAutoscaler{}
	k.Default(bare)
	if *bare.Spec.MinReplicas != 1 || *bare.Spec.Metrics[0].Resource.Target.AverageUtilization != 80 {
		t.Errorf("%+v", bare.Spec)
	}
}

func TestVersion1RoundTrip(t *testing.T) {
	h := sample()
	var old autoscalingv1.HorizontalPodAutoscaler
	if err := toV1(h, &old); err != nil {
		t.Fatal(err)
	}
	if *old.Spec.TargetCPUUtilizationPercentage != 50 || old.Annotations["mine"] != "kept" || len(h.Annotations) != 1 {
		t.Errorf("v1 %+v; v2 annotations %v", old, h.Annotations)
	}
	var back autoscalingv2.HorizontalPodAutoscaler
	fromV1(&old, &back)
	if !equality.Semantic.DeepEqual(h, &back) {
		t.Errorf("lost on the way\n got %+v\nwant %+v", &back, h)
	}
	if got, want := old.Annotations[metricsAnnotation], `[{"type":"Pods","pods":{"metricName":"qps","targetAverageValue":"10"}}]`; got != want {
		t.Errorf("metrics carried as %s, want %s", got, want)
	}
	if got, want := old.Annotations[behaviorAnnotation], `{"ScaleUp":{"StabilizationWindowSeconds":7,`; !strings.HasPrefix(got, want) {
		t.Errorf("behaviour carried as %s, want %s…", got, want)
	}
	old.Annotations[metricsAnnotation] = "{not json"
	fromV1(&old, &back)
	if len(back.Spec.Metrics) != 1 {
		t.Errorf("metrics of a broken annotation: %v", back.Spec.Metrics)
	}
}

func TestValidate(t *testing.T) {
	k := resourcetest.Kind(t, Group(), "HorizontalPodAutoscaler")
	resourcetest.CheckErrors(t, k.Validate(t.Context(), sample()))
	for _, c := range []struct {
		edit func(*autoscalingv2.HorizontalPodAutoscalerSpec)
		want []string
	}{
		{func(s *autoscalingv2.HorizontalPodAutoscalerSpec) { s.MinReplicas, s.MaxReplicas = ptr.To[int32](3), 2 },
			[]string{"spec.maxReplicas: Invalid value: 2: must be greater than or equal to `minReplicas`"}},
		{func(s *autoscalingv2.HorizontalPodAutoscalerSpec) { s.MaxReplicas, s.MinReplicas = 0, nil }, []string{"spec.maxReplicas: Required value"}},
		{func(s *autoscalingv2.HorizontalPodAutoscalerSpec) { s.MinReplicas = ptr.To[int32](0) }, []string{
			"spec.metrics: Forbidden: must specify at least one Object or External metric"}},
		{func(s *autoscalingv2.HorizontalPodAutoscalerSpec) { s.ScaleTargetRef.Kind = "" }, []string{"spec.scaleTargetRef.kind: Required value"}},
		{func(s *autoscalingv2.HorizontalPodAutoscalerSpec) { s.ScaleTargetRef.APIVersion = "v1" }, []string{
			`spec.scaleTargetRef.apiVersion: Invalid value: "v1": apiVersion must specify API group`}},
		{func(s *autoscalingv2.HorizontalPodAutoscalerSpec) {
			s.ScaleTargetRef.APIVersion, s.ScaleTargetRef.Kind = "v1", "ReplicationController"
		}, nil},
		{func(s *autoscalingv2.HorizontalPodAutoscalerSpec) { s.Metrics[0].Type = "Resource" }, []string{
			"spec.metrics[0].resource: Required value: must populate information for the given metric source"}},
		{func(s *autoscalingv2.HorizontalPodAutoscalerSpec) {
			s.Metrics[0].Resource = s.Metrics[1].Resource
		}, []string{"spec.metrics[0].resource: Forbidden: must populate the given metric source only"}},
		{func(s *autoscalingv2.HorizontalPodAutoscalerSpec) {
			s.Metrics = []autoscalingv2.MetricSpec{cpuMetric(50)}
			s.Metrics[0].Resource.Target.AverageUtilization = ptr.To[int32](0)
		}, []string{"spec.metrics[0].resource.target.averageUtilization: Invalid value: 0: must be greater than 0"}},
		{func(s *autoscalingv2.HorizontalPodAutoscalerSpec) {
			s.Behavior.ScaleDown.Policies[0].PeriodSeconds = 1801
		}, []string{
			"spec.behavior.scaleDown.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800"}},
	} {
		h := sample()
		c.edit(&h.Spec)
		resourcetest.CheckErrors(t, k.Validate(t.Context(), h), c.want...)
	}
	odd := sample()
	odd.Spec.ScaleTargetRef.APIVersion = "v1"
	resourcetest.CheckErrors(t, k.ValidateUpdate(t.Context(), odd, odd)) // what an update leaves alone may stay
}

func TestColumns(t *testing.T) {
	h := sample()
	h.Status.CurrentMetrics = []autoscalingv2.MetricStatus{{}, {Resource: &autoscalingv2.ResourceMetricStatus{Current: autoscalingv2.MetricValueStatus{AverageUtilization: ptr.To[int32](40)}}}}
	names, cells := resourcetest.Cells(resourcetest.Kind(t, Group(), "HorizontalPodAutoscaler"), h)
	if names != "Reference|Targets|MinPods|MaxPods|Replicas|Age" || cells[0] != "Deployment/d" || cells[1] != "<unknown>/10, cpu: 40%/50%" || cells[2] != "1" {
		t.Errorf("columns %s, cells %q", names, cells)
	}
}
