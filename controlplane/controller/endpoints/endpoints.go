// Package endpoints writes, for every Service with a selector, the addresses behind it as one Endpoints object, the form
// that was before EndpointSlices. Proxies do not read it; people and older programs do.
//
// plan.go is pure: Service, pods and stored object in, wanted object out.
package endpoints

import (
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/controlplane/controller"
	"keelson.dev/keelson/controlplane/controller/backend"
)

type writer struct {
	controller.Deps
	services, pods, endpoints cache.SharedIndexInformer
}

// New returns the controller; keys are services.
func New(d controller.Deps) (*controller.Loop, error) {
	core := d.Informers.Core().V1()
	w := &writer{Deps: d, services: core.Services().Informer(), pods: core.Pods().Informer(), endpoints: core.Endpoints().Informer()}
	loop := controller.NewLoop("endpoint", d.Log, 2, w.reconcile)
	return loop, errors.Join(
		controller.Watch(loop, w.services, func(s, _ *corev1.Service) []string { return []string{s.Namespace + "/" + s.Name} }),
		controller.Watch(loop, w.pods, func(pod, old *corev1.Pod) []string {
			return append(backend.Services(w.services.GetIndexer(), pod), backend.Services(w.services.GetIndexer(), old)...)
		}),
		// Those made by hand may come before their Service: only our own are looked at for their own sake.
		controller.Watch(loop, w.endpoints, func(e, _ *corev1.Endpoints) []string {
			if e.Labels[managedByLabel] != managedBy {
				return nil
			}
			return []string{e.Namespace + "/" + e.Name}
		}))
}

func (w *writer) reconcile(ctx context.Context, key string) (time.Duration, error) {
	svc, have := controller.Get[corev1.Service](w.services, key), controller.Get[corev1.Endpoints](w.endpoints, key)
	if svc == nil {
		// Also what was made by hand goes with its Service, as it always has.
		if have == nil {
			return 0, nil
		}
		err := w.Client.CoreV1().Endpoints(have.Namespace).Delete(ctx, have.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(have.UID))})
		if apierrors.IsNotFound(err) {
			err = nil
		}
		return 0, err
	}
	if svc.Spec.Type == corev1.ServiceTypeExternalName || svc.Spec.Selector == nil || svc.DeletionTimestamp != nil {
		return 0, nil
	}
	var pods []*corev1.Pod
	err := cache.ListAllByNamespace(w.pods.GetIndexer(), svc.Namespace, labels.SelectorFromSet(svc.Spec.Selector), func(obj any) { pods = append(pods, obj.(*corev1.Pod)) })
	if err != nil {
		return 0, err
	}
	want := plan(svc, pods, have)
	if want == nil {
		return 0, nil
	}
	client := w.Client.CoreV1().Endpoints(svc.Namespace)
	if have == nil {
		if _, err = client.Create(ctx, want, metav1.CreateOptions{}); controller.Terminating(err) || apierrors.IsAlreadyExists(err) {
			return 0, nil // the informer will show what is there
		}
	} else {
		_, err = client.Update(ctx, want, metav1.UpdateOptions{})
	}
	return 0, err
}
