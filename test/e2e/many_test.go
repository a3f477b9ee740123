package e2e

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/test/lab"
	"keelson.dev/keelson/test/lab/labtest"
)

var many = flag.Int("pods", 20, "how many pods live through a reboot and an upgrade")

// crowd makes that many pods and waits until all are ready.
func crowd(t *testing.T, c *lab.Cluster) {
	t.Helper()
	client, grace := labtest.Client(t, c), int64(0)
	for i := range *many {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("crowd-", i), Labels: map[string]string{"app": "crowd"}},
			Spec: corev1.PodSpec{TerminationGracePeriodSeconds: &grace, Containers: []corev1.Container{{Name: "a", Image: "busybox:1.28", Command: []string{"sleep", "36000"}}}}}
		eventually(t, "the default ServiceAccount", func() string {
			if _, err := client.CoreV1().Pods("default").Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
				return err.Error()
			}
			return ""
		})
	}
	all(t, c, "started", func(corev1.Pod) string { return "" })
}

// all waits until the whole crowd is ready and as said, and returns it by name.
func all(t *testing.T, c *lab.Cluster, what string, complain func(corev1.Pod) string) map[string]corev1.Pod {
	t.Helper()
	client, out := labtest.Client(t, c), map[string]corev1.Pod{}
	eventually(t, what, func() string {
		list, err := client.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{LabelSelector: "app=crowd"})
		if err != nil {
			return err.Error()
		}
		if len(list.Items) != *many {
			return fmt.Sprintf("%d pods, want %d", len(list.Items), *many)
		}
		for _, p := range list.Items {
			ready := slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue })
			if !ready {
				return fmt.Sprintf("%s is not ready: %+v", p.Name, p.Status)
			}
			if wrong := complain(p); wrong != "" {
				return p.Name + ": " + wrong
			}
			out[p.Name] = p
		}
		return ""
	})
	return out
}

// processes are those of the instance's pods, by pid with their start times: who was replaced differs.
func processes(t *testing.T, c *lab.Cluster) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, top := range []string{"/sys/fs/cgroup/pids", "/sys/fs/cgroup"} {
		_ = filepath.WalkDir(filepath.Join(top, fmt.Sprintf("keelson-lab-%d", c.Port), "kubepods"), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.Name() != "cgroup.procs" {
				return nil
			}
			pids, _ := os.ReadFile(path)
			for _, pid := range strings.Fields(string(pids)) {
				if stat, err := os.ReadFile("/proc/" + pid + "/stat"); err == nil {
					out[pid] = started(string(stat))
				}
			}
			return nil
		})
		if len(out) > 0 {
			break
		}
	}
	return out
}

