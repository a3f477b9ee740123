package controllers

import (
	"testing"

	"keelson.dev/keelson/test/lab/labtest"
)

// TestAdopt: workloads that are deleted alone and made again take their pods over, and restart none.
func TestAdopt(t *testing.T) {
	c := labtest.Cluster(t)
	const pod = `template: {metadata: {labels: {app: adopt, kind: set}}, spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: "busybox:1.28", command: ["sleep", "3600"]}]}}`
	const manifest = `apiVersion: apps/v1
kind: StatefulSet
metadata: {name: adopt-set, labels: {suite: adopt}}
spec:
  serviceName: adopt
  replicas: 2
  podManagementPolicy: Parallel
  selector: {matchLabels: {app: adopt, kind: set}}
  ` + pod + `
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: adopt-daemon, labels: {suite: adopt}}
spec:
  selector: {matchLabels: {app: adopt, kind: daemon}}
  template: {metadata: {labels: {app: adopt, kind: daemon}}, spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: "busybox:1.28", command: ["sleep", "3600"]}]}}
`
	rollouts := func() {
		t.Helper()
		for _, w := range []string{"statefulset/adopt-set", "daemonset/adopt-daemon"} {
			labtest.Kubectl(t, c, "rollout", "status", w, "--timeout="+labtest.Patience.String())
		}
	}
	uids := func() string {
		return labtest.Kubectl(t, c, "get", "pods", "-l", "app=adopt", "--sort-by=.metadata.name", "-o", "jsonpath={.items[*].metadata.uid}")
	}
	owners := func() string {
		return labtest.Kubectl(t, c, "get", "pods,controllerrevisions", "-l", "app=adopt", "-o", "jsonpath={.items[*].metadata.ownerReferences[*].uid}")
	}
	labtest.Apply(t, c, manifest)
	rollouts()
	before := uids()
	labtest.Kubectl(t, c, "delete", "statefulset,daemonset", "-l", "suite=adopt", "--cascade=orphan")
	labtest.Eventually(t, "nobody controls the pods", owners)
	labtest.Apply(t, c, manifest)
	rollouts()
	labtest.Eventually(t, "every pod and revision has an owner again", func() string {
		return labtest.Kubectl(t, c, "get", "pods,controllerrevisions", "-l", "app=adopt", "-o", `go-template={{range .items}}{{if not .metadata.ownerReferences}}{{.metadata.name}} {{end}}{{end}}`)
	})
	if after := uids(); after != before {
		t.Errorf("pods were made anew: %s, were %s", after, before)
	}
	if n := labtest.Kubectl(t, c, "get", "controllerrevisions", "-l", "app=adopt", "-o", `go-template={{range .items}}x{{end}}`); n != "xx" {
		t.Errorf("revisions after that: %s, want two", n)
	}
}
