package replicaset

import (
	"context"
	"errors"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"keelson.dev/keelson/controlplane/controller"
	"keelson.dev/keelson/controlplane/controller/expectation"
)

// NewReplicationController returns the controller of ReplicationControllers; keys are their names.
func NewReplicationController(d controller.Deps) (*controller.Loop, error) {
	informer := d.Informers.Core().V1().ReplicationControllers().Informer()
	e := &engine{Deps: d, pods: d.Informers.Core().V1().Pods().Informer(), expect: expectation.New()}
	client := d.Client.CoreV1()
	e.kind = kind{
		gvk: corev1.SchemeGroupVersion.WithKind("ReplicationController"),
		get: func(key string) (*set, error) {
			rc := controller.Get[corev1.ReplicationController](informer, key)
			if rc == nil || rc.Spec.Template == nil {
				return nil, nil
			}
			return &set{object: rc, meta: rc, kind: corev1.SchemeGroupVersion.WithKind("ReplicationController"), replicas: number(rc.Spec.Replicas),
				minReady: time.Duration(rc.Spec.MinReadySeconds) * time.Second, selector: labels.SelectorFromSet(rc.Spec.Selector), template: rc.Spec.Template}, nil
		},
		live: func(ctx context.Context, namespace, name string) (metav1.Object, error) {
			return client.ReplicationControllers(namespace).Get(ctx, name, metav1.GetOptions{})
		},
		report: func(ctx context.Context, s *set, c counts, failure error, creating bool) error {
			rc := s.object.(*corev1.ReplicationController)
			want := rc.DeepCopy()
			want.Status = corev1.ReplicationControllerStatus{Replicas: c.replicas, FullyLabeledReplicas: c.labeled, ReadyReplicas: c.ready,
				AvailableReplicas: c.available, ObservedGeneration: rc.Generation}
			for _, cond := range failureCondition(asReplicaSet(rc.Status.Conditions), failure, creating) {
				want.Status.Conditions = append(want.Status.Conditions, corev1.ReplicationControllerCondition{
					Type: corev1.ReplicationControllerConditionType(cond.Type), Status: cond.Status, Reason: cond.Reason,
					Message: cond.Message, LastTransitionTime: cond.LastTransitionTime})
			}
			if equality.Semantic.DeepEqual(want.Status, rc.Status) {
				return nil
			}
			_, err := client.ReplicationControllers(rc.Namespace).UpdateStatus(ctx, want, metav1.UpdateOptions{})
			return err
		},
	}
	loop := controller.NewLoop("replicationcontroller", d.Log, workers, e.reconcile)
	return loop, errors.Join(
		controller.Watch(loop, informer, func(rc, _ *corev1.ReplicationController) []string { return []string{rc.Namespace + "/" + rc.Name} }),
		controller.Watch(loop, e.pods, e.podKeys(informer.GetIndexer())))
}

// asReplicaSet: the two condition types differ in name only.
func asReplicaSet(in []corev1.ReplicationControllerCondition) []appsv1.ReplicaSetCondition {
	var out []appsv1.ReplicaSetCondition
	for _, c := range in {
		out = append(out, appsv1.ReplicaSetCondition{Type: appsv1.ReplicaSetConditionType(c.Type), Status: c.Status, Reason: c.Reason,
			Message: c.Message, LastTransitionTime: c.LastTransitionTime})
	}
	return out
}
