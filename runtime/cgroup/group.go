package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Group is one control group, whether it exists or not.
type Group struct {
	hierarchy Hierarchy
	path      string
}

// Path is the group's path below the root.
func (g Group) Path() string { return g.path }

// Exists says whether the group exists.
func (g Group) Exists() bool {
	_, err := os.Stat(g.procsDir())
	return err == nil
}

// Pids lists the processes in the group and in the groups below it, as this
// process sees them. A group that does not exist has none.
func (g Group) Pids() ([]int, error) { return g.pidsIn(g.procsDir()) }

func (g Group) pidsIn(dirs ...string) ([]int, error) {
	seen := map[int]bool{}
	var pids []int
	for _, root := range dirs {
		err := filepath.WalkDir(root, func(dir string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.IsDir() {
				return ignoreGone(err)
			}
			more, err := readPids(filepath.Join(dir, "cgroup.procs"))
			for _, pid := range more {
				if !seen[pid] {
					seen[pid] = true
					pids = append(pids, pid)
				}
			}
			return ignoreGone(err)
		})
		if err != nil {
			return nil, fmt.Errorf("list processes of cgroup %s: %w", g.path, err)
		}
	}
	return pids, nil
}

func readPids(name string) ([]int, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, word := range strings.Fields(string(text)) {
		pid, err := strconv.Atoi(word)
		if err != nil {
			return pids, fmt.Errorf("%s: %w", name, err)
		}
		if pid > 0 { // 0: a process that our pid namespace does not show
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

func ignoreGone(err error) error {
	if err != nil && isGone(err) {
		return nil
	}
	return err
}

// Kill kills every process of the group, frozen ones too, and returns once
// none is left or ctx ends. A process that sits in the kernel (state D, a dead
// NFS server) may keep it waiting.
func (g Group) Kill(ctx context.Context) error {
	if g.hierarchy.Unified() {
		err := os.WriteFile(filepath.Join(g.dir(""), "cgroup.kill"), []byte("1"), 0)
		if isGoneDir(g.dir("")) {
			return nil
		}
		if err == nil {
			return g.waitEmpty(ctx)
		}
	}
	for {
		// Frozen, the group cannot fork while its processes are signalled; they
		// die when it thaws.
		_ = g.Freeze(true)
		// In every hierarchy: a process that was being moved when its mover
		// died is in some of them only.
		pids, err := g.pidsIn(g.dirs()...)
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		_ = g.Freeze(false)
		if err != nil {
			return fmt.Errorf("kill cgroup %s: %w", g.path, err)
		}
		if len(pids) == 0 {
			return nil
		}
		if err := awaitPids(ctx, pids); err != nil {
			return fmt.Errorf("kill cgroup %s: %w", g.path, err)
		}
	}
}

func isGoneDir(dir string) bool {
	_, err := os.Stat(dir)
	return err != nil && isGone(err)
}

func (g Group) waitEmpty(ctx context.Context) error {
	for {
		pids, err := g.Pids()
		if err != nil || len(pids) == 0 {
			return err
		}
		if err := awaitPids(ctx, pids); err != nil {
			return fmt.Errorf("kill cgroup %s: %w", g.path, err)
		}
	}
}

// awaitPids waits until all of pids have ended (a zombie has).
func awaitPids(ctx context.Context, pids []int) error {
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		if errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil {
			return fmt.Errorf("pidfd of %d: %w", pid, err)
		}
		err = awaitPidfd(ctx, fd)
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("process %d is still there: %w", pid, err)
		}
	}
	return nil
}

func awaitPidfd(ctx context.Context, fd int) error {
	for {
		wait := 500 // milliseconds between looks at ctx
		if ctx.Done() == nil {
			wait = -1
		}
		set := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(set, wait)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if n > 0 {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// Freeze stops or resumes every process of the group. It does not wait for v2
// to report that all are stopped.
func (g Group) Freeze(frozen bool) error {
	name, on, off := "cgroup.freeze", "1", "0"
	if !g.hierarchy.Unified() {
		name, on, off = "freezer.state", "FROZEN", "THAWED"
	}
	value := off
	if frozen {
		value = on
	}
	dir := g.dir("freezer")
	if dir == "" {
		return fmt.Errorf("freeze cgroup %s: no freezer is mounted", g.path)
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte(value), 0); err != nil {
		return fmt.Errorf("freeze cgroup %s: %w", g.path, err)
	}
	return nil
}

// Remove removes the group and all below it, killing what still runs there. A
// group that is not there is no error. It gives up when ctx ends.
func (g Group) Remove(ctx context.Context) error {
	var errs []error
	for _, dir := range g.dirs() {
		if err := g.removeTree(ctx, dir); err != nil {
			errs = append(errs, err)
		}
	}
	errs = append(errs, g.stopUnit())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove cgroup %s: %w", g.path, err)
	}
	return nil
}

func (g Group) removeTree(ctx context.Context, dir string) error {
	for pause := time.Millisecond; ; pause *= 2 {
		err := removeDirs(dir)
		if err == nil || !errors.Is(err, unix.EBUSY) {
			return err
		}
		// Processes are left, or have ended so recently that the kernel has
		// not taken them off yet, for which v1 has no event.
		if err := g.Kill(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-time.After(min(pause, 100*time.Millisecond)):
		}
	}
}

// removeDirs removes dir and the groups in it, deepest first.
func removeDirs(dir string) error {
	err := unix.Rmdir(dir)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	entries, readErr := os.ReadDir(dir)
	if readErr != nil {
		return ignoreGone(readErr)
	}
	for _, entry := range entries {
		if entry.IsDir() {
			if err := removeDirs(filepath.Join(dir, entry.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
		return &os.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	return nil
}

// Add moves a process into the group, which exists.
func (g Group) Add(pid int) error {
	for _, dir := range g.dirs() {
		err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
		if err != nil {
			return fmt.Errorf("add process %d to cgroup %s: %w", pid, g.path, err)
		}
	}
	return nil
}

// Prune removes the group if nothing is in it: no process and no group. It
// kills nothing, and what is in use stays without an error.
func (g Group) Prune() error {
	for _, dir := range g.dirs() {
		err := unix.Rmdir(dir)
		if err != nil && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOTEMPTY) && !isGone(err) {
			return fmt.Errorf("prune cgroup: %w", &os.PathError{Op: "rmdir", Path: dir, Err: err})
		}
	}
	if g.Exists() {
		return nil
	}
	return g.stopUnit()
}
