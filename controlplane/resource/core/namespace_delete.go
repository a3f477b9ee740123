package core

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage"
	storageerr "k8s.io/apiserver/pkg/storage/errors"
	"k8s.io/apiserver/pkg/util/dryrun"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// namespaceStorage is the namespaces' store with another Delete: deleting a namespace turns it Terminating, and
// only when the last of spec.finalizers is gone (its contents deleted) does the object itself go.
// Its collection cannot be deleted: upstream does not serve that, and the kind's Verbs leave it out.
type namespaceStorage struct{ *genericregistry.Store }

var _ rest.GracefulDeleter = namespaceStorage{}

// Delete starts the termination; a namespace without spec.finalizers is deleted as any other object.
func (s namespaceStorage) Delete(ctx context.Context, name string, validate rest.ValidateObjectFunc,
	options *metav1.DeleteOptions) (runtime.Object, bool, error) {
	obj, err := s.Store.Get(ctx, name, &metav1.GetOptions{})
	if err != nil {
		return nil, false, err
	}
	n, ok := obj.(*corev1.Namespace)
	if !ok {
		return nil, false, apierrors.NewInternalError(fmt.Errorf("delete namespace %q: stored object is a %T", name, obj))
	}
	if options == nil {
		options = metav1.NewDeleteOptions(0)
	}
	if err := pinDelete(n, options); err != nil {
		return nil, false, err
	}
	if n.DeletionTimestamp.IsZero() {
		out, err := s.terminate(ctx, name, validate, options)
		return out, false, err
	}
	if len(n.Spec.Finalizers) > 0 {
		return n, false, nil
	}
	return s.Store.Delete(ctx, name, validate, options)
}

// pinDelete makes the deletion speak of the very namespace that was read: one created again under the same name
// between the read and the write must not be hit.
func pinDelete(n *corev1.Namespace, options *metav1.DeleteOptions) error {
	conflict := func(what string, want, got any) error {
		return apierrors.NewConflict(corev1.Resource("namespaces"), n.Name,
			fmt.Errorf("Precondition failed: %s in precondition: %v, %s in object meta: %v", what, want, what, got))
	}
	if options.Preconditions == nil {
		options.Preconditions = &metav1.Preconditions{}
	}
	p := options.Preconditions
	if p.UID == nil {
		p.UID = &n.UID
	} else if *p.UID != n.UID {
		return conflict("UID", *p.UID, n.UID)
	}
	if p.ResourceVersion != nil && *p.ResourceVersion != n.ResourceVersion {
		return conflict("ResourceVersion", *p.ResourceVersion, n.ResourceVersion)
	}
	return nil
}

func (s namespaceStorage) terminate(ctx context.Context, name string, validate rest.ValidateObjectFunc,
	options *metav1.DeleteOptions) (runtime.Object, error) {
	key, err := s.Store.KeyFunc(ctx, name)
	if err != nil {
		return nil, err
	}
	out := s.Store.NewFunc()
	pre := storage.Preconditions{UID: options.Preconditions.UID, ResourceVersion: options.Preconditions.ResourceVersion}
	update := storage.SimpleUpdate(func(existing runtime.Object) (runtime.Object, error) {
		n, ok := existing.(*corev1.Namespace)
		if !ok {
			return nil, fmt.Errorf("terminate namespace %q: stored object is a %T", name, existing)
		}
		if err := validate(ctx, n); err != nil {
			return nil, err
		}
		if n.DeletionTimestamp.IsZero() {
			now := metav1.Now()
			n.DeletionTimestamp = &now
		}
		n.Status.Phase = corev1.NamespaceTerminating
		n.Finalizers = propagationFinalizers(n.Finalizers, options)
		return n, nil
	})
	err = s.Store.Storage.GuaranteedUpdate(ctx, key, out, false, &pre, update, dryrun.IsDryRun(options.DryRun), nil)
	if err == nil {
		return out, nil
	}
	err = storageerr.InterpretGetError(err, corev1.Resource("namespaces"), name)
	err = storageerr.InterpretUpdateError(err, corev1.Resource("namespaces"), name)
	if _, ok := err.(apierrors.APIStatus); !ok { //nolint:errorlint // the API machinery wants the status itself, unwrapped
		err = apierrors.NewInternalError(err)
	}
	return nil, err
}

// propagationFinalizers returns the object's finalizers with the two that the garbage collector reads set as the
// deletion's propagation policy says; without a policy they stay as they are.
func propagationFinalizers(finalizers []string, options *metav1.DeleteOptions) []string {
	orphan := slices.Contains(finalizers, metav1.FinalizerOrphanDependents)
	foreground := slices.Contains(finalizers, metav1.FinalizerDeleteDependents)
	switch {
	case options.OrphanDependents != nil: //nolint:staticcheck // deprecated, still sent
		orphan, foreground = *options.OrphanDependents, !*options.OrphanDependents //nolint:staticcheck // as above
	case options.PropagationPolicy != nil:
		orphan = *options.PropagationPolicy == metav1.DeletePropagationOrphan
		foreground = *options.PropagationPolicy == metav1.DeletePropagationForeground
	}
	out := setFinalizer(finalizers, metav1.FinalizerOrphanDependents, orphan)
	return setFinalizer(out, metav1.FinalizerDeleteDependents, foreground)
}

func setFinalizer(finalizers []string, name string, want bool) []string {
	at := slices.Index(finalizers, name)
	switch {
	case want && at < 0:
		return append(slices.Clone(finalizers), name)
	case !want && at >= 0:
		return slices.Delete(slices.Clone(finalizers), at, at+1)
	}
	return finalizers
}

// finalizeView serves PUT only, as upstream does.
type finalizeView struct{ view view }

var _ rest.Updater = finalizeView{}

func (f finalizeView) New() runtime.Object { return f.view.New() }
func (f finalizeView) Destroy()            {}

func (f finalizeView) Update(ctx context.Context, name string, info rest.UpdatedObjectInfo, createValidation rest.ValidateObjectFunc,
	updateValidation rest.ValidateObjectUpdateFunc, force bool, options *metav1.UpdateOptions) (runtime.Object, bool, error) {
	return f.view.Update(ctx, name, info, createValidation, updateValidation, force, options)
}

func (f finalizeView) GetResetFields() map[fieldpath.APIVersion]*fieldpath.Set { return f.view.reset }
