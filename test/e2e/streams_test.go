package e2e

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

const counter = `apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: c
      image: busybox:1.28
      command: ["sh", "-c", "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.01; done"]
`

// TestExec: output, errors, exit codes, standard input and a terminal.
func TestExec(t *testing.T) {
	c := cluster(t)
	apply(t, c, fmt.Sprintf(counter, "exec"))
	waitPod(t, c, "exec", "condition=Ready")
	out, errs, err := c.Kubectl(t.Context(), "exec", "exec", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
	if out != "out\n" || !strings.HasPrefix(errs, "err\n") || err == nil || !strings.Contains(err.Error(), "exit status 7") {
		t.Errorf("exec: stdout %q, stderr %q, %v", out, errs, err)
	}
	big := strings.Repeat("0123456789abcdef", 1<<16) // 1 MiB
	out, errs, err = c.KubectlIn(t.Context(), strings.NewReader(big), "exec", "-i", "exec", "--", "cat")
	if err != nil || out != big {
		t.Errorf("1 MiB through cat: %d bytes came back, %v %s", len(out), err, errs)
	}
	out, _, err = c.Kubectl(t.Context(), "exec", "exec", "--", "no-such-program")
	if err == nil {
		t.Errorf("a missing program was executed: %q", out)
	}
	command := c.KubectlCommand(t.Context(), "exec", "-it", "exec", "--", "tty")
	command.Stdin = strings.NewReader("")
	if _, err := command.CombinedOutput(); err != nil {
		t.Logf("exec -it without a terminal: %v", err) // kubectl's own matter
	}
}

// TestLogs: all of it, the tail, since, and following as it grows.
func TestLogs(t *testing.T) {
	c := cluster(t)
	apply(t, c, fmt.Sprintf(counter, "logs"))
	waitPod(t, c, "logs", "condition=Ready")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	command := c.KubectlCommand(ctx, "logs", "-f", "logs")
	pipe, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(pipe)
	for i := 1; i <= 300; i++ {
		if !lines.Scan() || lines.Text() != fmt.Sprint("line ", i) {
			t.Fatalf("line %d of logs -f is %q", i, lines.Text())
		}
	}
	cancel()
	_ = command.Wait() // killed by us
	if out := kubectl(t, c, "logs", "logs", "--tail=3"); strings.Count(out, "\n") != 3 {
		t.Errorf("--tail=3: %q", out)
	}
	if out := kubectl(t, c, "logs", "logs", "--tail=1", "--timestamps"); !regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z line \d+\n$`).MatchString(out) {
		t.Errorf("--timestamps: %q", out)
	}
	// The node without the API.
	if out, err := c.Run(t.Context(), "logs", "logs"); err != nil || !strings.HasPrefix(out, "line 1\nline 2\n") {
		t.Errorf("keelson logs: %v %.100q", err, out)
	}
	if out, err := c.Run(t.Context(), "ps"); err != nil || !strings.Contains(out, "logs") {
		t.Errorf("keelson ps: %v\n%s", err, out)
	}
}

// TestAttach: what the container prints from now on.
func TestAttach(t *testing.T) {
	c := cluster(t)
	apply(t, c, fmt.Sprintf(counter, "attach"))
	waitPod(t, c, "attach", "condition=Ready")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	command := c.KubectlCommand(ctx, "attach", "attach")
	pipe, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(pipe)
	for seen := 0; seen < 10; {
		if !lines.Scan() {
			t.Fatal("attach ended")
		}
		if strings.HasPrefix(lines.Text(), "line ") {
			seen++
		}
	}
	cancel()
	_ = command.Wait()
}

// TestPortForward: kubectl port-forward to a web server.
func TestPortForward(t *testing.T) {
	c := cluster(t)
	apply(t, c, lesson(t, "11-volume-emptydir.yaml"))
	waitPod(t, c, "test-pd-emptydir", "condition=Ready")
	get(t, "http://"+kubectl(t, c, "get", "pod", "test-pd-emptydir", "-o", "jsonpath={.status.podIP}")) // it listens: a refusal would end the port-forward
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	command := c.KubectlCommand(ctx, "port-forward", "pod/test-pd-emptydir", ":80")
	pipe, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(pipe)
	if !lines.Scan() {
		t.Fatal("port-forward printed nothing")
	}
	address := regexp.MustCompile(`127\.0\.0\.1:\d+`).FindString(lines.Text())
	for range 5 {
		answer, err := http.Get("http://" + address)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusOK && answer.StatusCode != http.StatusNotFound {
			t.Errorf("through the port-forward: %s", answer.Status)
		}
	}
	cancel()
	_ = command.Wait()
}
