package runtimetest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"keelson.dev/keelson/runtime/container"
	"keelson.dev/keelson/runtime/logfile"
)

func TestKillKeeper(t *testing.T) {
	n := New(t)
	ctx := t.Context()
	n.Run(n.Sh("counter", "i=1; while [ $i -le 200000 ]; do echo $i; i=$((i+1)); done; exit 11"))
	n.Run(n.Sh("sleeper", "trap 'echo got it; exit 12' TERM; while :; do sleep 1000 & wait $!; done"))
	cfg := n.Config("tty", "sh")
	cfg.TTY, cfg.Stdin = true, true
	n.Run(cfg)
	before, err := n.State("sleeper")
	if err != nil {
		t.Fatal(err)
	}
	// Exec, as it goes through the keeper, says that a new one is up.
	for round := range 20 {
		n.KillKeeper()
		out, _, code, err := n.exec("sleeper", "echo alive", container.ExecConfig{})
		if err != nil || code != 0 || out != "alive\n" {
			t.Fatalf("round %d: exec after kill: %q, code %d, %v", round, out, code, err)
		}
	}
	after, err := n.State("sleeper")
	if err != nil || after != before {
		t.Errorf("state changed from %+v to %+v (%v)", before, after, err)
	}
	if s := n.Await("counter"); s.ExitCode != 11 || s.Reason != container.ReasonError {
		t.Errorf("counter: %+v", s)
	}
	wantSeq(t, "counter", n.Output("counter", logfile.Stdout), 1, 200000)
	if err := n.Stop(ctx, "sleeper", unix.SIGTERM, 20e9); err != nil {
		t.Fatal(err)
	}
	if s := n.Await("sleeper"); s.ExitCode != 12 {
		t.Errorf("sleeper: %+v", s)
	}
	if got := n.Output("sleeper", logfile.Stdout); got != "got it\n" {
		t.Errorf("sleeper's log: %q", got)
	}
	if s, err := n.State("tty"); err != nil || s.Status != container.Running {
		t.Errorf("terminal container: %+v, %v", s, err)
	}
}

// TestKillKeeperDuringExec: an exec's exit code outlives the keeper that
// started it.
func TestKillKeeperDuringExec(t *testing.T) {
	n := New(t)
	n.sleeper("c")
	n.KillDuringExec("c")
}

// TestStatus: a keeper that cannot be started is told, and that it can be again.
func TestStatus(t *testing.T) {
	n := New(t)
	n.sleeper("c")
	if err := n.Manager.Close(); err != nil {
		t.Fatal(err)
	}
	cfg := n.ManagerConfig()
	program, err := os.ReadFile(cfg.KeeperPath)
	if err != nil {
		t.Fatal(err)
	}
	cfg.KeeperPath = filepath.Join(n.Dir, "keeper")
	if err := os.WriteFile(cfg.KeeperPath, program, 0o700); err != nil {
		t.Fatal(err)
	}
	if n.Manager, err = container.Open(cfg); err != nil {
		t.Fatal(err)
	}
	if err := n.Status(); err != nil {
		t.Error(err)
	}
	if err := os.Rename(cfg.KeeperPath, cfg.KeeperPath+".away"); err != nil {
		t.Fatal(err)
	}
	n.KillKeeper()
	until := func(what string, done func() bool) {
		for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(time.Millisecond) { // the keeper's end and start are told to nobody here
			if time.Now().After(deadline) {
				t.Fatalf("%s: the status is still %v", what, n.Status())
			}
		}
	}
	until("without its program", func() bool { return n.Status() != nil })
	if err := n.Status(); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), cfg.KeeperPath) {
		t.Errorf("without its program: %v", err)
	}
	if err := os.Rename(cfg.KeeperPath+".away", cfg.KeeperPath); err != nil {
		t.Fatal(err)
	}
	until("with its program again", func() bool { return n.Status() == nil })
	if out, _, code, err := n.exec("c", "echo alive", container.ExecConfig{}); err != nil || code != 0 || out != "alive\n" {
		t.Errorf("exec with the new keeper: %q, code %d, %v", out, code, err)
	}
}

