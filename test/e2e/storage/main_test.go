// Package storage proves persistent volumes from outside: claims and volumes by kubectl, data by what pods read and write.
package storage

import (
	"os"
	"testing"

	"keelson.dev/keelson/test/lab"
	"keelson.dev/keelson/test/lab/labtest"
)

// The tests' vocabulary.
var (
	cluster    = labtest.Cluster
	kubectl    = labtest.Kubectl
	apply      = labtest.Apply
	waitPod    = labtest.WaitPod
	eventually = labtest.Eventually
	lesson     = labtest.Lesson
)

func TestMain(m *testing.M) { os.Exit(labtest.Main(m, lab.Options{})) }

// has waits until a field of an object has a value.
func has(t *testing.T, c *lab.Cluster, object, field, want string) {
	t.Helper()
	eventually(t, object+" has "+field+" "+want, func() string {
		out, errs, _ := c.Kubectl(t.Context(), "get", object, "-o", "jsonpath={"+field+"}")
		if out != want {
			return "it has " + out + errs
		}
		return ""
	})
}

// gone waits until an object is not there any more.
func gone(t *testing.T, c *lab.Cluster, object string) {
	t.Helper()
	eventually(t, object+" goes", func() string {
		out, _, err := c.Kubectl(t.Context(), "get", object, "-o", "yaml")
		if err == nil {
			return out
		}
		return ""
	})
}

// tells waits for an event's reason about an object.
func tells(t *testing.T, c *lab.Cluster, name, reason string) {
	t.Helper()
	eventually(t, name+" is told "+reason, func() string {
		out, errs, err := c.Kubectl(t.Context(), "get", "events", "-A", "--field-selector", "reason="+reason+",involvedObject.name="+name, "-o", "name")
		if err != nil || out == "" {
			return "no such event " + errs
		}
		return ""
	})
}
