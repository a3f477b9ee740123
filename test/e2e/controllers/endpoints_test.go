package controllers

import (
	"strings"
	"testing"

	"keelson.dev/keelson/test/lab/labtest"
)

// TestEndpoints: a Service's Endpoints follow its pods, and go with it.
func TestEndpoints(t *testing.T) {
	c := labtest.Cluster(t)
	labtest.Apply(t, c, `apiVersion: v1
kind: Service
metadata: {name: web, labels: {l: v}}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, labels: {app: web}}
spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: "busybox:1.28", command: ["sleep", "3600"], ports: [{name: http, containerPort: 8080}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-2, labels: {app: web}}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: "busybox:1.28", command: ["sleep", "3600"], ports: [{name: http, containerPort: 8080}], readinessProbe: {exec: {command: ["false"]}}}]
`)
	endpoints := func(when, want string) {
		t.Helper()
		labtest.Eventually(t, when, func() string {
			got := labtest.Kubectl(t, c, "get", "endpoints", "web", "--ignore-not-found", "-o",
				"jsonpath={.subsets[*].addresses[*].targetRef.name}|{.subsets[*].notReadyAddresses[*].targetRef.name}|{.subsets[*].ports[*].port}|{.metadata.labels.l}")
			if got != want {
				return "endpoints: " + got
			}
			return ""
		})
	}
	endpoints("one of two is ready", "web-1|web-2|8080|v")
	out, errs, err := c.Kubectl(t.Context(), "get", "endpoints")
	if err != nil || !strings.Contains(errs, "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice") {
		t.Errorf("get endpoints warns of nothing: %v\n%s%s", err, out, errs)
	}
	if !strings.Contains(out, "kubernetes ") || !strings.Contains(out, ":8080") {
		t.Errorf("get endpoints:\n%s", out)
	}
	labtest.Kubectl(t, c, "delete", "pod", "web-1")
	endpoints("the ready one has gone", "|web-2|8080|v")
	labtest.Kubectl(t, c, "delete", "endpoints", "web")
	endpoints("made again", "|web-2|8080|v")
	labtest.Kubectl(t, c, "delete", "service", "web")
	endpoints("gone with its service", "")
}

// TestEndpointsMirror: Endpoints made by hand for a Service without a selector reach the proxy as EndpointSlices.
func TestEndpointsMirror(t *testing.T) {
	c := labtest.Cluster(t)
	labtest.Apply(t, c, `apiVersion: v1
kind: Endpoints
metadata: {name: outside}
subsets: [{addresses: [{ip: 192.0.2.10}], notReadyAddresses: [{ip: 192.0.2.11}], ports: [{port: 5432}]}]
---
apiVersion: v1
kind: Service
metadata: {name: outside}
spec: {ports: [{port: 5432}]}
`)
	slices := func(when, want string) {
		t.Helper()
		labtest.Eventually(t, when, func() string {
			got := labtest.Kubectl(t, c, "get", "endpointslices", "-l", "kubernetes.io/service-name=outside", "-o",
				"jsonpath={range .items[*].endpoints[*]}{.addresses[0]}={.conditions.ready} {end}{.items[*].ports[*].port}")
			if got != want {
				return "slices: " + got
			}
			return ""
		})
	}
	slices("mirrored", "192.0.2.10=true 192.0.2.11=false 5432")
	labtest.Kubectl(t, c, "patch", "endpoints", "outside", "--type=json", "-p", `[{"op":"remove","path":"/subsets/0/notReadyAddresses"}]`)
	slices("changed", "192.0.2.10=true 5432")
	labtest.Kubectl(t, c, "delete", "endpoints", "outside")
	slices("deleted", "")
}
