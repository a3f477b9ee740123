package job

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/controlplane/controller"
	"keelson.dev/keelson/controlplane/controller/expectation"
	"keelson.dev/keelson/controlplane/controller/owner"
)

const (
	workers = 4
	burst   = 100 // pods that one pass makes or deletes
	// orphan begins the key of a pod whose Job is gone and left it behind: nobody counts it any more.
	orphan = "orphan:"
)

type runner struct {
	controller.Deps
	jobs, pods cache.SharedIndexInformer
	expect     *expectation.Set
}

// New returns the controller; keys are Jobs, and pods that a Job has left behind.
func New(d controller.Deps) (*controller.Loop, error) {
	r := &runner{Deps: d, jobs: d.Informers.Batch().V1().Jobs().Informer(), pods: d.Informers.Core().V1().Pods().Informer(), expect: expectation.New()}
	loop := controller.NewLoop("job", d.Log, workers, r.reconcile)
	return loop, errors.Join(
		controller.Watch(loop, r.jobs, func(j, _ *batchv1.Job) []string { return []string{j.Namespace + "/" + j.Name} }),
		controller.Watch(loop, r.pods, r.ofPod))
}

func (r *runner) ofPod(pod, old *corev1.Pod) []string {
	var keys []string
	for _, p := range []*corev1.Pod{pod, old} {
		if p == nil {
			continue
		}
		if by := metav1.GetControllerOf(p); by != nil && by.Kind == kind.Kind {
			key := p.Namespace + "/" + by.Name
			_, stored, _ := r.pods.GetIndexer().GetByKey(p.Namespace + "/" + p.Name)
			r.expect.Saw(key, p.Name, p.UID, p.DeletionTimestamp != nil || !stored)
			keys = append(keys, key)
		}
	}
	adopters := r.adopters(pod)
	if r.abandoned(pod) {
		keys = append(keys, orphan+pod.Namespace+"/"+pod.Name)
	}
	return append(keys, adopters...)
}

// adopters are the Jobs that would take a pod that nobody controls.
func (r *runner) adopters(pod *corev1.Pod) []string {
	return owner.Keys(r.jobs.GetIndexer(), pod, func(obj any) labels.Selector {
		if j := obj.(*batchv1.Job); ours(j) && j.DeletionTimestamp == nil && !finished(j) {
			return owner.Selector(j.Spec.Selector)
		}
		return nil
	})
}

// abandoned: a pod that still waits to be counted, and no Job will.
func (r *runner) abandoned(pod *corev1.Pod) bool {
	return tracks(pod) && metav1.GetControllerOf(pod) == nil && len(r.adopters(pod)) == 0
}

// ours: not one that another controller runs.
func ours(j *batchv1.Job) bool {
	return j.Spec.ManagedBy == nil || *j.Spec.ManagedBy == batchv1.JobControllerName
}

func (r *runner) reconcile(ctx context.Context, key string) (time.Duration, error) {
	if name, ok := strings.CutPrefix(key, orphan); ok {
		if pod := controller.Get[corev1.Pod](r.pods, name); pod != nil && r.abandoned(pod) {
			return 0, r.release(ctx, pod)
		}
		return 0, nil
	}
	j := controller.Get[batchv1.Job](r.jobs, key)
	namespace, name, _ := strings.Cut(key, "/")
	objs, err := r.pods.GetIndexer().ByIndex(cache.NamespaceIndex, namespace)
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, obj := range objs {
		pod := obj.(*corev1.Pod)
		by := metav1.GetControllerOf(pod)
		switch {
		case !tracks(pod):
		case by == nil && (j == nil || j.DeletionTimestamp != nil) && r.abandoned(pod),
			by != nil && by.Kind == kind.Kind && by.Name == name && (j == nil || by.UID != j.UID): // nobody counts it any more
			errs = append(errs, r.release(ctx, pod))
		}
	}
	if j == nil || !ours(j) {
		return 0, errors.Join(errs...)
	}
	own, err := r.claim(ctx, j, objs)
	if err != nil {
		return 0, errors.Join(append(errs, err)...)
	}
	if r.expect.Pending(key, time.Now()) {
		return expectation.Limit, errors.Join(errs...)
	}
	p := decide(j, own, time.Now())
	if err := r.report(ctx, j, p); err != nil {
		return 0, errors.Join(append(errs, err)...)
	}
	return p.again, errors.Join(append(errs, r.act(ctx, key, j, p))...)
}

