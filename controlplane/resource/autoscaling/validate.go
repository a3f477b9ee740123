package autoscaling

import (
	"fmt"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/validation/path"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource/check"
	"keelson.dev/keelson/controlplane/resource/resourcename"
)

const (
	maxPeriodSeconds = 1800
	maxWindowSeconds = 3600
)

// refRule is what a reference's apiVersion may be.
type refRule int

const (
	grouped  refRule = iota // it names a group
	anyGroup                // or core
	anything                // it is as it was
)

// validate checks a spec; old is nil on create.
func validate(s, old *autoscalingv2.HorizontalPodAutoscalerSpec, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if n := s.MinReplicas; n != nil && *n < 0 {
		errs = append(errs, field.Invalid(at.Child("minReplicas"), *n, "must be greater than or equal to 0"))
	}
	switch n := s.MaxReplicas; {
	case n == 0:
		errs = append(errs, field.Required(at.Child("maxReplicas"), ""))
	case n < 0:
		errs = append(errs, field.Invalid(at.Child("maxReplicas"), n, "must be greater than or equal to 1"))
	}
	if s.MinReplicas != nil && s.MaxReplicas < *s.MinReplicas {
		errs = append(errs, field.Invalid(at.Child("maxReplicas"), s.MaxReplicas, "must be greater than or equal to `minReplicas`"))
	}
	errs = append(errs, validateRef(s.ScaleTargetRef, targetRule(s, old), at.Child("scaleTargetRef"))...)
	errs = append(errs, validateMetrics(s, objectRule(old), at.Child("metrics"))...)
	if b := s.Behavior; b != nil {
		errs = append(errs, validateRules(b.ScaleUp, at.Child("behavior", "scaleUp"))...)
		errs = append(errs, validateRules(b.ScaleDown, at.Child("behavior", "scaleDown"))...)
	}
	return errs
}

// targetRule: core has one kind that scales; what an update leaves alone is not looked at.
func targetRule(s, old *autoscalingv2.HorizontalPodAutoscalerSpec) refRule {
	ref := s.ScaleTargetRef
	switch {
	case old != nil && ref.APIVersion == old.ScaleTargetRef.APIVersion && ref.Kind == old.ScaleTargetRef.Kind:
		return anything
	case ref.Kind == "ReplicationController":
		return anyGroup
	}
	return grouped
}

// objectRule: an autoscaler that describes an object by a malformed version already may go on so.
func objectRule(old *autoscalingv2.HorizontalPodAutoscalerSpec) refRule {
	if old != nil {
		for _, m := range old.Metrics {
			if m.Type == autoscalingv2.ObjectMetricSourceType && m.Object != nil && len(validateVersion(m.Object.DescribedObject, anyGroup, nil)) > 0 {
				return anything
			}
		}
	}
	return anyGroup
}

func validateRef(ref autoscalingv2.CrossVersionObjectReference, rule refRule, at *field.Path) field.ErrorList {
	errs := segment(ref.Kind, "", at.Child("kind"))
	errs = append(errs, segment(ref.Name, "", at.Child("name"))...)
	return append(errs, validateVersion(ref, rule, at.Child("apiVersion"))...)
}

func validateVersion(ref autoscalingv2.CrossVersionObjectReference, rule refRule, at *field.Path) field.ErrorList {
	if rule == anything {
		return nil
	}
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	switch {
	case err != nil:
		return field.ErrorList{field.Invalid(at, ref.APIVersion, err.Error())}
	case rule == grouped && gv.Group == "":
		return field.ErrorList{field.Invalid(at, ref.APIVersion, "apiVersion must specify API group")}
	}
	return nil
}

// segment checks a required name that will be a part of a URL.
func segment(v, missing string, at *field.Path) field.ErrorList {
	if v == "" {
		return field.ErrorList{field.Required(at, missing)}
	}
	return check.Strings(path.IsValidPathSegmentName(v), at, v)
}

func validateMetrics(s *autoscalingv2.HorizontalPodAutoscalerSpec, rule refRule, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	outside := false // a metric that exists without pods, by which to scale up from none
	for i := range s.Metrics {
		errs = append(errs, validateMetric(&s.Metrics[i], rule, at.Index(i))...)
		t := s.Metrics[i].Type
		outside = outside || t == autoscalingv2.ObjectMetricSourceType || t == autoscalingv2.ExternalMetricSourceType
	}
	if s.MinReplicas != nil && *s.MinReplicas == 0 && !outside {
		errs = append(errs, field.Forbidden(at, "must specify at least one Object or External metric to support scaling to zero replicas"))
	}
	return errs
}

