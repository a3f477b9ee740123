package events

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
)

// storage serves events.k8s.io out of the core group's store. It holds no state.
type storage struct {
	store func(schema.GroupResource) *genericregistry.Store
}

var (
	_ rest.StandardStorage      = (*storage)(nil)
	_ rest.SingularNameProvider = (*storage)(nil)
	_ rest.ShortNamesProvider   = (*storage)(nil)
	_ rest.Scoper               = (*storage)(nil)
)

func (s *storage) core() *genericregistry.Store { return s.store(coreEvents) }

func (s *storage) New() runtime.Object     { return &eventsv1.Event{} }
func (s *storage) NewList() runtime.Object { return &eventsv1.EventList{} }
func (s *storage) Destroy()                {}
func (s *storage) NamespaceScoped() bool   { return true }
func (s *storage) GetSingularName() string { return "event" }
func (s *storage) ShortNames() []string    { return []string{"ev"} }

func (s *storage) Get(ctx context.Context, name string, options *metav1.GetOptions) (runtime.Object, error) {
	return converted(s.core().Get(ctx, name, options))
}

func (s *storage) List(ctx context.Context, options *metainternalversion.ListOptions) (runtime.Object, error) {
	stored, err := storedOptions(options)
	if err != nil {
		return nil, err
	}
	return converted(s.core().List(ctx, stored))
}

func (s *storage) Watch(ctx context.Context, options *metainternalversion.ListOptions) (watch.Interface, error) {
	stored, err := storedOptions(options)
	if err != nil {
		return nil, err
	}
	w, err := s.core().Watch(ctx, stored)
	if err != nil {
		return nil, err
	}
	return watch.Filter(w, func(e watch.Event) (watch.Event, bool) {
		if core, ok := e.Object.(*corev1.Event); ok {
			e.Object = fromCore(core)
		}
		return e, true
	}), nil
}

func (s *storage) Create(ctx context.Context, obj runtime.Object, valid rest.ValidateObjectFunc, options *metav1.CreateOptions) (runtime.Object, error) {
	e, ok := obj.(*eventsv1.Event)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("create event: got a %T", obj))
	}
	return converted(s.core().Create(ctx, toCore(e), admitted(valid), options))
}

func (s *storage) Update(ctx context.Context, name string, info rest.UpdatedObjectInfo, valid rest.ValidateObjectFunc,
	validUpdate rest.ValidateObjectUpdateFunc, forceCreate bool, options *metav1.UpdateOptions) (runtime.Object, bool, error) {
	obj, created, err := s.core().Update(ctx, name, &updated{UpdatedObjectInfo: info}, admitted(valid), admittedUpdate(validUpdate), forceCreate, options)
	obj, err = converted(obj, err)
	return obj, created, err
}

func (s *storage) Delete(ctx context.Context, name string, valid rest.ValidateObjectFunc, options *metav1.DeleteOptions) (runtime.Object, bool, error) {
	obj, deleted, err := s.core().Delete(ctx, name, admitted(valid), options)
	obj, err = converted(obj, err)
	return obj, deleted, err
}

func (s *storage) DeleteCollection(ctx context.Context, valid rest.ValidateObjectFunc, options *metav1.DeleteOptions, list *metainternalversion.ListOptions) (runtime.Object, error) {
	stored, err := storedOptions(list)
	if err != nil {
		return nil, err
	}
	return converted(s.core().DeleteCollection(ctx, admitted(valid), options, stored))
}

// ConvertToTable prints an event as the core group does.
func (s *storage) ConvertToTable(ctx context.Context, obj, options runtime.Object) (*metav1.Table, error) {
	return s.core().ConvertToTable(ctx, stored(obj), options)
}

// updated presents the stored object to the request in this face, and the request's answer in the stored form.
type updated struct{ rest.UpdatedObjectInfo }

func (u *updated) UpdatedObject(ctx context.Context, old runtime.Object) (runtime.Object, error) {
	face := old
	if core, ok := old.(*corev1.Event); ok && core != nil {
		face = fromCore(core)
	}
	obj, err := u.UpdatedObjectInfo.UpdatedObject(ctx, face)
	if err != nil {
		return nil, err
	}
	e, ok := obj.(*eventsv1.Event)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("update event: got a %T", obj))
	}
	return toCore(e), nil
}

// converted turns what the core store returned into this face; anything else (a Status) passes.
func converted(obj runtime.Object, err error) (runtime.Object, error) {
	if err != nil {
		return nil, err
	}
	switch o := obj.(type) {
	case *corev1.Event:
		return fromCore(o), nil
	case *corev1.EventList:
		return fromCoreList(o), nil
	}
	return obj, nil
}

func stored(obj runtime.Object) runtime.Object {
	switch o := obj.(type) {
	case *eventsv1.Event:
		return toCore(o)
	case *eventsv1.EventList:
		l := &corev1.EventList{ListMeta: o.ListMeta, Items: make([]corev1.Event, len(o.Items))}
		for i := range o.Items {
			l.Items[i] = *toCore(&o.Items[i])
		}
		return l
	}
	return obj
}

func storedOptions(options *metainternalversion.ListOptions) (*metainternalversion.ListOptions, error) {
	if options == nil {
		return nil, nil
	}
	selector, err := storedSelector(options.FieldSelector)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	o := *options
	o.FieldSelector = selector
	return &o, nil
}

// admitted lets validating admission see the face that the request spoke.
func admitted(f rest.ValidateObjectFunc) rest.ValidateObjectFunc {
	if f == nil {
		return nil
	}
	return func(ctx context.Context, obj runtime.Object) error {
		face, err := converted(obj, nil)
		if err != nil {
			return err
		}
		return f(ctx, face)
	}
}

func admittedUpdate(f rest.ValidateObjectUpdateFunc) rest.ValidateObjectUpdateFunc {
	if f == nil {
		return nil
	}
	return func(ctx context.Context, obj, old runtime.Object) error {
		face, _ := converted(obj, nil)
		was, _ := converted(old, nil)
		return f(ctx, face, was)
	}
}
