package runtimetest

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"keelson.dev/keelson/runtime/cgroup"
	"keelson.dev/keelson/runtime/container"
)

// Node is a machine's worth of runtime for one test.
type Node struct {
	T      testing.TB
	Dir    string // everything of this node
	Rootfs string
	Cgroup string // path below the cgroup root
	*container.Manager
}

var serial atomic.Int64

// Engine is the engine that nodes are made with: container.ManagerConfig's.
var Engine = ""

// Need skips the test with the reason if this machine cannot run containers.
func Need(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: containers are made with namespaces, mounts and cgroups")
	}
	if _, err := os.Stat("/usr/bin/busybox"); err != nil {
		t.Skip("needs /usr/bin/busybox (Debian: busybox-static): ", err)
	}
	if _, err := cgroup.Detect(); err != nil {
		t.Skip("needs cgroups: ", err)
	}
}

// New makes a node and takes everything of it away at the test's end.
func New(t testing.TB) *Node {
	t.Helper()
	Need(t)
	n := &Node{
		T:      t,
		Dir:    shortDir(t),
		Rootfs: rootfs(t),
		Cgroup: fmt.Sprintf("/keelson-test-%d-%d", os.Getpid(), serial.Add(1)),
	}
	t.Cleanup(n.cleanup)
	n.Open()
	return n
}

// shortDir is a directory that container inits may reach: t.TempDir is 0700.
func shortDir(t testing.TB) string {
	dir, err := os.MkdirTemp("/tmp", "keelson-test-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}

// StateDir is where the manager keeps its state.
func (n *Node) StateDir() string { return filepath.Join(n.Dir, "state") }

// Log is a path for a container's log.
func (n *Node) Log(id string) string { return filepath.Join(n.Dir, "logs", id, "0.log") }

// ManagerConfig is what the node's manager is opened with.
func (n *Node) ManagerConfig() container.ManagerConfig {
	log := slog.New(slog.NewTextHandler(testWriter{n.T}, &slog.HandlerOptions{Level: slog.LevelInfo}))
	return container.ManagerConfig{StateDir: n.StateDir(), KeeperPath: Keeper(n.T), Engine: Engine, Log: log}
}

// Open opens the manager, as a daemon does when it starts.
func (n *Node) Open() {
	n.T.Helper()
	m, err := container.Open(n.ManagerConfig())
	if err != nil {
		n.T.Fatal(err)
	}
	n.Manager = m
}

// Reopen closes the manager and opens another.
func (n *Node) Reopen() {
	n.T.Helper()
	if err := n.Manager.Close(); err != nil {
		n.T.Fatal(err)
	}
	n.Open()
}

func (n *Node) cleanup() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for _, s := range n.List() {
		if err := n.Remove(ctx, s.ID); err != nil {
			n.T.Errorf("cleanup: %v", err)
		}
	}
	pid := n.KeeperPid()
	if err := n.Manager.Close(); err != nil {
		n.T.Errorf("cleanup: %v", err)
	}
	if n.T.Failed() {
		if text, err := os.ReadFile(filepath.Join(n.StateDir(), ".keeper/keeper.log")); err == nil {
			n.T.Logf("keeper.log:\n%s", text)
		}
	}
	n.awaitKeeperEnd(ctx, pid)
	h, err := cgroup.Detect()
	if err == nil {
		err = h.Group(n.Cgroup).Remove(ctx)
	}
	if err != nil {
		n.T.Errorf("cleanup: %v", err)
	}
	n.checkNothingLeft()
	if err := os.RemoveAll(n.Dir); err != nil {
		n.T.Errorf("cleanup: %v", err)
	}
}

// testWriter sends log lines to the test's log.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", bytes.TrimRight(p, "\n"))
	return len(p), nil
}

var buildKeeper = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("KEELSON_KEEPER"); path != "" {
		return path, nil
	}
	root, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find module: %w", err)
	}
	path := filepath.Join(os.TempDir(), fmt.Sprintf("keelson-test-keeper-%d", os.Getpid()))
	// As `make build` builds it, so that its packages are compiled once.
	cmd := exec.Command("go", "build", "-tags", "netgo osusergo seccomp runc_nocriu", "-ldflags", "-s -w", "-o", path, "./cmd/keelson-keeper")
	cmd.Dir = filepath.Dir(strings.TrimSpace(string(root)))
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build keeper: %w\n%s", err, out)
	}
	return path, nil
})

// Keeper is the path of the keeper program: $KEELSON_KEEPER, or one built for
// this run of tests (see RemoveKeeper).
func Keeper(t testing.TB) string {
	t.Helper()
	path, err := buildKeeper()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// RemoveKeeper removes what Keeper built; TestMain calls it.
func RemoveKeeper() {
	if path, err := buildKeeper(); err == nil && path != os.Getenv("KEELSON_KEEPER") {
		os.Remove(path)
	}
}
