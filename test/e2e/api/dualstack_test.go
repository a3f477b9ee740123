package api

import (
	"net/http"
	"strings"
	"testing"

	"keelson.dev/keelson/test/lab"
	"keelson.dev/keelson/test/lab/labtest"
)

// TestDualStack: with ranges of both families Services may have an address of each; pods have IPv4 alone, so that is what serves.
func TestDualStack(t *testing.T) {
	c := labtest.Own(t, lab.Options{DualStack: true})
	labtest.Kubectl(t, c, "wait", "--for=condition=Ready", "servicecidr/kubernetes", "--timeout="+labtest.Patience.String())
	if got := labtest.Kubectl(t, c, "get", "servicecidr", "kubernetes", "-o", "jsonpath={.spec.cidrs[1]} [{.status.conditions[0].reason}]"); got != "fd00:43::/112 []" {
		t.Errorf("ServiceCIDR: %s", got)
	}
	labtest.Apply(t, c, `apiVersion: v1
kind: Pod
metadata: {name: backend, labels: {app: both}}
spec: {containers: [{name: c, image: `+lab.HelloImage+`, ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: both}
spec: {ipFamilyPolicy: RequireDualStack, selector: {app: both}, ports: [{port: 80, targetPort: 80}]}
`)
	labtest.WaitPod(t, c, "backend", "condition=Ready")
	get := func(path string) string {
		return labtest.Kubectl(t, c, "get", "service", "both", "-o", "jsonpath="+path)
	}
	ips := strings.Fields(get("{.spec.clusterIPs[*]}"))
	if len(ips) != 2 || ips[0] != get("{.spec.clusterIP}") || !strings.HasPrefix(ips[1], "fd00:43::") {
		t.Fatalf("addresses %v, clusterIP %s", ips, get("{.spec.clusterIP}"))
	}
	for _, ip := range ips {
		if owner := labtest.Kubectl(t, c, "get", "ipaddress", ip, "-o", "jsonpath={.spec.parentRef.name}"); owner != "both" {
			t.Errorf("%s belongs to %q", ip, owner)
		}
	}
	labtest.Eventually(t, "slices of both families", func() string {
		got := labtest.Kubectl(t, c, "get", "endpointslices", "-l", "kubernetes.io/service-name=both", "--sort-by=.addressType", "-o", "jsonpath={range .items[*]}{.addressType} {.endpoints[*].targetRef.name};{end}")
		if got != "IPv4 backend;IPv6 ;" {
			return got
		}
		return ""
	})
	labtest.Eventually(t, "the Service answers at its IPv4 address", func() string {
		answer, err := (&http.Client{Timeout: labtest.Patience / 10}).Get("http://" + ips[0])
		if err != nil {
			return err.Error()
		}
		return strings.TrimPrefix(answer.Status, "200 OK")
	})
	labtest.Kubectl(t, c, "patch", "service", "both", "-p", `{"spec":{"ipFamilyPolicy":"SingleStack"}}`)
	if got := get("{.spec.clusterIPs[*]} {.spec.ipFamilies[*]}"); got != ips[0]+" IPv4" {
		t.Errorf("as SingleStack: %s", got)
	}
	if _, _, err := c.Kubectl(t.Context(), "get", "ipaddress", ips[1]); err == nil {
		t.Errorf("%s is still held", ips[1])
	}
	labtest.Eventually(t, "one slice is left", func() string {
		if got := labtest.Kubectl(t, c, "get", "endpointslices", "-l", "kubernetes.io/service-name=both", "-o", "jsonpath={.items[*].addressType}"); got != "IPv4" {
			return got
		}
		return ""
	})
}

// TestSingleStack: upstream's refusals where there is one family.
func TestSingleStack(t *testing.T) {
	c := labtest.Cluster(t)
	for policy, want := range map[string]string{
		"ipFamilyPolicy: RequireDualStack": `spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services`,
		"ipFamilies: [IPv6]":               `spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster`,
	} {
		said := labtest.Refused(t, c, "apiVersion: v1\nkind: Service\nmetadata: {name: refused}\nspec: {"+policy+", ports: [{port: 80}]}\n", "apply", "-f", "-")
		if !strings.Contains(said, want) {
			t.Errorf("%s: %s", policy, said)
		}
	}
}
