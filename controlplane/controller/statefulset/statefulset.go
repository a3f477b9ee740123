package statefulset

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/controlplane/controller"
	"keelson.dev/keelson/controlplane/controller/history"
	"keelson.dev/keelson/controlplane/controller/owner"
)

const workers = 4

type keeper struct {
	controller.Deps
	sets, pods, revisions, claims cache.SharedIndexInformer
}

// New returns the controller; keys are StatefulSets.
func New(d controller.Deps) (*controller.Loop, error) {
	apps, core := d.Informers.Apps().V1(), d.Informers.Core().V1()
	k := &keeper{Deps: d, sets: apps.StatefulSets().Informer(), revisions: apps.ControllerRevisions().Informer(),
		pods: core.Pods().Informer(), claims: core.PersistentVolumeClaims().Informer()}
	loop := controller.NewLoop("statefulset", d.Log, workers, k.reconcile)
	loop.Needs(k.revisions, k.claims)
	return loop, errors.Join(
		controller.Watch(loop, k.sets, func(s, _ *appsv1.StatefulSet) []string { return []string{s.Namespace + "/" + s.Name} }),
		controller.Watch(loop, k.pods, func(pod, old *corev1.Pod) []string {
			var keys []string
			for _, p := range []*corev1.Pod{pod, old} {
				if by := metav1.GetControllerOf(cmp.Or(p, pod)); by != nil && by.Kind == kind.Kind {
					keys = append(keys, pod.Namespace+"/"+by.Name)
				}
			}
			return append(keys, owner.Keys(k.sets.GetIndexer(), pod, func(s any) labels.Selector { return owner.Selector(s.(*appsv1.StatefulSet).Spec.Selector) })...)
		}))
}

func (k *keeper) reconcile(ctx context.Context, key string) (time.Duration, error) {
	set := controller.Get[appsv1.StatefulSet](k.sets, key)
	if set == nil {
		return 0, nil
	}
	if set.DeletionTimestamp != nil {
		return 0, nil // the garbage collector takes the pods
	}
	in := input{set: set, now: time.Now()}
	var err error
	if in.pods, err = k.claim(ctx, set); err != nil {
		return 0, err
	}
	all, err := history.Sync(ctx, k.Client, k.revisions.GetIndexer(), history.Owner{Object: set, Kind: kind, Template: &set.Spec.Template, Selector: set.Spec.Selector,
		Live: func() (metav1.Object, error) {
			return k.Client.AppsV1().StatefulSets(set.Namespace).Get(ctx, set.Name, metav1.GetOptions{})
		}})
	if err != nil {
		return 0, err
	}
	update := all[len(all)-1]
	current := update
	for _, r := range all {
		if r.Name == set.Status.CurrentRevision {
			current = r
		}
	}
	in.current, in.update = history.Hash(current), history.Hash(update)
	p := decide(in)
	var stepErr error
	for _, pod := range in.pods {
		stepErr = errors.Join(stepErr, k.retain(ctx, set, pod))
	}
	if stepErr == nil {
		stepErr = k.step(ctx, set, p, current, update)
	}
	if err := k.report(ctx, set, p.status); err != nil {
		return 0, errors.Join(stepErr, err)
	}
	inUse := func(r *appsv1.ControllerRevision) bool {
		return r.Name == current.Name || slices.ContainsFunc(in.pods, func(pod *corev1.Pod) bool { return revision(set, pod) == history.Hash(r) })
	}
	return p.again, errors.Join(stepErr, history.Trim(ctx, k.Client, all, set.Spec.RevisionHistoryLimit, inUse))
}

// claim returns the set's pods after adopting orphans that it selects, those with a name of its own, and releasing others.
func (k *keeper) claim(ctx context.Context, set *appsv1.StatefulSet) ([]*corev1.Pod, error) {
	objs, err := k.pods.GetIndexer().ByIndex(cache.NamespaceIndex, set.Namespace)
	if err != nil {
		return nil, err
	}
	selector, err := metav1.LabelSelectorAsSelector(set.Spec.Selector)
	if err != nil {
		return nil, err
	}
	return owner.Claim[*corev1.Pod]{Owner: set, Kind: kind, Selector: selector,
		Fit: func(pod *corev1.Pod) bool { _, ok := ordinal(set, pod.Name); return ok },
		Live: func() (metav1.Object, error) {
			return k.Client.AppsV1().StatefulSets(set.Namespace).Get(ctx, set.Name, metav1.GetOptions{})
		},
		Patch: controller.Patcher(ctx, k.Client.CoreV1().Pods(set.Namespace))}.Take(objs)
}

