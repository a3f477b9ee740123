package controllers

import (
	"testing"

	"keelson.dev/keelson/test/lab/labtest"
)

// TestAttributesClass: a class that a claim names stays until the claim is gone.
func TestAttributesClass(t *testing.T) {
	c := labtest.Cluster(t)
	labtest.Apply(t, c, `apiVersion: storage.k8s.io/v1
kind: VolumeAttributesClass
metadata: {name: quick}
driverName: nobody.example.com
parameters: {iops: "1"}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: of-quick}
spec: {storageClassName: none-such, volumeAttributesClassName: quick, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
`)
	labtest.Kubectl(t, c, "wait", "--for=jsonpath={.metadata.finalizers[0]}=kubernetes.io/vac-protection", "vac/quick", "--timeout="+labtest.Patience.String())
	labtest.Kubectl(t, c, "delete", "vac", "quick", "--wait=false")
	if at := labtest.Kubectl(t, c, "get", "vac", "quick", "-o", "jsonpath={.metadata.deletionTimestamp}"); at == "" {
		t.Error("the class is not being deleted")
	}
	labtest.Kubectl(t, c, "delete", "pvc", "of-quick")
	labtest.Kubectl(t, c, "wait", "--for=delete", "vac/quick", "--timeout="+labtest.Patience.String())
}
