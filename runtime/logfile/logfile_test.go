package logfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var at = time.Date(2026, 11, 22, 17, 0, 0, 123456789, time.UTC)

func TestFormat(t *testing.T) {
	const head = "2026-11-22T17:00:00.123456789Z stdout "
	long := strings.Repeat("x", MaxContent)
	for _, row := range []struct {
		name, in string
		final    bool
		want     string
		covered  int
	}{
		{"a line", "hello\n", false, head + "F hello\n", 6},
		{"empty line", "\n", false, head + "F \n", 1},
		{"start of a line", "hel", false, "", 0},
		{"line and a start", "one\ntw", false, head + "F one\n", 4},
		{"start at the end", "one\ntw", true, head + "F one\n" + head + "P tw\n", 6},
		{"exactly full", long + "\n", false, head + "F " + long + "\n", MaxContent + 1},
		{"full, end open", long, false, "", 0},
		{"one too long", long + "y\n", false, head + "P " + long + "\n" + head + "F y\n", MaxContent + 2},
		{"one too long, end open", long + "y", false, head + "P " + long + "\n", MaxContent},
		{"nothing", "", true, "", 0},
	} {
		got, covered := Format(nil, at, Stdout, []byte(row.in), row.final)
		if string(got) != row.want || covered != row.covered {
			t.Errorf("%s: %d bytes covered, want %d; %.80q, want %.80q", row.name, covered, row.covered, got, row.want)
		}
	}
	cet := time.FixedZone("CET", 3600)
	if got, _ := Format(nil, at.In(cet), Stderr, []byte("x\n"), false); string(got) != "2026-11-22T17:00:00.123456789Z stderr F x\n" {
		t.Errorf("another zone: %q", got)
	}
}

func TestParse(t *testing.T) {
	r, err := Parse([]byte("2026-11-22T17:00:00.123456789Z stderr P:more two  words\n"))
	if err != nil || !r.Time.Equal(at) || r.Stream != Stderr || !r.Partial || string(r.Content) != "two  words" {
		t.Errorf("%+v, %v", r, err)
	}
	for _, line := range []string{"", "x", "2026-11-22T17:00:00Z", "2026-11-22T17:00:00Z stdin F x", "2026-11-22T17:00:00Z stdout X x", "now stdout F x"} {
		if _, err := Parse([]byte(line)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: %v", line, err)
		}
	}
}

func FuzzFormat(f *testing.F) {
	f.Add([]byte("one\ntwo\n\nthree"), true, 3)
	f.Add(bytes.Repeat([]byte("z"), 3*MaxContent), false, 1)
	f.Fuzz(func(t *testing.T, in []byte, final bool, cut int) {
		out, covered := Format(nil, at, Stdout, in, final)
		var back []byte
		for line := range bytes.Lines(out) {
			r, err := Parse(line)
			if err != nil || len(r.Content) > MaxContent {
				t.Fatalf("%q: %v", line, err)
			}
			back = r.Append(back)
		}
		if !bytes.Equal(back, in[:covered]) {
			t.Fatalf("%q came back as %q", in[:covered], back)
		}
		if final && covered != len(in) || len(in)-covered > MaxContent {
			t.Fatalf("%d of %d bytes covered", covered, len(in))
		}
		// In two pieces it reads the same.
		if cut = min(max(cut, 0), len(in)); cut > 0 {
			first, n := Format(nil, at, Stdout, in[:cut], false)
			second, m := Format(first, at, Stdout, in[n:], final)
			if n+m != covered || !bytes.Equal(second, out) && len(in) <= MaxContent {
				t.Fatalf("in two pieces at %d: %d bytes covered, not %d", cut, n+m, covered)
			}
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("2026-11-22T17:00:00.123456789Z stdout F hello"))
	f.Fuzz(func(t *testing.T, line []byte) {
		if r, err := Parse(line); err == nil && len(r.Content) > len(line) {
			t.Fatal("content from nowhere")
		}
	})
}

func write(t *testing.T, w *Writer, text string) Mark {
	t.Helper()
	mark, err := w.Mark()
	if err != nil {
		t.Fatal(err)
	}
	out, _ := Format(nil, at, Stdout, []byte(text), false)
	if err := w.Write(out, mark); err != nil {
		t.Fatal(err)
	}
	return mark
}

func TestWriterEndsTornLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pod/0.log")
	w, err := OpenWriter(path)
	if err != nil {
		t.Fatal(err)
	}
	write(t, w, "one\n")
	w.Close()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(f, "2026-11-22T17:00:00Z stdo")
	f.Close()
	if w, err = OpenWriter(path); err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	write(t, w, "two\n")
	var got []string
	if err := Read(t.Context(), path, Options{Tail: -1}, collect(&got)); err != nil {
		t.Fatal(err)
	}
	if strings.Join(got, " ") != "one two" {
		t.Errorf("read %v", got)
	}
}

func collect(into *[]string) func(Record) error {
	return func(r Record) error {
		*into = append(*into, string(r.Content))
		return nil
	}
}

// TestFinish cuts a write off at every byte, as a kill may, and finishes it.
func TestFinish(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "0.log")
	records, _ := Format(nil, at, Stdout, []byte("two\nthree\n"), false)
	for cut := range len(records) + 1 {
		for _, rotated := range []bool{false, true} {
			os.RemoveAll(path)
			w, err := OpenWriter(path)
			if err != nil {
				t.Fatal(err)
			}
			write(t, w, "one\n")
			mark, err := w.Mark()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.file.Write(records[:cut]); err != nil {
				t.Fatal(err)
			}
			w.Close()
			at := path
			if rotated {
				at = path + ".20261122-170000"
				if err := os.Rename(path, at); err != nil {
					t.Fatal(err)
				}
			}
			if err := Finish(path, mark, records); err != nil {
				t.Fatal(err)
			}
			var got []string
			if err := Read(t.Context(), at, Options{Tail: -1}, collect(&got)); err != nil {
				t.Fatal(err)
			}
			if strings.Join(got, " ") != "one two three" {
				t.Fatalf("cut at %d, rotated %v: %v", cut, rotated, got)
			}
		}
	}
	if err := Finish(filepath.Join(dir, "gone.log"), Mark{Dev: 1, Ino: 2}, records); err != nil {
		t.Errorf("a log that is gone: %v", err)
	}
}

