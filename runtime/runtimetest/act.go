package runtimetest

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"keelson.dev/keelson/runtime/container"
	"keelson.dev/keelson/runtime/logfile"
)

// Run creates and starts a container.
func (n *Node) Run(cfg container.Config) container.State {
	n.T.Helper()
	ctx := n.T.Context()
	if err := n.Create(ctx, cfg); err != nil {
		n.T.Fatal(err)
	}
	s, err := n.Start(ctx, cfg.ID)
	if err != nil {
		n.T.Fatal(err)
	}
	return s
}

// Await waits for a container to end and says how.
func (n *Node) Await(id string) container.State {
	n.T.Helper()
	ctx := n.T.Context()
	events := n.Events(ctx)
	deadline := time.After(30 * time.Second)
	for {
		s, err := n.State(id)
		if err != nil {
			n.T.Fatal(err)
		}
		if s.Status == container.Exited {
			return s
		}
		select {
		case <-events:
		case <-deadline:
			n.T.Fatalf("container %s does not end: %+v", id, s)
		}
	}
}

// Records are the records of a container's log.
func (n *Node) Records(id string) []logfile.Record {
	n.T.Helper()
	return n.RecordsIn(n.Log(id))
}

// RecordsIn are the records of a log file.
func (n *Node) RecordsIn(path string) []logfile.Record {
	n.T.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		n.T.Fatal(err)
	}
	var out []logfile.Record
	for line := range bytes.Lines(text) {
		r, err := logfile.Parse(line)
		if err != nil {
			n.T.Fatalf("log of %s: %v", path, err)
		}
		out = append(out, r)
	}
	return out
}

// Output is what a container wrote to one stream, by its log.
func (n *Node) Output(id string, stream logfile.Stream) string {
	n.T.Helper()
	var out []byte
	for _, r := range n.Records(id) {
		if r.Stream == stream {
			out = r.Append(out)
		}
	}
	return string(out)
}

// Process is a command to exec.
func Process(args ...string) *specs.Process {
	return &specs.Process{Args: args, Env: []string{"PATH=/bin"}, Cwd: "/"}
}

// KillKeeper kills the node's keeper and waits until it is gone.
func (n *Node) KillKeeper() {
	n.T.Helper()
	pid := n.KeeperPid()
	if pid == 0 {
		n.T.Fatal("there is no keeper to kill")
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		n.T.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		n.T.Fatal(err)
	}
	set := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		if count, err := unix.Poll(set, -1); err == nil && count > 0 {
			return
		}
	}
}

// KillDuringExec kills the keeper while processes run in a container, and has
// them end: each exit code must be told, or an error.
func (n *Node) KillDuringExec(id string) {
	n.T.Helper()
	const count = 20
	var running, ended sync.WaitGroup
	for i := range count {
		running.Add(1)
		up, told := io.Pipe()
		ended.Go(func() {
			defer told.Close()
			script := fmt.Sprintf("echo up; while ! [ -e /tmp/end ]; do sleep 0.01; done; exit %d", 30+i)
			code, err := n.Exec(n.T.Context(), id, container.ExecConfig{Process: Process("sh", "-c", script), Stdout: told})
			if err != nil || code != int32(30+i) {
				n.T.Errorf("exec %d: code %d, %v", i, code, err)
			}
		})
		go func() { // ends with the exec
			_, _ = io.ReadFull(up, make([]byte, 3))
			running.Done()
			_, _ = io.Copy(io.Discard, up)
		}()
	}
	running.Wait()
	s, err := n.State(id)
	if err != nil {
		n.T.Fatal(err)
	}
	n.KillKeeper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/root/tmp/end", s.Pid), nil, 0o644); err != nil {
		n.T.Fatal(err)
	}
	ended.Wait()
}
