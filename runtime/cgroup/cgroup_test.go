package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestParse(t *testing.T) {
	const v2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
	const v1 = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n" +
		"35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n" +
		"40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd\n"
	const unified = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
	const elsewhere = "50 1 0:40 / /mnt/cgroup rw - cgroup2 cgroup2 rw\n"
	for _, row := range []struct {
		text string
		mode Mode
		want map[string]string
	}{
		{v2 + elsewhere, V2, map[string]string{"": "/sys/fs/cgroup"}},
		{v1, V1, map[string]string{"memory": "/sys/fs/cgroup/memory", "cpu": "/sys/fs/cgroup/cpu,cpuacct", "cpuacct": "/sys/fs/cgroup/cpu,cpuacct", "name=systemd": "/sys/fs/cgroup/systemd"}},
		{v1 + unified, Hybrid, map[string]string{"": "/sys/fs/cgroup/unified", "memory": "/sys/fs/cgroup/memory"}},
	} {
		h, err := Parse(strings.NewReader(row.text))
		if err != nil || h.Mode != row.mode {
			t.Errorf("%s: %v, %v", row.mode, h.Mode, err)
		}
		for name, point := range row.want {
			if h.Mounts[name] != point {
				t.Errorf("%s: %q is at %q, want %q", row.mode, name, h.Mounts[name], point)
			}
		}
	}
	if _, err := Parse(strings.NewReader(elsewhere)); !errors.Is(err, ErrNoCgroups) {
		t.Errorf("nothing mounted: %v", err)
	}
}

func TestGroupPathStaysInside(t *testing.T) {
	h := Hierarchy{Mode: V2, Mounts: map[string]string{"": Root}}
	for in, want := range map[string]string{"../../etc": "/etc", "/a/../../b": "/b", "": "/", "/kubepods/x/": "/kubepods/x"} {
		if got := h.Group(in).Path(); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// TestSwapFree: what may still be swapped out is told where there is a limit on it.
func TestSwapFree(t *testing.T) {
	const unlimited = "9223372036854771712"
	for _, row := range []struct {
		mode  Mode
		files map[string]string
		want  int64 // -1: none is told
	}{
		{V2, map[string]string{"memory.swap.max": "4096\n", "memory.swap.current": "1024\n"}, 3072},
		{V2, map[string]string{"memory.swap.max": "0\n", "memory.swap.current": "0\n"}, 0},
		{V2, map[string]string{"memory.swap.max": "1024\n", "memory.swap.current": "4096\n"}, 0}, // lowered below what is out
		{V2, map[string]string{"memory.swap.max": "max\n", "memory.swap.current": "1024\n"}, -1},
		{V2, nil, -1},
		{V1, map[string]string{"memory.stat": "hierarchical_memory_limit 8192\nhierarchical_memsw_limit 12288\ntotal_swap 1024\n"}, 3072},
		{V1, map[string]string{"memory.stat": "hierarchical_memory_limit 8192\nhierarchical_memsw_limit " + unlimited + "\ntotal_swap 1024\n"}, -1},
		{V1, map[string]string{"memory.stat": "hierarchical_memory_limit 8192\ntotal_swap 1024\n"}, -1}, // swap is not counted
	} {
		dir := t.TempDir()
		for name, text := range row.files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		h := Hierarchy{Mode: row.mode, Mounts: map[string]string{"": dir, "memory": dir}}
		s, err := h.Group("/").Stats(false)
		if err != nil {
			t.Fatal(err)
		}
		got := int64(-1)
		if s.Memory.SwapFree != nil {
			got = int64(*s.Memory.SwapFree)
		}
		if got != row.want {
			t.Errorf("%v %v: %d bytes are free, want %d", row.mode, row.files, got, row.want)
		}
	}
}

func TestParsePSI(t *testing.T) {
	psi, err := parsePSI("some avg10=1.50 avg60=0.20 avg300=0.03 total=4711\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=12\n")
	if err != nil || psi.Some != (Pressure{1.5, 0.2, 0.03, 4711}) || psi.Full.Total != 12 {
		t.Errorf("%+v, %v", psi, err)
	}
	if _, err := parsePSI("some avg10"); err == nil {
		t.Error("nonsense was read")
	}
}

// newGroup is a group of this machine's for one test.
func newGroup(t *testing.T) Group {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes cgroups")
	}
	h, err := Detect()
	if err != nil {
		t.Skip("needs cgroups: ", err)
	}
	g := h.Group(fmt.Sprintf("/keelson-test-%d-%s", os.Getpid(), t.Name()))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := g.Remove(ctx); err != nil {
			t.Error(err)
		}
		for _, dir := range g.dirs() {
			if _, err := os.Stat(dir); err == nil {
				t.Errorf("%s is left", dir)
			}
		}
	})
	return g
}