// claim returns a Job's pods. One with a selector by hand takes over the pods of a Job before it; each is to be counted.
func (r *runner) claim(ctx context.Context, j *batchv1.Job, pods []any) ([]*corev1.Pod, error) {
	selector, err := metav1.LabelSelectorAsSelector(j.Spec.Selector)
	if err != nil {
		return nil, fmt.Errorf("selector of job %s/%s: %w", j.Namespace, j.Name, err)
	}
	return owner.Claim[*corev1.Pod]{Owner: j, Kind: kind, Selector: selector, Finalizer: batchv1.JobTrackingFinalizer,
		Fit: func(*corev1.Pod) bool { return !finished(j) },
		Live: func() (metav1.Object, error) {
			return r.Client.BatchV1().Jobs(j.Namespace).Get(ctx, j.Name, metav1.GetOptions{})
		},
		Patch: controller.Patcher(ctx, r.Client.CoreV1().Pods(j.Namespace))}.Take(pods)
}

// report stores the status before any pod loses its finalizer by it.
func (r *runner) report(ctx context.Context, j *batchv1.Job, p plan) error {
	if equality.Semantic.DeepEqual(j.Status, p.status) {
		return nil
	}
	next := j.DeepCopy()
	next.Status = p.status
	if _, err := r.Client.BatchV1().Jobs(j.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{}); err != nil {
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	}
	if p.event != "" {
		level := corev1.EventTypeNormal
		if p.event != "Completed" && p.event != "Suspended" && p.event != "Resumed" {
			level = corev1.EventTypeWarning
		}
		r.Events.Eventf(j, level, p.event, "%s", p.message)
	}
	return nil
}

func (r *runner) act(ctx context.Context, key string, j *batchv1.Job, p plan) error {
	var errs []error
	for _, pod := range p.release {
		errs = append(errs, r.release(ctx, pod))
	}
	for _, pod := range p.drop[:min(len(p.drop), burst)] {
		if tracks(pod) {
			if err := r.release(ctx, pod); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		errs = append(errs, r.remove(ctx, key, j, pod))
	}
	for _, pod := range p.end[:min(len(p.end), burst)] {
		errs = append(errs, r.remove(ctx, key, j, pod))
	}
	for _, b := range p.create[:min(len(p.create), burst)] {
		if err := r.create(ctx, key, j, b); err != nil {
			errs = append(errs, err)
			break // a quota or an admission error: the rest would fail like it
		}
	}
	return errors.Join(errs...)
}

// release takes the finalizer away; the pod has been counted, or is not to be.
func (r *runner) release(ctx context.Context, pod *corev1.Pod) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": pod.UID,
		"$deleteFromPrimitiveList/finalizers": []string{batchv1.JobTrackingFinalizer}}})
	if err != nil {
		return err
	}
	_, err = r.Client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	if err == nil || apierrors.IsNotFound(err) || apierrors.IsInvalid(err) {
		return nil // invalid: another pod of the name
	}
	return fmt.Errorf("release pod %s/%s: %w", pod.Namespace, pod.Name, err)
}

func (r *runner) remove(ctx context.Context, key string, j *batchv1.Job, pod *corev1.Pod) error {
	r.expect.Deleted(key, pod.UID)
	err := r.Client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(pod.UID))})
	if err != nil {
		r.expect.Saw(key, pod.Name, pod.UID, true)
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("delete pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	r.Events.Eventf(j, corev1.EventTypeNormal, "SuccessfulDelete", "Deleted pod: %s", pod.Name)
	return nil
}

func (r *runner) create(ctx context.Context, key string, j *batchv1.Job, b birth) error {
	pod := makePod(j, b)
	r.expect.Created(key, pod.Name)
	if _, err := r.Client.CoreV1().Pods(pod.Namespace).Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		r.expect.Saw(key, pod.Name, "", false)
		if controller.Terminating(err) {
			return nil
		}
		r.Events.Eventf(j, corev1.EventTypeWarning, "FailedCreate", "Error creating: %v", err)
		return fmt.Errorf("create a pod of job %s: %w", key, err)
	}
	r.Events.Eventf(j, corev1.EventTypeNormal, "SuccessfulCreate", "Created pod: %s", pod.Name)
	return nil
}
