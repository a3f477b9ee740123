// Command run runs the tests of the module and says what happened: failures in full, how many were skipped and why,
// and one closing line. `make test` calls it.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"sort"
	"strings"
	"syscall"
	"time"
)

// phases run one after another: packages that start whole servers must not compete with each other.
var phases = []struct {
	name     string
	packages []string
	args     []string
}{
	{"unit, kernel and root", []string{"./cmd/...", "./controlplane/...", "./cri/...", "./image/...", "./kubelet/...", "./network/...",
		"./proxy/...", "./runtime/...", "./volume/...", "./test/arch/...", "./test/crisuite/..."}, []string{"-p", "2", "-timeout", "12m"}},
	{"end to end", []string{"./test/e2e/..."}, []string{"-p", "1", "-timeout", "20m"}},
}

// event is one line of `go test -json`.
type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64
}

type tally struct {
	passed, failed, skipped int
	reasons                 map[string]int
	output                  map[string][]string // of tests that have not ended
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	t := &tally{reasons: map[string]int{}, output: map[string][]string{}}
	broken := false
	for _, phase := range phases {
		began := time.Now()
		fmt.Printf("--- %s\n", phase.name)
		args := append(append([]string{"test", "-json", "-vet=off"}, phase.args...), phase.packages...)
		if err := t.run(ctx, args); err != nil {
			fmt.Println("phase failed:", err)
			broken = true
		}
		fmt.Printf("--- %s: %.0f s\n", phase.name, time.Since(began).Seconds())
	}
	t.print()
	if broken || t.failed > 0 || t.passed == 0 {
		os.Exit(1)
	}
}

func (t *tally) run(ctx context.Context, args []string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Minute // tests clean up after themselves when asked to stop
	cmd.Stderr = os.Stdout
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	t.read(out)
	return cmd.Wait()
}

func (t *tally) read(r io.Reader) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Println(lines.Text())
			continue
		}
		t.take(e)
	}
}

func (t *tally) take(e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "output", "build-output":
		if e.Action == "build-output" {
			fmt.Print(e.Output)
			return
		}
		t.output[key] = append(t.output[key], e.Output)
		return
	case "pass", "fail", "skip":
	default:
		return
	}
	lines := t.output[key]
	delete(t.output, key)
	if e.Test == "" {
		t.packageEnded(e, lines)
		return
	}
	switch e.Action {
	case "pass":
		t.passed++
	case "fail":
		t.failed++
		fmt.Printf("FAIL %s %s\n%s", e.Package, e.Test, strings.Join(lines, ""))
	case "skip":
		t.skipped++
		t.reasons[reason(lines)]++
	}
}

func (t *tally) packageEnded(e event, lines []string) {
	short := e.Package[strings.IndexByte(e.Package, '/')+1:]
	switch {
	case e.Action == "fail":
		fmt.Printf("FAIL %s\n%s", e.Package, strings.Join(lines, ""))
		t.failed++
	case e.Action == "pass":
		fmt.Printf("ok   %-60s %.1f s\n", short, e.Elapsed)
	}
}

// reason finds what t.Skip was given: the line that names a source file.
func reason(lines []string) string {
	for _, line := range lines {
		if at := strings.Index(line, "_test.go:"); at >= 0 {
			if _, text, ok := strings.Cut(line[at+len("_test.go:"):], ": "); ok {
				return strings.TrimSpace(text)
			}
		}
	}
	return "no reason given"
}

func (t *tally) print() {
	reasons := make([]string, 0, len(t.reasons))
	for r := range t.reasons {
		reasons = append(reasons, r)
	}
	sort.Strings(reasons)
	for _, r := range reasons {
		fmt.Printf("skipped %3d: %s\n", t.reasons[r], r)
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", t.passed, t.failed, t.skipped)
}
