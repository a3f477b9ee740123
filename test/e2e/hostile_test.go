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

// ND20: when the pods' memory is used up the kernel takes BestEffort containers and no others; the daemon goes on, and says what it was.
func TestHostile_ND20(t *testing.T) {
	needRoot(t)
	group := fmt.Sprintf("/keelson-storm-%d", os.Getpid())
	limit, dir := "memory.max", "/sys/fs/cgroup"+group
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err != nil {
		limit, dir = "memory.limit_in_bytes", "/sys/fs/cgroup/memory"+group
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Skipf("no cgroup of our own can be made: %v", err)
	}
	t.Cleanup(func() { _ = os.Remove(dir) }) // uninstall removes it with what is below
	if err := os.WriteFile(filepath.Join(dir, limit), []byte("240M"), 0); err != nil {
		t.Skipf("the cgroup cannot be limited: %v", err)
	}
	c := ownCluster(t, lab.Options{Flags: []string{"--cgroup-root", group}})
	// dd keeps its whole block in memory, since nobody reads what it writes.
	hold := func(name, size, resources string) string {
		return "apiVersion: v1\nkind: Pod\nmetadata: {name: " + name + "}\nspec: {terminationGracePeriodSeconds: 0, containers: [{name: a, image: \"busybox:1.28\", " + resources +
			"command: [sh, -c, \"mkfifo /f; exec 3<>/f; exec dd if=/dev/zero bs=" + size + " count=1 >&3\"]}]}\n---\n"
	}
	apply(t, c, hold("guaranteed", "60M", "resources: {limits: {cpu: 100m, memory: 100Mi}}, "))
	waitPod(t, c, "guaranteed", "condition=Ready")
	before := lifeOf(t, c, "guaranteed")
	storm := ""
	for i := range 12 {
		storm += hold(fmt.Sprint("storm-", i), "30M", "")
	}
	apply(t, c, storm)
	eventually(t, "the kernel has taken some of the BestEffort pods", func() string {
		out := kubectl(t, c, "get", "pods", "-o", "jsonpath={range .items[*]}{.metadata.name} {.status.containerStatuses[*].state.terminated.reason} {.status.containerStatuses[*].lastState.terminated.reason}{\"\\n\"}{end}")
		if strings.Count(out, "OOMKilled") < 3 {
			return out
		}
		return ""
	})
	if after := lifeOf(t, c, "guaranteed"); after != before {
		t.Errorf("the Guaranteed pod was %+v and is %+v", before, after)
	}
	if score := kubectl(t, c, "exec", "guaranteed", "--", "cat", "/proc/1/oom_score_adj"); strings.TrimSpace(score) != "-997" && mayRaise(t) {
		t.Errorf("the Guaranteed pod's oom_score_adj is %s, want -997", score)
	}
}

// firstOf is the process, as the host numbers it, that is the first of the PID namespace of that inode; 0 if there is none.
func firstOf(inode string) int {
	links, _ := filepath.Glob("/proc/[0-9]*/ns/pid")
	for _, link := range links {
		if target, err := os.Readlink(link); err != nil || target != inode {
			continue
		}
		pid := strings.Split(link, "/")[2]
		status, err := os.ReadFile("/proc/" + pid + "/status")
		if _, rest, found := strings.Cut(string(status), "NSpid:"); err == nil && found {
			line, _, _ := strings.Cut(rest, "\n")
			if f := strings.Fields(line); f[len(f)-1] == "1" {
				n, _ := strconv.Atoi(pid)
				return n
			}
		}
	}
	return 0
}

// ND3: the process that holds a pod's shared PID namespace is killed: the pod says what happened, and its container is started once more.
// The keeper's death is TestKillKeeper's.
func TestHostile_ND3(t *testing.T) {
	c := cluster(t)
	apply(t, c, "apiVersion: v1\nkind: Pod\nmetadata: {name: held}\nspec: {shareProcessNamespace: true, terminationGracePeriodSeconds: 0, containers: [{name: a, image: \"busybox:1.28\", command: [sleep, \"3600\"]}]}\n")
	waitPod(t, c, "held", "condition=Ready")
	before := lifeOf(t, c, "held")
	pid := firstOf(strings.TrimSpace(kubectl(t, c, "exec", "held", "--", "readlink", "/proc/self/ns/pid")))
	if pid == 0 {
		t.Fatal("the pod's PID namespace has no first process")
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the container runs again", func() string {
		out := kubectl(t, c, "get", "pod", "held", "-o", "jsonpath={.metadata.uid} {.status.containerStatuses[0].restartCount} {.status.conditions[?(@.type==\"Ready\")].status} {.status.containerStatuses[0].lastState.terminated.reason}")
		if out != before.podUID+" 1 True Error" {
			return out
		}
		return ""
	})
	eventually(t, "its events say why", func() string {
		out := kubectl(t, c, "get", "events", "--field-selector", "involvedObject.name=held,reason=SandboxChanged", "-o", "jsonpath={.items[*].message}")
		if out == "" {
			return "no event SandboxChanged"
		}
		return ""
	})
	if after := lifeOf(t, c, "held"); after.restarts != "1" || after.containerID == before.containerID {
		t.Errorf("before %+v, after %+v", before, after)
	}
	kubectl(t, c, "delete", "pod", "held", "--wait=false")
}