// TestKillKeeperUnderLoad kills keepers while much is written, so that kills
// fall into the middle of a step.
func TestKillKeeperUnderLoad(t *testing.T) {
	n := New(t)
	const lines = 2_000_000
	n.Run(n.Sh("fast", fmt.Sprintf("seq 1 %d; exit 9", lines)))
	kills := 0
	for ; kills < 100; kills++ {
		s, err := n.State("fast")
		if err != nil {
			t.Fatal(err)
		}
		if s.Status == container.Exited {
			break
		}
		if pid := n.KeeperPid(); pid != 0 {
			_ = unix.Kill(pid, unix.SIGKILL)
			awaitGone(t, pid)
		}
		if err := n.ReopenLog(t.Context(), "fast"); err != nil { // a new keeper is up
			break
		}
	}
	if s := n.Await("fast"); s.ExitCode != 9 {
		t.Errorf("%+v", s)
	}
	t.Logf("%d keepers killed", kills)
	wantSeq(t, "fast", n.Output("fast", logfile.Stdout), 1, lines)
}

// TestKillKeeperAtEnd lets containers end while there is no keeper.
func TestKillKeeperAtEnd(t *testing.T) {
	n := New(t)
	const count = 8
	for i := range count {
		id := fmt.Sprint("c", i)
		n.Run(n.Sh(id, fmt.Sprintf("while ! [ -e /tmp/go ]; do sleep 0.01; done; echo last words; exit %d", 20+i)))
	}
	for i := range count {
		s, err := n.State(fmt.Sprint("c", i))
		if err != nil {
			t.Fatal(err)
		}
		if i == count/2 {
			n.KillKeeper()
		}
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/root/tmp/go", s.Pid), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for i := range count {
		id := fmt.Sprint("c", i)
		if s := n.Await(id); s.ExitCode != int32(20+i) {
			t.Errorf("%s: %+v", id, s)
		}
		if got := n.Output(id, logfile.Stdout); got != "last words\n" {
			t.Errorf("%s said %q", id, got)
		}
	}
}

// daemonEnv makes the test binary a daemon: it opens the manager of a node,
// runs the containers that it reads, says their states, and waits to be killed.
const daemonEnv = "KEELSON_TEST_DAEMON"

func init() {
	if os.Getenv(daemonEnv) == "" {
		return
	}
	if err := daemon(); err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

func daemon() error {
	m, err := container.Open(container.ManagerConfig{StateDir: os.Getenv(daemonEnv), KeeperPath: os.Getenv("KEELSON_KEEPER"), Engine: os.Getenv("KEELSON_TEST_ENGINE")})
	if err != nil {
		return err
	}
	lines := bufio.NewReader(os.Stdin)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return err
		}
		var cfg container.Config
		if err := json.Unmarshal(line, &cfg); err != nil {
			return err
		}
		ctx := contextBackground()
		if err := m.Create(ctx, cfg); err != nil {
			return err
		}
		s, err := m.Start(ctx, cfg.ID)
		if err != nil {
			return err
		}
		text, err := json.Marshal(s)
		if err != nil {
			return err
		}
		fmt.Printf("%s\n", text)
	}
}

// child is a daemon in a process of its own.
type child struct {
	t   testing.TB
	cmd *exec.Cmd
	in  *json.Encoder
	out *bufio.Reader
}

func (n *Node) startDaemon() *child {
	n.T.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), daemonEnv+"="+n.StateDir(), "KEELSON_KEEPER="+Keeper(n.T), "KEELSON_TEST_ENGINE="+Engine)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		n.T.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		n.T.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		n.T.Fatal(err)
	}
	return &child{t: n.T, cmd: cmd, in: json.NewEncoder(in), out: bufio.NewReader(out)}
}

