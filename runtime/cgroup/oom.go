package cgroup

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// NotifyOOM makes a descriptor, the caller's, that becomes readable when the
// kernel kills a process of the group for memory. It may do so for other
// reasons: OOMKills tells. os.ErrNotExist: the group has no memory controller.
func (g Group) NotifyOOM() (int, error) {
	dir := g.dir("memory")
	if dir == "" {
		return -1, fmt.Errorf("watch cgroup %s: no memory controller: %w", g.path, os.ErrNotExist)
	}
	if g.hierarchy.Unified() {
		return inotifyOn(filepath.Join(dir, "memory.events"))
	}
	return eventOn(dir)
}

// Above is the group that this one is in: for a container's its pod's.
func (g Group) Above() Group { return Group{hierarchy: g.hierarchy, path: filepath.Dir(g.path)} }

// KilledForMemory says whether the kernel killed a process of the group, which
// has ended, for memory. systemd removes a scope's group as soon as it is
// empty, and its count with it. Under v2 the group above counts what happens
// below it, and stays: before is what it counted before this group's end.
func (g Group) KilledForMemory(before uint64) bool {
	if n := g.OOMKills(); n > 0 || g.Exists() {
		return n > 0
	}
	return g.hierarchy.Unified() && g.Above().OOMKills() > before
}

func inotifyOn(name string) (int, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return -1, fmt.Errorf("inotify: %w", err)
	}
	if _, err := unix.InotifyAddWatch(fd, name, unix.IN_MODIFY); err != nil {
		unix.Close(fd)
		return -1, &os.PathError{Op: "watch", Path: name, Err: err}
	}
	return fd, nil
}

// eventOn asks a v1 memory group to signal an eventfd.
func eventOn(dir string) (int, error) {
	control, err := os.Open(filepath.Join(dir, "memory.oom_control"))
	if err != nil {
		return -1, err
	}
	defer control.Close()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return -1, fmt.Errorf("eventfd: %w", err)
	}
	text := fmt.Sprintf("%d %d", fd, control.Fd())
	if err := os.WriteFile(filepath.Join(dir, "cgroup.event_control"), []byte(text), 0); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
