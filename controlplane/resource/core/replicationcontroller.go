package core

import (
	"context"
	"fmt"
	"maps"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/cell"
	"keelson.dev/keelson/controlplane/resource/check"
	"keelson.dev/keelson/controlplane/resource/column"
	"keelson.dev/keelson/controlplane/resource/podspec"
	"keelson.dev/keelson/controlplane/resource/scale"
)

func replicationControllerKind() resource.Kind {
	return resource.Of(resource.Kind{
		Kind: "ReplicationController", Plural: "replicationcontrollers", ShortNames: []string{"rc"}, Categories: []string{"all"}, Namespaced: true,
		New:             func() runtime.Object { return &corev1.ReplicationController{} },
		NewList:         func() runtime.Object { return &corev1.ReplicationControllerList{} },
		HasStatus:       true,
		HasGeneration:   true,
		OrphanByDefault: true,
		Columns:         replicationControllerColumns(),
		ValidateName: func(name string, prefix bool) []string {
			if prefix {
				return apivalidation.NameIsDNSSubdomain(name, prefix)
			}
			return content.IsDNS1123Subdomain(name) // the rule stands with the type, and has words of its own
		},
		Install: func(_ resource.Deps, store *genericregistry.Store) (map[string]rest.Storage, error) {
			return map[string]rest.Storage{"scale": scale.New(store, scale.View[*corev1.ReplicationController]{
				Resource: corev1.SchemeGroupVersion.WithResource("replicationcontrollers"),
				Replicas: func(c *corev1.ReplicationController) **int32 { return &c.Spec.Replicas },
				Status: func(c *corev1.ReplicationController) (int32, *metav1.LabelSelector) {
					return c.Status.Replicas, scale.Label(c.Spec.Selector)
				},
			})}, nil
		},
	}, resource.Rules[*corev1.ReplicationController]{
		Default:          defaultReplicationController,
		PrepareForCreate: func(_ context.Context, c *corev1.ReplicationController) { dropFromTemplate(c.Spec.Template) },
		PrepareForUpdate: func(_ context.Context, c, _ *corev1.ReplicationController) { dropFromTemplate(c.Spec.Template) },
		Validate: func(_ context.Context, c *corev1.ReplicationController) field.ErrorList {
			return validateReplicationController(c, nil)
		},
		ValidateUpdate: func(_ context.Context, c, old *corev1.ReplicationController) field.ErrorList {
			return validateReplicationController(c, old.Spec.Template)
		},
		ValidateStatusUpdate: func(_ context.Context, c, _ *corev1.ReplicationController) field.ErrorList {
			return validateReplicaCounts(&c.Status)
		},
		Warnings: replicationControllerWarnings,
		Fields: func(c *corev1.ReplicationController) fields.Set {
			return fields.Set{"status.replicas": strconv.Itoa(int(c.Status.Replicas))}
		},
	})
}

func dropFromTemplate(t *corev1.PodTemplateSpec) {
	if t != nil {
		podspec.DropDisabled(&t.Spec)
	}
}

// defaultReplicationController: one that says nothing controls the pods that its template makes.
func defaultReplicationController(c *corev1.ReplicationController) {
	if t := c.Spec.Template; t != nil && t.Labels != nil {
		if len(c.Spec.Selector) == 0 {
			c.Spec.Selector = maps.Clone(t.Labels)
		}
		if len(c.Labels) == 0 {
			c.Labels = maps.Clone(t.Labels)
		}
	}
	if c.Spec.Replicas == nil {
		one := int32(1)
		c.Spec.Replicas = &one
	}
	podspec.DefaultTemplate(c.Spec.Template)
}

func replicationControllerColumns() []resource.Column {
	type rc = *corev1.ReplicationController
	columns := []resource.Column{
		resource.Col("Desired", "integer", column.Doc(corev1.ReplicationControllerSpec{}, "replicas"), 0, func(c rc) any {
			if c.Spec.Replicas == nil {
				return int64(0)
			}
			return int64(*c.Spec.Replicas)
		}),
		resource.Col("Current", "integer", column.Doc(corev1.ReplicationControllerStatus{}, "replicas"), 0, func(c rc) any { return int64(c.Status.Replicas) }),
		resource.Col("Ready", "integer", column.Doc(corev1.ReplicationControllerStatus{}, "readyReplicas"), 0, func(c rc) any { return int64(c.Status.ReadyReplicas) }),
	}
	columns = append(columns, cell.Template(func(c rc) *corev1.PodSpec {
		if c.Spec.Template == nil {
			return &corev1.PodSpec{}
		}
		return &c.Spec.Template.Spec
	})...)
	return append(columns, resource.Col("Selector", "string", column.Doc(corev1.ReplicationControllerSpec{}, "selector"), 1,
		func(c rc) any { return labels.FormatLabels(c.Spec.Selector) }))
}

