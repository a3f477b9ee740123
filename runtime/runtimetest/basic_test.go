package runtimetest

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"keelson.dev/keelson/runtime/container"
	"keelson.dev/keelson/runtime/logfile"
)

func TestMain(m *testing.M) {
	flag.Parse()
	engines := []string{"", container.EngineLibcontainer}
	if name := os.Getenv("KEELSON_ENGINE"); name != "" {
		engines = []string{strings.TrimPrefix(name, "native")}
	}
	code := 0
	for _, Engine = range engines {
		if code == 0 {
			code = m.Run()
		}
	}
	RemoveRootfs()
	if os.Geteuid() == 0 {
		RemoveKeeper()
	}
	os.Exit(code)
}

func TestLife(t *testing.T) {
	n := New(t)
	ctx := t.Context()
	s := n.Run(n.Sh("life", "echo hello; echo oops >&2; sleep 100"))
	if s.Status != container.Running || s.Pid == 0 {
		t.Fatalf("after start: %+v", s)
	}
	var out bytes.Buffer
	code, err := n.Exec(ctx, "life", container.ExecConfig{Process: Process("echo", "from exec"), Stdout: &out})
	if err != nil || code != 0 || out.String() != "from exec\n" {
		t.Fatalf("exec: code %d, output %q, err %v", code, out.String(), err)
	}
	if err := n.Stop(ctx, "life", unix.SIGTERM, 0); err != nil {
		t.Fatal(err)
	}
	s = n.Await("life")
	if s.ExitCode != 137 || s.Reason != container.ReasonError {
		t.Errorf("after stop: %+v", s)
	}
	if got := n.Output("life", logfile.Stdout); got != "hello\n" {
		t.Errorf("stdout in log: %q", got)
	}
	if got := n.Output("life", logfile.Stderr); got != "oops\n" {
		t.Errorf("stderr in log: %q", got)
	}
	if err := n.Remove(ctx, "life"); err != nil {
		t.Fatal(err)
	}
	if _, err := n.State("life"); !errors.Is(err, container.ErrNotFound) {
		t.Errorf("state after remove: %v", err)
	}
}

func TestExitCodes(t *testing.T) {
	n := New(t)
	for _, row := range []struct {
		id, script, reason string
		code               int32
	}{
		{"zero", "exit 0", container.ReasonCompleted, 0},
		{"seven", "exit 7", container.ReasonError, 7},
		{"full", "exit 255", container.ReasonError, 255},
		{"signal", "kill -TERM $$; sleep 1; exit 3", container.ReasonError, 3},
	} {
		n.Run(n.Sh(row.id, row.script))
		s := n.Await(row.id)
		if s.ExitCode != row.code || s.Reason != row.reason {
			t.Errorf("%s: code %d reason %s, want %d %s", row.script, s.ExitCode, s.Reason, row.code, row.reason)
		}
		if s.FinishedAt.Before(s.StartedAt) || time.Since(s.FinishedAt) > time.Minute {
			t.Errorf("%s: started %s, finished %s", row.script, s.StartedAt, s.FinishedAt)
		}
	}
}

func TestStartError(t *testing.T) {
	n := New(t)
	ctx := t.Context()
	for id, row := range map[string]struct {
		args []string
		want string
	}{
		"missing":   {[]string{"no-such-thing"}, `exec: "no-such-thing": executable file not found in $PATH`},
		"absolute":  {[]string{"/no/such"}, "no such file or directory"},
		"directory": {[]string{"/etc"}, "etc"},
	} {
		if err := n.Create(ctx, n.Config(id, row.args...)); err != nil {
			t.Fatal(err)
		}
		s, err := n.Start(ctx, id)
		// Users read it as it is: who calls adds nothing to it.
		if !errors.Is(err, container.ErrStart) || !strings.Contains(err.Error(), row.want) || strings.Count(err.Error(), "start container "+id+": ") != 1 {
			t.Errorf("%s: error %v, want ErrStart with %q, that names the container once", id, err, row.want)
		}
		if s.Status != container.Exited || s.Reason != container.ReasonStartError || s.ExitCode != container.CodeStartError {
			t.Errorf("%s: state %+v", id, s)
		}
	}
}
