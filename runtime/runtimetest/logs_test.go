package runtimetest

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"keelson.dev/keelson/runtime/container"
	"keelson.dev/keelson/runtime/logfile"
)

// wantSeq checks that text is the lines first..last.
func wantSeq(t *testing.T, what, text string, first, last int) {
	t.Helper()
	next := first
	for line := range strings.Lines(text) {
		got, err := strconv.Atoi(strings.TrimSuffix(line, "\n"))
		if err != nil || got != next {
			t.Fatalf("%s: line %q where %d was to come", what, line, next)
		}
		next++
	}
	if next != last+1 {
		t.Fatalf("%s: ends before %d, not after %d", what, next, last)
	}
}

func TestLogsExact(t *testing.T) {
	n := New(t)
	const lines = 100_000
	n.Run(n.Sh("out", fmt.Sprintf("seq 1 %d; seq 1 1000 >&2", lines)))
	if s := n.Await("out"); s.ExitCode != 0 {
		t.Fatalf("%+v", s)
	}
	wantSeq(t, "stdout", n.Output("out", logfile.Stdout), 1, lines)
	wantSeq(t, "stderr", n.Output("out", logfile.Stderr), 1, 1000)
	last := n.Records("out")[0]
	for _, r := range n.Records("out") {
		if r.Time.Before(last.Time) {
			t.Fatalf("time goes back from %s to %s", last.Time, r.Time)
		}
		last = r
	}
}

func TestPartialLines(t *testing.T) {
	n := New(t)
	n.Run(n.Sh("long", `head -c 40000 /dev/zero | tr '\0' x; echo; echo short; printf end`))
	n.Await("long")
	var got []string
	for _, r := range n.Records("long") {
		tag := "F"
		if r.Partial {
			tag = "P"
		}
		got = append(got, fmt.Sprintf("%s%d", tag, len(r.Content)))
	}
	if want := "P16384 P16384 F7232 F5 P3"; strings.Join(got, " ") != want {
		t.Errorf("records %v, want %s", got, want)
	}
}

// TestLongLineWithoutEnd fills the FIFO with one line: the container must not
// hang.
func TestLongLineWithoutEnd(t *testing.T) {
	n := New(t)
	n.Run(n.Sh("line", `head -c 3000001 /dev/zero | tr '\0' y`))
	if s := n.Await("line"); s.ExitCode != 0 {
		t.Fatalf("%+v", s)
	}
	if got := n.Output("line", logfile.Stdout); got != strings.Repeat("y", 3000001) {
		t.Errorf("%d bytes logged", len(got))
	}
}

func TestNoLog(t *testing.T) {
	n := New(t)
	cfg := n.Sh("quiet", "seq 1 50000; exit 4")
	cfg.LogPath = ""
	n.Run(cfg)
	if s := n.Await("quiet"); s.ExitCode != 4 {
		t.Errorf("%+v", s)
	}
}

func TestRotation(t *testing.T) {
	n := New(t)
	ctx := t.Context()
	cfg := n.Sh("rot", "i=1; while [ $i -le 20000 ]; do echo $i; i=$((i+1)); done")
	n.Run(cfg)
	var files []string
	for i := 0; ; i++ {
		s, err := n.State("rot")
		if err != nil {
			t.Fatal(err)
		}
		if s.Status == container.Exited {
			break
		}
		name := fmt.Sprintf("%s.2026112%d-%06d", cfg.LogPath, i%9, i)
		if err := os.Rename(cfg.LogPath, name); err != nil {
			t.Fatal(err)
		}
		files = append(files, name)
		if err := n.ReopenLog(ctx, "rot"); err != nil {
			break // it has ended: the renamed file is its last
		}
	}
	text := ""
	if _, err := os.Stat(cfg.LogPath); err == nil {
		files = append(files, cfg.LogPath)
	}
	for _, name := range files {
		for _, r := range n.RecordsIn(name) {
			text += string(r.Append(nil))
		}
	}
	t.Logf("%d files", len(files))
	wantSeq(t, "all files", text, 1, 20000)
}

// TestHostile_IM33 is the log's share of it: a symlink in place of the log is
// not followed.
func TestHostile_IM33(t *testing.T) {
	n := New(t)
	ctx := t.Context()
	cfg := n.Sh("link", "echo gotcha")
	victim := n.Dir + "/victim"
	if err := os.MkdirAll(n.Dir+"/logs/link", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, cfg.LogPath); err != nil {
		t.Fatal(err)
	}
	if err := n.Create(ctx, cfg); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Start(ctx, "link"); err == nil {
		t.Error("started with a symlink for a log")
	}
	if _, err := os.Stat(victim); err == nil {
		t.Error("the symlink was followed")
	}
}