// ND10: the machine loses power with many pods and comes up again: processes, mounts, namespaces, links and the run folder are gone, the
// boot is another. All pods come back as the same pods, each with one address, and nothing of the last boot is left.
func TestHostile_ND10(t *testing.T) {
	needRoot(t)
	dir, err := os.MkdirTemp("", "keelson-lab-")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(dir, 0o711), os.Mkdir(filepath.Join(dir, "run"), 0o755)); err != nil {
		t.Fatal(err)
	}
	boot := func(id int) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "boot"), fmt.Appendf(nil, "00000000-0000-4000-8000-%012d\n", id), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	boot(1)
	// The mount namespace is the boot: it ends with its last process, and every mount with it.
	c := ownCluster(t, lab.Options{Dir: dir, Before: []string{"unshare", "--mount", "--propagation", "private", "sh", "-c",
		"mount -t tmpfs -o mode=755 run " + dir + "/run && mount --bind " + dir + "/boot /proc/sys/kernel/random/boot_id && exec \"$@\"", "sh"}})
	crowd(t, c)
	before := all(t, c, "ready", func(corev1.Pod) string { return "" })

	keeper, err := c.Keeper()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(unix.Kill(c.Pid(), unix.SIGKILL), unix.Kill(keeper, unix.SIGKILL)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "no process is left", func() string {
		left := processes(t, c)
		for pid := range left {
			var n int
			if _, err := fmt.Sscan(pid, &n); err == nil {
				_ = unix.Kill(n, unix.SIGKILL)
			}
		}
		if _, err := c.Keeper(); err == nil || len(left) > 0 {
			return fmt.Sprintf("%d processes are left", len(left))
		}
		return ""
	})
	if err := c.Kill(); err != nil { // waits for its end
		t.Fatal(err)
	}
	eventually(t, "no link is left", func() string {
		_ = exec.Command("ip", "link", "del", c.Bridge).Run()
		if left, _ := filepath.Glob("/sys/class/net/" + c.Bridge + "*"); len(left) > 0 {
			return fmt.Sprint(left)
		}
		return ""
	})
	for _, top := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		roots, _ := filepath.Glob(fmt.Sprintf("%s/keelson-lab-%d", top, c.Port))
		for _, root := range roots {
			if out, err := exec.Command("find", root, "-depth", "-type", "d", "-exec", "rmdir", "{}", "+").CombinedOutput(); err != nil {
				t.Errorf("%s: %s", root, out)
			}
		}
	}

	boot(2)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	addresses := map[string]string{}
	all(t, c, "back", func(p corev1.Pod) string {
		was := before[p.Name]
		s, old := p.Status.ContainerStatuses[0], was.Status.ContainerStatuses[0]
		if p.UID != was.UID || s.ContainerID == old.ContainerID || s.RestartCount != 1 || s.LastTerminationState.Terminated == nil {
			return fmt.Sprintf("it is %s, %+v; was %s, %s", p.UID, s, was.UID, old.ContainerID)
		}
		addresses[p.Status.PodIP] = p.Name
		return ""
	})
	if len(addresses) != *many {
		t.Errorf("%d addresses of %d pods", len(addresses), *many)
	}
	if got := processes(t, c); len(got) != *many {
		t.Errorf("%d processes run in pods, want %d", len(got), *many)
	}
	node, err := labtest.Client(t, c).CoreV1().Nodes().Get(t.Context(), c.NodeName, metav1.GetOptions{})
	if err != nil || node.Status.NodeInfo.BootID != "00000000-0000-4000-8000-000000000002" {
		t.Errorf("the node's boot is %q, %v", node.Status.NodeInfo.BootID, err)
	}
	eventually(t, "nothing of the last boot is left", func() string { return leftovers(t, c, addresses) })
}

// leftovers compares the mounts and address records of an instance with its pods. Spares are no pod's.
func leftovers(t *testing.T, c *lab.Cluster, addresses map[string]string) string {
	t.Helper()
	proc := fmt.Sprintf("/proc/%d/", c.Pid())
	table, err := os.ReadFile(proc + "mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	overlays, pins := 0, map[string]bool{}
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if !strings.HasPrefix(f[4], c.Dir+"/") {
			continue
		}
		_, kind, _ := strings.Cut(line, " - ")
		switch {
		case strings.HasPrefix(kind, "overlay "):
			overlays++
		case strings.HasPrefix(f[4], c.Dir+"/run/network/netns/"):
			pins[filepath.Base(f[4])] = true
		case strings.HasPrefix(f[4], c.Dir+"/kubelet/pods/"):
			known := false
			for p := range strings.SplitSeq(strings.TrimPrefix(f[4], c.Dir+"/kubelet/pods/"), "/") {
				known = known || len(p) == 36
			}
			if !known {
				return "a volume of nobody: " + f[4]
			}
		}
	}
	if overlays != *many {
		return fmt.Sprintf("%d root filesystems, want %d", overlays, *many)
	}
	records, err := filepath.Glob(proc + "root" + c.Dir + "/run/network/ipam/*")
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for _, r := range records {
		have[filepath.Base(r)] = true
	}
	for a := range addresses {
		if !pins[a] {
			return "no namespace for " + a
		}
		delete(pins, a)
	}
	const spares = 8
	if len(pins) > spares {
		return fmt.Sprintf("%d namespaces beside the pods': %v", len(pins), slices.Collect(maps.Keys(pins)))
	}
	if len(records) > *many+spares {
		return fmt.Sprintf("%d address records, want %d and at most %d spares: %v", len(records), *many, spares, have)
	}
	return ""
}

