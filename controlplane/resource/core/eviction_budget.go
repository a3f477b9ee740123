package core

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	policyv1beta1 "k8s.io/api/policy/v1beta1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/component-helpers/apps/poddisruptionbudget"
)

// maxDisrupted is how many evictions the budget controller may be behind.
const maxDisrupted = 2000

const budgetViolated = "Cannot evict pod as it would violate the pod's disruption budget."

// askBudget finds the pod's budget and takes one disruption from it. Budget is its name, empty if there is none;
// spent is false if an unhealthy pod may go without one.
func (e podEviction) askBudget(ctx context.Context, pod *corev1.Pod, dryRun bool) (budget string, spent bool, err error) {
	found, err := e.budgetsOf(ctx, pod)
	switch {
	case err != nil || len(found) == 0:
		return "", false, err
	case len(found) > 1:
		status := metav1.Status{Status: metav1.StatusFailure, Message: errManyBudgets.Error(), Code: http.StatusInternalServerError}
		return "", false, &apierrors.StatusError{ErrStatus: status}
	}
	b := found[0]
	if !hasCondition(pod, corev1.PodReady) && mayGoUnhealthy(&b) {
		return b.Name, false, nil
	}
	return b.Name, true, e.takeDisruption(ctx, &b, pod.Name, dryRun)
}

// mayGoUnhealthy: a pod that is not ready counts for nothing, so its going takes nothing from the application,
// provided the policy says so or the application has what it wants.
func mayGoUnhealthy(b *policyv1.PodDisruptionBudget) bool {
	if p := b.Spec.UnhealthyPodEvictionPolicy; p != nil && *p == policyv1.AlwaysAllow {
		return true
	}
	return b.Status.CurrentHealthy >= b.Status.DesiredHealthy && b.Status.DesiredHealthy > 0
}

func (e podEviction) budgetsOf(ctx context.Context, pod *corev1.Pod) ([]policyv1.PodDisruptionBudget, error) {
	store := e.budgets(policyv1.Resource("poddisruptionbudgets"))
	if store == nil {
		return nil, nil
	}
	obj, err := store.List(ctx, &internalversion.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("evict pod %q: list disruption budgets: %w", pod.Name, err)
	}
	list, ok := obj.(*policyv1.PodDisruptionBudgetList)
	if !ok {
		return nil, fmt.Errorf("evict pod %q: disruption budgets are a %T", pod.Name, obj)
	}
	var found []policyv1.PodDisruptionBudget
	for _, b := range list.Items {
		selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
		if err == nil && b.Namespace == pod.Namespace && selector.Matches(labels.Set(pod.Labels)) {
			found = append(found, b)
		}
	}
	return found, nil
}

// takeDisruption decrements disruptionsAllowed and notes the pod, in one atomic update: of two evictions that race
// for the last disruption one is refused.
func (e podEviction) takeDisruption(ctx context.Context, b *policyv1.PodDisruptionBudget, pod string, dryRun bool) error {
	store := e.budgets(policyv1.Resource("poddisruptionbudgets"))
	key, err := store.KeyFunc(ctx, b.Name)
	if err != nil {
		return err
	}
	update := storage.SimpleUpdate(func(obj runtime.Object) (runtime.Object, error) {
		b, ok := obj.(*policyv1.PodDisruptionBudget)
		if !ok {
			return nil, fmt.Errorf("disruption budget: stored object is a %T", obj)
		}
		return b, disrupt(b, pod)
	})
	err = store.Storage.GuaranteedUpdate(ctx, key, &policyv1.PodDisruptionBudget{}, false, nil, update, dryRun, nil)
	if storage.IsNotFound(err) {
		return nil // the budget went meanwhile, and its protection with it
	}
	if storage.IsConflict(err) {
		return apierrors.NewTimeoutError(fmt.Sprintf("couldn't update PodDisruptionBudget %q due to conflicts", b.Name), 10)
	}
	return err
}

