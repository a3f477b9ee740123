package bundle

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestHostile_OC26(t *testing.T) {
	ptr := func(n int) *int { return &n }
	weak := Limits{OOMScoreAdjMin: -200, HardMax: map[string]uint64{"RLIMIT_NOFILE": 1000}}
	strong := Limits{Unlimited: true}
	for _, row := range []struct {
		own       Limits
		adj, want int
	}{
		{weak, -1500, -200}, {weak, -999, -200}, {weak, -200, -200}, {weak, 0, 0}, {weak, 2000, 1000},
		{strong, -1500, -1000}, {strong, -998, -998}, {strong, 1001, 1000},
	} {
		p := &specs.Process{OOMScoreAdj: ptr(row.adj)}
		Clamp(p, row.own)
		if *p.OOMScoreAdj != row.want {
			t.Errorf("%+v: %d became %d, want %d", row.own, row.adj, *p.OOMScoreAdj, row.want)
		}
	}
	p := &specs.Process{Rlimits: []specs.POSIXRlimit{
		{Type: "RLIMIT_NOFILE", Hard: 5000, Soft: 3000}, {Type: "RLIMIT_CORE", Hard: 7, Soft: 9}, {Type: "RLIMIT_NOFILE", Hard: 900, Soft: 100},
	}}
	changed := Clamp(p, weak)
	want := []specs.POSIXRlimit{
		{Type: "RLIMIT_NOFILE", Hard: 1000, Soft: 1000}, {Type: "RLIMIT_CORE", Hard: 7, Soft: 7}, {Type: "RLIMIT_NOFILE", Hard: 900, Soft: 100},
	}
	for i, r := range p.Rlimits {
		if r != want[i] {
			t.Errorf("%+v, want %+v", r, want[i])
		}
	}
	if len(changed) != 1 {
		t.Errorf("said: %q", changed)
	}
	Clamp(nil, weak)
	if own, err := OwnLimits(); err != nil || own.HardMax["RLIMIT_NOFILE"] == 0 {
		t.Errorf("own limits: %+v, %v", own, err)
	}
}

func TestMake(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "c")
	spec := &specs.Spec{Hostname: "x"}
	for range 2 {
		if err := Make(dir, spec, false, true); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{StdinName, StdoutName, StderrName} {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil || st.Mode()&os.ModeNamedPipe == 0 {
			t.Errorf("%s: %v, %v", name, st, err)
		}
	}
	if got, err := ReadSpec(dir); err != nil || got.Hostname != "x" {
		t.Errorf("%+v, %v", got, err)
	}
}

// Where SELinux labels are asked for, what a container inherits has that of its files.
func TestMakeLabelled(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "c")
	const want = "system_u:object_r:container_file_t:s0:c1,c2"
	err := Make(dir, &specs.Spec{Linux: &specs.Linux{MountLabel: want}}, false, true)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) {
		t.Skip("labels take root, and under SELinux a policy that knows them: " + err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{StdinName, StdoutName, StderrName} {
		got := make([]byte, 256)
		n, err := unix.Lgetxattr(filepath.Join(dir, name), "security.selinux", got)
		if errors.Is(err, unix.ENOTSUP) {
			t.Skip("no labels on this filesystem: " + err.Error())
		}
		if err != nil || strings.TrimRight(string(got[:n]), "\x00") != want {
			t.Errorf("%s: %q, %v", name, got[:max(n, 0)], err)
		}
	}
}

func TestMerge(t *testing.T) {
	n := func(v int64) *int64 { return &v }
	base := &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: n(1), Swap: n(2)}, Unified: map[string]string{"a": "1", "b": "1"},
		Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"}},
	}
	got := Merge(base, &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: n(9)}, CPU: &specs.LinuxCPU{Quota: n(5)}, Unified: map[string]string{"b": "2"},
	})
	if *got.Memory.Limit != 9 || *got.Memory.Swap != 2 || *got.CPU.Quota != 5 || got.Unified["a"] != "1" || got.Unified["b"] != "2" || len(got.Devices) != 1 {
		t.Errorf("%+v", got)
	}
	if *base.Memory.Limit != 1 || base.CPU != nil || base.Unified["b"] != "1" {
		t.Errorf("the base was changed: %+v", base)
	}
	if Merge(base, nil) != base || *Merge(nil, &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: n(3)}}).CPU.Quota != 3 {
		t.Error("merging with nothing")
	}
}