// ND23: pods come and go by the score, again and again. What the node holds afterwards does not grow with how often.
func TestHostile_ND23(t *testing.T) {
	needRoot(t)
	c := ownCluster(t, lab.Options{})
	pods, none := labtest.Client(t, c).CoreV1().Pods("default"), int64(0)
	var first map[string]int
	for range 4 {
		crowd(t, c)
		if err := pods.DeleteCollection(t.Context(), metav1.DeleteOptions{GracePeriodSeconds: &none}, metav1.ListOptions{LabelSelector: "app=crowd"}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the crowd is gone", func() string {
			left, err := pods.List(t.Context(), metav1.ListOptions{LabelSelector: "app=crowd"})
			if err != nil {
				return err.Error()
			}
			if held := census(t, c); len(left.Items) > 0 || held["processes"] > 0 || held["pods' folders"] > 0 || held["containers' files"] > 0 {
				return fmt.Sprintf("%d pods, %v", len(left.Items), held)
			}
			return ""
		})
		if first == nil {
			first = census(t, c)
			t.Log("after the first crowd: ", first)
		}
	}
	// Three more crowds: what is lost for each pod would be there three times as often as there is room for what varies.
	eventually(t, "nothing has grown", func() string {
		for what, n := range census(t, c) {
			if n > first[what]+*many {
				return fmt.Sprintf("%d %s, %d after the first crowd", n, what, first[what])
			}
		}
		return ""
	})
}

// census counts what an instance holds.
func census(t *testing.T, c *lab.Cluster) map[string]int {
	t.Helper()
	keeper, err := c.Keeper()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int{"processes": len(processes(t, c))}
	for what, pattern := range map[string]string{
		"descriptors of the daemon": fmt.Sprintf("/proc/%d/fd/*", c.Pid()),
		"descriptors of the keeper": fmt.Sprintf("/proc/%d/fd/*", keeper),
		"threads of the keeper":     fmt.Sprintf("/proc/%d/task/*", keeper),
		"links":                     "/sys/class/net/" + c.Bridge + "*",
		"pods' folders":             c.Dir + "/kubelet/pods/*",
		"pods' logs":                c.Dir + "/logs/*",
		"address records":           c.Dir + "/run/network/ipam/*",
		"containers' files":         c.Dir + "/data/agent/images/containers/*",
		"cgroups":                   fmt.Sprintf("/sys/fs/cgroup/pids/keelson-lab-%d/kubepods/*/*", c.Port),
	} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		out[what] = len(found)
	}
	table, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", c.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	out["mounts"] = strings.Count(string(table), " "+c.Dir+"/")
	for line := range strings.Lines(kubectl(t, c, "get", "--raw", "/metrics")) {
		if n, is := strings.CutPrefix(line, "go_goroutines "); is {
			var goroutines float64
			if _, err := fmt.Sscan(n, &goroutines); err != nil {
				t.Fatal(err)
			}
			out["goroutines"] = int(goroutines)
		}
	}
	if out["goroutines"] == 0 || out["descriptors of the daemon"] == 0 {
		t.Fatalf("the census is blind: %v", out)
	}
	return out
}

