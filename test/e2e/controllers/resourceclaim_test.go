package controllers

import (
	"strings"
	"testing"

	"keelson.dev/keelson/test/lab/labtest"
)

// TestResourceClaim: a pod's claim is made of its template, made again when somebody deletes it, and goes with the pod.
func TestResourceClaim(t *testing.T) {
	c := labtest.Cluster(t)
	labtest.Apply(t, c, `apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata: {name: accelerator}
spec:
  metadata: {labels: {of: template}}
  spec: {devices: {requests: [{name: one, exactly: {deviceClassName: none.example.com}}]}}
---
apiVersion: v1
kind: Pod
metadata: {name: claimant}
spec:
  schedulingGates: [{name: example.com/never}]
  resourceClaims: [{name: gpu, resourceClaimTemplateName: accelerator}, {name: late, resourceClaimTemplateName: not-yet}]
  containers: [{name: c, image: busybox:1.28, resources: {claims: [{name: gpu}, {name: late}]}}]
`)
	named := func(entry, not string) (name string) {
		t.Helper()
		labtest.Eventually(t, "the claim "+entry+" is in the pod's status", func() string {
			name = labtest.Kubectl(t, c, "get", "pod", "claimant", "-o", `jsonpath={.status.resourceClaimStatuses[?(@.name=="`+entry+`")].resourceClaimName}`)
			if name == "" || name == not {
				return "it has " + name
			}
			return ""
		})
		return name
	}
	first := named("gpu", "")
	got := labtest.Kubectl(t, c, "get", "resourceclaim", first, "-o",
		`jsonpath={.metadata.ownerReferences[0].name} {.metadata.annotations.resource\.kubernetes\.io/pod-claim-name} {.metadata.labels.of} {.spec.devices.requests[0].name}`)
	if got != "claimant gpu template one" || !strings.HasPrefix(first, "claimant-gpu-") {
		t.Errorf("claim %s: %s", first, got)
	}
	labtest.Eventually(t, "what is missing is told", func() string {
		if story := labtest.Kubectl(t, c, "describe", "pod", "claimant"); !strings.Contains(story, `PodResourceClaim late: resource claim template "not-yet": not found`) {
			return story
		}
		return ""
	})
	labtest.Apply(t, c, `apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata: {name: not-yet}
spec: {spec: {devices: {requests: [{name: two, exactly: {deviceClassName: none.example.com}}]}}}
`)
	late := named("late", "")
	labtest.Kubectl(t, c, "delete", "resourceclaim", first)
	second := named("gpu", first)
	labtest.Kubectl(t, c, "get", "resourceclaim", second)
	labtest.Kubectl(t, c, "delete", "pod", "claimant", "--grace-period=0", "--force")
	labtest.Kubectl(t, c, "wait", "--for=delete", "resourceclaim/"+second, "resourceclaim/"+late, "--timeout="+labtest.Patience.String())
}

// TestResourceClaimReservation: a reservation of a pod that is gone goes, and with the last one what was allocated.
func TestResourceClaimReservation(t *testing.T) {
	c := labtest.Cluster(t)
	labtest.Apply(t, c, `apiVersion: resource.k8s.io/v1
kind: ResourceClaim
metadata: {name: shared, finalizers: [resource.kubernetes.io/delete-protection]}
spec: {devices: {requests: [{name: one, exactly: {deviceClassName: none.example.com}}]}}
---
apiVersion: v1
kind: Pod
metadata: {name: holder}
spec:
  schedulingGates: [{name: example.com/never}]
  resourceClaims: [{name: gpu, resourceClaimName: shared}]
  containers: [{name: c, image: busybox:1.28}]
`)
	uid := labtest.Kubectl(t, c, "get", "pod", "holder", "-o", "jsonpath={.metadata.uid}")
	labtest.Kubectl(t, c, "patch", "resourceclaim", "shared", "--subresource=status", "--type=merge", "-p", `{"status":{
		"allocation":{"devices":{"results":[{"request":"one","driver":"none.example.com","pool":"p","device":"d"}]}},
		"reservedFor":[{"resource":"pods","name":"holder","uid":"`+uid+`"},{"resource":"pods","name":"gone","uid":"0"}]}}`)
	state := func() string {
		return labtest.Kubectl(t, c, "get", "resourceclaim", "shared", "-o", "jsonpath={.status.reservedFor[*].name};{.status.allocation.devices.results[*].device};{.metadata.finalizers}")
	}
	labtest.Eventually(t, "one user is left", func() string {
		if got := state(); got != `holder;d;["resource.kubernetes.io/delete-protection"]` {
			return got
		}
		return ""
	})
	labtest.Kubectl(t, c, "delete", "pod", "holder", "--grace-period=0", "--force")
	labtest.Eventually(t, "nothing is allocated any more", func() string { return strings.Trim(state(), ";") })
}