// disrupt writes one disruption into the budget, or says why there is none.
func disrupt(b *policyv1.PodDisruptionBudget, pod string) error {
	s := &b.Status
	switch {
	case s.ObservedGeneration < b.Generation:
		return budgetBusy(b.Name)
	case s.DisruptionsAllowed < 0:
		return budgetBroken(b.Name, "pdb disruptions allowed is negative", "pdb disruptions allowed is negative")
	case len(s.DisruptedPods) > maxDisrupted:
		return budgetBroken(b.Name, "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
			"too many pending evictions not confirmed by PDB controller")
	case s.DisruptionsAllowed == 0:
		return withCause(apierrors.NewTooManyRequests(budgetViolated, 0), refusal(b))
	}
	s.DisruptionsAllowed--
	if s.DisruptionsAllowed == 0 {
		poddisruptionbudget.UpdateDisruptionAllowedCondition(b)
	}
	if s.DisruptedPods == nil {
		s.DisruptedPods = map[string]metav1.Time{}
	}
	// The controller stops counting the pod as available without waiting to see it go.
	s.DisruptedPods[pod] = metav1.Time{Time: time.Now()}
	return nil
}

func refusal(b *policyv1.PodDisruptionBudget) string {
	s := b.Status
	c := meta.FindStatusCondition(s.Conditions, policyv1.DisruptionAllowedCondition)
	said := c != nil && c.Status == metav1.ConditionFalse && c.Message != ""
	switch {
	case said && c.Reason == policyv1.SyncFailedReason:
		return fmt.Sprintf("The disruption budget %s does not allow evicting pods currently because it failed sync: %s", b.Name, c.Message)
	case s.CurrentHealthy <= s.DesiredHealthy:
		return fmt.Sprintf("The disruption budget %s needs %d healthy pods and has %d currently", b.Name, s.DesiredHealthy, s.CurrentHealthy)
	case said:
		return fmt.Sprintf("The disruption budget %s does not allow evicting pods currently (%s): %s", b.Name, c.Reason, c.Message)
	}
	return fmt.Sprintf("The disruption budget %s does not allow evicting pods currently", b.Name)
}

func budgetBusy(name string) error {
	return withCause(apierrors.NewTooManyRequests(budgetViolated, 10),
		fmt.Sprintf("The disruption budget %s is still being processed by the server.", name))
}

func budgetBroken(name, reason, cause string) error {
	err := apierrors.NewForbidden(policyv1.Resource("poddisruptionbudget"), name, errors.New(reason))
	return withCause(err, fmt.Sprintf("The disruption budget %s does not allow evicting pods currently: %s", name, cause))
}

func withCause(err *apierrors.StatusError, message string) error {
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes,
		metav1.StatusCause{Type: policyv1.DisruptionBudgetCause, Message: message})
	return err
}

// registerEviction makes the body of pods/eviction known in both versions; its internal form is policy/v1's.
func registerEviction(scheme *runtime.Scheme) error {
	internal := schema.GroupVersion{Group: policyv1.GroupName, Version: runtime.APIVersionInternal}
	scheme.AddKnownTypeWithName(internal.WithKind("Eviction"), &policyv1.Eviction{})
	scheme.AddKnownTypes(policyv1.SchemeGroupVersion, &policyv1.Eviction{})
	scheme.AddKnownTypes(policyv1beta1.SchemeGroupVersion, &policyv1beta1.Eviction{})
	return scheme.AddConversionFunc(&policyv1beta1.Eviction{}, &policyv1.Eviction{}, func(a, b any, _ conversion.Scope) error {
		in, out := a.(*policyv1beta1.Eviction), b.(*policyv1.Eviction) //nolint:forcetypeassert // the scheme guarantees both
		out.ObjectMeta, out.DeleteOptions = in.ObjectMeta, in.DeleteOptions
		return nil
	})
}
