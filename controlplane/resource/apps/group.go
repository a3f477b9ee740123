package apps

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/scale"
)

// Group is apps.
func Group() resource.Group {
	return resource.Group{
		Name:        appsv1.GroupName,
		Versions:    []string{"v1"},
		AddToScheme: []func(*runtime.Scheme) error{appsv1.AddToScheme},
		Kinds:       []resource.Kind{controllerRevision(), daemonSet(), deployment(), replicaSet(), statefulSet()},
	}
}

// all is the category of `kubectl get all`.
var all = []string{"all"}

// withScale returns the Install hook of a kind with the scale subresource.
func withScale[T scale.Object](plural string, replicas func(T) **int32, status func(T) (int32, *metav1.LabelSelector)) func(resource.Deps, *genericregistry.Store) (map[string]rest.Storage, error) {
	return func(_ resource.Deps, store *genericregistry.Store) (map[string]rest.Storage, error) {
		return map[string]rest.Storage{"scale": scale.New(store, scale.View[T]{
			Resource: appsv1.SchemeGroupVersion.WithResource(plural),
			Replicas: replicas,
			Status:   status,
		})}, nil
	}
}

// readable refuses objects of which upstream could not read a field that it keeps in an annotation, in its words.
func readable(store *genericregistry.Store, kind string, read func(runtime.Object) error) {
	look := func(obj runtime.Object) (genericregistry.FinishFunc, error) {
		if err := read(obj); err != nil {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: %v", kind, "v1", kind, err))
		}
		return func(context.Context, bool) {}, nil
	}
	store.BeginCreate = func(_ context.Context, obj runtime.Object, _ *metav1.CreateOptions) (genericregistry.FinishFunc, error) {
		return look(obj)
	}
	store.BeginUpdate = func(_ context.Context, obj, _ runtime.Object, _ *metav1.UpdateOptions) (genericregistry.FinishFunc, error) {
		return look(obj)
	}
}

func set[T any](p **T, v T) {
	if *p == nil {
		*p = &v
	}
}
