package policy

import (
	"context"
	"slices"

	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/check"
)

// Group is policy.
func Group() resource.Group {
	return resource.Group{
		Name:        policyv1.GroupName,
		Versions:    []string{"v1"},
		AddToScheme: []func(*runtime.Scheme) error{policyv1.AddToScheme},
		Kinds:       []resource.Kind{budget()},
	}
}

func budget() resource.Kind {
	count := func(name, description string, n func(*policyv1.PodDisruptionBudget) *intstr.IntOrString) resource.Column {
		return resource.Col(name, "string", description, 0, func(b *policyv1.PodDisruptionBudget) any {
			if v := n(b); v != nil {
				return v.String()
			}
			return "N/A"
		})
	}
	return resource.Of(resource.Kind{
		Kind: "PodDisruptionBudget", Plural: "poddisruptionbudgets", ShortNames: []string{"pdb"}, Namespaced: true,
		HasStatus: true, HasGeneration: true, ForbidUnconditionalUpdate: true,
		ValidateName: func(string, bool) []string { return nil }, // any that can be a part of a path
		New:          func() runtime.Object { return &policyv1.PodDisruptionBudget{} },
		NewList:      func() runtime.Object { return &policyv1.PodDisruptionBudgetList{} },
		Columns: []resource.Column{
			count("Min Available", "The minimum number of pods that must be available.",
				func(b *policyv1.PodDisruptionBudget) *intstr.IntOrString { return b.Spec.MinAvailable }),
			count("Max Unavailable", "The maximum number of pods that may be unavailable.",
				func(b *policyv1.PodDisruptionBudget) *intstr.IntOrString { return b.Spec.MaxUnavailable }),
			resource.Col("Allowed Disruptions", "integer", "Calculated number of pods that may be disrupted at this time.", 0,
				func(b *policyv1.PodDisruptionBudget) any { return int64(b.Status.DisruptionsAllowed) }),
		},
	}, resource.Rules[*policyv1.PodDisruptionBudget]{
		PrepareForCreate: func(_ context.Context, b *policyv1.PodDisruptionBudget) { dropReserved(b.Spec.Selector) },
		PrepareForUpdate: func(_ context.Context, b, old *policyv1.PodDisruptionBudget) {
			if !check.Same(b.Spec.Selector, old.Spec.Selector) {
				dropReserved(b.Spec.Selector)
			}
		},
		Validate: func(_ context.Context, b *policyv1.PodDisruptionBudget) field.ErrorList {
			return validate(&b.Spec, nil, field.NewPath("spec"))
		},
		ValidateUpdate: func(_ context.Context, b, old *policyv1.PodDisruptionBudget) field.ErrorList {
			return validate(&b.Spec, old.Spec.Selector, field.NewPath("spec"))
		},
		ValidateStatusUpdate: func(_ context.Context, b, _ *policyv1.PodDisruptionBudget) field.ErrorList {
			return validateStatus(&b.Status, field.NewPath("status"))
		},
	})
}

// reservedLabel stood in stored v1beta1 budgets for "no pods": a selector of its own, never beside what a user asks for.
const reservedLabel = "pdb.kubernetes.io/deprecated-v1beta1-empty-selector-match"

func dropReserved(s *metav1.LabelSelector) {
	none := &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: reservedLabel, Operator: metav1.LabelSelectorOpExists}}}
	if s == nil || check.Same(s, none) {
		return
	}
	s.MatchExpressions = slices.DeleteFunc(s.MatchExpressions, func(r metav1.LabelSelectorRequirement) bool { return r.Key == reservedLabel })
}

func validate(s *policyv1.PodDisruptionBudgetSpec, oldSelector *metav1.LabelSelector, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if s.MinAvailable != nil && s.MaxUnavailable != nil {
		errs = append(errs, field.Invalid(path, s, "minAvailable and maxUnavailable cannot be both set"))
	}
	if v := s.MinAvailable; v != nil {
		errs = append(errs, check.IntOrPercent(*v, path.Child("minAvailable"))...)
		errs = append(errs, check.AtMostHundredPercent(*v, path.Child("minAvailable"))...)
	}
	if v := s.MaxUnavailable; v != nil {
		errs = append(errs, check.IntOrPercent(*v, path.Child("maxUnavailable"))...)
		errs = append(errs, check.AtMostHundredPercent(*v, path.Child("maxUnavailable"))...)
	}
	errs = append(errs, check.SelectorUpdate(s.Selector, oldSelector, path.Child("selector"))...)
	if p := s.UnhealthyPodEvictionPolicy; p != nil {
		errs = append(errs, check.OneOf(*p, path.Child("unhealthyPodEvictionPolicy"), policyv1.AlwaysAllow, policyv1.IfHealthyBudget)...)
	}
	return errs
}

func validateStatus(s *policyv1.PodDisruptionBudgetStatus, path *field.Path) field.ErrorList {
	errs := metavalidation.ValidateConditions(s.Conditions, path.Child("conditions"))
	errs = append(errs, check.NonNegative(s.DisruptionsAllowed, path.Child("disruptionsAllowed"))...)
	errs = append(errs, check.NonNegative(s.CurrentHealthy, path.Child("currentHealthy"))...)
	errs = append(errs, check.NonNegative(s.DesiredHealthy, path.Child("desiredHealthy"))...)
	return append(errs, check.NonNegative(s.ExpectedPods, path.Child("expectedPods"))...)
}
