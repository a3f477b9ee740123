package loadbalancer

import (
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
)

// decision is what a Service's load balancer addresses are to be.
type decision struct {
	write  bool       // the status changes
	addr   netip.Addr // what it holds afterwards; zero: nothing of ours
	reason string     // of a warning event; "" for none
	why    string
}

// ours tells whether a Service asks this balancer for an address.
func ours(svc *corev1.Service) bool {
	return svc.DeletionTimestamp == nil && svc.Spec.Type == corev1.ServiceTypeLoadBalancer && svc.Spec.LoadBalancerClass == nil
}

// held lists the pool's addresses in a Service's status.
func held(svc *corev1.Service, pool Pool) []netip.Addr {
	var out []netip.Addr
	for _, in := range svc.Status.LoadBalancer.Ingress {
		if a, err := netip.ParseAddr(in.IP); err == nil && pool.Has(a) {
			out = append(out, a)
		}
	}
	return out
}

// decide says what becomes of a Service's address. taken tells what others have.
func decide(svc *corev1.Service, pool Pool, taken func(netip.Addr) bool) decision {
	have := held(svc, pool)
	if !ours(svc) {
		// Of another class the address may be another balancer's even though it is in our ranges; of another type it can only be a leftover.
		return decision{write: len(have) > 0 && svc.Spec.Type != corev1.ServiceTypeLoadBalancer}
	}
	if wish := svc.Spec.LoadBalancerIP; wish != "" {
		return grant(svc, pool, taken, have, wish)
	}
	if len(have) > 0 && !taken(have[0]) && complete(svc, have[0]) {
		return decision{addr: have[0]}
	}
	for _, a := range have {
		if !taken(a) {
			return decision{write: true, addr: a}
		}
	}
	if a, ok := pool.free(taken); ok {
		return decision{write: true, addr: a}
	}
	return decision{write: len(have) > 0, reason: "AllocationFailed",
		why: "no free address in the load balancer ranges: delete a Service of type LoadBalancer or widen --load-balancer-range; until then the Service answers on its node ports"}
}

// grant gives a Service the address that it names, or says why not.
func grant(svc *corev1.Service, pool Pool, taken func(netip.Addr) bool, have []netip.Addr, wish string) decision {
	a, err := netip.ParseAddr(wish)
	switch {
	case err != nil || !pool.Has(a):
		return decision{write: len(have) > 0, reason: "AllocationFailed", why: fmt.Sprintf("spec.loadBalancerIP %s is not in the load balancer ranges", wish)}
	case taken(a):
		return decision{write: len(have) > 0, reason: "AllocationFailed", why: fmt.Sprintf("spec.loadBalancerIP %s belongs to another Service", wish)}
	}
	return decision{write: !complete(svc, a), addr: a}
}

// complete tells whether the status says all that it should of an address.
func complete(svc *corev1.Service, a netip.Addr) bool {
	in := svc.Status.LoadBalancer.Ingress
	return len(in) == 1 && in[0].IP == a.String() && in[0].IPMode != nil && *in[0].IPMode == corev1.LoadBalancerIPModeVIP
}
