package apps

import (
	"context"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/cell"
	"keelson.dev/keelson/controlplane/resource/check"
	"keelson.dev/keelson/controlplane/resource/podspec"
)

func daemonSet() resource.Kind {
	return resource.Of(resource.Kind{
		Kind: "DaemonSet", Plural: "daemonsets", ShortNames: []string{"ds"}, Categories: all, Namespaced: true,
		HasStatus: true, HasGeneration: true,
		New:     func() runtime.Object { return &appsv1.DaemonSet{} },
		NewList: func() runtime.Object { return &appsv1.DaemonSetList{} },
		Columns: daemonSetColumns(),
		Install: func(_ resource.Deps, store *genericregistry.Store) (map[string]rest.Storage, error) {
			readable(store, "DaemonSet", func(obj runtime.Object) error {
				_, err := templateGeneration(obj.(*appsv1.DaemonSet))
				return err
			})
			return nil, nil
		},
	}, resource.Rules[*appsv1.DaemonSet]{
		Default:          defaultDaemonSet,
		PrepareForCreate: func(_ context.Context, d *appsv1.DaemonSet) { prepareTemplate(d, nil) },
		PrepareForUpdate: func(_ context.Context, d, old *appsv1.DaemonSet) { prepareTemplate(d, old) },
		Validate: func(_ context.Context, d *appsv1.DaemonSet) field.ErrorList {
			return validateDaemonSet(&d.Spec, nil, field.NewPath("spec"))
		},
		ValidateUpdate: func(_ context.Context, d, old *appsv1.DaemonSet) field.ErrorList {
			errs := validateDaemonSet(&d.Spec, &old.Spec, field.NewPath("spec"))
			return append(errs, check.Immutable(d.Spec.Selector, old.Spec.Selector, field.NewPath("spec", "selector"))...)
		},
		PrepareStatusUpdate:  func(_ context.Context, d, old *appsv1.DaemonSet) { countTemplate(d, known(templateGeneration(old))) },
		ValidateStatusUpdate: validateDaemonSetStatus,
		Warnings: func(_ context.Context, d, old *appsv1.DaemonSet) []string {
			if old != nil && check.Same(d.Spec.Template, old.Spec.Template) {
				return nil
			}
			return templateWarnings(&d.Spec.Template)
		},
	})
}

func defaultDaemonSet(d *appsv1.DaemonSet) {
	podspec.DefaultTemplate(&d.Spec.Template)
	u := &d.Spec.UpdateStrategy
	if u.Type == "" {
		u.Type = appsv1.RollingUpdateDaemonSetStrategyType
	}
	if u.Type == appsv1.RollingUpdateDaemonSetStrategyType {
		set(&u.RollingUpdate, appsv1.RollingUpdateDaemonSet{})
		set(&u.RollingUpdate.MaxUnavailable, intstr.FromInt32(1))
		set(&u.RollingUpdate.MaxSurge, intstr.FromInt32(0))
	}
	if r := u.RollingUpdate; r != nil { // with another type it does nothing, but reads back whole
		set(&r.MaxUnavailable, intstr.FromInt32(0))
		set(&r.MaxSurge, intstr.FromInt32(0))
	}
	set(&d.Spec.RevisionHistoryLimit, 10)
}

// prepareTemplate counts the template's generations. A new DaemonSet may begin with any; later the client has no say.
func prepareTemplate(d, old *appsv1.DaemonSet) {
	podspec.DropDisabled(&d.Spec.Template.Spec)
	if old == nil {
		countTemplate(d, max(known(templateGeneration(d)), 1))
		return
	}
	generation := known(templateGeneration(old))
	if !check.Same(d.Spec.Template, old.Spec.Template) {
		generation++
	}
	countTemplate(d, generation)
}

// templateGeneration is 0 if there is none.
func templateGeneration(d *appsv1.DaemonSet) (int64, error) {
	text, ok := d.Annotations[appsv1.DeprecatedTemplateGeneration]
	if !ok {
		return 0, nil
	}
	return strconv.ParseInt(text, 10, 64)
}

// known is n, or 0 for what was stored before it was looked at.
func known(n int64, err error) int64 {
	if err != nil {
		return 0
	}
	return n
}

func countTemplate(d *appsv1.DaemonSet, generation int64) {
	if d.Annotations == nil {
		d.Annotations = map[string]string{}
	}
	d.Annotations[appsv1.DeprecatedTemplateGeneration] = strconv.FormatInt(generation, 10)
}

