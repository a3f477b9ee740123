package statefulset

import (
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
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/controlplane/controller"
	"keelson.dev/keelson/controlplane/controller/history"
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
		controller.Watch(loop, k.pods, func(pod, _ *corev1.Pod) []string {
			if owner := metav1.GetControllerOf(pod); owner != nil && owner.Kind == kind.Kind {
				return []string{pod.Namespace + "/" + owner.Name}
			}
			return nil
		}))
}

func (k *keeper) reconcile(ctx context.Context, key string) (time.Duration, error) {
	set := controller.Get[appsv1.StatefulSet](k.sets, key)
	if set == nil {
		return 0, nil
	}
	in := input{set: set, now: time.Now()}
	objs, err := k.pods.GetIndexer().ByIndex(cache.NamespaceIndex, set.Namespace)
	if err != nil {
		return 0, err
	}
	for _, obj := range objs {
		if owner := metav1.GetControllerOf(obj.(*corev1.Pod)); owner != nil && owner.UID == set.UID {
			in.pods = append(in.pods, obj.(*corev1.Pod))
		}
	}
	if set.DeletionTimestamp != nil {
		return 0, nil // the garbage collector takes the pods
	}
	all, err := history.Sync(ctx, k.Client, k.revisions.GetIndexer(), history.Owner{Object: set, Kind: kind, Template: &set.Spec.Template, Selector: set.Spec.Selector})
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
	stepErr := k.step(ctx, set, p, current, update)
	if err := k.report(ctx, set, p.status); err != nil {
		return 0, errors.Join(stepErr, err)
	}
	inUse := func(r *appsv1.ControllerRevision) bool {
		return r.Name == current.Name || slices.ContainsFunc(in.pods, func(pod *corev1.Pod) bool { return revision(pod) == history.Hash(r) })
	}
	return p.again, errors.Join(stepErr, history.Trim(ctx, k.Client, all, set.Spec.RevisionHistoryLimit, inUse))
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
		if controller.Get[corev1.PersistentVolumeClaim](k.claims, c.Namespace+"/"+c.Name) != nil {
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
	if err := k.retire(ctx, set, pod); err != nil {
		return err
	}
	err := k.Client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(pod.UID))})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	if err == nil {
		k.Events.Eventf(set, corev1.EventTypeNormal, "SuccessfulDelete", "delete Pod %s in StatefulSet %s successful", pod.Name, set.Name)
	}
	return nil
}

// retire makes a scaled-down pod the owner of its claims where the retention policy says whenScaled: Delete, so that
// they go with it.
func (k *keeper) retire(ctx context.Context, set *appsv1.StatefulSet, pod *corev1.Pod) error {
	p := set.Spec.PersistentVolumeClaimRetentionPolicy
	n, ok := ordinal(set, pod.Name)
	if p == nil || p.WhenScaled != appsv1.DeletePersistentVolumeClaimRetentionPolicyType || !ok || n < start(set)+int(*set.Spec.Replicas) {
		return nil
	}
	for i := range set.Spec.VolumeClaimTemplates {
		claim := controller.Get[corev1.PersistentVolumeClaim](k.claims, set.Namespace+"/"+claimName(set, i, n))
		if claim == nil || slices.ContainsFunc(claim.OwnerReferences, func(o metav1.OwnerReference) bool { return o.UID == pod.UID }) {
			continue
		}
		claim = claim.DeepCopy()
		claim.OwnerReferences = append(claim.OwnerReferences, metav1.OwnerReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID})
		if _, err := k.Client.CoreV1().PersistentVolumeClaims(claim.Namespace).Update(ctx, claim, metav1.UpdateOptions{}); err != nil {
			return fmt.Errorf("let claim %s/%s go with its pod: %w", claim.Namespace, claim.Name, err)
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
