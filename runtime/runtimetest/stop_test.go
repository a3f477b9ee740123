package runtimetest

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"keelson.dev/keelson/runtime/cgroup"
	"keelson.dev/keelson/runtime/container"
)

func contextBackground() context.Context { return context.Background() }

func TestStop(t *testing.T) {
	n := New(t)
	ctx := t.Context()
	n.Run(n.Sh("polite", "trap 'exit 3' TERM; trap 'exit 4' USR1; echo ready; while :; do sleep 1000 & wait $!; done"))
	n.awaitOutput("polite", "ready")
	if err := n.Stop(ctx, "polite", unix.SIGUSR1, 20*time.Second); err != nil {
		t.Fatal(err)
	}
	if s := n.Await("polite"); s.ExitCode != 4 {
		t.Errorf("%+v", s)
	}
	for range 2 {
		if err := n.Stop(ctx, "polite", unix.SIGTERM, time.Second); err != nil {
			t.Errorf("stop again: %v", err)
		}
	}
}

// awaitOutput waits until a container's log holds text.
func (n *Node) awaitOutput(id, text string) {
	n.T.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		log, err := os.ReadFile(n.Log(id))
		if err == nil && strings.Contains(string(log), text) {
			return
		}
		if time.Now().After(deadline) {
			n.T.Fatalf("container %s does not say %q; it says %q (%v)", id, text, log, err)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestHostile_OC19(t *testing.T) {
	n := New(t)
	ctx := t.Context()
	n.Run(n.Sh("deaf", "trap '' TERM; i=0; while [ $i -lt 300 ]; do (true &) ; i=$((i+1)); done; echo ready; while :; do sleep 1000; done"))
	n.awaitOutput("deaf", "ready")
	if err := n.Stop(ctx, "deaf", unix.SIGTERM, 200*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if s := n.Await("deaf"); s.ExitCode != 137 || s.Reason != container.ReasonError {
		t.Errorf("%+v", s)
	}
}

func TestStopShortestGraceCounts(t *testing.T) {
	n := New(t)
	ctx := t.Context()
	n.Run(n.Sh("deaf", "trap '' TERM; echo ready; while :; do sleep 1000; done"))
	n.awaitOutput("deaf", "ready")
	long := make(chan error, 1)
	go func() { long <- n.Stop(ctx, "deaf", unix.SIGTERM, time.Hour) }()
	if err := n.Stop(ctx, "deaf", unix.SIGTERM, 0); err != nil {
		t.Fatal(err)
	}
	if err := <-long; err != nil {
		t.Error(err)
	}
}

func TestHostile_CR3(t *testing.T) {
	n := New(t)
	ctx := t.Context()
	if err := n.Remove(ctx, "nobody"); err != nil {
		t.Errorf("remove of an unknown id: %v", err)
	}
	if err := n.Stop(ctx, "nobody", unix.SIGTERM, 0); !errors.Is(err, container.ErrNotFound) {
		t.Errorf("stop of an unknown id: %v", err)
	}
	n.sleeper("c")
	if err := n.Create(ctx, n.Sh("c", "true")); !errors.Is(err, container.ErrExists) {
		t.Errorf("create twice: %v", err)
	}
	if err := n.Create(ctx, n.Sh("never", "true")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for _, id := range []string{"c", "never"} {
			if err := n.Remove(ctx, id); err != nil {
				t.Errorf("remove %s: %v", id, err)
			}
		}
	}
	if len(n.List()) != 0 {
		t.Errorf("left: %+v", n.List())
	}
	_, err := n.Exec(ctx, "c", container.ExecConfig{Process: Process("true")})
	if !errors.Is(err, container.ErrNotFound) {
		t.Errorf("exec in a removed container: %v", err)
	}
}

// TestSharedPIDLeavesNothing: without a PID namespace of its own, the end of
// the first process must end the others too.
func TestSharedPIDLeavesNothing(t *testing.T) {
	n := New(t)
	cfg := n.Sh("host", "setsid sleep 777777 & setsid sleep 777777 & sleep 0.1; exit 8")
	ns := cfg.Spec.Linux.Namespaces[:0]
	for _, x := range cfg.Spec.Linux.Namespaces {
		if x.Type != specs.PIDNamespace {
			ns = append(ns, x)
		}
	}
	cfg.Spec.Linux.Namespaces = ns
	n.Run(cfg)
	if s := n.Await("host"); s.ExitCode != 8 {
		t.Errorf("%+v", s)
	}
	h, err := cgroup.Detect()
	if err != nil {
		t.Fatal(err)
	}
	if pids, err := h.Group(cfg.Spec.Linux.CgroupsPath).Pids(); err != nil || len(pids) > 0 {
		t.Errorf("processes %v are left, %v", pids, err)
	}
}

func TestHostile_OC23(t *testing.T) {
	n := New(t)
	ctx := t.Context()
	n.Run(n.Sh("frozen", "while :; do sleep 1000; done"))
	h, err := cgroup.Detect()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Group(n.Cgroup + "/frozen").Freeze(true); err != nil {
		t.Fatal(err)
	}
	if err := n.Stop(ctx, "frozen", unix.SIGTERM, 50*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if s := n.Await("frozen"); s.ExitCode != 137 {
		t.Errorf("%+v", s)
	}
}

func TestOOMEvent(t *testing.T) {
	n := New(t)
	limit := int64(20 << 20)
	cfg := n.Sh("c", "tail /dev/zero; echo survived; while :; do sleep 1000; done")
	cfg.Spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit, Swap: &limit}
	events := n.Events(t.Context())
	n.Run(cfg)
	var kinds []container.EventKind
	deadline := time.After(20 * time.Second)
	for len(kinds) == 0 || kinds[len(kinds)-1] != container.EventOOM {
		select {
		case e := <-events:
			kinds = append(kinds, e.Kind)
		case <-deadline:
			t.Fatalf("no event of a kill for memory, but %v", kinds)
		}
	}
	if s := n.mustState("c"); s.Status != container.Running {
		t.Errorf("%+v", s)
	}
}

func TestOOMKilled(t *testing.T) {
	n := New(t)
	limit := int64(20 << 20)
	for id, script := range map[string]string{
		"self":  "exec tail /dev/zero",
		"child": "tail /dev/zero; exit $?",
		"other": "tail /dev/zero; exit 5",
	} {
		cfg := n.Sh(id, script)
		cfg.Spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit, Swap: &limit}
		n.Run(cfg)
		s := n.Await(id)
		want, code := container.ReasonOOMKilled, int32(137)
		if id == "other" {
			want, code = container.ReasonError, 5
		}
		if s.Reason != want || s.ExitCode != code {
			t.Errorf("%s: %+v", id, s)
		}
	}
}

func TestUpdateAndStats(t *testing.T) {
	n := New(t)
	ctx := t.Context()
	limit, more := int64(50<<20), int64(80<<20)
	cfg := n.Sh("c", "echo ready; while :; do sleep 1000; done")
	cfg.Spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit}
	if err := n.Create(ctx, cfg); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Stats("c", true); !errors.Is(err, container.ErrNotRunning) {
		t.Errorf("stats of a created container: %v", err)
	}
	shares := uint64(512)
	if err := n.Update(ctx, "c", &specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: &shares}}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Start(ctx, "c"); err != nil {
		t.Fatal(err)
	}
	n.awaitOutput("c", "ready")
	s, err := n.Stats("c", true)
	if err != nil || s.Memory.Limit != uint64(limit) || s.Memory.Usage == 0 || s.CPU.UsageNs == 0 || s.Pids.Current == 0 {
		t.Errorf("stats %+v, %v", s, err)
	}
	if err := n.Update(ctx, "c", &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &more}}); err != nil {
		t.Fatal(err)
	}
	if s, err := n.Stats("c", true); err != nil || s.Memory.Limit != uint64(more) {
		t.Errorf("after update: %+v, %v", s.Memory, err)
	}
}

