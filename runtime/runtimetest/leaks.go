package runtimetest

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"keelson.dev/keelson/runtime/keeper"
)

// KeeperPid is the pid of the node's keeper, 0 if there is none.
func (n *Node) KeeperPid() int {
	return keeper.Find(filepath.Join(n.StateDir(), ".keeper"))
}

// awaitKeeperEnd waits for the keeper to see that it is not needed any more.
func (n *Node) awaitKeeperEnd(ctx context.Context, pid int) {
	if pid == 0 {
		return
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	set := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for ctx.Err() == nil {
		if count, err := unix.Poll(set, 1000); err == nil && count > 0 {
			return
		}
	}
	n.T.Errorf("keeper %d does not end though no container and no daemon is left", pid)
	_ = unix.Kill(pid, unix.SIGKILL)
}

// checkNothingLeft looks for what mentions the node's directory or cgroup.
func (n *Node) checkNothingLeft() {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		n.T.Error(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, n.Dir) {
			n.T.Errorf("mount left behind: %s", line)
		}
	}
	groups, err := filepath.Glob("/sys/fs/cgroup/*" + n.Cgroup)
	if err != nil {
		n.T.Error(err)
	}
	if more, _ := filepath.Glob("/sys/fs/cgroup" + n.Cgroup); len(more)+len(groups) > 0 {
		n.T.Errorf("cgroups left behind: %v", append(more, groups...))
	}
	n.checkProcesses()
}

func (n *Node) checkProcesses() {
	names, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		n.T.Error(err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err == nil && strings.Contains(string(text), n.Cgroup+"/") {
			n.T.Errorf("process left behind: %s", name)
		}
	}
}

// Descriptors counts this process's open descriptors, once those that are
// being closed are.
func (n *Node) Descriptors() int {
	time.Sleep(0)
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		n.T.Fatal(err)
	}
	return len(entries)
}