// ND16: another build of the server, with another keeper inside, takes over a node full of pods, and the first one takes it back after a
// kill: no pod is restarted, each process is the one that it was.
func TestHostile_ND16(t *testing.T) {
	needRoot(t)
	first, err := lab.Binary()
	if err != nil {
		t.Fatal(err)
	}
	next := filepath.Join(t.TempDir(), "keelson")
	if err := otherBuild(first, next); err != nil {
		t.Fatal(err)
	}
	c := ownCluster(t, lab.Options{})
	crowd(t, c)
	before, processesBefore := all(t, c, "ready", func(corev1.Pod) string { return "" }), processes(t, c)
	if len(processesBefore) != *many {
		t.Fatalf("%d processes, want %d", len(processesBefore), *many)
	}
	keeper, err := c.Keeper()
	if err != nil {
		t.Fatal(err)
	}
	for replaced, round := range []struct {
		what   string
		binary string
		end    func() error
	}{{"upgrade", next, c.Stop}, {"downgrade after a kill", first, c.Kill}} {
		if err := round.end(); err != nil {
			t.Fatal(err)
		}
		c.Use(round.binary)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		if err := c.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		eventually(t, round.what+": the keeper is of the same build", func() string {
			log, err := os.ReadFile(filepath.Join(c.Dir, "server.log"))
			if n := strings.Count(string(log), "keeper is being replaced in place"); err != nil || n != replaced+1 {
				return fmt.Sprintf("it was replaced %d times, want %d; %v", n, replaced+1, err)
			}
			return ""
		})
		if now, err := c.Keeper(); err != nil || now != keeper {
			t.Errorf("%s: the keeper is process %d, %v; was %d", round.what, now, err, keeper)
		}
		all(t, c, round.what, func(p corev1.Pod) string {
			was := before[p.Name]
			s := p.Status.ContainerStatuses[0]
			if p.UID != was.UID || s.ContainerID != was.Status.ContainerStatuses[0].ContainerID || s.RestartCount != 0 || p.Status.PodIP != was.Status.PodIP {
				t.Fatalf("%s: %s was replaced: %+v", round.what, p.Name, s)
			}
			return ""
		})
		if now := processes(t, c); !maps.Equal(now, processesBefore) {
			t.Errorf("%s: processes %v, were %v", round.what, now, processesBefore)
		}
		name := fmt.Sprint("after-", replaced)
		apply(t, c, "apiVersion: v1\nkind: Pod\nmetadata: {name: "+name+"}\nspec: {restartPolicy: Never, containers: [{name: a, image: \"busybox:1.28\", command: [sh, -c, \"echo made; exit 7\"]}]}\n")
		waitPod(t, c, name, "jsonpath={.status.phase}=Failed")
		if log := kubectl(t, c, "logs", name); log != "made\n" {
			t.Errorf("%s: a new pod's log is %q", round.what, log)
		}
	}
}

// otherBuild makes the build that differs in its keeper: the archive of programs inside is packed anew with a keeper whose build ID is
// gone, and fills the same place.
func otherBuild(from, to string) error {
	whole, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	packed, err := os.ReadFile("../../cmd/keelson/embedded/programs.tar.zst")
	if err != nil {
		return err
	}
	at := bytes.Index(whole, packed)
	if at < 0 {
		return fmt.Errorf("%s was not built with the programs of this folder: run make build", from)
	}
	reader, err := zstd.NewReader(bytes.NewReader(packed))
	if err != nil {
		return err
	}
	defer reader.Close()
	dir := filepath.Dir(to)
	args := []string{"run", "../../cmd/keelson-pack", filepath.Join(dir, "packed")}
	for r := tar.NewReader(reader); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		program, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if h.Name == "keelson-keeper" {
			// The ID's note is twelve bytes of lengths, "Go" and two zeros, the ID. What C++ would unwind its stack by makes the room.
			for name, from := range map[string]int{".note.go.buildid": 16, ".eh_frame": 0} {
				data, err := section(program, name)
				if err != nil {
					return err
				}
				clear(data[from:])
			}
		}
		path := filepath.Join(dir, h.Name)
		if err := os.WriteFile(path, program, 0o755); err != nil {
			return err
		}
		args = append(args, path)
	}
	if text, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("pack the other programs: %w: %s", err, text)
	}
	other, err := os.ReadFile(filepath.Join(dir, "packed"))
	if err != nil {
		return err
	}
	// What is free at the end becomes a frame that is skipped.
	free := len(packed) - len(other)
	if free < 8 {
		return fmt.Errorf("the other archive has %d bytes, there is room for %d", len(other), len(packed))
	}
	copy(whole[at:], other)
	pad := whole[at+len(other) : at+len(packed)]
	clear(pad)
	binary.LittleEndian.PutUint32(pad, 0x184D2A50)
	binary.LittleEndian.PutUint32(pad[4:], uint32(free-8))
	return os.WriteFile(to, whole, 0o755)
}

// section is a section of a program, in place.
func section(program []byte, name string) ([]byte, error) {
	f, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		return nil, err
	}
	s := f.Section(name)
	if s == nil || s.Size < 16 {
		return nil, fmt.Errorf("the program has no section %s", name)
	}
	return program[s.Offset : s.Offset+s.Size], nil
}
