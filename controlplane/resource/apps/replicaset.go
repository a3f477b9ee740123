package apps

import (
	"context"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/cell"
	"keelson.dev/keelson/controlplane/resource/check"
	"keelson.dev/keelson/controlplane/resource/podspec"
)

func replicaSet() resource.Kind {
	return resource.Of(resource.Kind{
		Kind: "ReplicaSet", Plural: "replicasets", ShortNames: []string{"rs"}, Categories: all, Namespaced: true,
		HasStatus: true, HasGeneration: true,
		New:     func() runtime.Object { return &appsv1.ReplicaSet{} },
		NewList: func() runtime.Object { return &appsv1.ReplicaSetList{} },
		Columns: replicaSetColumns(),
		Install: withScale("replicasets",
			func(r *appsv1.ReplicaSet) **int32 { return &r.Spec.Replicas },
			func(r *appsv1.ReplicaSet) (int32, *metav1.LabelSelector) { return r.Status.Replicas, r.Spec.Selector }),
	}, resource.Rules[*appsv1.ReplicaSet]{
		Default: func(r *appsv1.ReplicaSet) {
			podspec.DefaultTemplate(&r.Spec.Template)
			set(&r.Spec.Replicas, 1)
		},
		PrepareForCreate: func(_ context.Context, r *appsv1.ReplicaSet) { podspec.DropDisabled(&r.Spec.Template.Spec) },
		PrepareForUpdate: func(_ context.Context, r, _ *appsv1.ReplicaSet) { podspec.DropDisabled(&r.Spec.Template.Spec) },
		Validate: func(_ context.Context, r *appsv1.ReplicaSet) field.ErrorList {
			return validateReplicaSet(&r.Spec, nil, field.NewPath("spec"))
		},
		ValidateUpdate: func(_ context.Context, r, old *appsv1.ReplicaSet) field.ErrorList {
			errs := validateReplicaSet(&r.Spec, &old.Spec, field.NewPath("spec"))
			return append(errs, check.Immutable(r.Spec.Selector, old.Spec.Selector, field.NewPath("spec", "selector"))...)
		},
		ValidateStatusUpdate: validateReplicaSetStatus,
		Warnings: func(_ context.Context, r, old *appsv1.ReplicaSet) []string {
			if old == nil {
				return append(nameWarnings(r.Name), templateWarnings(&r.Spec.Template)...)
			}
			return updateWarnings(r, old, &r.Spec.Template)
		},
	})
}

func validateReplicaSet(s, old *appsv1.ReplicaSetSpec, path *field.Path) field.ErrorList {
	errs := check.NonNegativePtr(s.Replicas, path.Child("replicas"))
	errs = append(errs, check.NonNegative(s.MinReadySeconds, path.Child("minReadySeconds"))...)
	w := workload{kind: "ReplicaSet", selector: s.Selector, template: &s.Template}
	if old != nil {
		w.old = &old.Template
	}
	return append(errs, w.validateReplicated(path)...)
}

func validateReplicaSetStatus(_ context.Context, r, _ *appsv1.ReplicaSet) field.ErrorList {
	path, s := field.NewPath("status"), &r.Status
	labeled, ready := count{"fullyLabeledReplicas", int64(s.FullyLabeledReplicas)}, count{"readyReplicas", int64(s.ReadyReplicas)}
	available := count{"availableReplicas", int64(s.AvailableReplicas)}
	errs := counts(path, count{"replicas", int64(s.Replicas)}, labeled, ready, available,
		count{"observedGeneration", s.ObservedGeneration}, terminating(s.TerminatingReplicas))
	errs = append(errs, within(path, s.Replicas, beyondReplicas, labeled, ready, available)...)
	return append(errs, within(path, s.ReadyReplicas, "cannot be greater than readyReplicas", available)...)
}

func replicaSetColumns() []resource.Column {
	doc := appsv1.ReplicaSetStatus{}.SwaggerDoc()
	columns := []resource.Column{
		resource.Col("Desired", "integer", appsv1.ReplicaSetSpec{}.SwaggerDoc()["replicas"], 0,
			func(r *appsv1.ReplicaSet) any { return int64(ptr.Deref(r.Spec.Replicas, 0)) }),
		resource.Col("Current", "integer", doc["replicas"], 0,
			func(r *appsv1.ReplicaSet) any { return int64(r.Status.Replicas) }),
		resource.Col("Ready", "integer", doc["readyReplicas"], 0,
			func(r *appsv1.ReplicaSet) any { return int64(r.Status.ReadyReplicas) }),
	}
	columns = append(columns, cell.Template(func(r *appsv1.ReplicaSet) *corev1.PodSpec { return &r.Spec.Template.Spec })...)
	return append(columns, selectorColumn(appsv1.ReplicaSetSpec{}.SwaggerDoc()["selector"],
		func(r *appsv1.ReplicaSet) *metav1.LabelSelector { return r.Spec.Selector }))
}
