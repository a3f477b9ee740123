package critest

import (
	"bytes"
	"context"
	"encoding/xml"
	"flag"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"keelson.dev/keelson/image/imagetest"
	"keelson.dev/keelson/test/lab"
)

var (
	program = flag.String("critest", "", "the critest to run (built from cri-tools); without one there is nothing to do")
	shell   = flag.String("busybox", "", "a static busybox of default configuration for the images; default: one built from Debian's source and kept")
	focus   = flag.String("focus", "", "run only the specs that match this expression")
)

// byDigest is the spec that pulls an image by a digest which critest was
// compiled with: nobody but the one who built the original image can serve it.
const byDigest = "public image with digest should be pulled and removed"

func TestCritest(t *testing.T) {
	if *program == "" {
		t.Skip("needs -critest PATH: a critest built from cri-tools")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root: it starts a container runtime")
	}
	node := start(t)
	args := []string{"-runtime-endpoint", "unix://" + node.CRISocket, "-image-endpoint", "unix://" + node.CRISocket, "-ginkgo.no-color",
		"-ginkgo.junit-report", filepath.Join(node.Dir, "critest.xml")}
	if holds(t, *program, "nri-socket") { // cri-tools from v1.37 on
		args = append(args, "-nri-socket", node.NRISocket())
	}
	digest := serve(t, node)
	if !holds(t, *program, digest) {
		t.Logf("left out: %q. It pulls a digest that critest was built with; rebuilt with %s it is run too", byDigest, digest)
		args = append(args, "-ginkgo.skip", byDigest)
	}
	if *focus != "" {
		args = append(args, "-ginkgo.focus", *focus)
	}
	cmd := exec.CommandContext(t.Context(), *program, args...)
	cmd.Dir = node.Dir // it looks for its configuration where it stands
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute
	out, err := cmd.CombinedOutput()
	text := string(out)
	for _, line := range regexp.MustCompile(`(?m)^(Ran \d+ of .*|(?:SUCCESS|FAIL)! -- .*)$`).FindAllString(text, -1) {
		t.Log(line)
	}
	for _, line := range skipped(t, filepath.Join(node.Dir, "critest.xml")) {
		t.Log(line)
	}
	if err != nil {
		t.Errorf("critest: %v\n%s\nthe runtime's log:\n%s", err, summary(text), node.Log())
	}
}

// start starts the runtime alone. It is removed, with every pod, at the end.
func start(t *testing.T) *lab.Cluster {
	t.Helper()
	node, err := lab.New(lab.Options{Runtime: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 2*time.Minute)
		defer cancel()
		if err := node.Remove(ctx); err != nil {
			t.Error(err)
		}
	})
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	if err := node.WaitRuntime(t.Context()); err != nil {
		t.Fatal(err)
	}
	return node
}

// serve makes the registry and says which digest its test-image-digest has.
func serve(t *testing.T, node *lab.Cluster) (digest string) {
	t.Helper()
	registry := imagetest.NewRegistry()
	digest, err := imagetest.Critest(t.Context(), registry, busybox(t))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(registry)
	t.Cleanup(server.Close)
	if err := imagetest.WriteHosts(node.CertsDir(), server.URL, imagetest.CritestHosts()...); err != nil {
		t.Fatal(err)
	}
	return digest
}

// busybox is the one to put into the images. Debian's own is not enough; one is
// built from its source once and kept beside the built programs.
func busybox(t *testing.T) string {
	t.Helper()
	if *shell != "" {
		return *shell
	}
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		t.Fatalf("find the module: %v", err)
	}
	module := strings.TrimSpace(string(root))
	dir := filepath.Join(module, "bin", "busybox")
	script := filepath.Join(module, "image", "imagetest", "busybox.sh")
	if out, err := exec.CommandContext(t.Context(), "sh", script, dir).CombinedOutput(); err != nil {
		t.Fatalf("build a busybox (or name one with -busybox): %v\n%s", err, out)
	}
	return filepath.Join(dir, "busybox")
}

// holds says whether the program has the text compiled in.
func holds(t *testing.T, path, text string) bool {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Contains(data, []byte(text))
}

// skipped names every spec of a JUnit report that did not run, with its reason:
// one that we skip for want of a feature counts as one that we lack.
func skipped(t *testing.T, path string) []string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Logf("critest left no report: %v", err)
		return nil
	}
	var report struct {
		Cases []struct {
			Name    string `xml:"name,attr"`
			Skipped *struct {
				Message string `xml:"message,attr"`
			} `xml:"skipped"`
		} `xml:"testsuite>testcase"`
	}
	if err := xml.Unmarshal(data, &report); err != nil {
		t.Fatalf("read critest's report %s: %v", path, err)
	}
	var lines []string
	for _, c := range report.Cases {
		if c.Skipped != nil {
			lines = append(lines, fmt.Sprintf("skipped: %s (%s)", c.Name, c.Skipped.Message))
		}
	}
	return lines
}

// summary is critest's account of what failed, without the specs that passed.
func summary(out string) string {
	at := strings.Index(out, "Summarizing ")
	if at < 0 {
		return out[max(0, len(out)-64<<10):]
	}
	var failures strings.Builder
	for _, part := range strings.Split(out, "------------------------------") {
		if strings.Contains(part, "[FAILED]") || strings.Contains(part, "[PANICKED]") {
			fmt.Fprintln(&failures, strings.TrimSpace(part))
		}
	}
	return failures.String() + out[at:]
}
