package controllers

import (
	"testing"

	"keelson.dev/keelson/test/lab/labtest"
)

// TestStorageVersionMigration: objects of a version that is stored no more are written anew, after which the definition knows of the
// new one alone and the old one may be dropped.
func TestStorageVersionMigration(t *testing.T) {
	c := labtest.Cluster(t)
	definition := func(v1, v2 string) string {
		const schema = `schema: {openAPIV3Schema: {type: object, properties: {size: {type: integer}}}}`
		return `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: boats.migration.test}
spec:
  group: migration.test
  scope: Namespaced
  names: {plural: boats, singular: boat, kind: Boat}
  versions:
  - {name: v1, served: true, storage: ` + v1 + `, ` + schema + `}
  - {name: v2, served: true, storage: ` + v2 + `, ` + schema + `}
`
	}
	stored := func() string {
		return labtest.Kubectl(t, c, "get", "crd", "boats.migration.test", "-o", "jsonpath={.status.storedVersions}")
	}
	labtest.Apply(t, c, definition("true", "false"))
	labtest.Kubectl(t, c, "wait", "--for=condition=Established", "crd/boats.migration.test", "--timeout="+labtest.Patience.String())
	labtest.Apply(t, c, "apiVersion: migration.test/v1\nkind: Boat\nmetadata: {name: a}\nsize: 7\n---\napiVersion: migration.test/v1\nkind: Boat\nmetadata: {name: b}\nsize: 8\n")
	labtest.Apply(t, c, definition("false", "true"))
	labtest.Eventually(t, "both versions may be stored", func() string {
		if got := stored(); got != `["v1","v2"]` {
			return got
		}
		return ""
	})
	version := func() string {
		return labtest.Kubectl(t, c, "get", "boat", "a", "-o", "jsonpath={.metadata.resourceVersion}")
	}
	before := version()
	labtest.Apply(t, c, `apiVersion: storagemigration.k8s.io/v1
kind: StorageVersionMigration
metadata: {name: boats}
spec: {resource: {group: migration.test, resource: boats}}
---
apiVersion: storagemigration.k8s.io/v1
kind: StorageVersionMigration
metadata: {name: configmaps}
spec: {resource: {resource: configmaps}}
`)
	for _, name := range []string{"boats", "configmaps"} {
		labtest.Kubectl(t, c, "wait", "--for=condition=Succeeded", "storageversionmigration/"+name, "--timeout="+labtest.Patience.String())
	}
	if after := version(); after == before {
		t.Errorf("the object is still as it was written: %s", after)
	}
	if got := stored(); got != `["v2"]` {
		t.Errorf("stored versions %s", got)
	}
	if got := labtest.Kubectl(t, c, "get", "crd", "boats.migration.test", "-o", `jsonpath={.status.conditions[?(@.type=="StorageMigrating")].reason}`); got != "MigrationSucceeded" {
		t.Errorf("StorageMigrating: %s", got)
	}
	if got := labtest.Kubectl(t, c, "get", "boats", "-o", "jsonpath={.items[*].size}"); got != "7 8" {
		t.Errorf("sizes %s", got)
	}
}
