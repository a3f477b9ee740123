package core

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	policyv1beta1 "k8s.io/api/policy/v1beta1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/util/wait"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/util/dryrun"
	"k8s.io/client-go/util/retry"
)

// evictionRetry bounds the wait for other writers of the same pod or budget: 10 s in all.
var evictionRetry = wait.Backoff{Steps: 20, Duration: 500 * time.Millisecond, Factor: 1.0, Jitter: 0.1}

// podEviction is pods/eviction: a deletion that the pod's disruption budget must allow.
type podEviction struct {
	pods    *genericregistry.Store // with the rules of pods/status
	budgets func(schema.GroupResource) *genericregistry.Store
}

var (
	_ rest.NamedCreater             = podEviction{}
	_ rest.GroupVersionKindProvider = podEviction{}
	_ rest.GroupVersionAcceptor     = podEviction{}
)

var evictionKind = policyv1.SchemeGroupVersion.WithKind("Eviction")

func (e podEviction) New() runtime.Object { return &policyv1.Eviction{} }

// Destroy does nothing: the pods' own storage owns the store.
func (e podEviction) Destroy() {}

// GroupVersionKind tells discovery that the body is no core kind.
func (e podEviction) GroupVersionKind(schema.GroupVersion) schema.GroupVersionKind {
	return evictionKind
}

// AcceptsGroupVersion: clients send either version of Eviction.
func (e podEviction) AcceptsGroupVersion(gv schema.GroupVersion) bool {
	return gv == policyv1.SchemeGroupVersion || gv == policyv1beta1.SchemeGroupVersion
}

// Create evicts the pod, or answers TooManyRequests if its budget does not allow it now.
func (e podEviction) Create(ctx context.Context, name string, obj runtime.Object, validate rest.ValidateObjectFunc,
	options *metav1.CreateOptions) (runtime.Object, error) {
	eviction, ok := obj.(*policyv1.Eviction)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a Eviction object: %T", obj))
	}
	if name != eviction.Name {
		return nil, apierrors.NewBadRequest("name in URL does not match name in Eviction object")
	}
	if d := eviction.DeleteOptions; d != nil && isTrue(d.IgnoreStoreReadErrorWithClusterBreakingPotential) {
		path := field.NewPath("deleteOptions", "ignoreStoreReadErrorWithClusterBreakingPotential")
		return nil, apierrors.NewInvalid(evictionKind.GroupKind(), name, field.ErrorList{
			field.Invalid(path, true, "can not be set for pod eviction, try after removing the option")})
	}
	deletion, err := evictionOptions(eviction, options)
	if err != nil {
		return nil, err
	}
	if validate != nil {
		if err := validate(ctx, eviction.DeepCopy()); err != nil {
			return nil, err
		}
	}
	pod, gone, err := e.evictFree(ctx, name, deletion)
	if err == nil && !gone {
		err = e.evictBudgeted(ctx, pod, deletion)
	}
	if err != nil {
		return nil, err
	}
	return &metav1.Status{Status: metav1.StatusSuccess}, nil
}

// evictionOptions are the eviction's own delete options with the request's dry run.
func evictionOptions(eviction *policyv1.Eviction, options *metav1.CreateOptions) (*metav1.DeleteOptions, error) {
	d := eviction.DeleteOptions
	switch {
	case d == nil:
		return &metav1.DeleteOptions{DryRun: options.DryRun}, nil
	case len(d.DryRun) == 0:
		d.DryRun = options.DryRun
	case len(options.DryRun) > 0 && !slices.Equal(options.DryRun, d.DryRun):
		return nil, fmt.Errorf("Non-matching dry-run options in request and content: %v and %v", options.DryRun, d.DryRun)
	}
	return d, nil
}

