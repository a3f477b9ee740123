package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"keelson.dev/keelson/test/lab"
)

// fill writes a file until the filesystem takes no more, and returns what takes it away.
func fill(t *testing.T, dir string) (mend func()) {
	t.Helper()
	path := filepath.Join(dir, "full")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 1<<20); len(block) > 0; {
		if _, err := f.Write(block); errors.Is(err, unix.ENOSPC) {
			block = block[:len(block)/2]
		} else if err != nil {
			t.Fatal(err)
		}
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil || st.Bavail > 0 {
		t.Fatalf("%s is not full: %d blocks are free, %v", dir, st.Bavail, err)
	}
	return func() {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
	}
}

// ND5: the disk of the cluster's state, of the images and root filesystems, of the logs or of the volumes is full, each for itself. Pods run on,
// a pod can be deleted, and when there is room again all goes on by itself: what could not be made is made.
func TestHostile_ND5(t *testing.T) {
	needRoot(t)
	dir, err := os.MkdirTemp("", "keelson-lab-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	disks := []struct{ name, path, size string }{
		{"state", "data/server", "320m"}, {"images", "data/agent", "64m"}, {"logs", "logs", "8m"}, {"volumes", "kubelet", "16m"},
	}
	for _, d := range disks {
		at := filepath.Join(dir, d.path)
		if err := os.MkdirAll(at, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("disk", at, "tmpfs", 0, "mode=755,size="+d.size); err != nil {
			t.Skipf("cannot mount a small filesystem: %v", err)
		}
		defer unix.Unmount(at, unix.MNT_DETACH) // of a start that failed
	}
	c := ownCluster(t, lab.Options{Dir: dir})
	t.Cleanup(func() { _ = unix.Unmount(c.PodLogs(), unix.MNT_DETACH) }) // before the uninstall, which removes the folder
	// Critical pods: nobody's eviction is what is tried here.
	pod := func(name string) string {
		return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  priorityClassName: system-node-critical
  tolerations: [{operator: Exists}]
  terminationGracePeriodSeconds: 0
  volumes: [{name: v, emptyDir: {}}]
  containers: [{name: a, image: "busybox:1.28", command: [sh, -c, "while true; do date; sleep 0.1; done"], volumeMounts: [{name: v, mountPath: /v}]}]
`, name)
	}
	apply(t, c, pod("steady"))
	waitPod(t, c, "steady", "condition=Ready")
	before := lifeOf(t, c, "steady")
	for _, d := range disks {
		apply(t, c, pod("leaves-"+d.name))
		waitPod(t, c, "leaves-"+d.name, "condition=Ready")
		mend := fill(t, filepath.Join(dir, d.path))
		t.Cleanup(mend)
		if out, errs, err := c.Kubectl(t.Context(), "delete", "pod", "leaves-"+d.name, "--timeout="+patience.String()); err != nil {
			t.Errorf("%s: a pod cannot be deleted: %s%s", d.name, out, errs)
		}
		// Whether what is asked for meanwhile is refused, waits or is done depends on what it needs.
		out, errs, refused := c.KubectlIn(t.Context(), strings.NewReader(pod("comes-"+d.name)), "apply", "-f", "-")
		t.Logf("%s: a new pod: %s%s", d.name, out, errs)
		if after := lifeOf(t, c, "steady"); after != before {
			t.Errorf("%s: the pod changed: %+v, was %+v", d.name, after, before)
		}
		if got := kubectl(t, c, "exec", "steady", "--", "echo", "alive"); got != "alive\n" {
			t.Errorf("%s: exec says %q", d.name, got)
		}
		mend()
		eventually(t, d.name+": a new pod", func() string {
			if refused != nil {
				if out, errs, refused = c.KubectlIn(t.Context(), strings.NewReader(pod("comes-"+d.name)), "apply", "-f", "-"); refused != nil {
					return out + errs
				}
			}
			return ""
		})
		waitPod(t, c, "comes-"+d.name, "condition=Ready")
		eventually(t, d.name+": logs go on", func() string {
			old := kubectl(t, c, "logs", "steady", "--tail=1", "--timestamps")
			fresh := kubectl(t, c, "logs", "comes-"+d.name, "--tail=1")
			if now := kubectl(t, c, "logs", "steady", "--tail=1", "--timestamps"); now == old || fresh == "" {
				return fmt.Sprintf("steady's last line stays %q, the new pod's is %q", now, fresh)
			}
			return ""
		})
		if after := lifeOf(t, c, "steady"); after != before {
			t.Errorf("%s: afterwards the pod changed: %+v, was %+v", d.name, after, before)
		}
		kubectl(t, c, "delete", "pod", "comes-"+d.name)
	}
}
