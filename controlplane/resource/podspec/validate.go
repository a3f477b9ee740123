package podspec

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// ValidateTemplate checks a new pod template.
func ValidateTemplate(t *corev1.PodTemplateSpec, path *field.Path) field.ErrorList {
	return ValidateTemplateUpdate(t, nil, path)
}

// ValidateTemplateUpdate checks a pod template that replaces old, whose weaknesses it may keep. Old may be nil.
func ValidateTemplateUpdate(t, old *corev1.PodTemplateSpec, path *field.Path) field.ErrorList {
	return nil
}

// Validate checks a pod specification. Meta is the metadata of the pod or template that holds it.
func Validate(spec *corev1.PodSpec, meta *metav1.ObjectMeta, path *field.Path, opts Options) field.ErrorList {
	return nil
}

// Options say which older weaknesses an update may keep. The zero value is that of a new object.
type Options struct{}

// WarningsForTemplate are upstream's warnings about an accepted template; old may be nil.
func WarningsForTemplate(t, old *corev1.PodTemplateSpec, path *field.Path) []string {
	return nil
}

// Warnings are upstream's warnings about an accepted pod; old may be nil.
func Warnings(spec *corev1.PodSpec, meta *metav1.ObjectMeta, old *corev1.PodSpec) []string {
	return nil
}
