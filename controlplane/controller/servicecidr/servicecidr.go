// Package servicecidr says of each ServiceCIDR whether addresses are given out from it, and keeps one that is deleted until no
// Service has an address of it (KEP-1880).
//
// plan.go is pure. The API server's allocator takes nothing from a range that is being deleted; the finalizer stays for a
// grace besides, so that an allocation that began before is seen.
package servicecidr

import (
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/controlplane/controller"
)

type keeper struct {
	controller.Deps
	ranges, addresses cache.SharedIndexInformer
}

// New returns the controller; keys are ServiceCIDRs.
func New(d controller.Deps) (*controller.Loop, error) {
	net := d.Informers.Networking().V1()
	k := &keeper{Deps: d, ranges: net.ServiceCIDRs().Informer(), addresses: net.IPAddresses().Informer()}
	loop := controller.NewLoop("servicecidr", d.Log, 1, k.reconcile)
	// One range may be what another waits for, and an address that goes what any does.
	waiting := func() (keys []string) {
		for _, c := range k.all() {
			if c.DeletionTimestamp != nil {
				keys = append(keys, c.Name)
			}
		}
		return keys
	}
	return loop, errors.Join(
		controller.Watch(loop, k.ranges, func(c, _ *networkingv1.ServiceCIDR) []string { return append(waiting(), c.Name) }),
		controller.Watch(loop, k.addresses, func(a, _ *networkingv1.IPAddress) []string {
			if _, there, _ := k.addresses.GetStore().GetByKey(a.Name); there {
				return nil
			}
			return waiting()
		}))
}

func (k *keeper) all() []*networkingv1.ServiceCIDR {
	var out []*networkingv1.ServiceCIDR
	for _, obj := range k.ranges.GetStore().List() {
		out = append(out, obj.(*networkingv1.ServiceCIDR))
	}
	return out
}

func (k *keeper) reconcile(ctx context.Context, name string) (time.Duration, error) {
	c := controller.Get[networkingv1.ServiceCIDR](k.ranges, name)
	if c == nil {
		return 0, nil
	}
	var names []string
	if c.DeletionTimestamp != nil {
		names = k.addresses.GetStore().ListKeys()
	}
	p := decide(c, k.all(), names, time.Now())
	client := k.Client.NetworkingV1().ServiceCIDRs()
	var err error
	if p.finalizers != nil {
		next := c.DeepCopy()
		next.Finalizers = *p.finalizers
		c, err = client.Update(ctx, next, metav1.UpdateOptions{})
	}
	if err == nil && p.conditions != nil {
		next := c.DeepCopy()
		next.Status.Conditions = p.conditions
		if _, err = client.UpdateStatus(ctx, next, metav1.UpdateOptions{}); err == nil && p.event != "" {
			k.Events.Eventf(c, corev1.EventTypeWarning, p.event, "%s", "The ServiceCIDR cannot be deleted: "+stillUsed)
		}
	}
	if apierrors.IsNotFound(err) {
		err = nil
	}
	return p.again, err
}
