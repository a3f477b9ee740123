package endpointslice

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/controlplane/controller"
	"keelson.dev/keelson/controlplane/controller/backend"
	"keelson.dev/keelson/controlplane/controller/expectation"
)

const byService = "service"

type writer struct {
	controller.Deps
	services, pods, nodes, slices cache.SharedIndexInformer
	expect                        *expectation.Set
}

// New returns the controller; keys are services.
func New(d controller.Deps) (*controller.Loop, error) {
	w := &writer{Deps: d, services: d.Informers.Core().V1().Services().Informer(), pods: d.Informers.Core().V1().Pods().Informer(),
		nodes: d.Informers.Core().V1().Nodes().Informer(), slices: d.Informers.Discovery().V1().EndpointSlices().Informer(), expect: expectation.New()}
	loop := controller.NewLoop("endpointslice", d.Log, 2, w.reconcile)
	loop.Needs(w.nodes)
	return loop, errors.Join(
		w.slices.AddIndexers(cache.Indexers{byService: serviceOf}),
		controller.Watch(loop, w.services, func(s, _ *corev1.Service) []string { return []string{s.Namespace + "/" + s.Name} }),
		controller.Watch(loop, w.pods, func(pod, old *corev1.Pod) []string {
			return append(backend.Services(w.services.GetIndexer(), pod), backend.Services(w.services.GetIndexer(), old)...)
		}),
		controller.Watch(loop, w.slices, sliceKeys(w.slices, w.expect, managedBy)),
	)
}

// sliceKeys finds the service that a change of a manager's slice concerns, and notes what it shows.
func sliceKeys(informer cache.SharedIndexInformer, expect *expectation.Set, manager string) func(s, _ *discoveryv1.EndpointSlice) []string {
	return func(s, _ *discoveryv1.EndpointSlice) []string {
		if s.Labels[discoveryv1.LabelManagedBy] != manager {
			return nil
		}
		key := s.Namespace + "/" + s.Labels[discoveryv1.LabelServiceName]
		_, stored, _ := informer.GetIndexer().GetByKey(s.Namespace + "/" + s.Name)
		expect.Saw(key, s.Name, s.UID, s.DeletionTimestamp != nil || !stored)
		return []string{key}
	}
}

func serviceOf(obj any) ([]string, error) {
	s := obj.(*discoveryv1.EndpointSlice)
	return []string{s.Namespace + "/" + s.Labels[discoveryv1.LabelServiceName]}, nil
}

func (w *writer) reconcile(ctx context.Context, key string) (time.Duration, error) {
	if w.expect.Pending(key, time.Now()) {
		return expectation.Limit, nil // until then what is awaited wakes the key
	}
	svc := controller.Get[corev1.Service](w.services, key)
	have, err := slicesOf(w.slices, key, managedBy)
	if err != nil {
		return 0, err
	}
	in := input{service: svc, zones: map[string]string{}, slices: have}
	if svc == nil || svc.DeletionTimestamp != nil || len(svc.Spec.Selector) == 0 || svc.Spec.Type == corev1.ServiceTypeExternalName {
		return 0, apply(ctx, w.Client, w.expect, key, changes{remove: in.slices})
	}
	selector := labels.SelectorFromSet(svc.Spec.Selector)
	err = cache.ListAllByNamespace(w.pods.GetIndexer(), svc.Namespace, selector, func(obj any) { in.pods = append(in.pods, obj.(*corev1.Pod)) })
	if err != nil {
		return 0, err
	}
	for _, pod := range in.pods {
		if node := controller.Get[corev1.Node](w.nodes, pod.Spec.NodeName); node != nil {
			in.zones[node.Name] = node.Labels[corev1.LabelTopologyZone]
		}
	}
	return 0, apply(ctx, w.Client, w.expect, key, plan(in))
}

// slicesOf lists a service's slices that one manager made.
func slicesOf(informer cache.SharedIndexInformer, key, manager string) (out []*discoveryv1.EndpointSlice, err error) {
	objs, err := informer.GetIndexer().ByIndex(byService, key)
	for _, obj := range objs {
		if s := obj.(*discoveryv1.EndpointSlice); s.Labels[discoveryv1.LabelManagedBy] == manager && s.DeletionTimestamp == nil {
			out = append(out, s)
		}
	}
	return out, err
}

// apply makes the changes. Until the informer has shown which slices came and went, the service is not planned again: by a cache that
// lags it would be given slice after slice, and of two that are alike first the one and then the other would be removed.
func apply(ctx context.Context, all kubernetes.Interface, expect *expectation.Set, key string, c changes) error {
	namespace, _, _ := strings.Cut(key, "/")
	client := all.DiscoveryV1().EndpointSlices(namespace)
	var errs []error
	for _, s := range c.create {
		// Named here, so that the expectation is there before the watch can bring the slice.
		s.Name = s.GenerateName[:min(len(s.GenerateName), 58)] + rand.String(5)
		expect.Created(key, s.Name)
		_, err := client.Create(ctx, s, metav1.CreateOptions{})
		if err != nil {
			expect.Saw(key, s.Name, "", false)
		}
		if controller.Terminating(err) {
			err = nil
		}
		errs = append(errs, err)
	}
	for _, s := range c.update {
		_, err := client.Update(ctx, s, metav1.UpdateOptions{})
		errs = append(errs, err)
	}
	for _, s := range c.remove {
		expect.Deleted(key, s.UID)
		if err := client.Delete(ctx, s.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(s.UID))}); err != nil {
			expect.Saw(key, s.Name, s.UID, true)
			if !apierrors.IsNotFound(err) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

func portKey(p discoveryv1.EndpointPort) string {
	name, protocol, app, number := "", corev1.ProtocolTCP, "", int32(0)
	if p.Name != nil {
		name = *p.Name
	}
	if p.Protocol != nil {
		protocol = *p.Protocol
	}
	if p.AppProtocol != nil {
		app = *p.AppProtocol
	}
	if p.Port != nil {
		number = *p.Port
	}
	return fmt.Sprintf("%s/%s/%d/%s", name, protocol, number, app)
}