func (c *child) run(cfg container.Config) container.State {
	c.t.Helper()
	if err := c.in.Encode(cfg); err != nil {
		c.t.Fatal(err)
	}
	line, err := c.out.ReadString('\n')
	if err != nil || strings.HasPrefix(line, "error:") {
		c.t.Fatalf("daemon: %s %v", line, err)
	}
	var s container.State
	if err := json.Unmarshal([]byte(line), &s); err != nil {
		c.t.Fatal(err)
	}
	return s
}

func (c *child) kill() {
	c.t.Helper()
	if err := c.cmd.Process.Kill(); err != nil {
		c.t.Fatal(err)
	}
	_ = c.cmd.Wait()
}

func TestKillDaemon(t *testing.T) {
	n := New(t)
	ctx := t.Context()
	if err := n.Manager.Close(); err != nil {
		t.Fatal(err)
	}
	d := n.startDaemon()
	before := d.run(n.Sh("stays", "trap 'exit 33' TERM; i=1; while :; do echo $i; i=$((i+1)); sleep 0.01; done"))
	d.run(n.Sh("ends", "while ! [ -e /tmp/go ]; do sleep 0.01; done; seq 1 5000; exit 44"))
	ends := d.run(n.Sh("ends2", "while ! [ -e /tmp/go ]; do sleep 0.01; done; exit 45"))
	d.kill()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/root/tmp/go", ends.Pid), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	n.Open()
	if s := n.Await("ends2"); s.ExitCode != 45 {
		t.Errorf("ended without a daemon: %+v", s)
	}
	after, err := n.State("stays")
	if err != nil || after.Pid != before.Pid || !after.StartedAt.Equal(before.StartedAt) || after.Status != container.Running {
		t.Errorf("before %+v, after %+v, %v", before, after, err)
	}
	s, err := n.State("ends")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/root/tmp/go", s.Pid), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if s := n.Await("ends"); s.ExitCode != 44 {
		t.Errorf("ended under the second daemon: %+v", s)
	}
	wantSeq(t, "ends", n.Output("ends", logfile.Stdout), 1, 5000)
	if err := n.Stop(ctx, "stays", unix.SIGTERM, 20e9); err != nil {
		t.Fatal(err)
	}
	if s := n.Await("stays"); s.ExitCode != 33 {
		t.Errorf("stopped by the second daemon: %+v", s)
	}
	text := n.Output("stays", logfile.Stdout)
	wantSeq(t, "stays", text, 1, strings.Count(text, "\n"))
}

// TestKillBoth kills daemon and keeper; the containers run on and are adopted
// by path and pid.
func TestKillBoth(t *testing.T) {
	n := New(t)
	ctx := t.Context()
	if err := n.Manager.Close(); err != nil {
		t.Fatal(err)
	}
	d := n.startDaemon()
	// It must not end while nobody lives: then its code could not be known.
	before := d.run(n.Sh("stays", "i=1; while ! [ -e /tmp/go ]; do echo $i; i=$((i+1)); done; echo end; exit 66"))
	d.run(n.Sh("sleeps", "sleep 1000"))
	gone := d.run(n.Sh("gone", "while ! [ -e /tmp/go ]; do sleep 0.01; done; exit 45"))
	keeper := n.KeeperPid()
	if name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", keeper)); string(name) != "keelson-keeper\n" {
		t.Errorf("ps calls the keeper %q, %v", name, err)
	}
	if err := unix.Kill(keeper, unix.SIGSTOP); err != nil { // it must not see the daemon's end
		t.Fatal(err)
	}
	d.kill()
	n.KillKeeper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/root/tmp/go", gone.Pid), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	awaitGone(t, gone.Pid)
	n.Open()
	after, err := n.State("stays")
	if err != nil || after.Pid != before.Pid || after.Status != container.Running {
		t.Errorf("before %+v, after %+v, %v", before, after, err)
	}
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/root/tmp/go", before.Pid), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if s := n.Await("stays"); s.ExitCode != 66 {
		t.Errorf("adopted: %+v", s)
	}
	text, whole := strings.CutSuffix(n.Output("stays", logfile.Stdout), "end\n")
	if !whole {
		t.Error("the log lacks the last line")
	}
	wantSeq(t, "stays", text, 1, strings.Count(text, "\n"))
	// Whoever inherits an ended process may not have reaped it yet: then its code can still be learned.
	if s := n.Await("gone"); (s.Reason != container.ReasonUnknown || s.ExitCode != container.CodeUnknown) && (s.Reason != container.ReasonError || s.ExitCode != 45) {
		t.Errorf("ended while nobody lived: %+v", s)
	}
	if err := n.Stop(ctx, "sleeps", unix.SIGTERM, 0); err != nil {
		t.Fatal(err)
	}
	if s := n.Await("sleeps"); s.ExitCode != 137 {
		t.Errorf("killed after adoption: %+v", s)
	}
}

