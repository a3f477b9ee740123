package controllers

import (
	"strings"
	"testing"

	"keelson.dev/keelson/test/lab/labtest"
)

// TestQuota: what is deleted, has ended or uses less is given back to its quota, of every kind that a quota may count.
func TestQuota(t *testing.T) {
	c := labtest.Cluster(t)
	labtest.Apply(t, c, `apiVersion: v1
kind: Namespace
metadata: {name: quota}
`)
	labtest.Kubectl(t, c, "-n", "quota", "create", "configmap", "before")
	labtest.Eventually(t, "every namespace's own", func() string {
		if maps := labtest.Kubectl(t, c, "-n", "quota", "get", "configmaps", "-o", "name"); strings.Count(maps, "/") != 2 {
			return maps
		}
		return ""
	})
	labtest.Apply(t, c, `apiVersion: v1
kind: ResourceQuota
metadata: {name: q, namespace: quota}
spec: {hard: {pods: 3, requests.cpu: "1", services: 2, services.nodeports: 1, persistentvolumeclaims: 1, count/configmaps: 3, secrets: 2, count/deployments.apps: 1, count/widgets.example.com: 1}}
`)
	used := func(when string, want ...string) {
		t.Helper()
		labtest.Eventually(t, when, func() string {
			said := labtest.Kubectl(t, c, "-n", "quota", "describe", "quota", "q")
			lines := map[string]string{}
			for _, line := range strings.Split(said, "\n") {
				if f := strings.Fields(line); len(f) == 3 {
					lines[f[0]] = f[1]
				}
			}
			for _, w := range want {
				if name, n, _ := strings.Cut(w, "="); lines[name] != n {
					return "want " + w + ":\n" + said
				}
			}
			return ""
		})
	}
	used("what was there before", "count/configmaps=2", "pods=0", "secrets=0", "count/deployments.apps=0")
	labtest.Apply(t, c, `apiVersion: v1
kind: Pod
metadata: {name: brief, namespace: quota}
spec: {restartPolicy: Never, containers: [{name: c, image: "busybox:1.28", command: ["true"], resources: {requests: {cpu: 100m}}}]}
---
apiVersion: v1
kind: Pod
metadata: {name: stays, namespace: quota}
spec: {terminationGracePeriodSeconds: 0, nodeSelector: {no: where}, containers: [{name: c, image: "busybox:1.28", resources: {requests: {cpu: 200m}}}]}
---
apiVersion: v1
kind: Service
metadata: {name: s, namespace: quota}
spec: {type: NodePort, ports: [{port: 80}]}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: claim, namespace: quota}
spec: {storageClassName: none, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
---
apiVersion: v1
kind: Secret
metadata: {name: s, namespace: quota}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: d, namespace: quota}
spec: {replicas: 0, selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: none}]}}}
`)
	used("a pod has ended", "pods=1", "requests.cpu=200m", "services=1", "services.nodeports=1", "persistentvolumeclaims=1", "secrets=1", "count/deployments.apps=1")
	if said := labtest.Refused(t, c, "", "-n", "quota", "create", "deployment", "more", "--image=none"); !strings.Contains(said, "exceeded quota") {
		t.Errorf("a second deployment: %s", said)
	}
	labtest.Kubectl(t, c, "-n", "quota", "patch", "service", "s", "-p", `{"spec":{"type":"ClusterIP"}}`)
	labtest.Kubectl(t, c, "-n", "quota", "delete", "pod/stays", "pvc/claim", "secret/s", "deployment/d", "configmap/before")
	used("what is gone", "pods=0", "requests.cpu=0", "services=1", "services.nodeports=0", "persistentvolumeclaims=0", "secrets=0", "count/deployments.apps=0", "count/configmaps=1")
}
