// Command run runs the tests of the module and says what happened: failures in full, how many were skipped and why,
// and one closing line. `make test` calls it.
//
// A package that fails is run a second time, alone. If it passes then, it is named as flaky at the end, with what failed
// in its first run printed above: a defect to look into, but not one to turn away everything else for. More than a few
// are a failure, whatever their second run says.
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
	"slices"
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
	// One package more than there are cores: the largest waits most of its time.
	{"unit, kernel and root", []string{"./cmd/...", "./controlplane/...", "./cri/...", "./image/...", "./kubelet/...", "./network/...",
		"./proxy/...", "./runtime/...", "./volume/...", "./test/arch/...", "./test/crisuite/..."}, []string{"-p", "3", "-timeout", "12m"}},
	{"crashes", []string{"./test/crash"}, []string{"-p", "1", "-timeout", "10m"}},
	// Without ./test/e2e/conformance, which has a target of its own. What a package runs side by side waits for pods.
	{"end to end", []string{"./test/e2e", "./test/e2e/api", "./test/e2e/controllers", "./test/e2e/course", "./test/e2e/images", "./test/e2e/storage"}, []string{"-p", "1", "-parallel", "4", "-timeout", "20m"}},
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
	why                     []string            // what tests that failed said, in short
	broken                  []string            // packages of this phase that failed
	flaky                   []string            // packages that failed, and passed when run again
}

const maxFlaky = 3

func newTally() *tally {
	return &tally{reasons: map[string]int{}, output: map[string][]string{}}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	t := newTally()
	broken := false
	for _, phase := range phases {
		began := time.Now()
		fmt.Printf("--- %s\n", phase.name)
		failed := t.failed
		if err := t.run(ctx, append(slices.Clone(phase.args), phase.packages...)); err != nil {
			if t.again(ctx, phase.args) {
				t.failed = failed
			} else {
				fmt.Println("phase failed:", err)
				broken = true
			}
			t.broken = nil
		}
		fmt.Printf("--- %s: %.0f s\n", phase.name, time.Since(began).Seconds())
	}
	t.print()
	if broken || t.failed > 0 || t.passed == 0 {
		os.Exit(1)
	}
}

// again runs the packages that failed in a phase a second time, one after another, and reports whether all passed.
func (t *tally) again(ctx context.Context, args []string) bool {
	if len(t.broken) == 0 || len(t.broken)+len(t.flaky) > maxFlaky { // none: it did not build, or was ended
		return false
	}
	for _, pkg := range t.broken {
		fmt.Println("AGAIN", pkg)
		second := newTally()
		if err := second.run(ctx, append(slices.Clone(args), "-count=1", pkg)); err != nil || second.passed == 0 {
			t.why = append(t.why, second.why...)
			return false
		}
		t.flaky = append(t.flaky, pkg)
	}
	return true
}

func (t *tally) run(ctx context.Context, args []string) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-json", "-vet=off"}, args...)...)
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
		t.why = append(t.why, "FAIL "+e.Package+" "+e.Test+said(lines))
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
		t.broken = append(t.broken, e.Package)
	case e.Action == "pass":
		fmt.Printf("ok   %-60s %.1f s\n", short, e.Elapsed)
	}
}

// said is how a test's own words begin: the lines that name a source file, without the logs that follow them.
func said(lines []string) string {
	const most, long = 4, 300
	var out strings.Builder
	for _, line := range lines {
		if strings.Contains(line, "_test.go:") && strings.Count(out.String(), "\n") < most {
			line = strings.TrimSpace(line)
			out.WriteString("\n    " + line[:min(len(line), long)])
		}
	}
	return out.String()
}

// reason finds what t.Skip was given: the line that names a source file.
func reason(lines []string) string {
	for _, line := range lines {
		if at := strings.Index(line, ".go:"); at >= 0 {
			if _, text, ok := strings.Cut(line[at+len(".go:"):], ": "); ok {
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
	for _, one := range t.why {
		fmt.Println(one)
	}
	for _, pkg := range t.flaky {
		fmt.Println("FLAKY (failed, then passed alone):", pkg)
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", t.passed, t.failed, t.skipped)
}
