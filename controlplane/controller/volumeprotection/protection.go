// Package volumeprotection keeps claims that pods use, volumes that are bound and classes that either names from vanishing: it takes their
// finalizers off once nobody uses them. Admission puts the finalizers on.
package volumeprotection

import (
	"context"
	"errors"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/controlplane/controller"
)

const (
	claimFinalizer  = "kubernetes.io/pvc-protection"
	volumeFinalizer = "kubernetes.io/pv-protection"
)

type guard struct {
	controller.Deps
	claims, volumes, pods cache.SharedIndexInformer
}

// NewClaims returns the controller of claims.
func NewClaims(d controller.Deps) (*controller.Loop, error) {
	g := &guard{Deps: d, claims: d.Informers.Core().V1().PersistentVolumeClaims().Informer(), pods: d.Informers.Core().V1().Pods().Informer()}
	loop := controller.NewLoop("pvc-protection", d.Log, 1, g.claim)
	return loop, errors.Join(
		controller.Watch(loop, g.claims, func(c, _ *corev1.PersistentVolumeClaim) []string {
			if c.DeletionTimestamp == nil {
				return nil
			}
			return []string{c.Namespace + "/" + c.Name}
		}),
		controller.Watch(loop, g.pods, func(pod, _ *corev1.Pod) []string {
			var keys []string
			for _, name := range controller.ClaimNames(pod) {
				keys = append(keys, pod.Namespace+"/"+name)
			}
			return keys
		}))
}

// NewVolumes returns the controller of volumes.
func NewVolumes(d controller.Deps) (*controller.Loop, error) {
	g := &guard{Deps: d, volumes: d.Informers.Core().V1().PersistentVolumes().Informer()}
	loop := controller.NewLoop("pv-protection", d.Log, 1, g.volume)
	return loop, controller.Watch(loop, g.volumes, func(pv, _ *corev1.PersistentVolume) []string {
		if pv.DeletionTimestamp == nil {
			return nil
		}
		return []string{pv.Name}
	})
}

func (g *guard) claim(ctx context.Context, key string) (time.Duration, error) {
	claim := controller.Get[corev1.PersistentVolumeClaim](g.claims, key)
	if claim == nil || claim.DeletionTimestamp == nil || !slices.Contains(claim.Finalizers, claimFinalizer) {
		return 0, nil
	}
	for _, obj := range g.pods.GetIndexer().List() {
		if controller.UsesClaim(obj.(*corev1.Pod), claim) {
			return 0, nil
		}
	}
	// The store may lag behind a pod that was just scheduled, and the data would go with the claim.
	pods, err := g.Client.CoreV1().Pods(claim.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return 0, err
	}
	for i := range pods.Items {
		if controller.UsesClaim(&pods.Items[i], claim) {
			return 0, nil
		}
	}
	claim = claim.DeepCopy()
	claim.Finalizers = slices.DeleteFunc(claim.Finalizers, func(f string) bool { return f == claimFinalizer })
	_, err = g.Client.CoreV1().PersistentVolumeClaims(claim.Namespace).Update(ctx, claim, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	return 0, err
}

func (g *guard) volume(ctx context.Context, name string) (time.Duration, error) {
	pv := controller.Get[corev1.PersistentVolume](g.volumes, name)
	if pv == nil || pv.DeletionTimestamp == nil || !slices.Contains(pv.Finalizers, volumeFinalizer) || pv.Status.Phase == corev1.VolumeBound {
		return 0, nil
	}
	pv = pv.DeepCopy()
	pv.Finalizers = slices.DeleteFunc(pv.Finalizers, func(f string) bool { return f == volumeFinalizer })
	_, err := g.Client.CoreV1().PersistentVolumes().Update(ctx, pv, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	return 0, err
}
