package core

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"keelson.dev/keelson/controlplane/resource"
)

// Group is core/v1.
func Group() resource.Group {
	return resource.Group{
		Name:        "",
		Versions:    []string{"v1"},
		AddToScheme: []func(*runtime.Scheme) error{corev1.AddToScheme},
		Convert:     registerEviction,
		Kinds: []resource.Kind{
			namespaceKind(), nodeKind(), podKind(), configMapKind(), secretKind(), serviceAccountKind(), eventKind(),
			bindingKind(),
		},
	}
}
