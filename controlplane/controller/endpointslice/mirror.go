package endpointslice

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"keelson.dev/keelson/controlplane/controller"
	"keelson.dev/keelson/controlplane/controller/expectation"
)

const (
	mirrorManagedBy = "endpointslicemirroring-controller.k8s.io"
	// perSubset bounds how many addresses of one subset are mirrored.
	perSubset = 1000
)

type mirror struct {
	controller.Deps
	services, endpoints, slices cache.SharedIndexInformer
	expect                      *expectation.Set
}

// NewMirror returns the controller that copies Endpoints, made by hand for Services without a selector, to
// EndpointSlices, which is what proxies read; keys are services.
func NewMirror(d controller.Deps) (*controller.Loop, error) {
	m := &mirror{Deps: d, services: d.Informers.Core().V1().Services().Informer(), endpoints: d.Informers.Core().V1().Endpoints().Informer(),
		slices: d.Informers.Discovery().V1().EndpointSlices().Informer(), expect: expectation.New()}
	loop := controller.NewLoop("endpointslicemirroring", d.Log, 1, m.reconcile)
	var index error
	if _, there := m.slices.GetIndexer().GetIndexers()[byService]; !there {
		index = m.slices.AddIndexers(cache.Indexers{byService: serviceOf})
	}
	return loop, errors.Join(index,
		controller.Watch(loop, m.services, func(s, _ *corev1.Service) []string { return []string{s.Namespace + "/" + s.Name} }),
		controller.Watch(loop, m.endpoints, func(e, _ *corev1.Endpoints) []string { return []string{e.Namespace + "/" + e.Name} }),
		controller.Watch(loop, m.slices, sliceKeys(m.slices, m.expect, mirrorManagedBy)))
}

func (m *mirror) reconcile(ctx context.Context, key string) (time.Duration, error) {
	if m.expect.Pending(key, time.Now()) {
		return expectation.Limit, nil
	}
	have, err := slicesOf(m.slices, key, mirrorManagedBy)
	if err != nil {
		return 0, err
	}
	svc, e := controller.Get[corev1.Service](m.services, key), controller.Get[corev1.Endpoints](m.endpoints, key)
	if svc == nil || svc.Spec.Selector != nil || e == nil || e.DeletionTimestamp != nil || !mirrored(e) {
		return 0, apply(ctx, m.Client, m.expect, key, changes{remove: have})
	}
	c, skipped := planMirror(e, have)
	if err := apply(ctx, m.Client, m.expect, key, c); err != nil {
		return 0, err
	}
	if changed := len(c.create)+len(c.update)+len(c.remove) > 0; changed && skipped.invalid > 0 {
		m.Events.Eventf(e, corev1.EventTypeWarning, "InvalidIPAddress", "Skipped %d invalid IP addresses when mirroring to EndpointSlices", skipped.invalid)
	} else if changed && skipped.many > 0 {
		m.Events.Eventf(e, corev1.EventTypeWarning, "TooManyAddressesToMirror",
			"A max of %d addresses can be mirrored to EndpointSlices per Endpoints subset. %d addresses were skipped", perSubset, skipped.many)
	}
	return 0, nil
}

// mirrored: what somebody else mirrors, and the locks that leader election once kept in Endpoints, are left alone.
func mirrored(e *corev1.Endpoints) bool {
	_, lock := e.Annotations[resourcelock.LeaderElectionRecordAnnotationKey]
	return !lock && e.Labels[discoveryv1.LabelSkipMirror] != "true"
}

// omitted counts addresses that do not enter the slices.
type omitted struct{ invalid, many int }

// planMirror decides the changes to the slices that mirror e.
func planMirror(e *corev1.Endpoints, have []*discoveryv1.EndpointSlice) (changes, omitted) {
	groups := map[string]*group{}
	var skipped omitted
	for i := range e.Subsets {
		skipped.add(mirrorSubset(groups, &e.Subsets[i]))
	}
	t := template{source: e.ObjectMeta, owner: corev1.SchemeGroupVersion.WithKind("Endpoints"), identity: addressOf,
		labels: maps.Clone(e.Labels), annotations: maps.Clone(e.Annotations)}
	if t.labels == nil {
		t.labels = map[string]string{}
	}
	t.labels[discoveryv1.LabelServiceName], t.labels[discoveryv1.LabelManagedBy] = e.Name, mirrorManagedBy
	delete(t.annotations, corev1.LastAppliedConfigAnnotation)
	delete(t.annotations, corev1.EndpointsLastChangeTriggerTime)
	if t.annotations == nil {
		t.annotations = map[string]string{}
	}
	var c changes
	c.to(t, groups, have)
	return c, skipped
}

func (o *omitted) add(more omitted) { o.invalid, o.many = o.invalid+more.invalid, o.many+more.many }

// mirrorSubset adds a subset's addresses, ready ones first, to the groups of their family and ports.
func mirrorSubset(groups map[string]*group, s *corev1.EndpointSubset) (skipped omitted) {
	var ports []discoveryv1.EndpointPort
	for i := range s.Ports {
		p := &s.Ports[i]
		ports = append(ports, discoveryv1.EndpointPort{Name: &p.Name, Port: &p.Port, Protocol: &p.Protocol, AppProtocol: p.AppProtocol})
	}
	taken := 0
	put := func(a *corev1.EndpointAddress, ready bool) {
		ip, err := netip.ParseAddr(a.IP)
		if err != nil {
			skipped.invalid++
			return
		}
		if taken == perSubset {
			skipped.many++
			return
		}
		taken++
		family := discoveryv1.AddressTypeIPv6
		if ip.Is4() {
			family = discoveryv1.AddressTypeIPv4
		}
		key := groupKey(family, ports)
		if groups[key] == nil {
			groups[key] = &group{family: family, ports: ports, endpoints: map[string]discoveryv1.Endpoint{}}
		}
		e := discoveryv1.Endpoint{Addresses: []string{a.IP}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}, TargetRef: a.TargetRef, NodeName: a.NodeName}
		if a.Hostname != "" {
			e.Hostname = &a.Hostname
		}
		if _, there := groups[key].endpoints[addressOf(e)]; !there {
			groups[key].endpoints[addressOf(e)] = e
		}
	}
	for i := range s.Addresses {
		put(&s.Addresses[i], true)
	}
	for i := range s.NotReadyAddresses {
		put(&s.NotReadyAddresses[i], false)
	}
	return skipped
}

// addressOf tells endpoints of hand-made Endpoints apart.
func addressOf(e discoveryv1.Endpoint) string {
	if len(e.Addresses) == 0 {
		return ""
	}
	return e.Addresses[0] + " " + podUID(e)
}
