package cri

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/cri/podstore"
	"keelson.dev/keelson/runtime/container"
)

// maxOutput bounds both outputs of an ExecSync together, so that the answer fits
// the kubelet's message limit (CVE-2022-31030).
const maxOutput = maxMessage - 4096

// ExecSync runs a command and gives its output and exit code. What a command
// writes beyond the limit is dropped; it is not disturbed. A timeout of 0 is none.
func (s *Server) ExecSync(ctx context.Context, req *runtimeapi.ExecSyncRequest) (*runtimeapi.ExecSyncResponse, error) {
	rec, err := s.execTarget(req.GetContainerId(), req.GetCmd())
	if err != nil {
		return nil, err
	}
	timeout, err := seconds("timeout", req.GetTimeout())
	if err != nil {
		return nil, err
	}
	budget := &budget{left: maxOutput}
	stdout, stderr := capped{b: budget}, capped{b: budget}
	code, err := s.deps.Containers.Exec(ctx, rec.ID, container.ExecConfig{
		Process: execProcess(rec, req.GetCmd(), false), Stdout: &stdout, Stderr: &stderr, Timeout: timeout,
	})
	if err != nil {
		return nil, execError(rec.ID, timeout, err)
	}
	return &runtimeapi.ExecSyncResponse{Stdout: stdout.buf.Bytes(), Stderr: stderr.buf.Bytes(), ExitCode: code}, nil
}

// execError: the kubelet tells a probe that took too long by DeadlineExceeded.
func execError(id string, timeout time.Duration, err error) error {
	if timeout > 0 && errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("exec in container %s: timeout %v exceeded: %w", id, timeout, context.DeadlineExceeded)
	}
	return fmt.Errorf("exec in container %s: %w", id, err)
}

type budget struct {
	mu   sync.Mutex
	left int
}

func (b *budget) take(n int) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n = min(n, b.left)
	b.left -= n
	return n
}

// capped keeps what the budget allows and swallows the rest. One writer each.
type capped struct {
	b   *budget
	buf bytes.Buffer
}

func (c *capped) Write(p []byte) (int, error) {
	c.buf.Write(p[:c.b.take(len(p))])
	return len(p), nil
}

func (s *Server) execTarget(id string, cmd []string) (*podstore.Container, error) {
	rec, err := s.container(id)
	if err != nil {
		return nil, err
	}
	if len(cmd) == 0 || cmd[0] == "" {
		return nil, invalid("exec in container %s: no command", rec.ID)
	}
	if slices.ContainsFunc(cmd, func(a string) bool { return strings.ContainsRune(a, 0) }) {
		return nil, invalid("exec in container %s: an argument holds a NUL byte", rec.ID)
	}
	return rec, s.running(rec.ID)
}

// execProcess is the container's own process with other arguments: the same
// user, capabilities, environment, profile and directory.
func execProcess(rec *podstore.Container, cmd []string, tty bool) *specs.Process {
	p := *rec.Process
	p.Args, p.Terminal, p.ConsoleSize = cmd, tty, nil
	hasTerm := slices.ContainsFunc(p.Env, func(e string) bool { return strings.HasPrefix(e, "TERM=") })
	if tty && !hasTerm {
		p.Env = append(slices.Clone(p.Env), "TERM=xterm")
	}
	return &p
}

// Exec prepares a stream to a command in a container.
func (s *Server) Exec(_ context.Context, req *runtimeapi.ExecRequest) (*runtimeapi.ExecResponse, error) {
	if err := checkStreams(req.GetStdin(), req.GetStdout(), req.GetStderr(), req.GetTty()); err != nil {
		return nil, err
	}
	if _, err := s.execTarget(req.GetContainerId(), req.GetCmd()); err != nil {
		return nil, err
	}
	url, err := s.stream.URL(req)
	return &runtimeapi.ExecResponse{Url: url}, err
}

// Attach prepares a stream to a container's first process.
func (s *Server) Attach(_ context.Context, req *runtimeapi.AttachRequest) (*runtimeapi.AttachResponse, error) {
	if err := checkStreams(req.GetStdin(), req.GetStdout(), req.GetStderr(), req.GetTty()); err != nil {
		return nil, err
	}
	rec, err := s.container(req.GetContainerId())
	if err != nil {
		return nil, err
	}
	if err := s.running(rec.ID); err != nil {
		return nil, err
	}
	url, err := s.stream.URL(req)
	return &runtimeapi.AttachResponse{Url: url}, err
}

// PortForward prepares streams to ports in a pod.
func (s *Server) PortForward(_ context.Context, req *runtimeapi.PortForwardRequest) (*runtimeapi.PortForwardResponse, error) {
	pod, err := s.readySandbox(req.GetPodSandboxId())
	if err != nil {
		return nil, err
	}
	for _, p := range req.GetPort() {
		if p < 1 || p > 65535 {
			return nil, invalid("port %d is outside 1 to 65535", p)
		}
	}
	url, err := s.stream.URL(&runtimeapi.PortForwardRequest{PodSandboxId: pod.ID, Port: req.GetPort()})
	return &runtimeapi.PortForwardResponse{Url: url}, err
}

func checkStreams(stdin, stdout, stderr, tty bool) error {
	switch {
	case !stdin && !stdout && !stderr:
		return invalid("one of stdin, stdout and stderr must be asked for")
	case tty && stderr:
		return invalid("a tty has no stderr of its own")
	}
	return nil
}