// evictFree deletes a pod that no budget protects: one that has not started, has ended or is going already.
// Gone is false for every other pod, which it returns.
func (e podEviction) evictFree(ctx context.Context, name string, options *metav1.DeleteOptions) (pod *corev1.Pod, gone bool, err error) {
	pinned := options.Preconditions != nil && options.Preconditions.ResourceVersion != nil
	again := func(err error) bool { return !pinned && apierrors.IsConflict(err) }
	err = retry.OnError(evictionRetry, again, func() error {
		obj, err := e.pods.Get(ctx, name, &metav1.GetOptions{})
		if err != nil {
			return err
		}
		p, ok := obj.(*corev1.Pod)
		if !ok {
			return fmt.Errorf("evict pod %q: stored object is a %T", name, obj)
		}
		pod = p
		ended := p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed || !p.DeletionTimestamp.IsZero()
		if !ended && p.Status.Phase != corev1.PodPending {
			return nil
		}
		o := options
		if !ended && !pinned {
			// A pending pod may become ready meanwhile; then its budget counts.
			o = pinVersion(options, p.ResourceVersion)
		}
		gone = true
		return e.delete(ctx, name, o)
	})
	return pod, gone, err
}

// evictBudgeted asks the pod's budget and deletes the pod.
func (e podEviction) evictBudgeted(ctx context.Context, pod *corev1.Pod, options *metav1.DeleteOptions) error {
	budget, spent, err := e.askBudget(ctx, pod, dryrun.IsDryRun(options.DryRun))
	if err != nil {
		return err
	}
	if budget == "" || spent {
		return e.delete(ctx, pod.Name, options)
	}
	// The pod is evicted because it is unhealthy; if it has changed since, ask again.
	pinned := options.Preconditions != nil && options.Preconditions.ResourceVersion != nil
	err = e.delete(ctx, pod.Name, pinVersion(options, pod.ResourceVersion))
	if apierrors.IsConflict(err) && !pinned {
		return budgetBusy(budget)
	}
	return err
}

// pinVersion returns the options with the version of the object that is to be deleted.
func pinVersion(options *metav1.DeleteOptions, version string) *metav1.DeleteOptions {
	o := options.DeepCopy()
	if o.Preconditions == nil {
		o.Preconditions = &metav1.Preconditions{}
	}
	o.Preconditions.ResourceVersion = &version
	return o
}

// delete marks the pod as disrupted, so that its controller can tell an eviction from a failure, and deletes it.
func (e podEviction) delete(ctx context.Context, name string, options *metav1.DeleteOptions) error {
	if !dryrun.IsDryRun(options.DryRun) {
		mark := rest.DefaultUpdatedObjectInfo(nil, func(_ context.Context, _, old runtime.Object) (runtime.Object, error) {
			pod, ok := old.DeepCopyObject().(*corev1.Pod)
			if !ok {
				return nil, fmt.Errorf("evict pod %q: stored object is a %T", name, old)
			}
			if err := checkPreconditions(pod, options.Preconditions); err != nil {
				return nil, err
			}
			setCondition(&pod.Status, corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue,
				Reason: "EvictionByEvictionAPI", Message: "Eviction API: evicting"})
			return pod, nil
		})
		obj, _, err := e.pods.Update(ctx, name, mark, rest.ValidateAllObjectFunc, rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{})
		if err != nil {
			return err
		}
		if pod, ok := obj.(*corev1.Pod); ok && options.Preconditions != nil && options.Preconditions.ResourceVersion != nil {
			options = pinVersion(options, pod.ResourceVersion) // the mark was our own change
		}
	}
	_, _, err := e.pods.Delete(ctx, name, rest.ValidateAllObjectFunc, options)
	return err
}

func checkPreconditions(pod *corev1.Pod, p *metav1.Preconditions) error {
	if p == nil {
		return nil
	}
	conflict := func(what string, want, have any, how string) error {
		return apierrors.NewConflict(schema.GroupResource{Resource: "Pod"}, pod.Name, fmt.Errorf(
			"the %s in the precondition (%s) does not match the %s in record (%s). The object might have been %s", what, want, what, have, how))
	}
	if p.UID != nil && *p.UID != "" && *p.UID != pod.UID {
		return conflict("UID", *p.UID, pod.UID, "deleted and then recreated")
	}
	if p.ResourceVersion != nil && *p.ResourceVersion != "" && *p.ResourceVersion != pod.ResourceVersion {
		return conflict("ResourceVersion", *p.ResourceVersion, pod.ResourceVersion, "modified")
	}
	return nil
}

// errManyBudgets: which of them would have to give?
var errManyBudgets = errors.New("This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.") //nolint:staticcheck // upstream's text
