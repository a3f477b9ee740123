package storage

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestOnePodOnly: a second pod of a ReadWriteOncePod claim waits, and says for what.
func TestOnePodOnly(t *testing.T) {
	c := cluster(t)
	apply(t, c, strings.Replace(claim("single", ""), "ReadWriteOnce", "ReadWriteOncePod", 1)+user("first", "single", "true"))
	waitPod(t, c, "first", "condition=Ready")
	apply(t, c, user("second-user", "single", "true"))
	eventually(t, "the second pod is told", func() string {
		out, errs, _ := c.Kubectl(t.Context(), "get", "pod", "second-user", "-o", "jsonpath={.status.conditions[?(@.type=='PodScheduled')].message}")
		if !strings.Contains(out, "ReadWriteOncePod access mode") {
			return out + errs
		}
		return ""
	})
	kubectl(t, c, "delete", "pod", "first", "--now")
	waitPod(t, c, "second-user", "condition=Ready")
}

// TestAccessModes: a claim gets a volume that has its mode, and no other; many pods write to one of ReadWriteMany, and nobody to one that
// is ReadOnlyMany alone.
func TestAccessModes(t *testing.T) {
	c := cluster(t)
	dir := t.TempDir()
	mode := func(object, mode string) string { return strings.Replace(object, "ReadWriteOnce", mode, 1) }
	const class, other = ", storageClassName: modes", ", storageClassName: modes-once-alone"
	apply(t, c, mode(claim("modes-none", other), "ReadWriteMany")+hostVolume("pv-modes-none", filepath.Join(dir, "none"), other))
	has(t, c, "pv/pv-modes-none", ".status.phase", "Available")
	tells(t, c, "modes-none", "ProvisioningFailed")
	has(t, c, "pvc/modes-none", ".status.phase", "Pending")
	apply(t, c, mode(hostVolume("pv-modes-many", filepath.Join(dir, "many"), class), "ReadWriteMany")+hostVolume("pv-modes-once", filepath.Join(dir, "once"), class)+
		mode(hostVolume("pv-modes-read", dir, class), "ReadOnlyMany")+mode(claim("modes-read", class), "ReadOnlyMany")+claim("modes-once", class)+mode(claim("modes-many", class), "ReadWriteMany")+
		user("modes-first", "modes-many", "echo 1 > /data/first")+user("modes-second", "modes-many", "echo 2 > /data/second")+
		user("modes-reader", "modes-read", "test -d /data/many && ! touch /data/file"))
	for name, volume := range map[string]string{"many": "pv-modes-many", "read": "pv-modes-read", "once": "pv-modes-once"} {
		has(t, c, "pvc/modes-"+name, ".spec.volumeName", volume)
	}
	for _, pod := range []string{"modes-first", "modes-second", "modes-reader"} {
		waitPod(t, c, pod, "condition=Ready")
	}
	for _, file := range []string{"many/first", "many/second"} {
		if _, err := os.Stat(filepath.Join(dir, file)); err != nil {
			t.Error(err)
		}
	}
}

// TestHostile_PS29: parameters of a class, with templates and ways up, reach no disk: the claim is told and nothing is made.
func TestHostile_PS29(t *testing.T) {
	c := cluster(t)
	apply(t, c, `{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: crafted}, provisioner: keelson.dev/local, parameters: {pathPattern: "{{ .PVC.Name }}/../../../etc"}}`+
		"\n---\n"+claim("crafted", ", storageClassName: crafted"))
	tells(t, c, "crafted", "ProvisioningFailed")
	has(t, c, "pvc/crafted", ".status.phase", "Pending")
	uid := kubectl(t, c, "get", "pvc", "crafted", "-o", "jsonpath={.metadata.uid}")
	if _, err := os.Lstat(filepath.Join(c.Dir, "data", "agent", "volumes", "pvc-"+uid)); !os.IsNotExist(err) {
		t.Errorf("a volume was made: %v", err)
	}
}

// TestKilledServer: a server killed while a claim is in use goes on with it, and ends it, as if nothing had happened.
func TestKilledServer(t *testing.T) {
	c := cluster(t)
	apply(t, c, claim("lasting", "")+user("lasts", "lasting", "echo 1 > /data/file"))
	waitPod(t, c, "lasts", "condition=Ready")
	pv := volumeOf(t, c, "lasting")
	if err := c.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out := kubectl(t, c, "exec", "lasts", "--", "cat", "/data/file"); out != "1\n" {
		t.Errorf("the file reads %q", out)
	}
	kubectl(t, c, "delete", "pod", "lasts", "--now")
	kubectl(t, c, "delete", "pvc", "lasting")
	gone(t, c, "pv/"+pv)
}
