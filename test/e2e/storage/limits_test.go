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
