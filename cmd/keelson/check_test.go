package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// ND14: a machine that lacks a controller, a filesystem or a program is told which, and how to mend it, before anything is begun.
func TestHostile_ND14(t *testing.T) {
	hierarchies := func(files map[string]string, dirs ...string) func(*options) (string, string, error) {
		root := t.TempDir()
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range dirs {
			if err := os.Mkdir(filepath.Join(root, name), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		return probeCgroups(root)
	}
	const raspberry = "cgroup_enable=memory"
	for _, c := range []struct {
		name       string
		look       func(*options) (string, string, error)
		wrong, fix string
	}{
		{"v2", hierarchies(map[string]string{"cgroup.controllers": "cpuset cpu io memory pids\n"}), "", ""},
		{"v2, memory off as on a Raspberry Pi", hierarchies(map[string]string{"cgroup.controllers": "cpuset cpu io pids\n"}), "cgroup v2 without the memory controller", raspberry},
		{"v1", hierarchies(nil, "cpu", "memory", "pids"), "", ""},
		{"hybrid", hierarchies(nil, "cpu", "memory", "pids", "unified"), "", ""},
		{"v1 without memory", hierarchies(nil, "cpu", "pids"), "no memory controller", raspberry},
		{"hybrid, all controllers in neither", hierarchies(nil, "unified"), "no cpu controller", "systemd.unified_cgroup_hierarchy=1"},
		{"no such filesystem", probeFilesystem("keelsonfs"), "the kernel has no keelsonfs", "modprobe keelsonfs"},
		{"no such program", probeProgram("keelson-no-such", "some-package"), "no keelson-no-such in PATH", "apt-get install some-package"},
	} {
		err := lacks([]probe{{name: "it", required: true, look: c.look}}, &options{})
		if c.wrong == "" {
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.wrong) || !strings.Contains(err.Error(), c.fix) {
			t.Errorf("%s: %v; want %q and %q", c.name, err, c.wrong, c.fix)
		}
		if err := lacks([]probe{{name: "it", look: c.look}}, &options{}); err != nil {
			t.Errorf("%s, not required: %v", c.name, err)
		}
	}
}
