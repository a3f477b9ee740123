package servicecidr

import (
	"net/netip"
	"slices"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Upstream's words.
const (
	finalizer = "networking.k8s.io/service-cidr-finalizer"
	usable    = "Kubernetes Service CIDR is ready"
	stillUsed = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR"
	grace     = 10 * time.Second // between a deletion and its end
)

// plan is one step; zero fields mean "as it is".
type plan struct {
	finalizers *[]string
	conditions []metav1.Condition
	event      string
	again      time.Duration
}

// decide plans the next step of a range. all are all ranges, addresses the names of all IPAddresses.
func decide(c *networkingv1.ServiceCIDR, all []*networkingv1.ServiceCIDR, addresses []string, now time.Time) plan {
	var p plan
	has := slices.Contains(c.Finalizers, finalizer)
	switch {
	case c.DeletionTimestamp == nil:
		if !has {
			with := append(slices.Clone(c.Finalizers), finalizer)
			p.finalizers = &with
		}
		p.say(c, metav1.Condition{Type: networkingv1.ServiceCIDRConditionReady, Status: metav1.ConditionTrue, Message: usable}, now)
	case !has:
	case needed(c, all, addresses):
		if p.say(c, metav1.Condition{Type: networkingv1.ServiceCIDRConditionReady, Status: metav1.ConditionFalse,
			Reason: networkingv1.ServiceCIDRReasonTerminating, Message: stillUsed}, now) {
			p.event = "KubernetesServiceCIDRError"
		}
	default:
		if p.again = max(c.DeletionTimestamp.Add(grace).Sub(now), 0); p.again == 0 {
			without := slices.DeleteFunc(slices.Clone(c.Finalizers), func(f string) bool { return f == finalizer })
			p.finalizers = &without
		}
	}
	return p
}

// say sets a condition; false if it says so already.
func (p *plan) say(c *networkingv1.ServiceCIDR, condition metav1.Condition, now time.Time) bool {
	condition.LastTransitionTime = metav1.NewTime(now.Truncate(time.Second))
	list := slices.Clone(c.Status.Conditions)
	if !meta.SetStatusCondition(&list, condition) {
		return false
	}
	p.conditions = list
	return true
}

// needed: an address is in the range and in no other that stays.
func needed(c *networkingv1.ServiceCIDR, all []*networkingv1.ServiceCIDR, addresses []string) bool {
	var others []netip.Prefix
	for _, o := range all {
		if o.Name != c.Name && o.DeletionTimestamp == nil {
			others = append(others, prefixes(o)...)
		}
	}
	own := prefixes(c)
	return slices.ContainsFunc(addresses, func(name string) bool {
		addr, err := netip.ParseAddr(name)
		in := func(p netip.Prefix) bool { return p.Contains(addr) }
		return err == nil && slices.ContainsFunc(own, in) && !slices.ContainsFunc(others, in)
	})
}

func prefixes(c *networkingv1.ServiceCIDR) (out []netip.Prefix) {
	for _, text := range c.Spec.CIDRs {
		if p, err := netip.ParsePrefix(text); err == nil {
			out = append(out, p)
		}
	}
	return out
}
