package controllers

import (
	"context"
	"strings"
	"testing"

	"keelson.dev/keelson/test/lab/labtest"
)

// TestAutoscale: kubectl top tells what is used, and kubectl autoscale gives a busy Deployment more pods; describe says why.
func TestAutoscale(t *testing.T) {
	t.Parallel() // it waits most of the time
	c := labtest.Cluster(t)
	labtest.Apply(t, c, `apiVersion: apps/v1
kind: Deployment
metadata: {name: busy}
spec:
  replicas: 1
  selector: {matchLabels: {app: busy}}
  template:
    metadata: {labels: {app: busy}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: c
        image: busybox:1.28
        command: [sh, -c, "while :; do :; done"]
        resources: {requests: {cpu: 10m, memory: 4Mi}, limits: {cpu: 100m}}
`)
	labtest.Kubectl(t, c, "rollout", "status", "deployment/busy", "--timeout="+labtest.Patience.String())
	top := func(what ...string) string {
		var out string
		labtest.Eventually(t, "kubectl top", func() string {
			said, errs, err := c.Kubectl(t.Context(), append([]string{"top"}, what...)...)
			if err != nil {
				return errs
			}
			out = said
			return ""
		})
		return out
	}
	for _, said := range []string{top("pod", "-l", "app=busy", "--containers"), top("node")} {
		if lines := strings.Split(strings.TrimSpace(said), "\n"); len(lines) != 2 || !strings.Contains(lines[0], "CPU(cores)") || !strings.Contains(lines[1], "Mi") {
			t.Errorf("kubectl top says:\n%s", said)
		}
	}
	labtest.Kubectl(t, c, "autoscale", "deployment", "busy", "--min=1", "--max=3", "--cpu=50%")
	t.Cleanup(func() { _, _, _ = c.Kubectl(context.Background(), "delete", "hpa", "busy") })
	labtest.Eventually(t, "the autoscaler makes all pods that it may", func() string {
		got := labtest.Kubectl(t, c, "get", "deployment", "busy", "-o", "jsonpath={.spec.replicas}")
		if got != "3" {
			return got + " replicas\n" + labtest.Kubectl(t, c, "describe", "hpa", "busy")
		}
		return ""
	})
	labtest.Eventually(t, "its story is told", func() string {
		story := labtest.Kubectl(t, c, "describe", "hpa", "busy")
		for _, part := range []string{"SuccessfulRescale", "New size: 3; reason: cpu resource utilization (percentage of request) above target", "ScalingLimited  True"} {
			if !strings.Contains(story, part) {
				return "no " + part + " in\n" + story
			}
		}
		return ""
	})
	// Beyond its maximum the Deployment is held without any metric.
	labtest.Kubectl(t, c, "patch", "hpa", "busy", "--type=merge", "-p", `{"spec":{"maxReplicas":2}}`)
	labtest.Eventually(t, "the autoscaler keeps to its maximum", func() string {
		if got := labtest.Kubectl(t, c, "get", "deployment", "busy", "-o", "jsonpath={.spec.replicas}"); got != "2" {
			return got + " replicas"
		}
		return ""
	})
}
