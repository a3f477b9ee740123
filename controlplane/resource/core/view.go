package core

import (
	"context"

	"k8s.io/apimachinery/pkg/api/operation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"keelson.dev/keelson/controlplane/resource/check"
)

// view is a subresource that reads and updates the objects of its kind's store under other rules
// (pods/resize, nodes/status, ...). It never creates.
type view struct {
	store *genericregistry.Store
	reset map[fieldpath.APIVersion]*fieldpath.Set
}

var (
	_ rest.Patcher             = view{}
	_ rest.ResetFieldsStrategy = view{}
)

// viewRules are the rules of a view, with the object's own type. Nil functions do nothing.
type viewRules[T runtime.Object] struct {
	// prepare undoes what the view may not change.
	prepare  func(ctx context.Context, obj, old T)
	validate func(ctx context.Context, obj, old T) field.ErrorList
	warnings func(ctx context.Context, obj, old T) []string
	// reset are the top-level fields that the view never takes from a client.
	reset []string
}

// viewOf returns a view of store. The store's hooks must be set before: the view copies them.
func viewOf[T runtime.Object](store *genericregistry.Store, rules viewRules[T]) view {
	s := *store
	s.CreateStrategy, s.BeginCreate, s.BeginUpdate = nil, nil, nil
	s.UpdateStrategy = viewStrategy[T]{RESTUpdateStrategy: store.UpdateStrategy, rules: rules}
	v := view{store: &s, reset: resetFields(rules.reset...)}
	s.ResetFieldsStrategy = v
	return v
}

func resetFields(names ...string) map[fieldpath.APIVersion]*fieldpath.Set {
	set := fieldpath.NewSet()
	for _, name := range names {
		set.Insert(fieldpath.MakePathOrDie(name))
	}
	return map[fieldpath.APIVersion]*fieldpath.Set{"v1": set}
}

// addReset adds a nested field to those that the view never takes from a client.
func (v view) addReset(path ...any) {
	v.reset["v1"].Insert(fieldpath.MakePathOrDie(path...))
}

func (v view) New() runtime.Object { return v.store.New() }

// Destroy does nothing: the kind's own storage owns the store.
func (v view) Destroy() {}

func (v view) Get(ctx context.Context, name string, options *metav1.GetOptions) (runtime.Object, error) {
	return v.store.Get(ctx, name, options)
}

func (v view) Update(ctx context.Context, name string, info rest.UpdatedObjectInfo, createValidation rest.ValidateObjectFunc,
	updateValidation rest.ValidateObjectUpdateFunc, _ bool, options *metav1.UpdateOptions) (runtime.Object, bool, error) {
	return v.store.Update(ctx, name, info, createValidation, updateValidation, false, options)
}

func (v view) GetResetFields() map[fieldpath.APIVersion]*fieldpath.Set { return v.reset }

func (v view) ConvertToTable(ctx context.Context, obj, options runtime.Object) (*metav1.Table, error) {
	return v.store.ConvertToTable(ctx, obj, options)
}

// viewStrategy is the kind's own strategy with another PrepareForUpdate and ValidateUpdate.
type viewStrategy[T runtime.Object] struct {
	rest.RESTUpdateStrategy
	rules viewRules[T]
}

func (s viewStrategy[T]) PrepareForUpdate(ctx context.Context, obj, old runtime.Object) {
	if s.rules.prepare != nil {
		s.rules.prepare(ctx, obj.(T), old.(T))
	}
}

func (s viewStrategy[T]) ValidateUpdate(ctx context.Context, obj, old runtime.Object) field.ErrorList {
	if s.rules.validate == nil {
		return nil
	}
	return s.rules.validate(ctx, obj.(T), old.(T))
}

func (s viewStrategy[T]) WarningsOnUpdate(ctx context.Context, obj, old runtime.Object) []string {
	if s.rules.warnings == nil {
		return nil
	}
	return s.rules.warnings(ctx, obj.(T), old.(T))
}

func (s viewStrategy[T]) ValidateDeclaratively(_ context.Context, obj, _ runtime.Object, errs field.ErrorList, _ operation.Type, _ rest.DeclarativeValidationConfig) field.ErrorList {
	return check.Tidy(append(errs, check.Finalizers(obj)...))
}

func (s viewStrategy[T]) DeclarativeValidationConfig(context.Context, runtime.Object, runtime.Object) rest.DeclarativeValidationConfig {
	return rest.DeclarativeValidationConfig{}
}
