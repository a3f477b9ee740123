package certificates

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
)

// approval serves the subresource by which a request is approved or denied. It changes conditions and nothing else.
type approval struct{ store *genericregistry.Store }

var _ rest.Patcher = approval{}

func newApproval(store *genericregistry.Store) approval {
	s := *store
	s.UpdateStrategy = approvalStrategy{store.UpdateStrategy}
	return approval{&s}
}

func (a approval) New() runtime.Object { return &csr{} }

// Destroy does nothing: the kind's own endpoint has the storage.
func (a approval) Destroy() {}

func (a approval) Get(ctx context.Context, name string, o *metav1.GetOptions) (runtime.Object, error) {
	return a.store.Get(ctx, name, o)
}

func (a approval) Update(ctx context.Context, name string, info rest.UpdatedObjectInfo, create rest.ValidateObjectFunc,
	update rest.ValidateObjectUpdateFunc, _ bool, o *metav1.UpdateOptions) (runtime.Object, bool, error) {
	return a.store.Update(ctx, name, info, create, update, false, o)
}

func (a approval) ConvertToTable(ctx context.Context, obj, options runtime.Object) (*metav1.Table, error) {
	return a.store.ConvertToTable(ctx, obj, options)
}

type approvalStrategy struct{ rest.RESTUpdateStrategy }

func (approvalStrategy) PrepareForUpdate(_ context.Context, obj, old runtime.Object) {
	r, ok := obj.(*csr)
	was, ok2 := old.(*csr)
	if !ok || !ok2 {
		return
	}
	conditions := r.Status.Conditions
	r.Spec, r.Status = was.Spec, *was.Status.DeepCopy()
	r.Status.Conditions = conditions
	stampConditions(&r.Status, &was.Status, metav1.Now())
}

func (approvalStrategy) ValidateUpdate(_ context.Context, obj, old runtime.Object) field.ErrorList {
	r, ok := obj.(*csr)
	was, ok2 := old.(*csr)
	if !ok || !ok2 {
		return field.ErrorList{field.InternalError(field.NewPath(""), errNotRequest)}
	}
	return append(validateRequest(r, leniencyFor(r, was)), validateChange(r, was, mayChange{approval: true})...)
}
