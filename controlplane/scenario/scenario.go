// Package scenario plays scenario files: a pure part's behaviour told line by line, to be read by people first.
//
// A line is a command; its words go to the test's own interpreter. What a command prints stands behind a line "----" below
// it; the play fails where something else is printed. Lines that begin with # are the story.
package scenario

import (
	"bufio"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Do carries out one command and returns what it prints, in one line.
type Do func(t *testing.T, words []string) string

// Play plays every file testdata/*.txt of the calling test's package, each as a subtest with an interpreter of its own.
func Play(t *testing.T, anew func() Do) {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, path := range files {
		t.Run(filepath.Base(path), func(t *testing.T) { play(t, path, anew()) })
	}
}

func play(t *testing.T, path string, do Do) {
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	got, command, number, checked := "", "", 0, 0
	for lines.Scan() {
		number++
		line := strings.TrimSpace(lines.Text())
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case line == "----":
			if !lines.Scan() {
				t.Fatalf("%s:%d: nothing behind ----", path, number)
			}
			number++
			checked++
			if want := strings.TrimSpace(lines.Text()); got != want {
				t.Errorf("%s:%d: %s\n got: %s\nwant: %s", path, number, command, got, want)
			}
		default:
			command = line
			got = do(t, strings.Fields(line))
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	if checked == 0 {
		t.Fatalf("%s checks nothing", path)
	}
}
