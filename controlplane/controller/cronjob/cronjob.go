package cronjob

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/controller"
)

const workers = 2

type clock struct {
	controller.Deps
	crons, jobs cache.SharedIndexInformer
}

// New returns the controller; keys are CronJobs.
func New(d controller.Deps) (*controller.Loop, error) {
	batch := d.Informers.Batch().V1()
	c := &clock{Deps: d, crons: batch.CronJobs().Informer(), jobs: batch.Jobs().Informer()}
	loop := controller.NewLoop("cronjob", d.Log, workers, c.reconcile)
	return loop, errors.Join(
		controller.Watch(loop, c.crons, func(j, _ *batchv1.CronJob) []string { return []string{j.Namespace + "/" + j.Name} }),
		controller.Watch(loop, c.jobs, func(j, _ *batchv1.Job) []string {
			if owner := metav1.GetControllerOf(j); owner != nil && owner.Kind == kind.Kind {
				return []string{j.Namespace + "/" + owner.Name}
			}
			return nil
		}))
}

func (c *clock) reconcile(ctx context.Context, key string) (time.Duration, error) {
	cron := controller.Get[batchv1.CronJob](c.crons, key)
	if cron == nil {
		return 0, nil
	}
	namespace, _, _ := strings.Cut(key, "/")
	objs, err := c.jobs.GetIndexer().ByIndex(cache.NamespaceIndex, namespace)
	if err != nil {
		return 0, err
	}
	var own []*batchv1.Job
	for _, obj := range objs {
		if j := obj.(*batchv1.Job); metav1.IsControlledBy(j, cron) {
			own = append(own, j)
		}
	}
	p := decide(cron, own, time.Now())
	for _, e := range p.events {
		c.Events.Eventf(cron, e.level, e.reason, "%s", e.message)
	}
	stepErr := c.step(ctx, cron, &p)
	return p.again, errors.Join(stepErr, c.report(ctx, cron, p.status))
}

// step deletes what is to go, then starts what is due; the status learns of it only if it was made.
func (c *clock) step(ctx context.Context, cron *batchv1.CronJob, p *plan) error {
	var errs []error
	for _, j := range p.forget {
		errs = append(errs, c.remove(ctx, cron, j))
	}
	for _, j := range p.stop {
		if err := c.remove(ctx, cron, j); err != nil {
			return errors.Join(append(errs, err)...) // two at once is what Replace forbids
		}
	}
	if p.start == nil {
		return errors.Join(errs...)
	}
	made, err := c.Client.BatchV1().Jobs(cron.Namespace).Create(ctx, p.start, metav1.CreateOptions{})
	switch {
	case err == nil:
		c.Events.Eventf(cron, corev1.EventTypeNormal, "SuccessfulCreate", "Created job %s", made.Name)
		p.status.Active = append(p.status.Active, reference(made))
	case apierrors.IsAlreadyExists(err): // ours of a lagging cache, or another one's, which takes this run's place
	case controller.Terminating(err):
		return errors.Join(errs...)
	default:
		c.Events.Eventf(cron, corev1.EventTypeWarning, "FailedCreate", "Error creating job: %v", err)
		return errors.Join(append(errs, fmt.Errorf("start a job of %s/%s: %w", cron.Namespace, cron.Name, err))...)
	}
	p.status.LastScheduleTime = ptr.To(metav1.NewTime(p.due))
	return errors.Join(errs...)
}

func (c *clock) remove(ctx context.Context, cron *batchv1.CronJob, j *batchv1.Job) error {
	policy := metav1.DeletePropagationBackground
	err := c.Client.BatchV1().Jobs(j.Namespace).Delete(ctx, j.Name, metav1.DeleteOptions{PropagationPolicy: &policy, Preconditions: metav1.NewUIDPreconditions(string(j.UID))})
	switch {
	case err == nil:
		c.Events.Eventf(cron, corev1.EventTypeNormal, "SuccessfulDelete", "Deleted job %s", j.Name)
		return nil
	case apierrors.IsNotFound(err):
		return nil
	}
	c.Events.Eventf(cron, corev1.EventTypeWarning, "FailedDelete", "Deleted job: %v", err)
	return fmt.Errorf("delete job %s/%s: %w", j.Namespace, j.Name, err)
}

func (c *clock) report(ctx context.Context, cron *batchv1.CronJob, status batchv1.CronJobStatus) error {
	if equality.Semantic.DeepEqual(status, cron.Status) {
		return nil
	}
	next := cron.DeepCopy()
	next.Status = status
	_, err := c.Client.BatchV1().CronJobs(cron.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
