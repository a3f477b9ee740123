package loadbalancer

import (
	"context"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/controlplane/controller"
)

type assigner struct {
	controller.Deps
	pool     Pool
	services cache.SharedIndexInformer
	loop     *controller.Loop
	given    map[netip.Addr]string // address -> Service that was last given it; of the one worker
}

// New returns the controller of the addresses in pool; keys are Services.
func New(d controller.Deps, pool Pool) (*controller.Loop, error) {
	a := &assigner{Deps: d, pool: pool, services: d.Informers.Core().V1().Services().Informer(), given: map[netip.Addr]string{}}
	a.loop = controller.NewLoop("service-lb-controller", d.Log, 1, a.reconcile)
	return a.loop, controller.Watch(a.loop, a.services, func(s, old *corev1.Service) []string {
		if s.Spec.Type != corev1.ServiceTypeLoadBalancer && (old == nil || old.Spec.Type != corev1.ServiceTypeLoadBalancer) && len(s.Status.LoadBalancer.Ingress) == 0 {
			return nil
		}
		return []string{s.Namespace + "/" + s.Name}
	})
}

func (a *assigner) reconcile(ctx context.Context, key string) (time.Duration, error) {
	svc := controller.Get[corev1.Service](a.services, key)
	if svc == nil {
		a.release(key, netip.Addr{})
		return 0, nil
	}
	d := decide(svc, a.pool, a.takenBy(key))
	if d.reason != "" {
		a.Events.Eventf(svc, corev1.EventTypeWarning, d.reason, "%s", d.why)
	}
	if !d.write {
		a.release(key, d.addr)
		if d.addr.IsValid() {
			a.given[d.addr] = key
		}
		return 0, nil
	}
	next := svc.DeepCopy()
	next.Status.LoadBalancer = corev1.LoadBalancerStatus{}
	if d.addr.IsValid() {
		vip := corev1.LoadBalancerIPModeVIP
		next.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: d.addr.String(), IPMode: &vip}}
		a.given[d.addr] = key
	}
	// The resource version makes a write from an old look fail, and the next look is a new one.
	_, err := a.Client.CoreV1().Services(svc.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		err = nil
	}
	if err != nil {
		return 0, err
	}
	a.release(key, d.addr)
	if d.addr.IsValid() {
		a.Events.Eventf(svc, corev1.EventTypeNormal, "IPAllocated", "Assigned IP %s", d.addr)
	}
	return 0, nil
}

// takenBy tells whether an address belongs to another Service than key.
func (a *assigner) takenBy(key string) func(netip.Addr) bool {
	others := map[netip.Addr]bool{}
	for _, obj := range a.services.GetIndexer().List() {
		s := obj.(*corev1.Service)
		if s.Namespace+"/"+s.Name == key || s.Spec.Type != corev1.ServiceTypeLoadBalancer {
			continue
		}
		for _, addr := range held(s, a.pool) {
			// Of two that hold one address (which nobody here wrote), the one that was given it keeps it.
			if a.given[addr] != key {
				others[addr] = true
			}
		}
	}
	for addr, owner := range a.given {
		if owner != key {
			others[addr] = true
		}
	}
	return func(addr netip.Addr) bool { return others[addr] }
}

// release forgets what a Service was given, but for the address that it keeps, and lets those look again that have none.
func (a *assigner) release(key string, keep netip.Addr) {
	freed := false
	for addr, owner := range a.given {
		if owner == key && addr != keep {
			delete(a.given, addr)
			freed = true
		}
	}
	if !freed {
		return
	}
	for _, obj := range a.services.GetIndexer().List() {
		if s := obj.(*corev1.Service); ours(s) && len(held(s, a.pool)) == 0 && s.Namespace+"/"+s.Name != key {
			a.loop.Add(s.Namespace + "/" + s.Name)
		}
	}
}
