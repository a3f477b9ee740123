package servicecidr

import (
	"fmt"
	"strings"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var now = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// cidr is a range; gone is for how long it has been being deleted, negative: not at all.
func cidr(name, prefix string, gone time.Duration, finalizers ...string) *networkingv1.ServiceCIDR {
	c := &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: name, Finalizers: finalizers}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: strings.Split(prefix, ",")}}
	if gone >= 0 {
		c.DeletionTimestamp = &metav1.Time{Time: now.Add(-gone)}
	}
	return c
}

func describe(p plan) string {
	var out []string
	if p.finalizers != nil {
		out = append(out, "finalizers "+strings.Join(*p.finalizers, ","))
	}
	for _, c := range p.conditions {
		out = append(out, fmt.Sprintf("%s=%s %s", c.Type, c.Status, c.Reason))
	}
	if p.event != "" {
		out = append(out, "event "+p.event)
	}
	if p.again > 0 {
		out = append(out, "again "+p.again.String())
	}
	return strings.Join(out, "; ")
}

func TestDecide(t *testing.T) {
	said := func(c *networkingv1.ServiceCIDR, status metav1.ConditionStatus, reason, message string) *networkingv1.ServiceCIDR {
		c.Status.Conditions = []metav1.Condition{{Type: "Ready", Status: status, Reason: reason, Message: message}}
		return c
	}
	for _, c := range []struct {
		what      string
		it        *networkingv1.ServiceCIDR
		others    []*networkingv1.ServiceCIDR
		addresses string
		want      string
	}{
		{"a new one", cidr("a", "10.1.0.0/24", -1, "mine"), nil, "", "finalizers mine," + finalizer + "; Ready=True "},
		{"as it should be", said(cidr("a", "10.1.0.0/24", -1, finalizer), "True", "", usable), nil, "10.1.0.1", ""},
		{"deleted, in use", cidr("a", "10.1.0.0/24", time.Hour, finalizer), nil, "10.1.0.1", "Ready=False Terminating; event KubernetesServiceCIDRError"},
		{"deleted, in use, said", said(cidr("a", "10.1.0.0/24", time.Hour, finalizer), "False", "Terminating", stillUsed), nil, "10.1.0.1", ""},
		{"deleted, an address of its second family", cidr("a", "10.1.0.0/24,fd00::/112", time.Hour, finalizer), nil, "fd00::7", "Ready=False Terminating; event KubernetesServiceCIDRError"},
		{"deleted, not in use, a moment ago", cidr("a", "10.1.0.0/24", 4*time.Second, finalizer), nil, "10.2.0.1", "again 6s"},
		{"deleted, not in use", cidr("a", "10.1.0.0/24", 10*time.Second, "mine", finalizer), nil, "10.2.0.1", "finalizers mine"},
		{"deleted, another has the address", cidr("a", "10.1.0.0/24", time.Hour, finalizer), []*networkingv1.ServiceCIDR{cidr("b", "10.1.0.0/16", -1)}, "10.1.0.1", "finalizers "},
		{"deleted, another has but some", cidr("a", "10.1.0.0/24", time.Hour, finalizer), []*networkingv1.ServiceCIDR{cidr("b", "10.1.0.0/28", -1)}, "10.1.0.1 10.1.0.99",
			"Ready=False Terminating; event KubernetesServiceCIDRError"},
		{"deleted, the other goes as well", cidr("a", "10.1.0.0/24", time.Hour, finalizer), []*networkingv1.ServiceCIDR{cidr("b", "10.1.0.0/16", 0)}, "10.1.0.1",
			"Ready=False Terminating; event KubernetesServiceCIDRError"},
		{"others hold it", cidr("a", "10.1.0.0/24", time.Hour, "mine"), nil, "10.1.0.1", ""},
	} {
		if got := describe(decide(c.it, append(c.others, c.it), strings.Fields(c.addresses), now)); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.what, got, c.want)
		}
	}
}
