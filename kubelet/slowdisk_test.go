package kubelet

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ND6: a disk that takes seconds for each request, or ends none, is noticed by what the kernel counts of it; a busy one is well.
func TestHostile_ND6_slow(t *testing.T) {
	folder := "/"
	var st unix.Stat_t
	if err := unix.Stat(folder, &st); err != nil {
		t.Fatal(err)
	}
	if unix.Major(st.Dev) == 0 {
		t.Skip("/ is on no block device")
	}
	w := &diskWatch{sys: t.TempDir()}
	file := filepath.Join(w.sys, "dev/block", fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)), "stat")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1e9, 0)
	if got := w.look([]string{folder}, now, time.Minute); got != "" {
		t.Errorf("without figures: %q", got)
	}
	for i, row := range []struct {
		reads, readMillis, writes, writeMillis, flying, flushes, flushMillis int
		after                                                                time.Duration
		want                                                                 string
	}{
		{100, 400, 1000, 90_000_000, 3, 10, 50, 10 * time.Second, ""},     // the past is not news
		{100, 400, 90_000, 90_400_000, 900, 10, 50, 10 * time.Second, ""}, // busy
		{101, 400, 90_000, 90_400_000, 1, 10, 50, 10 * time.Second, ""},   // little to do
		{101, 400, 90_000, 90_400_000, 0, 10, 50, 10 * time.Second, ""},   // nothing to do
		{101, 400, 90_000, 90_400_000, 4, 10, 50, 10 * time.Second, ""},   // just begun
		{101, 400, 90_000, 90_400_000, 7, 10, 50, 5 * time.Second, ""},    // too early to tell
		{101, 400, 90_000, 90_400_000, 7, 10, 50, 5 * time.Second, "has ended none of 7 requests"},
		{102, 500, 90_009, 90_400_900, 7, 10, 50, 30 * time.Second, "has ended none of 7 requests"}, // well again, and not at once
		{102, 500, 90_019, 90_401_900, 7, 10, 50, 40 * time.Second, ""},
		{102, 500, 90_021, 90_402_000, 7, 12, 24_050, 10 * time.Second, "took 6s for a request on average in the last 10s"},
	} {
		text := fmt.Sprintf("%8d 5 6 %8d %8d 7 8 %8d %8d 1 2 0 0 0 0 %8d %8d\n", row.reads, row.readMillis, row.writes, row.writeMillis, row.flying, row.flushes, row.flushMillis)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		now = now.Add(row.after)
		if got := w.look([]string{folder}, now, time.Minute); (row.want == "") != (got == "") || !strings.Contains(got, row.want) {
			t.Errorf("look %d: %q, want %q", i, got, row.want)
		}
	}
}

// The kernel's own figures are read.
func TestReadIO(t *testing.T) {
	files, err := filepath.Glob("/sys/dev/block/*/stat")
	if err != nil || len(files) == 0 {
		t.Skip("this machine shows no block devices: ", err)
	}
	for _, f := range files {
		if _, err := readIO(f); err != nil {
			t.Error(err)
		}
	}
}
