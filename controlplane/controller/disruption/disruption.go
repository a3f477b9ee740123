package disruption

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/scale"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/controller"
)

// Deps are what the controller is made from.
type Deps struct {
	controller.Deps
	// Scales reads the scale of controllers that are not built in; Mapper finds their resource.
	Scales scale.ScalesGetter
	Mapper meta.RESTMapper
}

type keeper struct {
	Deps
	budgets, pods, replicaSets, rcs, deployments, statefulSets cache.SharedIndexInformer
}

// New returns the controller; keys are PodDisruptionBudgets.
func New(d Deps) (*controller.Loop, error) {
	apps, core := d.Informers.Apps().V1(), d.Informers.Core().V1()
	k := &keeper{Deps: d, budgets: d.Informers.Policy().V1().PodDisruptionBudgets().Informer(), pods: core.Pods().Informer(),
		replicaSets: apps.ReplicaSets().Informer(), rcs: core.ReplicationControllers().Informer(),
		deployments: apps.Deployments().Informer(), statefulSets: apps.StatefulSets().Informer()}
	loop := controller.NewLoop("disruption", d.Log, 2, k.reconcile)
	loop.Needs(k.rcs, k.replicaSets)
	return loop, errors.Join(
		controller.Watch(loop, k.budgets, func(b, _ *policyv1.PodDisruptionBudget) []string { return []string{b.Namespace + "/" + b.Name} }),
		controller.Watch(loop, k.pods, func(pod, old *corev1.Pod) []string { return append(k.of(pod), k.of(old)...) }),
		// What is wanted may change without any pod changing.
		controller.Watch(loop, k.deployments, func(d, old *appsv1.Deployment) []string {
			if old != nil && ptr.Equal(d.Spec.Replicas, old.Spec.Replicas) {
				return nil
			}
			return k.in(d.Namespace)
		}),
		controller.Watch(loop, k.statefulSets, func(s, old *appsv1.StatefulSet) []string {
			if old != nil && ptr.Equal(s.Spec.Replicas, old.Spec.Replicas) {
				return nil
			}
			return k.in(s.Namespace)
		}))
}

func (k *keeper) each(namespace string, f func(*policyv1.PodDisruptionBudget)) {
	objs, err := k.budgets.GetIndexer().ByIndex(cache.NamespaceIndex, namespace)
	if err != nil {
		return
	}
	for _, obj := range objs {
		f(obj.(*policyv1.PodDisruptionBudget))
	}
}

func (k *keeper) in(namespace string) (keys []string) {
	k.each(namespace, func(b *policyv1.PodDisruptionBudget) { keys = append(keys, b.Namespace+"/"+b.Name) })
	return keys
}

func (k *keeper) of(pod *corev1.Pod) (keys []string) {
	if pod == nil {
		return nil
	}
	k.each(pod.Namespace, func(b *policyv1.PodDisruptionBudget) {
		if s, err := metav1.LabelSelectorAsSelector(b.Spec.Selector); err == nil && s.Matches(labels.Set(pod.Labels)) {
			keys = append(keys, b.Namespace+"/"+b.Name)
		}
	})
	return keys
}

func (k *keeper) reconcile(ctx context.Context, key string) (time.Duration, error) {
	b := controller.Get[policyv1.PodDisruptionBudget](k.budgets, key)
	if b == nil {
		return 0, nil
	}
	selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
	if err != nil {
		return 0, k.failed(ctx, b, fmt.Errorf("selector: %w", err))
	}
	var pods []*corev1.Pod
	if err := cache.ListAllByNamespace(k.pods.GetIndexer(), b.Namespace, selector, func(obj any) {
		if pod := obj.(*corev1.Pod); pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed {
			pods = append(pods, pod)
		}
	}); err != nil {
		return 0, err
	}
	if len(pods) == 0 && (b.Status.ExpectedPods > 0 || b.Status.ObservedGeneration != b.Generation) {
		k.Events.Eventf(b, corev1.EventTypeNormal, "NoPods", "No matching pods found")
	}
	total := 0
	if byScale(b) {
		if total, err = k.scale(ctx, pods); err != nil {
			k.Events.Eventf(b, corev1.EventTypeWarning, "CalculateExpectedPodCountFailed", "Failed to calculate the number of expected pods: %v", err)
			return 0, errors.Join(err, k.failed(ctx, b, err))
		}
	}
	status, again := decide(b, pods, total, time.Now())
	return again, k.store(ctx, b, status)
}

