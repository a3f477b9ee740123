// Package podgc removes pods that nobody else will: bound to a node that is gone, being deleted on a node that an
// administrator says is out of service, being deleted without ever having had a node, and the oldest ended pods beyond a limit.
package podgc

import (
	"context"
	"errors"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/controlplane/controller"
)

const (
	// quarantine is how long a pod's node may be missing before the pod is removed: a node may register again.
	quarantine = 40 * time.Second
	// endedLimit is how many ended pods a cluster keeps.
	endedLimit = 12500
	all        = "all"
)

type sweeper struct {
	controller.Deps
	pods, nodes cache.SharedIndexInformer
	missing     map[string]time.Time // node -> since when; of the one worker
}

// New returns the controller; its one key stands for the cluster.
func New(d controller.Deps) (*controller.Loop, error) {
	s := &sweeper{Deps: d, pods: d.Informers.Core().V1().Pods().Informer(), nodes: d.Informers.Core().V1().Nodes().Informer(), missing: map[string]time.Time{}}
	loop := controller.NewLoop("podgc", d.Log, 1, s.reconcile)
	return loop, errors.Join(
		controller.Watch(loop, s.nodes, func(node, old *corev1.Node) []string {
			if old != nil && controller.OutOfService(node) == controller.OutOfService(old) {
				return nil
			}
			return []string{all}
		}),
		controller.Watch(loop, s.pods, func(pod, old *corev1.Pod) []string {
			began := old == nil || old.Spec.NodeName != pod.Spec.NodeName || old.Status.Phase != pod.Status.Phase || old.DeletionTimestamp == nil
			if !began {
				return nil
			}
			return []string{all}
		}))
}

func (s *sweeper) reconcile(ctx context.Context, _ string) (time.Duration, error) {
	now := time.Now()
	var ended []*corev1.Pod
	var errs []error
	var again time.Duration
	missing := map[string]time.Time{}
	for _, obj := range s.pods.GetIndexer().List() {
		pod := obj.(*corev1.Pod)
		node := pod.Spec.NodeName
		switch {
		case node == "" && pod.DeletionTimestamp != nil:
			errs = append(errs, s.remove(ctx, pod, ""))
		case node != "" && controller.Get[corev1.Node](s.nodes, node) == nil:
			since, known := s.missing[node]
			if !known {
				since = now
			}
			missing[node] = since
			if left := quarantine - now.Sub(since); left > 0 {
				again = left
				continue
			}
			errs = append(errs, s.remove(ctx, pod, "PodGC: node no longer exists"))
		case pod.DeletionTimestamp != nil && controller.OutOfService(controller.Get[corev1.Node](s.nodes, node)):
			errs = append(errs, s.remove(ctx, pod, "PodGC: node is out of service"))
		case pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded:
			ended = append(ended, pod)
		}
	}
	s.missing = missing
	if n := len(ended) - endedLimit; n > 0 {
		slices.SortFunc(ended, func(a, b *corev1.Pod) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
		for _, pod := range ended[:n] {
			errs = append(errs, s.remove(ctx, pod, ""))
		}
	}
	return again, errors.Join(errs...)
}

// remove deletes at once: there is no kubelet to wait for. why marks a pod that had not ended as failed.
func (s *sweeper) remove(ctx context.Context, pod *corev1.Pod, why string) error {
	pods := s.Client.CoreV1().Pods(pod.Namespace)
	if why != "" && pod.Status.Phase != corev1.PodFailed && pod.Status.Phase != corev1.PodSucceeded {
		mark := applycorev1.Pod(pod.Name, pod.Namespace).WithUID(pod.UID).WithStatus(applycorev1.PodStatus().WithPhase(corev1.PodFailed).
			WithConditions(applycorev1.PodCondition().WithType(corev1.DisruptionTarget).WithStatus(corev1.ConditionTrue).
				WithReason("DeletionByPodGC").WithMessage(why).WithLastTransitionTime(metav1.Now())))
		if _, err := pods.ApplyStatus(ctx, mark, metav1.ApplyOptions{FieldManager: "pod-garbage-collector", Force: true}); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	zero := int64(0)
	err := pods.Delete(ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero, Preconditions: metav1.NewUIDPreconditions(string(pod.UID))})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}
