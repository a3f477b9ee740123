package core

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/registry/rest"

	"keelson.dev/keelson/controlplane/resource"
)

// componentStatusKind is deprecated upstream: /readyz?verbose says more. The components are parts of one process: who answers is
// well, and only the database may not be.
func componentStatusKind() resource.Kind {
	return resource.Kind{
		Kind: "ComponentStatus", Plural: "componentstatuses", ShortNames: []string{"cs"}, Verbs: []string{"get", "list"},
		New:     func() runtime.Object { return &corev1.ComponentStatus{} },
		NewList: func() runtime.Object { return &corev1.ComponentStatusList{} },
		Storage: func(d resource.Deps) (rest.Storage, error) { return componentStatuses{d.Healthy}, nil },
	}
}

type componentStatuses struct {
	healthy func(context.Context) error // of the database
}

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

func (c componentStatuses) all(ctx context.Context) []corev1.ComponentStatus {
	status := func(name string, err error) corev1.ComponentStatus {
		is := corev1.ComponentCondition{Type: corev1.ComponentHealthy, Status: corev1.ConditionTrue, Message: "ok"}
		if err != nil {
			is.Status, is.Message, is.Error = corev1.ConditionFalse, "", err.Error()
		}
		return corev1.ComponentStatus{ObjectMeta: metav1.ObjectMeta{Name: name}, Conditions: []corev1.ComponentCondition{is}}
	}
	return []corev1.ComponentStatus{status("controller-manager", nil), status("scheduler", nil), status("etcd-0", c.healthy(ctx))}
}

// List implements rest.Lister.
func (c componentStatuses) List(ctx context.Context, o *internalversion.ListOptions) (runtime.Object, error) {
	out := &corev1.ComponentStatusList{Items: []corev1.ComponentStatus{}}
	for _, one := range c.all(ctx) {
		if o != nil && (o.FieldSelector != nil && !o.FieldSelector.Matches(fields.Set{"metadata.name": one.Name}) ||
			o.LabelSelector != nil && !o.LabelSelector.Matches(labels.Set{})) {
			continue
		}
		out.Items = append(out.Items, one)
	}
	return out, nil
}

// Get implements rest.Getter.
func (c componentStatuses) Get(ctx context.Context, name string, _ *metav1.GetOptions) (runtime.Object, error) {
	for _, one := range c.all(ctx) {
		if one.Name == name {
			return &one, nil
		}
	}
	return nil, apierrors.NewNotFound(corev1.Resource("componentstatus"), name)
}

// ConvertToTable implements rest.TableConvertor.
func (componentStatuses) ConvertToTable(_ context.Context, obj, _ runtime.Object) (*metav1.Table, error) {
	out := &metav1.Table{ColumnDefinitions: []metav1.TableColumnDefinition{
		{Name: "Name", Type: "string", Format: "name", Description: metav1.ObjectMeta{}.SwaggerDoc()["name"]},
		{Name: "Status", Type: "string", Description: "Status of the component conditions"},
		{Name: "Message", Type: "string", Description: "Message of the component conditions"},
		{Name: "Error", Type: "string", Description: "Error of the component conditions"},
	}}
	items := []corev1.ComponentStatus{}
	switch o := obj.(type) {
	case *corev1.ComponentStatus:
		items = append(items, *o)
	case *corev1.ComponentStatusList:
		items = o.Items
	}
	for i := range items {
		c := items[i].Conditions[0]
		health := "Healthy"
		if c.Status != corev1.ConditionTrue {
			health = "Unhealthy"
		}
		out.Rows = append(out.Rows, metav1.TableRow{Cells: []any{items[i].Name, health, c.Message, c.Error}, Object: runtime.RawExtension{Object: &items[i]}})
	}
	return out, nil
}
