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
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/controlplane/controller"
)

const byService = "service"

type writer struct {
	controller.Deps
	services, pods, nodes, slices cache.SharedIndexInformer
}

// New returns the controller; keys are services.
func New(d controller.Deps) (*controller.Loop, error) {
	w := &writer{Deps: d, services: d.Informers.Core().V1().Services().Informer(), pods: d.Informers.Core().V1().Pods().Informer(),
		nodes: d.Informers.Core().V1().Nodes().Informer(), slices: d.Informers.Discovery().V1().EndpointSlices().Informer()}
	loop := controller.NewLoop("endpointslice", d.Log, 2, w.reconcile)
	loop.Needs(w.nodes)
	return loop, errors.Join(
		w.slices.AddIndexers(cache.Indexers{byService: func(obj any) ([]string, error) {
			s := obj.(*discoveryv1.EndpointSlice)
			return []string{s.Namespace + "/" + s.Labels[discoveryv1.LabelServiceName]}, nil
		}}),
		controller.Watch(loop, w.services, func(s, _ *corev1.Service) []string { return []string{s.Namespace + "/" + s.Name} }),
		controller.Watch(loop, w.pods, func(pod, old *corev1.Pod) []string { return append(w.of(pod), w.of(old)...) }),
		controller.Watch(loop, w.slices, func(s, _ *discoveryv1.EndpointSlice) []string {
			if s.Labels[discoveryv1.LabelManagedBy] != managedBy {
				return nil
			}
			return []string{s.Namespace + "/" + s.Labels[discoveryv1.LabelServiceName]}
		}),
	)
}

// of lists the services that select a pod.
func (w *writer) of(pod *corev1.Pod) []string {
	if pod == nil {
		return nil
	}
	services, err := w.services.GetIndexer().ByIndex(cache.NamespaceIndex, pod.Namespace)
	if err != nil {
		return nil
	}
	var out []string
	for _, obj := range services {
		s := obj.(*corev1.Service)
		if len(s.Spec.Selector) > 0 && labels.SelectorFromSet(s.Spec.Selector).Matches(labels.Set(pod.Labels)) {
			out = append(out, s.Namespace+"/"+s.Name)
		}
	}
	return out
}

func (w *writer) reconcile(ctx context.Context, key string) (time.Duration, error) {
	svc := controller.Get[corev1.Service](w.services, key)
	in := input{service: svc, zones: map[string]string{}}
	objs, err := w.slices.GetIndexer().ByIndex(byService, key)
	if err != nil {
		return 0, err
	}
	for _, obj := range objs {
		if s := obj.(*discoveryv1.EndpointSlice); s.Labels[discoveryv1.LabelManagedBy] == managedBy && s.DeletionTimestamp == nil {
			in.slices = append(in.slices, s)
		}
	}
	if svc == nil || svc.DeletionTimestamp != nil || len(svc.Spec.Selector) == 0 || svc.Spec.Type == corev1.ServiceTypeExternalName {
		return 0, w.apply(ctx, key, changes{remove: in.slices})
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
	return 0, w.apply(ctx, key, plan(in))
}

func (w *writer) apply(ctx context.Context, key string, c changes) error {
	namespace, _, _ := strings.Cut(key, "/")
	client := w.Client.DiscoveryV1().EndpointSlices(namespace)
	var errs []error
	for _, s := range c.create {
		_, err := client.Create(ctx, s, metav1.CreateOptions{})
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
		if err := client.Delete(ctx, s.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, err)
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
