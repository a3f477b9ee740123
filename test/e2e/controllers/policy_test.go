package controllers

import (
	"context"
	"strings"
	"testing"

	"keelson.dev/keelson/test/lab/labtest"
)

// TestBudget: a PodDisruptionBudget lets no eviction through that would leave too few, and drain waits for it.
func TestBudget(t *testing.T) {
	c := labtest.Cluster(t)
	labtest.Apply(t, c, `apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: kept}
spec: {maxUnavailable: 0, selector: {matchLabels: {app: kept}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: kept}
spec:
  replicas: 1
  selector: {matchLabels: {app: kept}}
  template:
    metadata: {labels: {app: kept}}
    spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: "busybox:1.28", command: ["sleep", "3600"]}]}
`)
	labtest.Kubectl(t, c, "rollout", "status", "deployment/kept", "--timeout="+labtest.Patience.String())
	budget := func(want string) {
		t.Helper()
		labtest.Eventually(t, "budget", func() string {
			if got := labtest.Kubectl(t, c, "get", "pdb", "kept", "-o", "jsonpath={.status.expectedPods} {.status.currentHealthy} {.status.disruptionsAllowed}"); got != want {
				return "expected, healthy, allowed: " + got + ", want " + want
			}
			return ""
		})
	}
	budget("1 1 0")
	pod := labtest.Kubectl(t, c, "get", "pods", "-l", "app=kept", "-o", "name")
	drain := []string{"drain", c.NodeName, "--force", "--ignore-daemonsets", "--pod-selector=app=kept"}
	t.Cleanup(func() { _, _, _ = c.Kubectl(context.Background(), "uncordon", c.NodeName) })
	if said := labtest.Refused(t, c, "", append(drain, "--timeout=1s")...); !strings.Contains(said, "disruption budget") {
		t.Errorf("drain is not held by the budget: %s", said)
	}
	if now := labtest.Kubectl(t, c, "get", "pods", "-l", "app=kept", "-o", "name"); now != pod {
		t.Errorf("the pod is %q, was %q", now, pod)
	}
	labtest.Kubectl(t, c, "patch", "pdb", "kept", "--type=merge", "-p", `{"spec":{"maxUnavailable":1}}`)
	budget("1 1 1")
	labtest.Kubectl(t, c, append(drain, "--timeout="+labtest.Patience.String())...)
	labtest.Eventually(t, "the drained pod's successor waits for a node", func() string {
		now := labtest.Kubectl(t, c, "get", "pods", "-l", "app=kept", "--field-selector=status.phase=Pending", "-o", "name")
		if now == "" || now == pod {
			return "pending: " + now
		}
		return ""
	})
	labtest.Kubectl(t, c, "uncordon", c.NodeName)
	budget("1 1 1")
}

// TestAggregatedRole: a new role enters the roles that select it, and leaves them again.
func TestAggregatedRole(t *testing.T) {
	c := labtest.Cluster(t)
	labtest.Apply(t, c, `apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: whole}
aggregationRule: {clusterRoleSelectors: [{matchLabels: {to: whole}}]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: part, labels: {to: whole}}
rules: [{apiGroups: [""], resources: [pods], verbs: [list]}]
`)
	rules := func(want string) {
		t.Helper()
		labtest.Eventually(t, "aggregated role", func() string {
			if got := labtest.Kubectl(t, c, "get", "clusterrole", "whole", "-o", "jsonpath={.rules[*].resources[*]}"); got != want {
				return "rules: " + got
			}
			return ""
		})
	}
	rules("pods")
	labtest.Kubectl(t, c, "label", "clusterrole", "part", "to-")
	rules("")
}
