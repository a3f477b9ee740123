package core

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/cell"
	"keelson.dev/keelson/controlplane/resource/column"
	"keelson.dev/keelson/controlplane/resource/podspec"
)

func podTemplateKind() resource.Kind {
	path := field.NewPath("template")
	return resource.Of(resource.Kind{
		Kind: "PodTemplate", Plural: "podtemplates", Namespaced: true,
		New:           func() runtime.Object { return &corev1.PodTemplate{} },
		NewList:       func() runtime.Object { return &corev1.PodTemplateList{} },
		HasGeneration: true,
		Columns:       podTemplateColumns(),
		NoAge:         true,
	}, resource.Rules[*corev1.PodTemplate]{
		Default:          func(t *corev1.PodTemplate) { podspec.DefaultTemplate(&t.Template) },
		PrepareForCreate: func(_ context.Context, t *corev1.PodTemplate) { dropFromTemplate(&t.Template) },
		PrepareForUpdate: func(_ context.Context, t, _ *corev1.PodTemplate) { dropFromTemplate(&t.Template) },
		Validate: func(_ context.Context, t *corev1.PodTemplate) field.ErrorList {
			return podspec.ValidateTemplate(&t.Template, path)
		},
		ValidateUpdate: func(_ context.Context, t, old *corev1.PodTemplate) field.ErrorList {
			return podspec.ValidateTemplateUpdate(&t.Template, &old.Template, path)
		},
		Warnings: func(_ context.Context, t, old *corev1.PodTemplate) []string {
			if old != nil && old.Generation == t.Generation {
				return nil
			}
			return podspec.WarningsForTemplate(&t.Template, path)
		},
	})
}

func podTemplateColumns() []resource.Column {
	columns := []resource.Column{column.Name(0)}
	for _, c := range cell.Template(func(t *corev1.PodTemplate) *corev1.PodSpec { return &t.Template.Spec }) {
		c.Priority = 0
		columns = append(columns, c)
	}
	return append(columns, resource.Col("Pod Labels", "string", "The labels for the pod template.", 0,
		func(t *corev1.PodTemplate) any { return labels.FormatLabels(t.Template.Labels) }))
}