func TestHostile_OC5(t *testing.T) {
	n := New(t)
	n.Run(n.Config("fds", "ls", "-l", "/proc/self/fd"))
	n.Await("fds")
	out := n.Output("fds", "stdout")
	// The directory that ls itself has open comes without a target.
	if strings.Count(out, "->") != 3 {
		t.Errorf("the container's descriptors:\n%s", out)
	}
	n.sleeper("c")
	out, _, _, err := n.exec("c", "ls -l /proc/self/fd", container.ExecConfig{Stdin: strings.NewReader("")})
	if err != nil || strings.Count(out, "->") != 3 {
		t.Errorf("an exec's descriptors (%v):\n%s", err, out)
	}
}

func TestHostile_OC4(t *testing.T) {
	n := New(t)
	n.sleeper("c")
	p := Process("grep", "CapInh", "/proc/self/status")
	p.Capabilities = &specs.LinuxCapabilities{
		Bounding: []string{"CAP_CHOWN"}, Effective: []string{"CAP_CHOWN"}, Permitted: []string{"CAP_CHOWN"},
	}
	out := newWatcher()
	if code, err := n.Exec(t.Context(), "c", container.ExecConfig{Process: p, Stdout: out}); err != nil || code != 0 {
		t.Fatal(code, err)
	}
	if got := out.String(); got != "CapInh:\t0000000000000000\n" {
		t.Errorf("inheritable set of an exec: %q", got)
	}
}

func TestHostile_OC26(t *testing.T) {
	n := New(t)
	low, high := -1500, 5000
	for id, adj := range map[string]*int{"low": &low, "high": &high} {
		cfg := n.Sh(id, "cat /proc/self/oom_score_adj; ulimit -n")
		cfg.Spec.Process.OOMScoreAdj = adj
		cfg.Spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Hard: 1 << 30, Soft: 1 << 30}}
		n.Run(cfg)
		if s := n.Await(id); s.ExitCode != 0 {
			t.Errorf("%s: %+v", id, s)
		}
		t.Logf("%s: %q", id, n.Output(id, "stdout"))
	}
	if got := n.Output("high", "stdout"); !strings.HasPrefix(got, "1000\n") {
		t.Errorf("oom_score_adj 5000 became %q", got)
	}
}
