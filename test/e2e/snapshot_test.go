package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
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

// elsewhere is an instance with data of its own that is not started yet; remove may be called before the test's end.
func elsewhere(t *testing.T, flags ...string) (c *lab.Cluster, remove func()) {
	t.Helper()
	needRoot(t)
	c, err := lab.New(lab.Options{Flags: flags})
	if err != nil {
		t.Fatal(err)
	}
	remove = sync.OnceFunc(func() {
		if err := c.Remove(context.Background()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(remove)
	return c, remove
}

func ready(t *testing.T, c *lab.Cluster) {
	t.Helper()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// The file goes to another machine: a damaged one is refused by name and nothing is made of it, a whole one gives the objects back,
// and it replaces another cluster only if that is said.
func TestSnapshotElsewhere(t *testing.T) {
	c, remove := elsewhere(t)
	ready(t, c)
	kubectl(t, c, "create", "configmap", "saved", "--from-literal=k=v")
	flags := []string{"--pod-cidr", c.PodCIDR, "--cluster-cidr", c.PodCIDR, "--service-cidr", kubectl(t, c, "get", "servicecidr", "kubernetes", "-o", "jsonpath={.spec.cidrs[0]}")}
	dir := t.TempDir()
	out, err := c.Run(t.Context(), "snapshot", "save", "--snapshot-dir", dir)
	if err != nil {
		t.Fatalf("save: %v\n%s", err, out)
	}
	file := strings.Fields(out)[0]
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	damaged := filepath.Join(dir, "keelson-20200101T000000Z-r1.snapshot")
	if err := os.WriteFile(damaged, b, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err = c.Run(t.Context(), "snapshot", "ls", "--snapshot-dir", dir)
	states := map[string]string{}
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) == 6 {
			states[f[0]] = f[5]
		}
	}
	if err == nil || states[file] != "ok" || states[damaged] != "damaged" {
		t.Errorf("ls with a damaged file: %v\n%s", err, out)
	}

	remove() // the others have its ranges
	other, remove := elsewhere(t, flags...)
	if out, err := other.Run(t.Context(), "snapshot", "restore", damaged); err == nil || !strings.Contains(out, damaged) {
		t.Errorf("a damaged file is restored, or not named: %v\n%s", err, out)
	}
	if _, err := os.Stat(filepath.Join(other.Dir, "data", "server")); !os.IsNotExist(err) {
		t.Errorf("of a damaged file something was made: %v", err)
	}
	if out, err := other.Run(t.Context(), "snapshot", "restore", file); err != nil {
		t.Fatalf("restore on a clean machine: %v\n%s", err, out)
	}
	ready(t, other)
	kubectl(t, other, "get", "configmap", "saved")

	remove()
	third, _ := elsewhere(t, flags...)
	ready(t, third)
	kubectl(t, third, "create", "configmap", "own", "--from-literal=k=v")
	if err := third.Stop(); err != nil {
		t.Fatal(err)
	}
	if out, err := third.Run(t.Context(), "snapshot", "restore", file); err == nil || !strings.Contains(out, "--force") {
		t.Errorf("another cluster is replaced without a word: %v\n%s", err, out)
	}
	ready(t, third)
	kubectl(t, third, "get", "configmap", "own")
	if err := third.Stop(); err != nil {
		t.Fatal(err)
	}
	if out, err := third.Run(t.Context(), "snapshot", "restore", "--force", file); err != nil || !strings.Contains(out, "what was there is in") {
		t.Fatalf("restore by force: %v\n%s", err, out)
	}
	ready(t, third)
	kubectl(t, third, "get", "configmap", "saved")
	if got := refused(t, third, "", "get", "configmap", "own"); !strings.Contains(got, "not found") {
		t.Errorf("what was replaced is there: %s", got)
	}
}
