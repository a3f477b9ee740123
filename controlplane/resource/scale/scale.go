package scale

import (
	"context"
	"fmt"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/util/validation/field"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"keelson.dev/keelson/controlplane/resource/check"
)

// Object is a stored object with metadata.
type Object interface {
	metav1.Object
	runtime.Object
}

// View says where a kind keeps what a Scale shows.
type View[T Object] struct {
	// Resource is the kind's resource, in the version in which field owners name spec.replicas.
	Resource schema.GroupVersionResource
	// Replicas points to the wanted count; it may return nil for an object that was never defaulted.
	Replicas func(T) **int32
	// Status returns the actual count and the selector of what is counted.
	Status func(T) (replicas int32, selector *metav1.LabelSelector)
}

// Label wraps a plain label map, which older kinds have, as a selector.
func Label(labels map[string]string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: labels}
}

// New returns the scale subresource of the kind in store.
func New[T Object](store *genericregistry.Store, view View[T]) rest.Storage {
	return &storage[T]{store: store, view: view}
}

type storage[T Object] struct {
	store *genericregistry.Store
	view  View[T]
}

func (s *storage[T]) New() runtime.Object { return &autoscalingv1.Scale{} }
func (s *storage[T]) Destroy()            {}

// GroupVersionKind makes the endpoint speak autoscaling/v1, whatever group it is in.
func (s *storage[T]) GroupVersionKind(schema.GroupVersion) schema.GroupVersionKind {
	return autoscalingv1.SchemeGroupVersion.WithKind("Scale")
}

func (s *storage[T]) Get(ctx context.Context, name string, options *metav1.GetOptions) (runtime.Object, error) {
	obj, err := s.store.Get(ctx, name, options)
	if err != nil {
		return nil, err
	}
	return s.scaleOf(obj)
}

func (s *storage[T]) Update(ctx context.Context, name string, info rest.UpdatedObjectInfo, valid rest.ValidateObjectFunc,
	validUpdate rest.ValidateObjectUpdateFunc, _ bool, options *metav1.UpdateOptions) (runtime.Object, bool, error) {
	obj, _, err := s.store.Update(ctx, name, &update[T]{UpdatedObjectInfo: info, s: s, name: name},
		s.onCreate(valid), s.onUpdate(validUpdate), false, options)
	if err != nil {
		return nil, false, err
	}
	sc, err := s.scaleOf(obj)
	return sc, false, err
}

// ConvertToTable prints the scale itself.
func (s *storage[T]) ConvertToTable(ctx context.Context, obj, options runtime.Object) (*metav1.Table, error) {
	return rest.NewDefaultTableConvertor(s.view.Resource.GroupResource()).ConvertToTable(ctx, obj, options)
}

func (s *storage[T]) scaleOf(obj runtime.Object) (*autoscalingv1.Scale, error) {
	o, ok := obj.(T)
	if !ok {
		return nil, fmt.Errorf("scale of %s: the store returned a %T", s.view.Resource.Resource, obj)
	}
	replicas, selector := s.view.Status(o)
	sel, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		return nil, err
	}
	sc := &autoscalingv1.Scale{
		ObjectMeta: metav1.ObjectMeta{
			Name:              o.GetName(),
			Namespace:         o.GetNamespace(),
			UID:               o.GetUID(),
			ResourceVersion:   o.GetResourceVersion(),
			CreationTimestamp: o.GetCreationTimestamp(),
		},
		Status: autoscalingv1.ScaleStatus{Replicas: replicas, Selector: sel.String()},
	}
	if n := *s.view.Replicas(o); n != nil {
		sc.Spec.Replicas = *n
	}
	return sc, nil
}

func (s *storage[T]) onCreate(f rest.ValidateObjectFunc) rest.ValidateObjectFunc {
	return func(ctx context.Context, obj runtime.Object) error {
		sc, err := s.scaleOf(obj)
		if err != nil || f == nil {
			return err
		}
		return f(ctx, sc)
	}
}

func (s *storage[T]) onUpdate(f rest.ValidateObjectUpdateFunc) rest.ValidateObjectUpdateFunc {
	return func(ctx context.Context, obj, old runtime.Object) error {
		now, err := s.scaleOf(obj)
		if err != nil || f == nil {
			return err
		}
		was, err := s.scaleOf(old)
		if err != nil {
			return err
		}
		return f(ctx, now, was)
	}
}

// update turns the request's change of a Scale into a change of the object.
type update[T Object] struct {
	rest.UpdatedObjectInfo
	s    *storage[T]
	name string
}

func (u *update[T]) UpdatedObject(ctx context.Context, old runtime.Object) (runtime.Object, error) {
	o, ok := old.DeepCopyObject().(T)
	gvr := u.s.view.Resource
	if !ok || o.GetResourceVersion() == "" {
		return nil, apierrors.NewNotFound(gvr.GroupResource(), u.name)
	}
	owners := managedfields.NewScaleHandler(o.GetManagedFields(), gvr.GroupVersion(), managedfields.ResourcePathMappings{
		gvr.GroupVersion().String(): fieldpath.MakePathOrDie("spec", "replicas"),
	})
	was, err := u.s.scaleOf(o)
	if err != nil {
		return nil, err
	}
	if was.ManagedFields, err = owners.ToSubresource(); err != nil {
		return nil, err
	}
	sc, err := u.requested(ctx, was)
	if err != nil {
		return nil, err
	}
	if sc.UID != "" && sc.UID != o.GetUID() {
		return nil, apierrors.NewConflict(schema.GroupResource{Group: gvr.Group, Resource: gvr.Resource + "/scale"}, u.name,
			fmt.Errorf("Precondition failed: UID in precondition: %v, UID in object meta: %v", sc.UID, o.GetUID()))
	}
	replicas := sc.Spec.Replicas
	*u.s.view.Replicas(o) = &replicas
	o.SetResourceVersion(sc.ResourceVersion)
	fields, err := owners.ToParent(sc.ManagedFields)
	if err != nil {
		return nil, err
	}
	o.SetManagedFields(fields)
	return o, nil
}

func (u *update[T]) requested(ctx context.Context, was *autoscalingv1.Scale) (*autoscalingv1.Scale, error) {
	obj, err := u.UpdatedObjectInfo.UpdatedObject(ctx, was)
	if err != nil {
		return nil, err
	}
	sc, ok := obj.(*autoscalingv1.Scale)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("expected input object type to be Scale, but %T", obj))
	}
	if errs := check.NonNegative(sc.Spec.Replicas, field.NewPath("spec", "replicas")); len(errs) > 0 {
		return nil, apierrors.NewInvalid(autoscalingv1.SchemeGroupVersion.WithKind("Scale").GroupKind(), u.name, errs)
	}
	return sc, nil
}
