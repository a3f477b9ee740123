package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"keelson.dev/keelson/test/lab"
)

// ND15: where programs may not be executed from, as /var is on hardened machines, containers run all the same.
func TestHostile_ND15_NoExec(t *testing.T) {
	needRoot(t)
	dir := mounted(t, "tmpfs", unix.MS_NOEXEC|unix.MS_NOSUID|unix.MS_NODEV, "mode=711")
	c := ownCluster(t, lab.Options{Dir: dir})
	apply(t, c, "apiVersion: v1\nkind: Pod\nmetadata: {name: runs}\nspec: {containers: [{name: a, image: \"busybox:1.28\", command: [sleep, \"3600\"]}]}\n")
	waitPod(t, c, "runs", "condition=Ready")
	if out := kubectl(t, c, "exec", "runs", "--", "sh", "-c", "echo executed"); !strings.Contains(out, "executed") {
		t.Errorf("in the pod: %s", out)
	}
}

// ND15: a filesystem that cannot hold containers' files is named before anything is begun; overlayfs itself is one, as in a container
// of another runtime.
func TestHostile_ND15_NoUpper(t *testing.T) {
	needRoot(t)
	parts := t.TempDir()
	var opts []string
	for _, name := range []string{"lower", "upper", "work"} {
		if err := os.Mkdir(filepath.Join(parts, name), 0o755); err != nil {
			t.Fatal(err)
		}
		opts = append(opts, name+"dir="+filepath.Join(parts, name))
	}
	c, err := lab.New(lab.Options{Dir: mounted(t, "overlay", 0, strings.Join(opts, ","))})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitReady(t.Context()); err == nil || !strings.Contains(err.Error(), "cannot hold containers' files") || !strings.Contains(err.Error(), "put the data on ext4, xfs or btrfs (--data-dir)") {
		t.Errorf("the server says %v", err)
	}
	if err := c.Remove(t.Context()); err != nil {
		t.Error(err)
	}
}

// mounted returns a folder of a filesystem of its own, which goes after all that was begun in it.
func mounted(t *testing.T, kind string, flags uintptr, options string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "keelson-lab-")
	if err == nil {
		err = unix.Mount(kind, dir, kind, flags, options)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(unix.Unmount(dir, unix.MNT_DETACH), os.Remove(dir)); err != nil {
			t.Error(err)
		}
	})
	data := filepath.Join(dir, "instance")
	if err := errors.Join(os.Mkdir(data, 0o711), os.Chmod(data, 0o711)); err != nil {
		t.Fatal(err)
	}
	return data
}
