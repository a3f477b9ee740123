package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"keelson.dev/keelson/test/lab"
)

// mayRaise says whether this machine's root may raise limits and lower OOM scores (CAP_SYS_RESOURCE); in some sandboxes it may not.
func mayRaise(t *testing.T) bool {
	t.Helper()
	hdr, data := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, [2]unix.CapUserData{}
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		t.Fatal(err)
	}
	return data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}

// ND4: the OOM killer takes the daemon and the keeper last, and what runs in pods by its own score, first processes and those of exec.
func TestHostile_ND4(t *testing.T) {
	c := cluster(t)
	keeper, err := c.Keeper()
	if err != nil {
		t.Fatal(err)
	}
	for who, pid := range map[string]int{"daemon": c.Pid(), "keeper": keeper} {
		score, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid))
		if err != nil {
			t.Fatal(err)
		}
		want := -999
		if !mayRaise(t) { // whoever may not lower a score has the pods' raised above it
			want = 0
		}
		if n, err := strconv.Atoi(strings.TrimSpace(string(score))); err != nil || n > want {
			t.Errorf("oom_score_adj of the %s is %s, want at most %d", who, score, want)
		}
	}
	apply(t, c, "apiVersion: v1\nkind: Pod\nmetadata: {name: scored}\nspec: {shareProcessNamespace: true, terminationGracePeriodSeconds: 0, containers: [{name: a, image: \"busybox:1.28\", command: [sleep, \"3600\"]}]}\n")
	waitPod(t, c, "scored", "condition=Ready")
	for _, line := range strings.Fields(kubectl(t, c, "exec", "scored", "--", "sh", "-c", "for p in self $(pidof sleep); do cat /proc/$p/oom_score_adj; done")) {
		if line != "1000" {
			t.Errorf("a process of a BestEffort pod has oom_score_adj %s, want 1000", line)
		}
	}
	kubectl(t, c, "delete", "pod", "scored", "--wait=false")
}

// begun says what of an instance was begun: an end that comes early must leave nothing.
func begun(c *lab.Cluster) (out []string) {
	if _, err := net.InterfaceByName(c.Bridge); err == nil {
		out = append(out, "bridge "+c.Bridge)
	}
	if pid, err := c.Keeper(); err == nil {
		out = append(out, fmt.Sprint("keeper ", pid))
	}
	for _, dir := range []string{"data/server", "data/agent"} {
		if _, err := os.Stat(filepath.Join(c.Dir, dir)); err == nil {
			out = append(out, dir)
		}
	}
	return out
}

// ND9: whichever port another process has, the server says who before it begins anything.
func TestHostile_ND9(t *testing.T) {
	needRoot(t)
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	for _, flag := range []string{"--https-port", "--kubelet-port", "--healthz-port", "--proxy-healthz-port", "--proxy-metrics-port"} {
		t.Run(flag, func(t *testing.T) {
			c, err := lab.New(lab.Options{Dir: t.TempDir(), Flags: []string{flag, port}})
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			want := flag + ": port " + port + " is in use by process " + strconv.Itoa(os.Getpid())
			if err := c.WaitReady(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("the server says %v, want %q", err, want)
			}
			if left := begun(c); len(left) > 0 {
				t.Errorf("begun all the same: %q", left)
			}
			if err := c.Remove(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// ND9: a node port that a process of the node listens on is the Service's all the same; its events say whose it was.
func TestHostile_ND9_NodePort(t *testing.T) {
	c := cluster(t)
	var l net.Listener
	port := 0
	for p := 32100; p < 32700 && l == nil; p++ {
		if got, err := net.Listen("tcp", fmt.Sprint(":", p)); err == nil {
			l, port = got, p
		}
	}
	if l == nil {
		t.Fatal("no free port")
	}
	defer l.Close()
	apply(t, c, fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {name: duel}\nspec: {type: NodePort, selector: {no: pod}, ports: [{port: 80, nodePort: %d}]}\n", port))
	want := fmt.Sprintf("port %d is in use by process %d", port, os.Getpid())
	eventually(t, "the Service's events name the process", func() string {
		out := kubectl(t, c, "get", "events", "--field-selector", "involvedObject.name=duel", "-o", "jsonpath={.items[*].message}")
		if !strings.Contains(out, want) {
			return out
		}
		return ""
	})
	kubectl(t, c, "delete", "service", "duel")
}

// ND8: where files are few the server takes more, or says what to do; without inotify it says what to do.
func TestHostile_ND8(t *testing.T) {
	few := 16384 // which is enough where no more can be had
	if mayRaise(t) {
		few = 1024
	}
	c := ownCluster(t, lab.Options{Before: []string{"prlimit", fmt.Sprintf("--nofile=1024:%d", few)}})
	var l unix.Rlimit
	if err := unix.Prlimit(c.Pid(), unix.RLIMIT_NOFILE, nil, &l); err != nil {
		t.Fatal(err)
	}
	if l.Cur < 16384 {
		t.Errorf("the server began with 1024 files and has %d", l.Cur)
	}
	binary, err := lab.Binary()
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ setup, want string }{
		{"echo 0 > /proc/sys/user/max_inotify_instances", "fs.inotify.max_user_instances"},
		{"echo 0 > /proc/sys/user/max_inotify_watches", "fs.inotify.max_user_watches"},
		{"ulimit -n 1024", "ulimit -n 1048576"},
	} {
		dir := t.TempDir()
		cmd := exec.CommandContext(t.Context(), "unshare", "--user", "--map-root-user", "sh", "-c", row.setup+`; exec "$@"`, "sh", binary, "server",
			"--data-dir", dir+"/data", "--run-dir", dir+"/run", "--config-dir", dir+"/etc", "--kubelet-dir", dir+"/kubelet", "--pod-logs-dir", dir+"/logs")
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), row.want) {
			t.Errorf("%s: the server says %q (%v), want %q in it", row.setup, out, err, row.want)
		}
		if _, err := os.Stat(dir + "/data/server"); err == nil {
			t.Errorf("%s: the server began all the same", row.setup)
		}
	}
}
