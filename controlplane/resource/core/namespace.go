package core

import (
	"context"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"

	"keelson.dev/keelson/controlplane/resource"
)

// namespaceKind does not set HasStatus: without the hook that installNamespace sets, a status update of a terminating
// namespace would delete it with its contents still there.
func namespaceKind() resource.Kind {
	return resource.Of(resource.Kind{
		Kind: "Namespace", Plural: "namespaces", ShortNames: []string{"ns"},
		Verbs:        []string{"create", "delete", "get", "list", "patch", "update", "watch"},
		New:          func() runtime.Object { return &corev1.Namespace{} },
		NewList:      func() runtime.Object { return &corev1.NamespaceList{} },
		ValidateName: apivalidation.ValidateNamespaceName,
		Columns: []resource.Column{
			resource.Col("Status", "string", "The status of the namespace", 0, func(n *corev1.Namespace) any { return string(n.Status.Phase) }),
		},
		Install: installNamespace,
	}, resource.Rules[*corev1.Namespace]{
		Default:          defaultNamespace,
		PrepareForCreate: prepareNamespace,
		PrepareForUpdate: func(_ context.Context, n, old *corev1.Namespace) {
			n.Spec.Finalizers = old.Spec.Finalizers
			n.Status = old.Status
			labelNamespace(n)
		},
		Validate: func(_ context.Context, n *corev1.Namespace) field.ErrorList { return validateNamespace(n) },
		ValidateUpdate: func(_ context.Context, n, _ *corev1.Namespace) field.ErrorList {
			return validateNamespace(n)
		},
		Fields: func(n *corev1.Namespace) fields.Set {
			return fields.Set{"status.phase": string(n.Status.Phase)}
		},
	})
}

func installNamespace(_ resource.Deps, store *genericregistry.Store) (map[string]rest.Storage, error) {
	store.ShouldDeleteDuringUpdate = func(ctx context.Context, key string, obj, existing runtime.Object) bool {
		n, ok := obj.(*corev1.Namespace)
		return ok && len(n.Spec.Finalizers) == 0 && genericregistry.ShouldDeleteDuringUpdate(ctx, key, obj, existing)
	}
	status := viewOf(store, viewRules[*corev1.Namespace]{
		prepare:  func(_ context.Context, n, old *corev1.Namespace) { n.Spec = old.Spec },
		validate: func(_ context.Context, n, _ *corev1.Namespace) field.ErrorList { return validateNamespacePhase(n) },
		reset:    []string{"spec"},
	})
	store.ResetFieldsStrategy = view{reset: resetFields("status")}
	return map[string]rest.Storage{
		"":       namespaceStorage{store},
		"status": status,
		"finalize": finalizeView{viewOf(store, viewRules[*corev1.Namespace]{
			prepare: func(_ context.Context, n, old *corev1.Namespace) { n.Status = old.Status },
			validate: func(_ context.Context, n, _ *corev1.Namespace) field.ErrorList {
				return validateFinalizers(n, func(i int) *field.Path { return field.NewPath("spec", "finalizers").Index(i) })
			},
			reset: []string{"status"},
		})},
	}, nil
}

func defaultNamespace(n *corev1.Namespace) {
	if n.Name != "" {
		labelNamespace(n)
	}
	if n.Status.Phase == "" {
		n.Status.Phase = corev1.NamespaceActive
	}
}

// labelNamespace keeps the label by which selectors can name a namespace. Names from generateName are known only
// after defaulting, hence the second place that calls it.
func labelNamespace(n *corev1.Namespace) {
	if n.Labels == nil {
		n.Labels = map[string]string{}
	}
	n.Labels[corev1.LabelMetadataName] = n.Name
}

// prepareNamespace adds the finalizer under which the namespace controller empties the namespace before it goes.
func prepareNamespace(_ context.Context, n *corev1.Namespace) {
	n.Status = corev1.NamespaceStatus{Phase: corev1.NamespaceActive}
	if !slices.Contains(n.Spec.Finalizers, corev1.FinalizerKubernetes) {
		n.Spec.Finalizers = append(n.Spec.Finalizers, corev1.FinalizerKubernetes)
	}
	if n.Name != "" {
		labelNamespace(n)
	}
}

func validateNamespace(n *corev1.Namespace) field.ErrorList {
	return validateFinalizers(n, func(int) *field.Path { return field.NewPath("spec", "finalizers") })
}

func validateFinalizers(n *corev1.Namespace, path func(i int) *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, name := range n.Spec.Finalizers {
		errs = append(errs, apivalidation.ValidateFinalizerName(string(name), path(i))...)
		if !strings.Contains(string(name), "/") && !isStandardFinalizer(string(name)) {
			errs = append(errs, field.Invalid(path(i), string(name), "name is neither a standard finalizer name nor is it fully qualified"))
		}
	}
	return errs
}

func isStandardFinalizer(name string) bool {
	switch name {
	case string(corev1.FinalizerKubernetes), metav1.FinalizerOrphanDependents, metav1.FinalizerDeleteDependents:
		return true
	}
	return false
}

func validateNamespacePhase(n *corev1.Namespace) field.ErrorList {
	path := field.NewPath("status", "Phase")
	if n.DeletionTimestamp.IsZero() {
		if n.Status.Phase != corev1.NamespaceActive {
			return field.ErrorList{field.Invalid(path, n.Status.Phase, "may only be 'Active' if `deletionTimestamp` is empty")}
		}
		return nil
	}
	if n.Status.Phase != corev1.NamespaceTerminating {
		return field.ErrorList{field.Invalid(path, n.Status.Phase, "may only be 'Terminating' if `deletionTimestamp` is not empty")}
	}
	return nil
}