// failed closes the budget: with figures that nobody knows, no eviction is safe.
func (k *keeper) failed(ctx context.Context, b *policyv1.PodDisruptionBudget, why error) error {
	status := *b.Status.DeepCopy()
	status.DisruptionsAllowed, status.ObservedGeneration = 0, b.Generation
	meta.SetStatusCondition(&status.Conditions, metav1.Condition{Type: policyv1.DisruptionAllowedCondition, Status: metav1.ConditionFalse,
		ObservedGeneration: b.Generation, Reason: policyv1.SyncFailedReason, Message: why.Error()})
	return k.store(ctx, b, status)
}

func (k *keeper) store(ctx context.Context, b *policyv1.PodDisruptionBudget, status policyv1.PodDisruptionBudgetStatus) error {
	if equality.Semantic.DeepEqual(b.Status, status) {
		return nil
	}
	next := b.DeepCopy()
	next.Status = status
	_, err := k.Client.PolicyV1().PodDisruptionBudgets(b.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// scale sums what the pods' controllers want, each once. A pod without a controller cannot be counted so.
func (k *keeper) scale(ctx context.Context, pods []*corev1.Pod) (total int, err error) {
	seen := map[types.UID]bool{}
	for _, pod := range pods {
		owner := metav1.GetControllerOf(pod)
		if owner == nil {
			return 0, fmt.Errorf("found no controller ref for pod %q: use an integer minAvailable for pods of their own", pod.Name)
		}
		key := pod.Namespace + "/" + owner.Name
		if rs := controller.Get[appsv1.ReplicaSet](k.replicaSets, key); owner.Kind == "ReplicaSet" && rs != nil && rs.UID == owner.UID {
			if up := metav1.GetControllerOf(rs); up != nil && up.Kind == "Deployment" {
				owner, key = up, pod.Namespace+"/"+up.Name
			}
		}
		if seen[owner.UID] {
			continue
		}
		seen[owner.UID] = true
		n, err := k.replicas(ctx, owner, key)
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}

func (k *keeper) replicas(ctx context.Context, owner *metav1.OwnerReference, key string) (int, error) {
	var n *int32
	found := false
	switch owner.Kind {
	case "Deployment":
		if o := controller.Get[appsv1.Deployment](k.deployments, key); o != nil {
			n, found = o.Spec.Replicas, true
		}
	case "ReplicaSet":
		if o := controller.Get[appsv1.ReplicaSet](k.replicaSets, key); o != nil {
			n, found = o.Spec.Replicas, true
		}
	case "StatefulSet":
		if o := controller.Get[appsv1.StatefulSet](k.statefulSets, key); o != nil {
			n, found = o.Spec.Replicas, true
		}
	case "ReplicationController":
		if o := controller.Get[corev1.ReplicationController](k.rcs, key); o != nil {
			n, found = o.Spec.Replicas, true
		}
	}
	if found {
		return int(ptr.Deref(n, 1)), nil
	}
	namespace, name, _ := strings.Cut(key, "/")
	gv, err := schema.ParseGroupVersion(owner.APIVersion)
	if err != nil {
		return 0, err
	}
	mapping, err := k.Mapper.RESTMapping(schema.GroupKind{Group: gv.Group, Kind: owner.Kind}, gv.Version)
	if err != nil {
		meta.MaybeResetRESTMapper(k.Mapper) // the kind may have come since
		return 0, err
	}
	s, err := k.Scales.Scales(namespace).Get(ctx, mapping.Resource.GroupResource(), name, metav1.GetOptions{})
	if err != nil {
		return 0, fmt.Errorf("%s does not implement the scale subresource: %w", mapping.Resource.GroupResource(), err)
	}
	return int(s.Spec.Replicas), nil
}
