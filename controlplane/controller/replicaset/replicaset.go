package replicaset

import (
	"context"
	"errors"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/controlplane/controller"
	"keelson.dev/keelson/controlplane/controller/expectation"
)

const workers = 4

// New returns the controller of ReplicaSets; keys are their names.
func New(d controller.Deps) (*controller.Loop, error) {
	informer := d.Informers.Apps().V1().ReplicaSets().Informer()
	e := &engine{Deps: d, pods: d.Informers.Core().V1().Pods().Informer(), expect: expectation.New()}
	client := d.Client.AppsV1()
	e.kind = kind{
		gvk: appsv1.SchemeGroupVersion.WithKind("ReplicaSet"),
		get: func(key string) (*set, error) {
			rs := controller.Get[appsv1.ReplicaSet](informer, key)
			if rs == nil {
				return nil, nil
			}
			selector, err := metav1.LabelSelectorAsSelector(rs.Spec.Selector)
			if err != nil {
				return nil, err
			}
			return &set{object: rs, meta: rs, kind: appsv1.SchemeGroupVersion.WithKind("ReplicaSet"), replicas: number(rs.Spec.Replicas),
				minReady: time.Duration(rs.Spec.MinReadySeconds) * time.Second, selector: selector, template: &rs.Spec.Template}, nil
		},
		live: func(ctx context.Context, namespace, name string) (metav1.Object, error) {
			return client.ReplicaSets(namespace).Get(ctx, name, metav1.GetOptions{})
		},
		report: func(ctx context.Context, s *set, c counts, failure error, creating bool) error {
			rs := s.object.(*appsv1.ReplicaSet)
			want := rs.DeepCopy()
			want.Status = appsv1.ReplicaSetStatus{Replicas: c.replicas, FullyLabeledReplicas: c.labeled, ReadyReplicas: c.ready,
				AvailableReplicas: c.available, TerminatingReplicas: &c.terminating, ObservedGeneration: rs.Generation, Conditions: rs.Status.Conditions}
			want.Status.Conditions = failureCondition(want.Status.Conditions, failure, creating)
			if equality.Semantic.DeepEqual(want.Status, rs.Status) {
				return nil
			}
			_, err := client.ReplicaSets(rs.Namespace).UpdateStatus(ctx, want, metav1.UpdateOptions{})
			return err
		},
	}
	loop := controller.NewLoop("replicaset", d.Log, workers, e.reconcile)
	return loop, errors.Join(
		controller.Watch(loop, informer, func(rs, _ *appsv1.ReplicaSet) []string { return []string{rs.Namespace + "/" + rs.Name} }),
		controller.Watch(loop, e.pods, e.podKeys(informer.GetIndexer())))
}

func number(n *int32) int32 {
	if n == nil {
		return 1
	}
	return *n
}

// failureCondition sets or clears ReplicaFailure.
func failureCondition(have []appsv1.ReplicaSetCondition, failure error, creating bool) []appsv1.ReplicaSetCondition {
	var out []appsv1.ReplicaSetCondition
	for _, c := range have {
		if c.Type != appsv1.ReplicaSetReplicaFailure {
			out = append(out, c)
		}
	}
	if failure == nil {
		return out
	}
	reason := "FailedDelete"
	if creating {
		reason = "FailedCreate"
	}
	c := appsv1.ReplicaSetCondition{Type: appsv1.ReplicaSetReplicaFailure, Status: corev1.ConditionTrue, Reason: reason,
		Message: failure.Error(), LastTransitionTime: metav1.Now()}
	for _, old := range have {
		if old.Type == c.Type && old.Reason == c.Reason {
			c = old // errors name the pod that was not made: a new message at each try would be a status write at each try
		}
	}
	return append(out, c)
}
