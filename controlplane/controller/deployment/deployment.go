package deployment

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/controlplane/controller"
	"keelson.dev/keelson/controlplane/controller/owner"
)

const workers = 4

var kind = appsv1.SchemeGroupVersion.WithKind("Deployment")

type roller struct {
	controller.Deps
	deployments, sets, pods cache.SharedIndexInformer
}

// New returns the controller; keys are Deployments.
func New(d controller.Deps) (*controller.Loop, error) {
	apps := d.Informers.Apps().V1()
	r := &roller{Deps: d, deployments: apps.Deployments().Informer(), sets: apps.ReplicaSets().Informer(), pods: d.Informers.Core().V1().Pods().Informer()}
	loop := controller.NewLoop("deployment", d.Log, workers, r.reconcile)
	return loop, errors.Join(
		controller.Watch(loop, r.deployments, func(d, _ *appsv1.Deployment) []string { return []string{d.Namespace + "/" + d.Name} }),
		controller.Watch(loop, r.sets, r.ofSet),
		controller.Watch(loop, r.pods, r.ofPod))
}

// ofSet: a set concerns its owner, an orphan every Deployment that selects it.
func (r *roller) ofSet(rs, old *appsv1.ReplicaSet) []string {
	var keys []string
	for _, s := range []*appsv1.ReplicaSet{rs, old} {
		if s == nil {
			continue
		}
		if by := metav1.GetControllerOf(s); by != nil && by.Kind == kind.Kind {
			keys = append(keys, s.Namespace+"/"+by.Name)
		}
		keys = append(keys, owner.Keys(r.deployments.GetIndexer(), s, func(d any) labels.Selector { return owner.Selector(d.(*appsv1.Deployment).Spec.Selector) })...)
	}
	return keys
}

// ofPod: the last old pod's end is what a Recreate waits for.
func (r *roller) ofPod(pod, _ *corev1.Pod) []string {
	if _, stored, _ := r.pods.GetIndexer().GetByKey(pod.Namespace + "/" + pod.Name); stored {
		return nil
	}
	by := metav1.GetControllerOf(pod)
	if by == nil || by.Kind != "ReplicaSet" {
		return nil
	}
	rs := controller.Get[appsv1.ReplicaSet](r.sets, pod.Namespace+"/"+by.Name)
	if rs == nil {
		return nil
	}
	return r.ofSet(rs, nil)
}

func (r *roller) reconcile(ctx context.Context, key string) (time.Duration, error) {
	d := controller.Get[appsv1.Deployment](r.deployments, key)
	if d == nil {
		return 0, nil
	}
	sets, err := r.claim(ctx, d)
	if err != nil {
		return 0, err
	}
	plan := Decide(d, sets, r.oldPods(d, sets), time.Now())
	if d, err = r.execute(ctx, d, plan); err != nil {
		return 0, err
	}
	return plan.Again, r.report(ctx, d, plan.Status)
}

// oldPods reports whether any pod of an old set is left, also one that terminates.
func (r *roller) oldPods(d *appsv1.Deployment, sets []*appsv1.ReplicaSet) bool {
	newest := newestSet(d, sets)
	objs, _ := r.pods.GetIndexer().ByIndex(cache.NamespaceIndex, d.Namespace)
	for _, obj := range objs {
		pod := obj.(*corev1.Pod)
		by := metav1.GetControllerOf(pod)
		if by == nil || newest != nil && by.UID == newest.UID || pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded {
			continue
		}
		for _, rs := range sets {
			if rs.UID == by.UID {
				return true
			}
		}
	}
	return false
}