func awaitGone(t *testing.T, pid int) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	set := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		if n, err := unix.Poll(set, -1); err == nil && n > 0 {
			return
		}
	}
}

// TestHalfMade leaves what a daemon leaves that is killed in between.
func TestHalfMade(t *testing.T) {
	n := New(t)
	ctx := t.Context()
	for _, id := range []string{"created", "starting", "removing"} {
		if err := n.Create(ctx, n.Sh(id, "sleep 100")); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.Manager.Close(); err != nil {
		t.Fatal(err)
	}
	edit := func(id, phase string) {
		name := filepath.Join(n.StateDir(), id, "record.json")
		text, err := os.ReadFile(name)
		if err == nil {
			text = []byte(strings.Replace(string(text), `"phase":"created"`, `"phase":"`+phase+`"`, 1))
			err = os.WriteFile(name, text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	edit("starting", "starting")
	edit("removing", "removing")
	if err := os.MkdirAll(filepath.Join(n.StateDir(), "norecord"), 0o700); err != nil {
		t.Fatal(err)
	}
	n.Open()
	var got []string
	for _, s := range n.List() {
		got = append(got, s.ID+" "+s.Status.String()+" "+s.Reason)
	}
	// Nothing of the one that was being started ran: it is as it was made.
	if want := "created created |starting created "; strings.Join(got, "|") != want {
		t.Errorf("after reopening: %q, want %q", strings.Join(got, "|"), want)
	}
	for _, id := range []string{"created", "starting"} {
		if s, err := n.Start(ctx, id); err != nil || s.Status != container.Running {
			t.Errorf("start what was created before (%s): %+v, %v", id, s, err)
		}
	}
	if _, err := os.Stat(filepath.Join(n.StateDir(), "norecord")); err == nil {
		t.Error("a directory without a record is left")
	}
}

// TestHostile_ND17: records that are lost or damaged are made anew of what runs, or what they were of ends; the rest goes on.
func TestHostile_ND17(t *testing.T) {
	n := New(t)
	ids := []string{"damaged", "lost", "truncated", "razed", "whole"}
	for _, id := range ids {
		n.Run(n.Sh(id, "trap 'echo got it; exit 12' TERM; echo begin; while :; do sleep 1000 & wait $!; done"))
	}
	before := map[string]container.State{}
	for _, id := range ids {
		before[id] = n.mustState(id)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	dir := func(id string) string { return filepath.Join(n.StateDir(), id) }
	record := func(id string) string { return filepath.Join(dir(id), "record.json") }
	for _, err := range []error{
		os.WriteFile(record("damaged"), []byte("\x00\x00garbage"), 0o600),
		os.Truncate(record("truncated"), 10),
		os.Remove(record("lost")),
		os.RemoveAll(dir("razed")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	n.Open()
	if _, err := n.State("razed"); err == nil {
		t.Error("a container without a directory is known")
	}
	awaitGone(t, before["razed"].Pid)
	for _, id := range []string{"damaged", "lost", "truncated", "whole"} {
		if s := n.mustState(id); s.Status != container.Running || s.Pid != before[id].Pid {
			t.Errorf("%s: %+v, was %+v", id, s, before[id])
		}
		if out, _, code, err := n.exec(id, "echo alive", container.ExecConfig{}); err != nil || code != 0 || out != "alive\n" {
			t.Errorf("%s: exec: %q, code %d, %v", id, out, code, err)
		}
		if err := n.Stop(t.Context(), id, unix.SIGTERM, 20e9); err != nil {
			t.Fatal(err)
		}
		if s := n.Await(id); s.ExitCode != 12 {
			t.Errorf("%s: %+v", id, s)
		}
		if got := n.Output(id, logfile.Stdout); got != "begin\ngot it\n" {
			t.Errorf("%s: log %q", id, got)
		}
	}
}

// TestUpgradeKeeper opens the manager with a keeper of another name: it takes
// the old one's place and its pid, and the containers stay its children.
func TestUpgradeKeeper(t *testing.T) {
	n := New(t)
	ctx := t.Context()
	n.Run(n.Sh("counter", "trap 'exit 21' TERM; i=1; while :; do echo $i; i=$((i+1)); done"))
	before, pid := n.mustState("counter"), n.KeeperPid()
	other := filepath.Join(n.Dir, "keeper-2")
	program, err := os.ReadFile(Keeper(t))
	if err == nil {
		err = os.WriteFile(other, program, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Manager.Close(); err != nil {
		t.Fatal(err)
	}
	cfg := n.ManagerConfig()
	cfg.KeeperPath = other
	if n.Manager, err = container.Open(cfg); err != nil {
		t.Fatal(err)
	}
	if now := n.KeeperPid(); now != pid {
		t.Errorf("the keeper was %d and is %d", pid, now)
	}
	if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err != nil || !strings.Contains(string(text), "keeper-2") {
		t.Errorf("the keeper is %q, %v", text, err)
	}
	if after := n.mustState("counter"); after != before {
		t.Errorf("before %+v, after %+v", before, after)
	}
	if out, _, _, err := n.exec("counter", "echo hi", container.ExecConfig{}); err != nil || out != "hi\n" {
		t.Errorf("exec: %q, %v", out, err)
	}
	if err := n.Stop(ctx, "counter", unix.SIGTERM, 20e9); err != nil {
		t.Fatal(err)
	}
	if s := n.Await("counter"); s.ExitCode != 21 {
		t.Errorf("%+v", s)
	}
	text := n.Output("counter", logfile.Stdout)
	wantSeq(t, "counter", text, 1, strings.Count(text, "\n"))
}

func (n *Node) mustState(id string) container.State {
	n.T.Helper()
	s, err := n.State(id)
	if err != nil {
		n.T.Fatal(err)
	}
	return s
}

// TestDaemonEndsDuringStart: the daemon goes while the keeper starts a container for it. The next one waits for what comes of it: the
// container runs, as if nothing had happened.
func TestDaemonEndsDuringStart(t *testing.T) {
	n := New(t)
	begun, release := filepath.Join(n.Dir, "begun"), filepath.Join(n.Dir, "release")
	cfg := n.Sh("slow", "echo begin; while :; do sleep 1000; done")
	cfg.Spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sh",
		Args: []string{"sh", "-c", "touch " + begun + "; while [ ! -e " + release + " ]; do sleep 0.01; done"}}}}
	if err := n.Create(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	started := make(chan error, 1)
	go func() { _, err := n.Manager.Start(t.Context(), "slow"); started <- err }()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) { // a file: there is nothing to wait on
		if _, err := os.Stat(begun); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the hook is not run")
		}
	}
	if err := n.Manager.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-started; err == nil {
		t.Fatal("the start ended before the daemon")
	}
	next := make(chan error, 1)
	go func() {
		m, err := container.Open(n.ManagerConfig())
		n.Manager = m
		next <- err
	}()
	select {
	case err := <-next: // it has not waited: what it made of the container is seen below
		next <- err
	case <-time.After(time.Second):
	}
	if err := os.WriteFile(release, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-next; err != nil {
		t.Fatal(err)
	}
	if s := n.mustState("slow"); s.Status != container.Running || s.Reason != "" {
		t.Errorf("%+v, want it running", s)
	}
}
