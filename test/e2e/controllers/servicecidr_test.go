package controllers

import (
	"testing"

	"keelson.dev/keelson/test/lab/labtest"
)

// TestServiceCIDR: a range that is added gives addresses out; deleted, it stays until none of them is in use.
func TestServiceCIDR(t *testing.T) {
	c := labtest.Cluster(t)
	labtest.Apply(t, c, `apiVersion: networking.k8s.io/v1
kind: ServiceCIDR
metadata: {name: more}
spec: {cidrs: [10.222.7.0/28]}
`)
	labtest.Kubectl(t, c, "wait", "--for=condition=Ready", "servicecidr/kubernetes", "servicecidr/more", "--timeout="+labtest.Patience.String())
	labtest.Apply(t, c, `apiVersion: v1
kind: Service
metadata: {name: of-more}
spec: {clusterIP: 10.222.7.3, ports: [{port: 80}]}
`)
	if owner := labtest.Kubectl(t, c, "get", "ipaddress", "10.222.7.3", "-o", "jsonpath={.spec.parentRef.name}"); owner != "of-more" {
		t.Errorf("the address belongs to %q", owner)
	}
	labtest.Kubectl(t, c, "delete", "servicecidr", "more", "--wait=false")
	labtest.Kubectl(t, c, "wait", "--for=jsonpath={.status.conditions[0].reason}=Terminating", "servicecidr/more", "--timeout="+labtest.Patience.String())
	if out, _, err := c.Kubectl(t.Context(), "create", "service", "clusterip", "too-late", "--clusterip=10.222.7.4", "--tcp=80"); err == nil {
		t.Errorf("a range that is being deleted gives an address out: %s", out)
	}
	labtest.Kubectl(t, c, "delete", "service", "of-more")
	labtest.Kubectl(t, c, "wait", "--for=delete", "servicecidr/more", "--timeout="+labtest.Patience.String())
}