// execute carries a plan out and returns the Deployment as it is stored then.
func (r *roller) execute(ctx context.Context, d *appsv1.Deployment, plan Plan) (*appsv1.Deployment, error) {
	client := r.Client.AppsV1().ReplicaSets(d.Namespace)
	if plan.Create != nil {
		if err := r.create(ctx, d, plan.Create); err != nil {
			return d, err
		}
		r.tell(d, plan.Create.Name, plan.Scaled)
	}
	for _, rs := range plan.Update {
		if _, err := client.Update(ctx, rs, metav1.UpdateOptions{}); err != nil {
			return d, fmt.Errorf("scale replica set %s/%s: %w", rs.Namespace, rs.Name, err)
		}
		r.tell(d, rs.Name, plan.Scaled)
	}
	for _, rs := range plan.Delete {
		if err := client.Delete(ctx, rs.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return d, fmt.Errorf("delete old replica set %s/%s: %w", rs.Namespace, rs.Name, err)
		}
	}
	if plan.Revision == 0 {
		return d, nil
	}
	next := d.DeepCopy()
	next.Annotations = with(next.Annotations, revisionKey, strconv.FormatInt(plan.Revision, 10))
	return r.Client.AppsV1().Deployments(d.Namespace).Update(ctx, next, metav1.UpdateOptions{})
}

// create makes the new set. A name that another template has taken is a hash collision: it is counted, and the next
// pass hashes differently.
func (r *roller) create(ctx context.Context, d *appsv1.Deployment, rs *appsv1.ReplicaSet) error {
	_, err := r.Client.AppsV1().ReplicaSets(rs.Namespace).Create(ctx, rs, metav1.CreateOptions{})
	if err == nil || controller.Terminating(err) {
		return nil
	}
	if !apierrors.IsAlreadyExists(err) {
		r.Events.Eventf(d, corev1.EventTypeWarning, "ReplicaSetCreateError", "Failed to create new replica set %q: %v", rs.Name, err)
		return fmt.Errorf("create replica set %s/%s: %w", rs.Namespace, rs.Name, err)
	}
	have, getErr := r.Client.AppsV1().ReplicaSets(rs.Namespace).Get(ctx, rs.Name, metav1.GetOptions{})
	if getErr != nil {
		return getErr
	}
	if by := metav1.GetControllerOf(have); by != nil && by.UID == d.UID && sameTemplate(&have.Spec.Template, &d.Spec.Template) {
		return nil // ours: the cache has not shown it yet
	}
	next := d.DeepCopy()
	collisions := int32(1)
	if d.Status.CollisionCount != nil {
		collisions += *d.Status.CollisionCount
	}
	next.Status.CollisionCount = &collisions
	if _, err := r.Client.AppsV1().Deployments(d.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{}); err != nil {
		return err
	}
	return err
}

func (r *roller) tell(d *appsv1.Deployment, set string, scaled map[string][2]int32) {
	s, ok := scaled[set]
	if !ok || s[0] == s[1] {
		return
	}
	direction := "up"
	if s[1] < s[0] {
		direction = "down"
	}
	r.Events.Eventf(d, corev1.EventTypeNormal, "ScalingReplicaSet", "Scaled %s replica set %s from %d to %d", direction, set, s[0], s[1])
}

func (r *roller) report(ctx context.Context, d *appsv1.Deployment, status appsv1.DeploymentStatus) error {
	if equality.Semantic.DeepEqual(status, d.Status) {
		return nil
	}
	next := d.DeepCopy()
	next.Status = status
	_, err := r.Client.AppsV1().Deployments(d.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// claim returns the Deployment's sets, adopting orphans that it selects and releasing what it no longer does.
func (r *roller) claim(ctx context.Context, d *appsv1.Deployment) ([]*appsv1.ReplicaSet, error) {
	selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
	if err != nil {
		return nil, err
	}
	objs, err := r.sets.GetIndexer().ByIndex(cache.NamespaceIndex, d.Namespace)
	if err != nil {
		return nil, err
	}
	apps := r.Client.AppsV1()
	return owner.Claim[*appsv1.ReplicaSet]{Owner: d, Kind: kind, Selector: selector,
		Live: func() (metav1.Object, error) {
			return apps.Deployments(d.Namespace).Get(ctx, d.Name, metav1.GetOptions{})
		},
		Patch: controller.Patcher(ctx, apps.ReplicaSets(d.Namespace))}.Take(objs)
}
