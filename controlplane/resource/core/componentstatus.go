package core

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/registry/rest"

	"keelson.dev/keelson/controlplane/resource"
)

// componentStatusKind is deprecated upstream and always empty here: the components are one process, and /readyz?verbose
// says how each of them is.
func componentStatusKind() resource.Kind {
	return resource.Kind{
		Kind: "ComponentStatus", Plural: "componentstatuses", ShortNames: []string{"cs"}, Verbs: []string{"get", "list"},
		New:     func() runtime.Object { return &corev1.ComponentStatus{} },
		NewList: func() runtime.Object { return &corev1.ComponentStatusList{} },
		Storage: func(resource.Deps) (rest.Storage, error) { return componentStatuses{}, nil },
	}
}

type componentStatuses struct{}

var (
	_ rest.Lister               = componentStatuses{}
	_ rest.Getter               = componentStatuses{}
	_ rest.Scoper               = componentStatuses{}
	_ rest.SingularNameProvider = componentStatuses{}
	_ rest.ShortNamesProvider   = componentStatuses{}
)

func (componentStatuses) New() runtime.Object     { return &corev1.ComponentStatus{} }
func (componentStatuses) NewList() runtime.Object { return &corev1.ComponentStatusList{} }
func (componentStatuses) Destroy()                {}
func (componentStatuses) NamespaceScoped() bool   { return false }
func (componentStatuses) GetSingularName() string { return "componentstatus" }
func (componentStatuses) ShortNames() []string    { return []string{"cs"} }

func (componentStatuses) List(context.Context, *internalversion.ListOptions) (runtime.Object, error) {
	return &corev1.ComponentStatusList{Items: []corev1.ComponentStatus{}}, nil
}

func (componentStatuses) Get(_ context.Context, name string, _ *metav1.GetOptions) (runtime.Object, error) {
	return nil, apierrors.NewNotFound(corev1.Resource("componentstatus"), name)
}

func (componentStatuses) ConvertToTable(ctx context.Context, obj, options runtime.Object) (*metav1.Table, error) {
	return rest.NewDefaultTableConvertor(corev1.Resource("componentstatuses")).ConvertToTable(ctx, obj, options)
}
