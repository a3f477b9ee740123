package core

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"keelson.dev/keelson/controlplane/resource"
)

// Group is core/v1.
func Group() resource.Group {
	return resource.Group{
		Name:        "",
		Versions:    []string{"v1"},
		AddToScheme: []func(*runtime.Scheme) error{corev1.AddToScheme},
		Convert:     convert,
		Kinds: []resource.Kind{
			namespaceKind(), nodeKind(), podKind(), configMapKind(), secretKind(), serviceAccountKind(), eventKind(),
			serviceKind(), endpointsKind(), persistentVolumeKind(), persistentVolumeClaimKind(), replicationControllerKind(),
			resourceQuotaKind(), limitRangeKind(), podTemplateKind(), componentStatusKind(), bindingKind(),
		},
	}
}

// convert registers what is stored or sent but is no kind of the table: the body of pods/eviction and the record of
// node ports.
func convert(scheme *runtime.Scheme) error {
	internal := schema.GroupVersion{Version: runtime.APIVersionInternal}
	scheme.AddKnownTypeWithName(internal.WithKind("RangeAllocation"), &corev1.RangeAllocation{})
	return registerEviction(scheme)
}
