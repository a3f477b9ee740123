package e2e

import (
	"path/filepath"
	"strings"
	"testing"

	"keelson.dev/keelson/test/lab"
)

// A cluster is saved while it runs and brought back: what was saved is there, what came later is not, and the node goes on with
// the certificates that it has.
func TestSnapshotAndRestore(t *testing.T) {
	c := ownCluster(t, lab.Options{})
	run := func(args ...string) string {
		t.Helper()
		out, err := c.Run(t.Context(), args...)
		if err != nil {
			t.Fatalf("keelson %v: %v\n%s", args, err, out)
		}
		return out
	}
	kubectl(t, c, "create", "configmap", "before", "--from-literal=k=v")
	kubectl(t, c, "create", "secret", "generic", "hidden", "--from-literal=k=swordfish")
	if out := run("secrets", "rotate"); !strings.Contains(out, "encrypted with key2 now") {
		t.Errorf("rotation: %s", out)
	}
	file := strings.Fields(run("snapshot", "save"))[0]
	if filepath.Dir(file) != filepath.Join(c.Dir, "data", "snapshots") {
		t.Errorf("saved to %s", file)
	}
	kubectl(t, c, "create", "configmap", "after", "--from-literal=k=v")
	later := kubectl(t, c, "get", "configmap", "after", "-o", "jsonpath={.metadata.resourceVersion}")
	if list := run("snapshot", "ls"); !strings.Contains(list, file) || !strings.Contains(list, "ok") {
		t.Errorf("the list does not have %s:\n%s", file, list)
	}
	if out, err := c.Run(t.Context(), "snapshot", "restore", file); err == nil || !strings.Contains(out, "stop it first") {
		t.Errorf("restored under a running server: %v\n%s", err, out)
	}
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	run("snapshot", "restore", file)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	if v := kubectl(t, c, "get", "secret", "hidden", "-o", "jsonpath={.data.k}"); v != "c3dvcmRmaXNo" {
		t.Errorf("the secret is %q", v)
	}
	kubectl(t, c, "get", "configmap", "before")
	if got := refused(t, c, "", "get", "configmap", "after"); !strings.Contains(got, "not found") {
		t.Errorf("what came after the snapshot: %s", got)
	}
	kubectl(t, c, "create", "configmap", "new", "--from-literal=k=v")
	now := kubectl(t, c, "get", "configmap", "new", "-o", "jsonpath={.metadata.resourceVersion}")
	if len(now) < len(later) || len(now) == len(later) && now <= later {
		t.Errorf("versions went back: %s after %s", now, later)
	}
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	if out := run("snapshot", "save"); !strings.Contains(out, "keys") {
		t.Errorf("saved a stopped cluster: %s", out)
	}
	if err := c.Start(); err != nil { // so that it is removed as it was found
		t.Fatal(err)
	}
	if err := c.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
}
