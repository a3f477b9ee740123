package storage

import (
	"fmt"
	"strings"
	"testing"

	"keelson.dev/keelson/test/lab/labtest"
)

// TestNFS: a pod of a server that is not there says which one, waits, and can be deleted; with or without an NFS client on this machine.
func TestNFS(t *testing.T) {
	c := labtest.Cluster(t)
	labtest.Apply(t, c, `apiVersion: v1
kind: Pod
metadata: {name: nfs}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{name: v, nfs: {server: 127.0.0.1, path: /no/such/export, readOnly: true}}]
  containers: [{name: a, image: "busybox:1.28", command: [sleep, "36000"], volumeMounts: [{name: v, mountPath: /v}]}]
`)
	labtest.Eventually(t, "the pod says which server", func() string {
		out := labtest.Kubectl(t, c, "get", "events", "--field-selector", "involvedObject.name=nfs,reason=FailedMount", "-o", "jsonpath={.items[*].message}")
		if !strings.Contains(out, `MountVolume.SetUp failed for volume "v"`) || !strings.Contains(out, "127.0.0.1:/no/such/export") {
			return fmt.Sprintf("its events: %q", out)
		}
		t.Log(out)
		return ""
	})
	labtest.Kubectl(t, c, "delete", "pod", "nfs", "--timeout="+labtest.Patience.String())
}
