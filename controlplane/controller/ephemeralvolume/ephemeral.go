// Package ephemeralvolume makes the claims of pods' ephemeral volumes. A claim belongs to its pod and goes with it.
package ephemeralvolume

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/controlplane/controller"
)

type maker struct {
	controller.Deps
	pods, claims cache.SharedIndexInformer
}

// New returns the controller; its keys are pods.
func New(d controller.Deps) (*controller.Loop, error) {
	m := &maker{Deps: d, pods: d.Informers.Core().V1().Pods().Informer(), claims: d.Informers.Core().V1().PersistentVolumeClaims().Informer()}
	loop := controller.NewLoop("ephemeral-volume", d.Log, 1, m.reconcile)
	return loop, errors.Join(
		controller.Watch(loop, m.pods, func(pod, _ *corev1.Pod) []string {
			for _, v := range pod.Spec.Volumes {
				if v.Ephemeral != nil {
					return []string{pod.Namespace + "/" + pod.Name}
				}
			}
			return nil
		}),
		controller.Watch(loop, m.claims, func(c, _ *corev1.PersistentVolumeClaim) []string {
			if owner := metav1.GetControllerOf(c); owner != nil && owner.Kind == "Pod" {
				return []string{c.Namespace + "/" + owner.Name}
			}
			return nil
		}))
}

func (m *maker) reconcile(ctx context.Context, key string) (time.Duration, error) {
	pod := controller.Get[corev1.Pod](m.pods, key)
	if pod == nil || pod.DeletionTimestamp != nil {
		return 0, nil
	}
	var errs []error
	for i := range pod.Spec.Volumes {
		if v := &pod.Spec.Volumes[i]; v.Ephemeral != nil && v.Ephemeral.VolumeClaimTemplate != nil {
			errs = append(errs, m.ensure(ctx, pod, v))
		}
	}
	return 0, errors.Join(errs...)
}

func (m *maker) ensure(ctx context.Context, pod *corev1.Pod, v *corev1.Volume) error {
	name := pod.Name + "-" + v.Name
	if have := controller.Get[corev1.PersistentVolumeClaim](m.claims, pod.Namespace+"/"+name); have != nil {
		if metav1.IsControlledBy(have, pod) {
			return nil
		}
		return m.refuse(pod, fmt.Errorf("PVC %q was not created for pod %q (pod is not owner)", name, pod.Name))
	}
	t := v.Ephemeral.VolumeClaimTemplate
	claim := &corev1.PersistentVolumeClaim{Spec: t.Spec, ObjectMeta: metav1.ObjectMeta{Name: name, Labels: t.Labels, Annotations: t.Annotations,
		OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(pod, corev1.SchemeGroupVersion.WithKind("Pod"))}}}
	_, err := m.Client.CoreV1().PersistentVolumeClaims(pod.Namespace).Create(ctx, claim, metav1.CreateOptions{})
	if err == nil || apierrors.IsAlreadyExists(err) || controller.Terminating(err) {
		return nil // an existing one comes by the informer
	}
	return m.refuse(pod, fmt.Errorf("create PVC %s: %w", name, err))
}

func (m *maker) refuse(pod *corev1.Pod, err error) error {
	m.Events.Eventf(pod, corev1.EventTypeWarning, "FailedEphemeralVolume", "ephemeral volume: %v", err)
	return err
}
