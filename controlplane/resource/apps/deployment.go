package apps

import (
	"context"
	"fmt"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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

func deployment() resource.Kind {
	return resource.Of(resource.Kind{
		Kind: "Deployment", Plural: "deployments", ShortNames: []string{"deploy"}, Categories: all, Namespaced: true,
		HasStatus: true, HasGeneration: true,
		New:     func() runtime.Object { return &appsv1.Deployment{} },
		NewList: func() runtime.Object { return &appsv1.DeploymentList{} },
		Columns: deploymentColumns(),
		Install: installDeployment,
	}, resource.Rules[*appsv1.Deployment]{
		Default:          defaultDeployment,
		PrepareForCreate: func(_ context.Context, d *appsv1.Deployment) { podspec.DropDisabled(&d.Spec.Template.Spec) },
		PrepareForUpdate: prepareDeploymentUpdate,
		// Annotations are the rollout's own record and may change with the status; labels may not.
		PrepareStatusUpdate: func(_ context.Context, d, old *appsv1.Deployment) { d.Labels = old.Labels },
		Validate: func(_ context.Context, d *appsv1.Deployment) field.ErrorList {
			return append(validateDeployment(&d.Spec, nil, field.NewPath("spec")), validateRollback(d)...)
		},
		ValidateUpdate: func(_ context.Context, d, old *appsv1.Deployment) field.ErrorList {
			errs := append(validateDeployment(&d.Spec, &old.Spec, field.NewPath("spec")), validateRollback(d)...)
			return append(errs, check.Immutable(d.Spec.Selector, old.Spec.Selector, field.NewPath("spec", "selector"))...)
		},
		ValidateStatusUpdate: func(ctx context.Context, d, old *appsv1.Deployment) field.ErrorList {
			return append(validateDeploymentStatus(ctx, d, old), validateRollback(d)...)
		},
		Warnings: func(_ context.Context, d, old *appsv1.Deployment) []string {
			if old == nil {
				return append(nameWarnings(d.Name), templateWarnings(&d.Spec.Template)...)
			}
			return updateWarnings(d, old, &d.Spec.Template)
		},
	})
}

// prepareDeploymentUpdate counts a change of annotations as one of the spec: the controller copies them to ReplicaSets.
func prepareDeploymentUpdate(_ context.Context, d, old *appsv1.Deployment) {
	podspec.DropDisabled(&d.Spec.Template.Spec)
	if !check.Same(d.Annotations, old.Annotations) {
		d.Generation = old.Generation + 1
	}
}

func installDeployment(d resource.Deps, store *genericregistry.Store) (map[string]rest.Storage, error) {
	readable(store, "Deployment", func(obj runtime.Object) error {
		_, _, err := rollbackTo(obj.(*appsv1.Deployment))
		return err
	})
	return withScale("deployments",
		func(d *appsv1.Deployment) **int32 { return &d.Spec.Replicas },
		func(d *appsv1.Deployment) (int32, *metav1.LabelSelector) { return d.Status.Replicas, d.Spec.Selector })(d, store)
}

// rollbackTo is the revision that the Deployment is to go back to, which upstream keeps as a field of its own.
func rollbackTo(d *appsv1.Deployment) (revision int64, ok bool, err error) {
	text := d.Annotations[appsv1.DeprecatedRollbackTo]
	if text == "" {
		return 0, false, nil
	}
	if revision, err = strconv.ParseInt(text, 10, 64); err != nil {
		return 0, false, fmt.Errorf("failed to parse annotation[%s]=%s as int64: %w", appsv1.DeprecatedRollbackTo, text, err)
	}
	return revision, true, nil
}

func validateRollback(d *appsv1.Deployment) field.ErrorList {
	revision, ok, err := rollbackTo(d)
	if err != nil { // in a status update; others are refused before
		path := field.NewPath("metadata", "annotations").Key(appsv1.DeprecatedRollbackTo)
		return field.ErrorList{field.Invalid(path, d.Annotations[appsv1.DeprecatedRollbackTo], err.Error())}
	}
	if !ok {
		return nil
	}
	return check.NonNegative(revision, field.NewPath("spec", "rollback", "version"))
}

func defaultDeployment(d *appsv1.Deployment) {
	if text, has := d.Annotations[appsv1.DeprecatedRollbackTo]; has && text == "" {
		delete(d.Annotations, appsv1.DeprecatedRollbackTo)
	}
	podspec.DefaultTemplate(&d.Spec.Template)
	set(&d.Spec.Replicas, 1)
	s := &d.Spec.Strategy
	if s.Type == "" {
		s.Type = appsv1.RollingUpdateDeploymentStrategyType
	}
	if s.Type == appsv1.RollingUpdateDeploymentStrategyType {
		set(&s.RollingUpdate, appsv1.RollingUpdateDeployment{})
		set(&s.RollingUpdate.MaxUnavailable, intstr.FromString("25%"))
		set(&s.RollingUpdate.MaxSurge, intstr.FromString("25%"))
	}
	set(&d.Spec.RevisionHistoryLimit, 10)
	set(&d.Spec.ProgressDeadlineSeconds, 600)
}

func validateDeployment(s, old *appsv1.DeploymentSpec, path *field.Path) field.ErrorList {
	errs := check.NonNegativePtr(s.Replicas, path.Child("replicas"))
	w := workload{kind: "ReplicaSet", selector: s.Selector, template: &s.Template}
	if old != nil {
		w.old = &old.Template
	}
	errs = append(errs, w.validateReplicated(path)...)
	errs = append(errs, validateDeploymentStrategy(&s.Strategy, path.Child("strategy"))...)
	errs = append(errs, check.NonNegative(s.MinReadySeconds, path.Child("minReadySeconds"))...)
	errs = append(errs, check.NonNegativePtr(s.RevisionHistoryLimit, path.Child("revisionHistoryLimit"))...)
	if p := s.ProgressDeadlineSeconds; p != nil {
		errs = append(errs, check.NonNegative(*p, path.Child("progressDeadlineSeconds"))...)
		if *p <= s.MinReadySeconds {
			errs = append(errs, field.Invalid(path.Child("progressDeadlineSeconds"), *p, "must be greater than minReadySeconds"))
		}
	}
	return errs
}

func validateDeploymentStrategy(s *appsv1.DeploymentStrategy, path *field.Path) field.ErrorList {
	rolling := path.Child("rollingUpdate")
	switch s.Type {
	case appsv1.RecreateDeploymentStrategyType:
		if s.RollingUpdate != nil {
			return field.ErrorList{field.Forbidden(rolling, "may not be specified when strategy `type` is '"+string(s.Type)+"'")}
		}
	case appsv1.RollingUpdateDeploymentStrategyType:
		if s.RollingUpdate == nil {
			return field.ErrorList{field.Required(rolling, "this should be defaulted and never be nil")}
		}
		return validateRollingUpdate(s.RollingUpdate, rolling)
	default:
		return field.ErrorList{field.NotSupported(path, s,
			[]appsv1.DeploymentStrategyType{appsv1.RecreateDeploymentStrategyType, appsv1.RollingUpdateDeploymentStrategyType})}
	}
	return nil
}

func validateRollingUpdate(r *appsv1.RollingUpdateDeployment, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	unavailable, surge := intstr.IntOrString{}, intstr.IntOrString{}
	if r.MaxUnavailable != nil {
		unavailable = *r.MaxUnavailable
	}
	if r.MaxSurge != nil {
		surge = *r.MaxSurge
	}
	errs = append(errs, check.IntOrPercent(unavailable, path.Child("maxUnavailable"))...)
	errs = append(errs, check.IntOrPercent(surge, path.Child("maxSurge"))...)
	if check.Whole(&unavailable) == 0 && check.Whole(&surge) == 0 {
		errs = append(errs, field.Invalid(path.Child("maxUnavailable"), unavailable, "may not be 0 when `maxSurge` is 0"))
	}
	return append(errs, check.AtMostHundredPercent(unavailable, path.Child("maxUnavailable"))...)
}

func validateDeploymentStatus(_ context.Context, d, old *appsv1.Deployment) field.ErrorList {
	path, s := field.NewPath("status"), &d.Status
	updated, ready := count{"updatedReplicas", int64(s.UpdatedReplicas)}, count{"readyReplicas", int64(s.ReadyReplicas)}
	available := count{"availableReplicas", int64(s.AvailableReplicas)}
	errs := counts(path, count{"observedGeneration", s.ObservedGeneration}, count{"replicas", int64(s.Replicas)}, updated, ready, available,
		count{"unavailableReplicas", int64(s.UnavailableReplicas)}, terminating(s.TerminatingReplicas))
	errs = append(errs, within(path, s.Replicas, beyondReplicas, updated, ready, available)...)
	errs = append(errs, within(path, s.ReadyReplicas, "cannot be greater than readyReplicas", available)...)
	return append(errs, collisions(s.CollisionCount, old.Status.CollisionCount, path.Child("collisionCount"))...)
}

func deploymentColumns() []resource.Column {
	doc := appsv1.DeploymentStatus{}.SwaggerDoc()
	columns := []resource.Column{
		resource.Col("Ready", "string", "Number of the pod with ready state", 0, func(d *appsv1.Deployment) any {
			return readyOf(d.Status.ReadyReplicas, d.Spec.Replicas)
		}),
		resource.Col("Up-to-date", "string", doc["updatedReplicas"], 0,
			func(d *appsv1.Deployment) any { return int64(d.Status.UpdatedReplicas) }),
		resource.Col("Available", "string", doc["availableReplicas"], 0,
			func(d *appsv1.Deployment) any { return int64(d.Status.AvailableReplicas) }),
	}
	columns = append(columns, cell.Template(func(d *appsv1.Deployment) *corev1.PodSpec { return &d.Spec.Template.Spec })...)
	return append(columns, resource.Col("Selector", "string", appsv1.DeploymentSpec{}.SwaggerDoc()["selector"], 1,
		func(d *appsv1.Deployment) any {
			s, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
			if err != nil {
				return "<invalid>"
			}
			return s.String()
		}))
}

func readyOf(ready int32, wanted *int32) string {
	n := int32(0)
	if wanted != nil {
		n = *wanted
	}
	return fmt.Sprintf("%d/%d", ready, n)
}
