package runtimetest

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"keelson.dev/keelson/runtime/container"
)

func BenchmarkStart(b *testing.B)         { benchLife(b, true, false, false) }
func BenchmarkStartConfined(b *testing.B) { benchLife(b, true, false, true) }
func BenchmarkRemove(b *testing.B)        { benchLife(b, false, true, false) }

func benchLife(b *testing.B, start, remove, confine bool) {
	n := New(b)
	ctx := b.Context()
	for i := range b.N {
		id := fmt.Sprint("c", i)
		b.StopTimer()
		cfg := n.Config(id, "sleep", "1000")
		if confine {
			Confine(b, cfg.Spec)
		}
		if err := n.Create(ctx, cfg); err != nil {
			b.Fatal(err)
		}
		if start {
			b.StartTimer()
		}
		if _, err := n.Start(ctx, id); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if remove {
			b.StartTimer()
		}
		if err := n.Stop(ctx, id, unix.SIGKILL, 0); err != nil {
			b.Fatal(err)
		}
		if err := n.Remove(ctx, id); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkExec(b *testing.B)         { benchExec(b, false) }
func BenchmarkExecConfined(b *testing.B) { benchExec(b, true) }

func benchExec(b *testing.B, confine bool) {
	n := New(b)
	ctx := b.Context()
	cfg := n.Config("c", "sleep", "1000")
	if confine {
		Confine(b, cfg.Spec)
	}
	if err := n.Create(ctx, cfg); err != nil {
		b.Fatal(err)
	}
	if _, err := n.Start(ctx, "c"); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if code, err := n.Exec(ctx, "c", container.ExecConfig{Process: Process("true")}); err != nil || code != 0 {
			b.Fatal(code, err)
		}
	}
}

// BenchmarkDensity reports what the keeper costs: memory in kB, alone and for
// each container, and its processor time for an idle second.
func BenchmarkDensity(b *testing.B) {
	n := New(b)
	ctx := b.Context()
	pid := n.KeeperPid()
	const count = 50
	for range b.N {
		if b.N > 1 {
			b.Skip("once is enough: -benchtime 1x")
		}
	}
	alone := pss(b, pid)
	for i := range count {
		id := fmt.Sprint("c", i)
		if err := n.Create(ctx, n.Config(id, "sleep", "1000")); err != nil {
			b.Fatal(err)
		}
		if _, err := n.Start(ctx, id); err != nil {
			b.Fatal(err)
		}
	}
	full := pss(b, pid)
	b.ReportMetric(float64(alone), "kB-alone")
	b.ReportMetric(float64(full), "kB-with-50")
	before := ticks(b, pid)
	time.Sleep(2 * time.Second) // the measurement itself
	b.ReportMetric(float64(ticks(b, pid)-before)*10/2, "ms-cpu/s-idle")
}

func pss(b *testing.B, pid int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var kb int
		if _, err := fmt.Sscanf(line, "Pss: %d kB", &kb); err == nil {
			return kb
		}
	}
	b.Fatal("no Pss")
	return 0
}

func ticks(b *testing.B, pid int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), ") ")
	f := strings.Fields(after)
	user, err1 := strconv.Atoi(f[11])
	system, err2 := strconv.Atoi(f[12])
	if err1 != nil || err2 != nil {
		b.Fatal(err1, err2)
	}
	return user + system
}
