package core

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource/podspec"
)

func validatePod(p *corev1.Pod) field.ErrorList {
	return podspec.Validate(&p.Spec, &p.ObjectMeta, field.NewPath("spec"), podspec.Options{})
}

func validatePodUpdate(p, old *corev1.Pod) field.ErrorList       { return nil }
func validatePodStatusUpdate(p, old *corev1.Pod) field.ErrorList { return nil }
func validateEphemeralUpdate(p, old *corev1.Pod) field.ErrorList { return nil }
func validateResize(p, old *corev1.Pod) field.ErrorList          { return nil }
func prepareEphemeral(_ context.Context, p, old *corev1.Pod) {
	ephemeral := p.Spec.EphemeralContainers
	p.Spec, p.Status = old.Spec, old.Status
	p.Spec.EphemeralContainers = ephemeral
}
func prepareResize(_ context.Context, p, old *corev1.Pod) {}