var sourceTypes = []autoscalingv2.MetricSourceType{
	autoscalingv2.ContainerResourceMetricSourceType, autoscalingv2.ExternalMetricSourceType, autoscalingv2.ObjectMetricSourceType,
	autoscalingv2.PodsMetricSourceType, autoscalingv2.ResourceMetricSourceType,
}

// source is one of a metric's mutually exclusive parts.
type source struct {
	name     string
	of       autoscalingv2.MetricSourceType
	set      bool
	validate func(*field.Path) field.ErrorList
}

func validateMetric(m *autoscalingv2.MetricSpec, rule refRule, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if m.Type == "" {
		errs = append(errs, field.Required(at.Child("type"), "must specify a metric source type"))
	}
	errs = append(errs, check.OneOf(m.Type, at.Child("type"), sourceTypes...)...)
	sources := []source{
		{"object", autoscalingv2.ObjectMetricSourceType, m.Object != nil, func(p *field.Path) field.ErrorList { return validateObject(m.Object, rule, p) }},
		{"external", autoscalingv2.ExternalMetricSourceType, m.External != nil, func(p *field.Path) field.ErrorList { return validateExternal(m.External, p) }},
		{"pods", autoscalingv2.PodsMetricSourceType, m.Pods != nil, func(p *field.Path) field.ErrorList { return validatePods(m.Pods, p) }},
		{"resource", autoscalingv2.ResourceMetricSourceType, m.Resource != nil, func(p *field.Path) field.ErrorList {
			return append(required(string(m.Resource.Name), "must specify a resource name", p.Child("name")), validateUsage(m.Resource.Target, p.Child("target"))...)
		}},
		{"containerResource", autoscalingv2.ContainerResourceMetricSourceType, m.ContainerResource != nil, func(p *field.Path) field.ErrorList {
			return validateContainer(m.ContainerResource, p)
		}},
	}
	present := 0
	for _, s := range sources {
		if s.set {
			present++
			if present == 1 {
				errs = append(errs, s.validate(at.Child(s.name))...)
			}
		}
		if s.of == m.Type && !s.set {
			errs = append(errs, field.Required(at.Child(s.name), "must populate information for the given metric source"))
		}
	}
	if present != 1 {
		for _, s := range sources {
			if s.set && s.of != m.Type {
				errs = append(errs, field.Forbidden(at.Child(s.name), "must populate the given metric source only"))
			}
		}
	}
	return errs
}

func required(v, message string, at *field.Path) field.ErrorList {
	if v == "" {
		return field.ErrorList{field.Required(at, message)}
	}
	return nil
}

func validateObject(s *autoscalingv2.ObjectMetricSource, rule refRule, at *field.Path) field.ErrorList {
	errs := validateRef(s.DescribedObject, rule, at.Child("describedObject"))
	errs = append(errs, segment(s.Metric.Name, "must specify a metric name", at.Child("metric", "name"))...)
	errs = append(errs, validateTarget(s.Target, at.Child("target"))...)
	if s.Target.Value == nil && s.Target.AverageValue == nil {
		errs = append(errs, field.Required(at.Child("target", "averageValue"), "must set either a target value or averageValue"))
	}
	return errs
}

func validateExternal(s *autoscalingv2.ExternalMetricSource, at *field.Path) field.ErrorList {
	errs := segment(s.Metric.Name, "must specify a metric name", at.Child("metric", "name"))
	errs = append(errs, validateTarget(s.Target, at.Child("target"))...)
	switch total, each := s.Target.Value != nil, s.Target.AverageValue != nil; {
	case !total && !each:
		errs = append(errs, field.Required(at.Child("target", "averageValue"), "must set either a target value for metric or a per-pod target"))
	case total && each:
		errs = append(errs, field.Forbidden(at.Child("target", "value"), "may not set both a target value for metric and a per-pod target"))
	}
	return errs
}

func validatePods(s *autoscalingv2.PodsMetricSource, at *field.Path) field.ErrorList {
	errs := segment(s.Metric.Name, "must specify a metric name", at.Child("metric", "name"))
	errs = append(errs, validateTarget(s.Target, at.Child("target"))...)
	if s.Target.AverageValue == nil {
		errs = append(errs, field.Required(at.Child("target", "averageValue"), "must specify a positive target averageValue"))
	}
	return errs
}