func (k *keeper) step(ctx context.Context, set *appsv1.StatefulSet, p plan, current, update *appsv1.ControllerRevision) error {
	for _, pod := range p.remove {
		if err := k.remove(ctx, set, pod); err != nil {
			return err
		}
	}
	for _, n := range p.create {
		from := current
		if wantsUpdate(set, n) {
			from = update
		}
		if err := k.create(ctx, set, from, n); err != nil {
			return err
		}
	}
	return nil
}

func (k *keeper) create(ctx context.Context, set *appsv1.StatefulSet, from *appsv1.ControllerRevision, n int) error {
	for _, c := range claims(set, n) {
		if have := controller.Get[corev1.PersistentVolumeClaim](k.claims, c.Namespace+"/"+c.Name); have != nil {
			if have.DeletionTimestamp != nil { // went with the pod before: this one would wait for it for ever
				return fmt.Errorf("create pod %s/%s: its claim %s is still being deleted", set.Namespace, podName(set, n), c.Name)
			}
			continue
		}
		_, err := k.Client.CoreV1().PersistentVolumeClaims(c.Namespace).Create(ctx, c, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			k.Events.Eventf(set, corev1.EventTypeWarning, "FailedCreate", "create Claim %s for Pod %s in StatefulSet %s failed error: %v", c.Name, podName(set, n), set.Name, err)
			return fmt.Errorf("create claim %s/%s: %w", c.Namespace, c.Name, err)
		}
		if err == nil {
			k.Events.Eventf(set, corev1.EventTypeNormal, "SuccessfulCreate", "create Claim %s Pod %s in StatefulSet %s success", c.Name, podName(set, n), set.Name)
		}
	}
	template, err := history.Template(from)
	if err != nil {
		return err
	}
	pod := makePod(set, template, history.Hash(from), n)
	_, err = k.Client.CoreV1().Pods(pod.Namespace).Create(ctx, pod, metav1.CreateOptions{})
	switch {
	case err == nil:
		k.Events.Eventf(set, corev1.EventTypeNormal, "SuccessfulCreate", "create Pod %s in StatefulSet %s successful", pod.Name, set.Name)
		return nil
	case apierrors.IsAlreadyExists(err), controller.Terminating(err):
		return nil // the old one of this name is not gone yet, or the cache lags: its event brings us back
	}
	k.Events.Eventf(set, corev1.EventTypeWarning, "FailedCreate", "create Pod %s in StatefulSet %s failed error: %v", pod.Name, set.Name, err)
	return fmt.Errorf("create pod %s/%s: %w", pod.Namespace, pod.Name, err)
}

func (k *keeper) remove(ctx context.Context, set *appsv1.StatefulSet, pod *corev1.Pod) error {
	err := k.Client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(pod.UID))})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	if err == nil {
		k.Events.Eventf(set, corev1.EventTypeNormal, "SuccessfulDelete", "delete Pod %s in StatefulSet %s successful", pod.Name, set.Name)
	}
	return nil
}

// retain brings the owners of a pod's claims up to what the retention policy says, before the pod is deleted: who owns a claim
// takes it along.
func (k *keeper) retain(ctx context.Context, set *appsv1.StatefulSet, pod *corev1.Pod) error {
	n, ok := ordinal(set, pod.Name)
	if !ok {
		return nil
	}
	for i := range set.Spec.VolumeClaimTemplates {
		claim := controller.Get[corev1.PersistentVolumeClaim](k.claims, set.Namespace+"/"+claimName(set, i, n))
		if claim == nil || claim.DeletionTimestamp != nil {
			continue
		}
		owners := claimOwners(set, claim, pod, n)
		if equality.Semantic.DeepEqual(owners, claim.OwnerReferences) {
			continue
		}
		claim = claim.DeepCopy()
		claim.OwnerReferences = owners
		if _, err := k.Client.CoreV1().PersistentVolumeClaims(claim.Namespace).Update(ctx, claim, metav1.UpdateOptions{}); err != nil {
			return fmt.Errorf("set who owns claim %s/%s: %w", claim.Namespace, claim.Name, err)
		}
	}
	return nil
}

func (k *keeper) report(ctx context.Context, set *appsv1.StatefulSet, status appsv1.StatefulSetStatus) error {
	if equality.Semantic.DeepEqual(status, set.Status) {
		return nil
	}
	next := set.DeepCopy()
	next.Status = status
	_, err := k.Client.AppsV1().StatefulSets(set.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
