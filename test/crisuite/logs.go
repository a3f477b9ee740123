package crisuite

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

var logSpecs = []Spec{
	{"the log has the CRI format", true, logFormat},
	{"a log is reopened without losing a line", true, logReopen},
	{"TestHostile_ST8: odd bytes and long lines are kept exactly", true, logOddBytes},
	{"TestHostile_ST9: no line is lost or doubled over rotations", true, logRotations},
	{"TestHostile_CR7: a log path stays in its directory", false, logPathConfined},
}

// eventually waits for a condition that no event tells.
func (b *Bench) eventually(what string, ok func() bool) {
	b.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if ok() {
			return
		}
	}
	b.Fatalf("waited in vain for %s", what)
}

func (b *Bench) log(id string) string {
	b.Helper()
	text, err := os.ReadFile(b.Status(id).GetLogPath())
	if err != nil && !os.IsNotExist(err) {
		b.Fatal(err)
	}
	return string(text)
}

func (b *Bench) awaitLog(id, text string) {
	b.Helper()
	path := b.Status(id).GetLogPath()
	b.eventually("log of "+text, func() bool {
		got, err := os.ReadFile(path)
		return err == nil && strings.Contains(string(got), text)
	})
}

var logLine = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}(Z|[+-]\d\d:\d\d) (stdout|stderr) (F|P) (.*)$`)

// contents joins the log's lines per stream, as a client does: after F comes a
// line break, after P none.
func (b *Bench) contents(text string) (stdout, stderr string) {
	b.Helper()
	for line := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
		// Not by the pattern's "." alone: a log line may hold any byte but \n.
		head, rest, ok := cutHead(line)
		if !ok {
			b.Fatalf("line %.100q has not the CRI form", line)
		}
		if strings.HasSuffix(head, "F") {
			rest += "\n"
		}
		if strings.Contains(head, "stdout") {
			stdout += rest
		} else {
			stderr += rest
		}
	}
	return stdout, stderr
}

func cutHead(line string) (head, rest string, ok bool) {
	parts := strings.SplitN(line, " ", 4)
	if len(parts) != 4 {
		return "", "", false
	}
	head = strings.Join(parts[:3], " ")
	return head, parts[3], logLine.MatchString(head + " x")
}

func logFormat(b *Bench) {
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	id := b.StartIn(pod, pc, b.ContainerConfig("echo out; echo err >&2; printf part; exit 0"))
	b.Await(id)
	stdout, stderr := b.contents(b.log(id))
	if strings.TrimSuffix(stdout, "\n") != "out\npart" || stderr != "err\n" {
		b.Errorf("stdout %q, stderr %q", stdout, stderr)
	}
}

func logReopen(b *Bench) {
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	id := b.StartIn(pod, pc, b.ContainerConfig(`echo one; while [ ! -e /go ]; do sleep 0.02; done; echo two; exec sleep 1000`))
	b.awaitLog(id, "one")
	path := b.Status(id).GetLogPath()
	if err := os.Rename(path, path+".old"); err != nil {
		b.Fatal(err)
	}
	if _, err := b.ReopenContainerLog(b.Context(), &runtimeapi.ReopenContainerLogRequest{ContainerId: id}); err != nil {
		b.Fatal(err)
	}
	b.Sh(id, "touch /go")
	b.awaitLog(id, "two")
	if got, _ := b.contents(b.log(id)); got != "two\n" {
		b.Errorf("the new log has %q", got)
	}
	if _, err := b.StopContainer(b.Context(), &runtimeapi.StopContainerRequest{ContainerId: id}); err != nil {
		b.Fatal(err)
	}
	if _, err := b.ReopenContainerLog(b.Context(), &runtimeapi.ReopenContainerLogRequest{ContainerId: id}); err == nil {
		b.Error("the log of a stopped container was reopened")
	}
}

func logOddBytes(b *Bench) {
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	// 40 KB without a line break: P, P, F. ANSI, NUL, invalid UTF-8, CR.
	script := `printf '\033[31mred\033[0m\n\000nul\n\377\376\rcr\n'; head -c 40000 /dev/zero | tr '\0' x; echo; echo end`
	id := b.StartIn(pod, pc, b.ContainerConfig(script))
	b.Await(id)
	want := "\x1b[31mred\x1b[0m\n\x00nul\n\xff\xfe\rcr\n" + strings.Repeat("x", 40000) + "\nend\n"
	text := b.log(id)
	if got, _ := b.contents(text); got != want {
		b.Errorf("%d bytes differ from the %d written", len(got), len(want))
	}
	if n := strings.Count(text, " stdout P "); n < 2 {
		b.Errorf("a line of 40000 bytes has %d partial records", n)
	}
	for line := range strings.SplitSeq(text, "\n") {
		if len(line) > 17<<10 {
			b.Errorf("a record of %d bytes", len(line))
		}
	}
}

func logRotations(b *Bench) {
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	const lines = 200_000
	id := b.StartIn(pod, pc, b.ContainerConfig(fmt.Sprintf(`while [ ! -e /go ]; do sleep 0.01; done; seq 1 %d; echo end; while [ ! -e /stop ]; do sleep 0.01; done`, lines)))
	path := b.Status(id).GetLogPath()
	b.Sh(id, "touch /go")
	var files []string
	for n := range 30 {
		old := fmt.Sprintf("%s.%03d", path, n)
		b.eventually("the log to grow", func() bool {
			fi, err := os.Stat(path)
			return err == nil && fi.Size() > 0 || n > 0 && b.has(files, "end")
		})
		if os.Rename(path, old) == nil {
			files = append(files, old)
		}
		if _, err := b.ReopenContainerLog(b.Context(), &runtimeapi.ReopenContainerLogRequest{ContainerId: id}); err != nil {
			b.Fatal(err)
		}
	}
	b.eventually("the last line", func() bool { return b.has(append(files, path), " end\n") })
	b.Sh(id, "touch /stop")
	b.Await(id)
	next := 1
	for _, f := range append(files, path) {
		text, err := os.ReadFile(f)
		if err != nil {
			b.Fatal(err)
		}
		if len(text) == 0 {
			continue
		}
		got, _ := b.contents(string(text))
		for line := range strings.Lines(got) {
			if want := fmt.Sprintf("%d\n", next); line != want && line != "end\n" {
				b.Fatalf("%s: line %q where %q was due", filepath.Base(f), line, want)
			}
			next++
		}
	}
	if next != lines+2 {
		b.Errorf("%d lines, want %d", next-1, lines+1)
	}
}

func (b *Bench) has(files []string, text string) bool {
	for _, f := range files {
		got, err := os.ReadFile(f)
		if err == nil && bytes.Contains(got, []byte(text)) {
			return true
		}
	}
	return false
}

func logPathConfined(b *Bench) {
	pc := b.PodConfig()
	if err := os.MkdirAll(pc.LogDirectory, 0o755); err != nil {
		b.Fatal(err)
	}
	outside := filepath.Join(b.Target.LogDir, name("outside"))
	if err := os.WriteFile(outside, []byte("mine"), 0o644); err != nil {
		b.Fatal(err)
	}
	for link, to := range map[string]string{"dir": b.Target.LogDir, "file.log": outside} {
		if err := os.Symlink(to, filepath.Join(pc.LogDirectory, link)); err != nil {
			b.Fatal(err)
		}
	}
	pod := b.RunPod(pc)
	for _, path := range []string{"../../x", "/etc/x", "a/../../x", "..", ".", "dir/x", "file.log", "a\x00b"} {
		cfg := b.ContainerConfig("echo gotcha", func(c *runtimeapi.ContainerConfig) { c.LogPath = path })
		if _, err := b.CreateContainer(b.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: cfg, SandboxConfig: pc}); err == nil {
			b.Errorf("log path %q was taken", path)
		}
	}
	// The link appears between creation and start.
	late := b.ContainerConfig("echo gotcha", func(c *runtimeapi.ContainerConfig) { c.LogPath = "late.log" })
	id := b.CreateIn(pod, pc, late)
	_ = os.Remove(filepath.Join(pc.LogDirectory, "late.log"))
	if err := os.Symlink(outside, filepath.Join(pc.LogDirectory, "late.log")); err != nil {
		b.Fatal(err)
	}
	if _, err := b.StartContainer(b.Context(), &runtimeapi.StartContainerRequest{ContainerId: id}); err == nil && b.Target.Processes {
		b.Await(id)
	}
	if got, err := os.ReadFile(outside); err != nil || string(got) != "mine" {
		b.Errorf("a file outside of the log directory now holds %q, %v", got, err)
	}
}