func validateReplicationController(c *corev1.ReplicationController, oldTemplate *corev1.PodTemplateSpec) field.ErrorList {
	spec := field.NewPath("spec")
	errs := check.NonNegative(c.Spec.MinReadySeconds, spec.Child("minReadySeconds"))
	if len(c.Spec.Selector) == 0 {
		errs = append(errs, field.Required(spec.Child("selector"), ""))
	}
	if c.Spec.Replicas == nil {
		errs = append(errs, field.Required(spec.Child("replicas"), ""))
	} else {
		errs = append(errs, check.NonNegative(*c.Spec.Replicas, spec.Child("replicas"))...)
	}
	t, path := c.Spec.Template, spec.Child("template")
	if t == nil {
		return append(errs, field.Required(path, ""))
	}
	if len(c.Spec.Selector) > 0 && !labels.SelectorFromSet(c.Spec.Selector).Matches(labels.Set(t.Labels)) {
		errs = append(errs, field.Invalid(path.Child("metadata", "labels"), t.Labels, "`selector` does not match template `labels`"))
	}
	errs = append(errs, podspec.ValidateTemplateUpdate(t, oldTemplate, path)...)
	if t.Spec.RestartPolicy != corev1.RestartPolicyAlways {
		errs = append(errs, field.NotSupported(path.Child("spec", "restartPolicy"), t.Spec.RestartPolicy, []corev1.RestartPolicy{corev1.RestartPolicyAlways}))
	}
	if t.Spec.ActiveDeadlineSeconds != nil {
		errs = append(errs, field.Forbidden(path.Child("spec", "activeDeadlineSeconds"), "activeDeadlineSeconds in ReplicationController is not Supported"))
	}
	return errs
}

func validateReplicaCounts(s *corev1.ReplicationControllerStatus) field.ErrorList {
	path := field.NewPath("status")
	errs := check.NonNegative(s.Replicas, path.Child("replicas"))
	errs = append(errs, check.NonNegative(s.FullyLabeledReplicas, path.Child("fullyLabeledReplicas"))...)
	errs = append(errs, check.NonNegative(s.ReadyReplicas, path.Child("readyReplicas"))...)
	errs = append(errs, check.NonNegative(s.AvailableReplicas, path.Child("availableReplicas"))...)
	errs = append(errs, check.NonNegative(s.ObservedGeneration, path.Child("observedGeneration"))...)
	atMost := func(n, most int32, name, what string) {
		if n > most {
			errs = append(errs, field.Invalid(path.Child(name), n, "cannot be greater than "+what))
		}
	}
	atMost(s.FullyLabeledReplicas, s.Replicas, "fullyLabeledReplicas", "status.replicas")
	atMost(s.ReadyReplicas, s.Replicas, "readyReplicas", "status.replicas")
	atMost(s.AvailableReplicas, s.Replicas, "availableReplicas", "status.replicas")
	atMost(s.AvailableReplicas, s.ReadyReplicas, "availableReplicas", "readyReplicas")
	return errs
}

func replicationControllerWarnings(_ context.Context, c, old *corev1.ReplicationController) []string {
	path := field.NewPath("spec", "template")
	if old != nil {
		if old.Generation == c.Generation {
			return nil
		}
		return podspec.WarningsForTemplate(old.Spec.Template, path) // the old one: upstream takes them the wrong way round
	}
	var warnings []string
	if msgs := validation.IsDNS1123Label(c.Name); len(msgs) > 0 {
		warnings = append(warnings, fmt.Sprintf("metadata.name: this is used in Pod names and hostnames, which can result in "+
			"surprising behavior; a DNS label is recommended: %v", msgs))
	}
	return append(warnings, podspec.WarningsForTemplate(c.Spec.Template, path)...)
}