func validateContainer(s *autoscalingv2.ContainerResourceMetricSource, at *field.Path) field.ErrorList {
	errs := required(string(s.Name), "must specify a resource name", at.Child("name"))
	if s.Name != "" {
		errs = resourcename.ValidateContainer(s.Name, at.Child("name"))
	}
	if s.Container == "" {
		errs = append(errs, field.Required(at.Child("container"), "must specify a container"))
	} else {
		errs = append(errs, check.Strings(validation.IsDNS1123Label(s.Container), at.Child("container"), s.Container)...)
	}
	return append(errs, validateUsage(s.Target, at.Child("target"))...)
}

// validateUsage checks a target of resource use: a share of the request or an amount, not both.
func validateUsage(t autoscalingv2.MetricTarget, at *field.Path) field.ErrorList {
	errs := validateTarget(t, at)
	switch share, amount := t.AverageUtilization != nil, t.AverageValue != nil; {
	case !share && !amount:
		errs = append(errs, field.Required(at.Child("averageUtilization"), "must set either a target raw value or a target utilization"))
	case share && amount:
		errs = append(errs, field.Forbidden(at.Child("averageValue"), "may not set both a target raw value and a target utilization"))
	}
	return errs
}

func validateTarget(t autoscalingv2.MetricTarget, at *field.Path) field.ErrorList {
	errs := required(string(t.Type), "must specify a metric target type", at.Child("type"))
	switch t.Type {
	case autoscalingv2.UtilizationMetricType, autoscalingv2.ValueMetricType, autoscalingv2.AverageValueMetricType:
	default:
		errs = append(errs, field.Invalid(at.Child("type"), t.Type, "must be either Utilization, Value, or AverageValue"))
	}
	if v := t.Value; v != nil && v.Sign() != 1 {
		errs = append(errs, field.Invalid(at.Child("value"), v, "must be positive"))
	}
	if v := t.AverageValue; v != nil && v.Sign() != 1 {
		errs = append(errs, field.Invalid(at.Child("averageValue"), v, "must be positive"))
	}
	if v := t.AverageUtilization; v != nil && *v < 1 {
		errs = append(errs, field.Invalid(at.Child("averageUtilization"), *v, "must be greater than 0"))
	}
	return errs
}

func validateRules(r *autoscalingv2.HPAScalingRules, at *field.Path) field.ErrorList {
	if r == nil {
		return nil
	}
	var errs field.ErrorList
	if w := r.StabilizationWindowSeconds; w != nil {
		switch {
		case *w < 0:
			errs = append(errs, field.Invalid(at.Child("stabilizationWindowSeconds"), *w, "must be greater than or equal to zero"))
		case *w > maxWindowSeconds:
			errs = append(errs, field.Invalid(at.Child("stabilizationWindowSeconds"), *w, fmt.Sprintf("must be less than or equal to %v", maxWindowSeconds)))
		}
	}
	if p := r.SelectPolicy; p != nil {
		errs = append(errs, check.OneOf(*p, at.Child("selectPolicy"),
			autoscalingv2.DisabledPolicySelect, autoscalingv2.MaxChangePolicySelect, autoscalingv2.MinChangePolicySelect)...)
	}
	if len(r.Policies) == 0 {
		errs = append(errs, field.Required(at.Child("policies"), "must specify at least one Policy"))
	}
	for i, p := range r.Policies {
		errs = append(errs, validatePolicy(p, at.Child("policies").Index(i))...)
	}
	if t := r.Tolerance; t != nil && t.Sign() < 0 {
		errs = append(errs, field.Invalid(at.Child("tolerance"), t.String(), "must be greater than or equal to 0"))
	}
	return errs
}

func validatePolicy(p autoscalingv2.HPAScalingPolicy, at *field.Path) field.ErrorList {
	errs := check.OneOf(p.Type, at.Child("type"), autoscalingv2.PercentScalingPolicy, autoscalingv2.PodsScalingPolicy)
	if p.Value <= 0 {
		errs = append(errs, field.Invalid(at.Child("value"), p.Value, "must be greater than zero"))
	}
	switch {
	case p.PeriodSeconds <= 0:
		errs = append(errs, field.Invalid(at.Child("periodSeconds"), p.PeriodSeconds, "must be greater than zero"))
	case p.PeriodSeconds > maxPeriodSeconds:
		errs = append(errs, field.Invalid(at.Child("periodSeconds"), p.PeriodSeconds, fmt.Sprintf("must be less than or equal to %v", maxPeriodSeconds)))
	}
	return errs
}
