package batch

import (
	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"keelson.dev/keelson/controlplane/resource"
)

// Group is batch.
func Group() resource.Group {
	return resource.Group{
		Name:        batchv1.GroupName,
		Versions:    []string{"v1"},
		AddToScheme: []func(*runtime.Scheme) error{batchv1.AddToScheme},
		Kinds:       []resource.Kind{cronJob(), job()},
	}
}

var all = []string{"all"}

func set[T any](p **T, v T) {
	if *p == nil {
		*p = &v
	}
}
