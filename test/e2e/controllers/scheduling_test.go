package controllers

import (
	"strings"
	"testing"

	"keelson.dev/keelson/test/lab/labtest"
)

// TestPreemption: a pod for which there is no room says why, and one of higher priority makes room.
func TestPreemption(t *testing.T) {
	c := labtest.Cluster(t)
	labtest.Apply(t, c, `apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: urgent}
value: 1000
---
apiVersion: v1
kind: Pod
metadata: {name: holder}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: "busybox:1.28", command: ["sleep", "3600"], ports: [{containerPort: 80, hostPort: 18080}]}]
`)
	labtest.WaitPod(t, c, "holder", "condition=Ready")
	const waiting = `apiVersion: v1
kind: Pod
metadata: {name: %NAME}
spec:
  %PRIORITY
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: "busybox:1.28", command: ["sleep", "3600"], ports: [{containerPort: 80, hostPort: 18080}]}]
`
	labtest.Apply(t, c, strings.NewReplacer("%NAME", "equal", "%PRIORITY", "priority: 0").Replace(waiting))
	labtest.Eventually(t, "the reason is told", func() string {
		story := labtest.Kubectl(t, c, "describe", "pod", "equal")
		for _, part := range []string{"FailedScheduling", "didn't have free ports for the requested pod ports (18080/TCP is held by pod default/holder)", "No pod of lower priority could make room."} {
			if !strings.Contains(story, part) {
				return "no " + part + " in\n" + story
			}
		}
		return ""
	})
	labtest.Apply(t, c, strings.NewReplacer("%NAME", "urgent", "%PRIORITY", "priorityClassName: urgent").Replace(waiting))
	labtest.WaitPod(t, c, "urgent", "condition=Ready")
	labtest.Eventually(t, "the victim's story is told", func() string {
		events := labtest.Kubectl(t, c, "get", "events", "--field-selector=reason=Preempted,involvedObject.name=holder", "-o", "jsonpath={.items[*].message}")
		if !strings.Contains(events, "default/urgent") {
			return "events: " + events
		}
		return ""
	})
	// What the first one left was the preemptor's alone.
	if got := labtest.Kubectl(t, c, "get", "pod", "equal", "-o", "jsonpath={.spec.nodeName}"); got != "" {
		t.Errorf("the pod of equal priority got node %s", got)
	}
}

// TestSchedulingGate: a gated pod is not looked at until its gates are taken away.
func TestSchedulingGate(t *testing.T) {
	c := labtest.Cluster(t)
	labtest.Apply(t, c, `apiVersion: v1
kind: Pod
metadata: {name: gated}
spec:
  schedulingGates: [{name: example.com/quota}]
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: "busybox:1.28", command: ["sleep", "3600"]}]
`)
	if got := labtest.Kubectl(t, c, "get", "pod", "gated"); !strings.Contains(got, "SchedulingGated") {
		t.Errorf("kubectl get says\n%s", got)
	}
	labtest.Kubectl(t, c, "patch", "pod", "gated", "--type=merge", "-p", `{"spec":{"schedulingGates":null}}`)
	labtest.WaitPod(t, c, "gated", "condition=Ready")
}
