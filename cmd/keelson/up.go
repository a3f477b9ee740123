package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

const (
	upLimit    = 2 * time.Minute
	upInterval = 50 * time.Millisecond // how often we look whether a server that is just starting answers yet
)

const firstPod = `apiVersion: v1
kind: Pod
metadata:
  name: hello
  labels: {app: hello}
spec:
  containers:
    - name: hello
      image: ` + helloImage + `
      imagePullPolicy: Never
      ports:
        - containerPort: 80
`

const nextSteps = `
What to type next (put %[1]s into PATH, or run keelson install):

    keelson kubectl get pods -A -o wide
    keelson kubectl logs hello
    keelson kubectl apply -f test/lessons/01-pod.yaml    # or a manifest of yours
    keelson kubectl describe pod hello
    keelson uninstall                                    # ends everything and leaves nothing behind

With a kubectl of your own: export KUBECONFIG=%[2]s
`

func upCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use: "up", Short: "Start keelson in the background, run a first pod, say what to type next", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return up(cmd.Context(), o, cmd.OutOrStdout()) },
	}
	o.serverFlags(cmd)
	return cmd
}

func up(ctx context.Context, o *options, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, upLimit)
	defer cancel()
	began := time.Now()
	if pid := runningPid(o.place); pid != 0 {
		fmt.Fprintf(out, "keelson runs already (pid %d)\n", pid)
	} else {
		if missing := check(o, out); missing > 0 {
			return fmt.Errorf("%d required thing(s) missing: see above", missing)
		}
		if err := startServer(o, out); err != nil {
			return err
		}
	}
	if err := kubectlUntil(ctx, o, nil, "wait", "--for=condition=Ready", "nodes", "--all", "--timeout=5s"); err != nil {
		return fmt.Errorf("the node does not become ready: see %s (%w)", serverLog(o.place), err)
	}
	fmt.Fprintf(out, "node ready after %.1f s\n", time.Since(began).Seconds())
	if err := kubectlUntil(ctx, o, strings.NewReader(firstPod), "apply", "-f", "-"); err != nil {
		return fmt.Errorf("first pod: %w", err)
	}
	if err := kubectlUntil(ctx, o, nil, "wait", "--for=condition=Ready", "pod/hello", "--timeout=20s"); err != nil {
		return fmt.Errorf("first pod: %w", err)
	}
	ip, err := runKubectl(ctx, o, nil, "get", "pod", "hello", "-o", "jsonpath={.status.podIP}")
	if err != nil {
		return fmt.Errorf("first pod: %w: %s", err, ip)
	}
	answer, err := fetch(ctx, "http://"+ip)
	if err != nil {
		return fmt.Errorf("the first pod runs at %s, but does not answer: %w", ip, err)
	}
	fmt.Fprintf(out, "first pod answers at http://%s after %.1f s:\n\n%s", ip, time.Since(began).Seconds(), answer)
	self, err := os.Executable()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, nextSteps, filepath.Dir(self), o.place.kubeconfig())
	return err
}

func serverLog(p places) string { return filepath.Join(p.Data, "server.log") }

// startServer starts a server that outlives us, with our own flags.
func startServer(o *options, out io.Writer) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.place.Data, 0o711); err != nil {
		return err
	}
	log, err := os.OpenFile(serverLog(o.place), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	args := []string{"server"}
	for i, a := range os.Args {
		if a == "up" {
			args = append(args, os.Args[1:i]...)
			args = append(args, os.Args[i+1:]...)
			break
		}
	}
	cmd := exec.Command(self, args...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	fmt.Fprintf(out, "keelson server started (pid %d), log %s\n", cmd.Process.Pid, log.Name())
	return cmd.Process.Release()
}

// kubectlUntil repeats a kubectl until it succeeds or ctx ends: right after the start the API, the node and the default
// service account appear one after another.
func kubectlUntil(ctx context.Context, o *options, in *strings.Reader, args ...string) error {
	for {
		var stdin io.Reader
		if in != nil {
			if _, err := in.Seek(0, io.SeekStart); err != nil {
				return err
			}
			stdin = in
		}
		out, err := runKubectl(ctx, o, stdin, args...)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %s", err, out)
		case <-time.After(upInterval):
		}
		if runningPid(o.place) == 0 && ctx.Err() == nil && time.Now().After(mustStart(o.place)) {
			return errors.New("the server has ended")
		}
	}
}

// mustStart is when a server started just now must hold its data directory.
func mustStart(p places) time.Time {
	st, err := os.Stat(serverLog(p))
	if err != nil {
		return time.Time{}
	}
	return st.ModTime().Add(10 * time.Second)
}

func runKubectl(ctx context.Context, o *options, in io.Reader, args ...string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, self, append([]string{"kubectl"}, args...)...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+o.place.kubeconfig())
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, &out, &out
	err = cmd.Run()
	return strings.TrimSpace(out.String()), err
}

func fetch(ctx context.Context, url string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 64<<10))
	return string(body), err
}