func TestReadTailAndSince(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	var text []byte
	for i := range 20_000 {
		text, _ = Format(text, at.Add(time.Duration(i)*time.Second), Stdout, fmt.Appendf(nil, "%d\n", i), false)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		opt         Options
		count       int
		first, last string
	}{
		{Options{Tail: -1}, 20_000, "0", "19999"},
		{Options{Tail: 1}, 1, "19999", "19999"},
		{Options{Tail: 7000}, 7000, "13000", "19999"},
		{Options{Tail: 30_000}, 20_000, "0", "19999"},
		{Options{Tail: 0}, 0, "", ""},
		{Options{Tail: -1, Since: at.Add(19_990 * time.Second)}, 10, "19990", "19999"},
	} {
		var got []string
		if err := Read(t.Context(), path, row.opt, collect(&got)); err != nil {
			t.Fatal(err)
		}
		if len(got) != row.count || row.count > 0 && (got[0] != row.first || got[len(got)-1] != row.last) {
			t.Errorf("%+v: %d records, %.20v", row.opt, len(got), got)
		}
	}
}

// TestFollow follows a log through rotations to its end.
func TestFollow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	const count = 3000
	until := make(chan struct{})
	got, begun := make(chan []string, 1), make(chan struct{})
	go func() {
		defer close(got)
		var lines []string
		all := collect(&lines)
		if err := Read(t.Context(), path, Options{Tail: -1, Follow: true, Until: until}, func(r Record) error {
			if len(lines) == 0 {
				close(begun)
			}
			return all(r)
		}); err != nil {
			t.Error(err)
		}
		got <- lines
	}()
	w, err := OpenWriter(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range count {
		write(t, w, fmt.Sprintf("%d\n", i))
		if i == 0 {
			<-begun // what was rotated away before is not a follower's to read
		}
		if i%500 == 499 {
			if err := os.Rename(path, fmt.Sprintf("%s.%06d", path, i)); err != nil {
				t.Fatal(err)
			}
			write(t, w, fmt.Sprintf("late %d\n", i))
			if err := w.Reopen(); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.Close()
	close(until)
	lines := <-got
	next, late := 0, 0
	for _, line := range lines {
		if strings.HasPrefix(line, "late") {
			late++
			continue
		}
		if line != fmt.Sprint(next) {
			t.Fatalf("%q where %d was to come", line, next)
		}
		next++
	}
	if next != count || late != count/500 {
		t.Errorf("%d lines and %d late ones, want %d and %d", next, late, count, count/500)
	}
}

func TestFollowEndsWithContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	ctx, cancel := context.WithCancel(t.Context())
	w, err := OpenWriter(path)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	write(t, w, "one\n")
	err = Read(ctx, path, Options{Tail: -1, Follow: true}, func(Record) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	stop := errors.New("enough")
	if err := Read(t.Context(), path, Options{Tail: -1}, func(Record) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("%v", err)
	}
}
