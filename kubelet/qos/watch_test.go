package qos

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// ND22: cgroups above the pods that a script removes are made again with their limits, all of them or one.
func TestHostile_ND22(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes cgroups")
	}
	root := fmt.Sprintf("/keelson-test-%d-nd22", os.Getpid())
	tree := NewTree(Config{Root: root, AllocatableMilliCPU: 2000, AllocatableMemory: 1 << 30})
	t.Cleanup(func() {
		for _, h := range hierarchies(tree.v2) {
			_ = removeAll(filepath.Join(h, root))
		}
	})
	if err := tree.Setup(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done, told := make(chan error, 1), make(chan []string, 10)
	go func() {
		done <- tree.Watch(ctx, func(dirs []string, err error) {
			if err != nil {
				t.Error(err)
			}
			told <- dirs
		})
	}()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	limit := "memory/memory.limit_in_bytes"
	if tree.v2 {
		limit = "memory.max"
	}
	hierarchy, file, _ := strings.Cut(limit, "/")
	if tree.v2 {
		hierarchy, file = "", limit
	}
	top := filepath.Join("/sys/fs/cgroup", hierarchy, root, "kubepods")
	for _, victim := range []string{filepath.Join(top, "besteffort"), top, filepath.Dir(top)} {
		limit := time.After(30 * time.Second)
		for back := false; !back; { // a look between two removals tells of the first alone, and before the watch begins of none
			if present(victim) {
				if err := removeAll(victim); err != nil {
					t.Fatal(err)
				}
			}
			select {
			case dirs := <-told:
				for _, dir := range dirs {
					back = back || dir == victim
				}
			case <-time.After(time.Second):
			case <-limit:
				t.Fatalf("%s was removed and did not come back", victim)
			}
		}
		for _, dir := range []string{filepath.Join(top, "besteffort"), filepath.Join(top, "burstable")} {
			if !present(dir) {
				t.Errorf("%s was removed; %s is not there", victim, dir)
			}
		}
		if got, err := os.ReadFile(filepath.Join(top, file)); err != nil || strings.TrimSpace(string(got)) != "1073741824" {
			t.Errorf("%s was removed; the limit of all pods is %q, %v", victim, got, err)
		}
	}
}