func TestCreateUpdateRemove(t *testing.T) {
	g := newGroup(t)
	limit, shares, pids := int64(32<<20), uint64(256), int64(50)
	err := g.Create(&specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: &limit}, CPU: &specs.LinuxCPU{Shares: &shares}, Pids: &specs.LinuxPids{Limit: &pids},
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := g.Stats(true)
	if err != nil || s.Memory.Limit != uint64(limit) || s.Pids.Limit != uint64(pids) {
		t.Errorf("%+v, %v", s, err)
	}
	limit *= 2
	if err := g.Update(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}); err != nil {
		t.Fatal(err)
	}
	if s, err := g.Stats(true); err != nil || s.Memory.Limit != uint64(limit) || s.Pids.Limit != uint64(pids) {
		t.Errorf("after update: %+v, %v", s, err)
	}
	if err := g.Create(nil); err != nil {
		t.Errorf("create again: %v", err)
	}
	if err := g.Update(&specs.LinuxResources{Unified: map[string]string{"memory.high": "1"}}); !g.hierarchy.Unified() && err == nil {
		t.Error("unified settings were taken without cgroup v2")
	}
}

// TestHostile_OC23 kills and removes a frozen group with groups below it, one
// of whose processes has a thread and one of which forks without end.
func TestHostile_OC23(t *testing.T) {
	g := newGroup(t)
	inner := g.hierarchy.Group(g.Path() + "/inner")
	for _, x := range []Group{g, inner} {
		if err := x.Create(nil); err != nil {
			t.Fatal(err)
		}
	}
	pids := int64(200)
	if err := inner.Update(&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &pids}}); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", "read go; f() { (f) & (f) & wait; sleep 0.01; f; }; f 2>/dev/null")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := inner.Add(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(in, "go")
	for {
		if now, err := inner.Pids(); err != nil || len(now) > 20 {
			break
		}
	}
	if err := g.Freeze(true); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for range 2 {
		if err := g.Remove(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the process was not killed")
	}
}

func TestPruneLeavesWhatIsUsed(t *testing.T) {
	g := newGroup(t)
	inner := g.hierarchy.Group(g.Path() + "/inner")
	if err := inner.Create(nil); err != nil {
		t.Fatal(err)
	}
	if err := g.Prune(); err != nil || !inner.Exists() {
		t.Errorf("%v, exists %v", err, inner.Exists())
	}
	if err := inner.Prune(); err != nil || inner.Exists() {
		t.Errorf("%v, exists %v", err, inner.Exists())
	}
	if err := g.Prune(); err != nil || g.Exists() {
		t.Errorf("%v, exists %v", err, g.Exists())
	}
}

// A container that was killed for memory is told from one that was not also after systemd has removed its group, by its pod's count.
func TestKilledForMemory(t *testing.T) {
	root := t.TempDir()
	count := func(group string, kills int) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(root, group), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, group, "memory.events"), fmt.Appendf(nil, "low 0\nmax 9\noom 1\noom_kill %d\noom_group_kill 1\n", kills), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	count("pod.slice", 2)
	count("pod.slice/killed.scope", 2)
	count("pod.slice/well.scope", 0)
	h := Hierarchy{Mode: V2, Mounts: map[string]string{"": root}}
	for _, c := range []struct {
		group  string
		before uint64
		want   bool
	}{
		{"pod.slice/killed.scope", 2, true},
		{"pod.slice/well.scope", 0, false},
		{"pod.slice/removed.scope", 0, true},
		{"pod.slice/removed.scope", 2, false}, // the kills were another container's
		{"gone.slice/removed.scope", 0, false},
	} {
		if got := h.Group(c.group).KilledForMemory(c.before); got != c.want {
			t.Errorf("%s, of whose pod's kills %d are known: %v", c.group, c.before, got)
		}
	}
	h = Hierarchy{Mode: V1, Mounts: map[string]string{"memory": root}}
	if h.Group("pod.slice/removed.scope").KilledForMemory(0) {
		t.Error("under v1 a pod does not count its containers' kills")
	}
}
