package server

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"keelson.dev/keelson/runtime/bundle"
	"keelson.dev/keelson/runtime/keeper"
	"keelson.dev/keelson/runtime/logfile"
)

// bench is a pump with one container's stdout, without a container.
type bench struct {
	t    *testing.T
	dir  string
	pump *pump
	st   *stream
	to   sink
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, dir: t.TempDir()}
	if err := unix.Mkfifo(filepath.Join(b.dir, bundle.StdoutName), 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(filepath.Join(b.dir, bundle.StdoutName), unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	rec := initRecord{Run: keeper.Run{ID: "c", Dir: b.dir, LogPath: b.logPath()}}
	if err := bundle.WriteJSON(filepath.Join(b.dir, bundle.InitName), rec); err != nil {
		t.Fatal(err)
	}
	b.st = &stream{name: logfile.Stdout, fd: fd}
	b.start()
	t.Cleanup(func() { b.stop() })
	return b
}

func (b *bench) logPath() string { return filepath.Join(b.dir, "0.log") }

// start is a keeper's start: it finishes what the journal says.
func (b *bench) start() {
	b.t.Helper()
	var err error
	if b.pump, err = newPump(filepath.Join(b.dir, "journal"), slog.New(slog.DiscardHandler)); err != nil {
		b.t.Fatal(err)
	}
	w, err := logfile.OpenWriter(b.logPath())
	if err != nil {
		b.t.Fatal(err)
	}
	b.to = sink{dir: b.dir, log: w}
	b.st.seen, b.st.sent = 0, 0
}

func (b *bench) stop() {
	b.pump.close()
	b.to.log.Close()
}

func (b *bench) write(text string) {
	b.t.Helper()
	if n, err := unix.Write(b.st.fd, []byte(text)); err != nil || n != len(text) {
		b.t.Fatal(n, err)
	}
}

func (b *bench) logged() string {
	b.t.Helper()
	text, err := os.ReadFile(b.logPath())
	if err != nil {
		b.t.Fatal(err)
	}
	var out []byte
	for line := range bytes.Lines(text) {
		r, err := logfile.Parse(line)
		if err != nil {
			b.t.Fatalf("%q: %v", line, err)
		}
		out = r.Append(out)
	}
	return string(out)
}

// TestKilledAnywhere stops a step at each of its points, as a kill does, and
// lets the next keeper go on. The second line equals the first, so that what
// was taken cannot be told by its content.
func TestKilledAnywhere(t *testing.T) {
	const text = "same\nsame\nstart"
	points := []string{"looked", "begun", "partly written", "written", "taking", "taken"}
	for _, point := range points {
		t.Run(point, func(t *testing.T) {
			b := newBench(t)
			b.write(text)
			b.killedAt(point)
			b.write(" of a line\nsame\n")
			b.start()
			for b.pump.step(b.st, b.to, false) {
			}
			if got, want := b.logged(), "same\nsame\nstart of a line\nsame\n"; got != want {
				t.Errorf("logged %q, want %q", got, want)
			}
		})
	}
}

func (b *bench) killedAt(point string) {
	b.t.Helper()
	defer b.stop()
	p := b.pump
	n, err := p.look(b.st)
	if err != nil {
		b.t.Fatal(err)
	}
	e := entry{dir: b.dir, stream: b.st.name, at: time.Now()}
	p.records, e.covered = logfile.Format(nil, e.at, e.stream, p.journal.data[:n], false)
	if point == "looked" {
		return
	}
	if e.mark, err = b.to.log.Mark(); err != nil {
		b.t.Fatal(err)
	}
	p.journal.begin(e)
	if point == "begun" {
		return
	}
	if point == "partly written" {
		p.records = p.records[:len(p.records)/2]
	}
	if err := b.to.log.Write(p.records, e.mark); err != nil {
		b.t.Fatal(err)
	}
	if point == "partly written" || point == "written" {
		return
	}
	p.journal.take()
	if point == "taking" {
		return
	}
	if n, err := unix.Read(b.st.fd, p.journal.sink[:e.covered]); err != nil || n != e.covered {
		b.t.Fatal(n, err)
	}
}

func TestStepPassesEachByteOnce(t *testing.T) {
	b := newBench(t)
	var live []byte
	b.to.live = func(_ logfile.Stream, data []byte) { live = append(live, data...) }
	for _, part := range []string{"pro", "mpt> ", "typed\n", "a\nb", "\n", strings.Repeat("x", 20000), "\nend"} {
		b.write(part)
		for b.pump.step(b.st, b.to, false) {
		}
	}
	for b.pump.step(b.st, b.to, true) {
	}
	want := "prompt> typed\na\nb\n" + strings.Repeat("x", 20000) + "\nend"
	if string(live) != want {
		t.Errorf("live: %.100q", live)
	}
	if got := b.logged(); got != want {
		t.Errorf("logged: %.100q", got)
	}
}

// TestFullDisk: what the disk does not take is given up, whole records at a
// time, and logging goes on when there is room again.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts a small tmpfs")
	}
	b := newBench(t)
	small := filepath.Join(b.dir, "small")
	if err := os.Mkdir(small, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("small", small, "tmpfs", 0, "size=64k"); err != nil {
		t.Skip("needs to mount tmpfs: ", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(small, unix.MNT_DETACH) })
	w, err := logfile.OpenWriter(filepath.Join(small, "0.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	b.to.log = w
	for i := range 400 {
		b.write(fmt.Sprintf("%d %s\n", i, strings.Repeat("y", 500)))
		for b.pump.step(b.st, b.to, false) {
		}
	}
	if b.st.lost == 0 {
		t.Fatal("nothing was lost on a full disk")
	}
	if err := os.Truncate(filepath.Join(small, "0.log"), 0); err != nil {
		t.Fatal(err)
	}
	b.write("room again\n")
	for b.pump.step(b.st, b.to, false) {
	}
	text, err := os.ReadFile(filepath.Join(small, "0.log"))
	if err != nil || !strings.HasSuffix(string(text), " stdout F room again\n") || strings.Contains(string(text), "\x00") {
		t.Errorf("%q, %v", text, err)
	}
}
