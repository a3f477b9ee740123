// Package ttl deletes Jobs some time after they have finished (spec.ttlSecondsAfterFinished).
package ttl

import (
	"context"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/controlplane/controller"
)

type reaper struct {
	controller.Deps
	jobs cache.SharedIndexInformer
}

// New returns the controller; keys are Jobs.
func New(d controller.Deps) (*controller.Loop, error) {
	r := &reaper{Deps: d, jobs: d.Informers.Batch().V1().Jobs().Informer()}
	loop := controller.NewLoop("ttl-after-finished", d.Log, 1, r.reconcile)
	return loop, controller.Watch(loop, r.jobs, func(j, _ *batchv1.Job) []string {
		if j.Spec.TTLSecondsAfterFinished == nil || j.DeletionTimestamp != nil {
			return nil
		}
		return []string{j.Namespace + "/" + j.Name}
	})
}

func (r *reaper) reconcile(ctx context.Context, key string) (time.Duration, error) {
	j := controller.Get[batchv1.Job](r.jobs, key)
	if j == nil {
		return 0, nil
	}
	left, finished := remaining(j, time.Now())
	if !finished || left > 0 {
		return left, nil
	}
	// The cache may lag behind a user who has just raised the limit: ask the API before what cannot be undone.
	fresh, err := r.Client.BatchV1().Jobs(j.Namespace).Get(ctx, j.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	if left, finished = remaining(fresh, time.Now()); !finished || left > 0 {
		return left, nil
	}
	policy := metav1.DeletePropagationForeground
	err = r.Client.BatchV1().Jobs(j.Namespace).Delete(ctx, j.Name, metav1.DeleteOptions{PropagationPolicy: &policy,
		Preconditions: &metav1.Preconditions{UID: &fresh.UID, ResourceVersion: &fresh.ResourceVersion}})
	if apierrors.IsNotFound(err) {
		err = nil
	}
	return 0, err
}

// remaining is how long a finished Job is still kept; false if it has not finished, has no limit or is going already.
func remaining(j *batchv1.Job, now time.Time) (time.Duration, bool) {
	if j.Spec.TTLSecondsAfterFinished == nil || j.DeletionTimestamp != nil {
		return 0, false
	}
	for _, c := range j.Status.Conditions {
		if (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == corev1.ConditionTrue {
			end := c.LastTransitionTime.Add(time.Duration(*j.Spec.TTLSecondsAfterFinished) * time.Second)
			return max(end.Sub(now), 0), true
		}
	}
	return 0, false
}
