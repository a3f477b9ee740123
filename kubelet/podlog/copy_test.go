package podlog

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func logLine(i int, stream, tag, content string) string {
	return fmt.Sprintf("2026-11-22T17:00:%02d.000000000Z %s %s %s\n", i%60, stream, tag, content)
}

func write(t *testing.T, dir, name string, lines ...string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.WriteString(f, strings.Join(lines, "")); err != nil {
		t.Fatal(err)
	}
}

func all() Options { return Options{Tail: -1, Limit: -1} }

func read(t *testing.T, root string, o Options) string {
	t.Helper()
	var b bytes.Buffer
	if err := Copy(t.Context(), &b, nil, root, "pod/c", "0.log", o); err != nil {
		t.Fatalf("Copy(%+v): %v", o, err)
	}
	return b.String()
}

func TestCopy(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "pod", "c")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "0.log.20261122-165959", logLine(1, "stdout", "F", "old"))
	write(t, dir, "0.log", logLine(2, "stdout", "F", "one"), logLine(3, "stderr", "F", "two"),
		logLine(4, "stdout", "P", "thr"), logLine(4, "stdout", "F", "ee"), "damage\n", logLine(5, "stdout", "F", "\x1b[1mfour\x00"))
	for _, c := range []struct {
		name   string
		adjust func(*Options)
		want   string
	}{
		{"all, rotated first", func(o *Options) {}, "old\none\ntwo\nthree\n\x1b[1mfour\x00\n"},
		{"tail counts a split line once", func(o *Options) { o.Tail = 2 }, "three\n\x1b[1mfour\x00\n"},
		{"tail across a rotation", func(o *Options) { o.Tail = 5 }, "old\none\ntwo\nthree\n\x1b[1mfour\x00\n"},
		{"tail 0", func(o *Options) { o.Tail = 0 }, ""},
		{"since", func(o *Options) { o.Since = time.Date(2026, 11, 22, 17, 0, 4, 0, time.UTC) }, "three\n\x1b[1mfour\x00\n"},
		{"since the future", func(o *Options) { o.Since = time.Now().AddDate(100, 0, 0) }, ""},
		{"limit", func(o *Options) { o.Limit = 6 }, "old\non"},
		{"one stream", func(o *Options) { o.Stream = "stderr" }, "two\n"},
		{"times, once per line", func(o *Options) { o.Timestamps, o.Tail = true, 2 },
			"2026-11-22T17:00:04.000000000Z three\n2026-11-22T17:00:05.000000000Z \x1b[1mfour\x00\n"},
	} {
		o := all()
		c.adjust(&o)
		if got := read(t, root, o); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

// A log that a pod replaced by a link to a file of the node, or by anything but a file, is refused.
func TestHostile_PS9(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "pod", "c")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(t.TempDir(), "shadow")
	if err := os.WriteFile(secret, []byte(logLine(1, "stdout", "F", "root:x")), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, swap := range map[string]func() error{
		"file is a link":    func() error { return os.Symlink(secret, filepath.Join(dir, "0.log")) },
		"file is a fifo":    func() error { return mkfifo(filepath.Join(dir, "0.log")) },
		"file is a folder":  func() error { return os.Mkdir(filepath.Join(dir, "0.log"), 0o755) },
		"rotated is a link": func() error { return os.Symlink(secret, filepath.Join(dir, "0.log.1")) },
	} {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := swap(); err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := Copy(t.Context(), &b, nil, root, "pod/c", "0.log", all()); err == nil || b.Len() > 0 {
			t.Errorf("%s: Copy gave %q and %v, want a refusal", name, b.String(), err)
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Dir(secret), dir); err != nil {
		t.Fatal(err)
	}
	if err := Copy(t.Context(), io.Discard, nil, root, "pod/c", "shadow", all()); err == nil {
		t.Error("folder is a link: Copy followed it")
	}
}

// Following across many rotations brings every line exactly once, in order.
func TestHostile_ST9(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "pod", "c")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "0.log")
	const rotations, per = 100, 200
	ended := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(ended)
		n := 0
		for r := range rotations {
			for range per / 10 {
				var lines []string
				for range 10 {
					lines = append(lines, logLine(n, "stdout", "F", fmt.Sprint(n)))
					n++
				}
				write(t, dir, "0.log", lines...)
			}
			if err := os.Rename(filepath.Join(dir, "0.log"), filepath.Join(dir, fmt.Sprintf("0.log.%08d", r))); err != nil {
				t.Error(err)
			}
			write(t, dir, "0.log")
		}
	})
	var b bytes.Buffer
	o := all()
	o.Follow, o.Ended = true, ended
	if err := Copy(t.Context(), &b, func() {}, root, "pod/c", "0.log", o); err != nil {
		t.Fatalf("follow: %v", err)
	}
	wg.Wait()
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	if len(lines) != rotations*per {
		t.Errorf("got %d lines, want %d", len(lines), rotations*per)
	}
	for i, l := range lines {
		if l != fmt.Sprint(i) {
			t.Fatalf("line %d is %q", i, l)
		}
	}
}

// A client that goes away ends the follow.
func TestFollowEndsWithContext(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "pod", "c"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(root, "pod", "c"), "0.log", logLine(1, "stdout", "F", "x"))
	ctx, cancel := context.WithCancel(t.Context())
	o := all()
	o.Follow, o.Ended = true, make(chan struct{})
	err := Copy(ctx, io.Discard, cancel, root, "pod/c", "0.log", o)
	if err != nil {
		t.Errorf("Copy after its context ended: %v, want nil", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(logLine(1, "stdout", "F", "hello")))
	f.Add([]byte("  F \n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if l, ok := parse(b); ok && len(l.content) > len(b) {
			t.Errorf("parse(%q) made content longer than the line", b)
		}
	})
}

func mkfifo(path string) error { return syscall.Mkfifo(path, 0o600) }