func validateDaemonSet(s, old *appsv1.DaemonSetSpec, path *field.Path) field.ErrorList {
	w := workload{kind: "DaemonSet", selector: s.Selector, template: &s.Template}
	var oldSelector *metav1.LabelSelector
	if old != nil {
		w.old, oldSelector = &old.Template, old.Selector
	}
	errs := check.SelectorUpdate(s.Selector, oldSelector, path.Child("selector"))
	template := path.Child("template")
	if selector, err := metav1.LabelSelectorAsSelector(s.Selector); err == nil && !selector.Matches(labels.Set(s.Template.Labels)) {
		errs = append(errs, field.Invalid(template.Child("metadata", "labels"), s.Template.Labels, "`selector` does not match template `labels`"))
	}
	if check.EmptySelector(s.Selector) {
		errs = append(errs, field.Invalid(path.Child("selector"), s.Selector, "empty selector is invalid for daemonset"))
	}
	errs = append(errs, podspec.ValidateTemplateUpdate(w.template, w.old, template)...)
	errs = append(errs, w.alwaysRestarts(template)...)
	errs = append(errs, check.NonNegative(s.MinReadySeconds, path.Child("minReadySeconds"))...)
	errs = append(errs, validateDaemonSetStrategy(&s.UpdateStrategy, path.Child("updateStrategy"))...)
	return append(errs, check.NonNegativePtr(s.RevisionHistoryLimit, path.Child("revisionHistoryLimit"))...)
}

func validateDaemonSetStrategy(u *appsv1.DaemonSetUpdateStrategy, path *field.Path) field.ErrorList {
	switch u.Type {
	case appsv1.OnDeleteDaemonSetStrategyType:
		return nil
	case appsv1.RollingUpdateDaemonSetStrategyType:
	default:
		return field.ErrorList{field.NotSupported(path, u,
			[]appsv1.DaemonSetUpdateStrategyType{appsv1.RollingUpdateDaemonSetStrategyType, appsv1.OnDeleteDaemonSetStrategyType})}
	}
	path = path.Child("rollingUpdate")
	if u.RollingUpdate == nil {
		return field.ErrorList{field.Required(path, "")}
	}
	unavailable, surge := intstr.IntOrString{}, intstr.IntOrString{}
	if u.RollingUpdate.MaxUnavailable != nil {
		unavailable = *u.RollingUpdate.MaxUnavailable
	}
	if u.RollingUpdate.MaxSurge != nil {
		surge = *u.RollingUpdate.MaxSurge
	}
	errs := check.IntOrPercent(unavailable, path.Child("maxUnavailable"))
	errs = append(errs, check.IntOrPercent(surge, path.Child("maxSurge"))...)
	switch down, up := check.Whole(&unavailable) != 0, check.Whole(&surge) != 0; {
	case down && up:
		errs = append(errs, field.Invalid(path.Child("maxSurge"), surge, "may not be set when maxUnavailable is non-zero"))
	case !down && !up:
		errs = append(errs, field.Required(path.Child("maxUnavailable"), "cannot be 0 when maxSurge is 0"))
	}
	errs = append(errs, check.AtMostHundredPercent(unavailable, path.Child("maxUnavailable"))...)
	return append(errs, check.AtMostHundredPercent(surge, path.Child("maxSurge"))...)
}

func validateDaemonSetStatus(_ context.Context, d, old *appsv1.DaemonSet) field.ErrorList {
	path, s := field.NewPath("status"), &d.Status
	errs := counts(path,
		count{"currentNumberScheduled", int64(s.CurrentNumberScheduled)}, count{"numberMisscheduled", int64(s.NumberMisscheduled)},
		count{"desiredNumberScheduled", int64(s.DesiredNumberScheduled)}, count{"numberReady", int64(s.NumberReady)},
		count{"observedGeneration", s.ObservedGeneration}, count{"updatedNumberScheduled", int64(s.UpdatedNumberScheduled)},
		count{"numberAvailable", int64(s.NumberAvailable)}, count{"numberUnavailable", int64(s.NumberUnavailable)})
	return append(errs, collisions(s.CollisionCount, old.Status.CollisionCount, path.Child("collisionCount"))...)
}

func daemonSetColumns() []resource.Column {
	doc := appsv1.DaemonSetStatus{}.SwaggerDoc()
	number := func(name, documented string, n func(*appsv1.DaemonSetStatus) int32) resource.Column {
		return resource.Col(name, "integer", doc[documented], 0, func(d *appsv1.DaemonSet) any { return int64(n(&d.Status)) })
	}
	columns := []resource.Column{
		number("Desired", "desiredNumberScheduled", func(s *appsv1.DaemonSetStatus) int32 { return s.DesiredNumberScheduled }),
		number("Current", "currentNumberScheduled", func(s *appsv1.DaemonSetStatus) int32 { return s.CurrentNumberScheduled }),
		number("Ready", "numberReady", func(s *appsv1.DaemonSetStatus) int32 { return s.NumberReady }),
		number("Up-to-date", "updatedNumberScheduled", func(s *appsv1.DaemonSetStatus) int32 { return s.UpdatedNumberScheduled }),
		number("Available", "numberAvailable", func(s *appsv1.DaemonSetStatus) int32 { return s.NumberAvailable }),
		resource.Col("Node Selector", "string", corev1.PodSpec{}.SwaggerDoc()["nodeSelector"], 0,
			func(d *appsv1.DaemonSet) any { return labels.FormatLabels(d.Spec.Template.Spec.NodeSelector) }),
	}
	columns = append(columns, cell.Template(func(d *appsv1.DaemonSet) *corev1.PodSpec { return &d.Spec.Template.Spec })...)
	return append(columns, selectorColumn(appsv1.DaemonSetSpec{}.SwaggerDoc()["selector"],
		func(d *appsv1.DaemonSet) *metav1.LabelSelector { return d.Spec.Selector }))
}
