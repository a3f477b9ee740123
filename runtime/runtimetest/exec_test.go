package runtimetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"keelson.dev/keelson/runtime/container"
)

func (n *Node) sleeper(id string) {
	n.T.Helper()
	n.Run(n.Sh(id, "trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done"))
}

// exec runs a shell script in a container.
func (n *Node) exec(id, script string, cfg container.ExecConfig) (string, string, int32, error) {
	n.T.Helper()
	var out, errOut bytes.Buffer
	cfg.Process = Process("sh", "-c", script)
	cfg.Stdout, cfg.Stderr = &out, &errOut
	if cfg.TTY {
		cfg.Stderr = nil
	}
	code, err := n.Exec(n.T.Context(), id, cfg)
	return out.String(), errOut.String(), code, err
}

func TestExecStreams(t *testing.T) {
	n := New(t)
	n.sleeper("c")
	out, errOut, code, err := n.exec("c", "cat; echo oops >&2; exit 5", container.ExecConfig{Stdin: strings.NewReader("typed\n")})
	if err != nil || code != 5 || out != "typed\n" || errOut != "oops\n" {
		t.Errorf("out %q, err %q, code %d, %v", out, errOut, code, err)
	}
	out, _, code, err = n.exec("c", "head -c 5000000 /dev/zero", container.ExecConfig{})
	if err != nil || code != 0 || len(out) != 5000000 {
		t.Errorf("%d bytes, code %d, %v", len(out), code, err)
	}
	out, _, code, err = n.exec("c", "kill -9 $$", container.ExecConfig{})
	if err != nil || code != 137 || out != "" {
		t.Errorf("killed: out %q, code %d, %v", out, code, err)
	}
	_, err = n.Exec(t.Context(), "c", container.ExecConfig{Process: Process("nothing-here")})
	if !errors.Is(err, container.ErrStart) || !strings.Contains(err.Error(), `exec: "nothing-here": executable file not found in $PATH`) {
		t.Errorf("missing command: %v", err)
	}
}

func TestExecTTY(t *testing.T) {
	n := New(t)
	n.sleeper("c")
	sizes := make(chan container.Size, 1)
	sizes <- container.Size{Width: 123, Height: 45}
	stdin, typed := io.Pipe()
	out := newWatcher()
	done := make(chan error, 1)
	go func() {
		code, err := n.Exec(t.Context(), "c", container.ExecConfig{
			Process: Process("sh"), TTY: true, Stdin: stdin, Stdout: out, Resize: sizes,
		})
		if err == nil && code != 7 {
			err = fmt.Errorf("code %d", code)
		}
		done <- err
	}()
	fmt.Fprintf(typed, "while [ \"$(stty size)\" != '45 123' ]; do sleep 0.01; done; echo size is; tty && echo yes-''tty; exit 7\n")
	out.await(t, "yes-tty")
	if err := <-done; err != nil {
		t.Error(err)
	}
	typed.Close()
}

// watcher is a writer whose content can be waited for.
type watcher struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{}
}

func newWatcher() *watcher { return &watcher{more: make(chan struct{}, 1)} }

func (w *watcher) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text.Write(p)
	select {
	case w.more <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (w *watcher) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

func (w *watcher) await(t *testing.T, want string) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for !strings.Contains(w.String(), want) {
		select {
		case <-w.more:
		case <-deadline:
			t.Fatalf("%q does not come; there is %q", want, w.String())
		}
	}
}

func TestExecTimeoutKillsTree(t *testing.T) {
	n := New(t)
	n.sleeper("c")
	_, _, _, err := n.exec("c", "sleep 4242 & (sleep 4242 & sleep 4242) & wait", container.ExecConfig{Timeout: 300 * time.Millisecond})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("timeout: %v", err)
	}
	if out, _, _, err := n.exec("c", "ps | grep -c '[s]leep 4242'", container.ExecConfig{}); err != nil || out != "0\n" {
		t.Errorf("%q processes of the exec are left, %v", out, err)
	}
}

// TestExecLeavesProcess: what holds the output open after the end is not
// waited for.
func TestExecLeavesProcess(t *testing.T) {
	n := New(t)
	n.sleeper("c")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var out bytes.Buffer
	code, err := n.Exec(ctx, "c", container.ExecConfig{Process: Process("sh", "-c", "sleep 5000 & echo said; exit 2"), Stdout: &out})
	if err != nil || code != 2 || out.String() != "said\n" {
		t.Errorf("code %d, out %q, %v", code, out.String(), err)
	}
}

func TestHostile_CR11(t *testing.T) {
	n := New(t)
	n.sleeper("c")
	var each sync.WaitGroup
	for i := range 4 {
		each.Go(func() {
			for j := range 10 {
				out, _, code, err := n.exec("c", fmt.Sprintf("echo %d-%d; exit %d", i, j, j), container.ExecConfig{})
				if err != nil || code != int32(j) || out != fmt.Sprintf("%d-%d\n", i, j) {
					t.Errorf("exec %d-%d: code %d, out %q, %v", i, j, code, out, err)
				}
			}
		})
	}
	each.Wait()
	for i := range 10 {
		id := fmt.Sprint("short", i)
		n.Run(n.Config(id, "sh", "-c", fmt.Sprintf("exit %d", i)))
		if s := n.Await(id); s.ExitCode != int32(i) {
			t.Errorf("%s: %+v", id, s)
		}
	}
	// Its process is killed between Create and Start's end: a start of what
	// cannot be started twice.
	if _, err := n.Start(t.Context(), "short0"); err == nil {
		t.Error("an exited container was started again")
	}
}

func TestAttach(t *testing.T) {
	n := New(t)
	cfg := n.Sh("a", "while read line; do echo \"out $line\"; echo \"err $line\" >&2; done; echo bye; exit 9")
	cfg.Stdin, cfg.StdinOnce = true, true
	n.Run(cfg)
	stdin, typed := io.Pipe()
	var outs [2]*watcher
	done := make(chan error, 2)
	errOut := newWatcher()
	for i := range outs {
		outs[i] = newWatcher()
		s := container.Streams{Stdout: outs[i]}
		if i == 0 {
			s.Stdin, s.Stderr = stdin, errOut
		}
		go func() { done <- n.Attach(t.Context(), "a", s) }()
	}
	fmt.Fprintln(typed, "one")
	outs[0].await(t, "out one\n")
	errOut.await(t, "err one\n")
	typed.Close() // StdinOnce: the container reads its end
	for range outs {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if s := n.Await("a"); s.ExitCode != 9 {
		t.Errorf("%+v", s)
	}
	outs[0].await(t, "bye\n")
	if got := outs[0].String(); got != "out one\nbye\n" {
		t.Errorf("attached output %q", got)
	}
}

// A client that has no more to say lets go of a container whose input stays open.
func TestAttachLeavesStdinOpen(t *testing.T) {
	n := New(t)
	cfg := n.Sh("a", "while read line; do echo \"$line\"; done; echo closed")
	cfg.Stdin = true
	n.Run(cfg)
	for _, word := range []string{"one", "two"} {
		stdin, typed := io.Pipe()
		out := newWatcher()
		done := make(chan error, 1)
		go func() { done <- n.Attach(t.Context(), "a", container.Streams{Stdin: stdin, Stdout: out}) }()
		fmt.Fprintln(typed, word)
		out.await(t, word+"\n")
		typed.Close()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(time.Minute):
			t.Fatal("still attached after the end of the client's input")
		}
	}
	if got := n.Output("a", "stdout"); strings.Contains(got, "closed") {
		t.Errorf("the container's input was closed: %q", got)
	}
}

func TestAttachTTY(t *testing.T) {
	n := New(t)
	cfg := n.Config("t", "sh")
	cfg.TTY, cfg.Stdin = true, true
	n.Run(cfg)
	stdin, typed := io.Pipe()
	out := newWatcher()
	sizes := make(chan container.Size, 1)
	sizes <- container.Size{Width: 99, Height: 33}
	done := make(chan error, 1)
	go func() {
		done <- n.Attach(t.Context(), "t", container.Streams{Stdin: stdin, Stdout: out, Resize: sizes})
	}()
	fmt.Fprint(typed, "while [ \"$(stty size)\" != '33 99' ]; do sleep 0.01; done; echo re''sized\n")
	out.await(t, "resized")
	fmt.Fprint(typed, "exit 6\n")
	if err := <-done; err != nil {
		t.Error(err)
	}
	typed.Close()
	if s := n.Await("t"); s.ExitCode != 6 {
		t.Errorf("%+v", s)
	}
	if text := n.Output("t", "stdout"); !strings.Contains(text, "resized\r\n") {
		t.Errorf("log of the terminal: %q", text)
	}
}

// ND7: in a container that has used up its processes an exec ends cleanly, in words, and costs neither that container nor others
// anything.
func TestHostile_ND7(t *testing.T) {
	n := New(t)
	full := n.Sh("full", "i=0; while [ $i -lt 7 ]; do sleep 1000 & i=$((i+1)); done; echo full; wait")
	most := int64(8)
	full.Spec.Linux.Resources.Pids = &specs.LinuxPids{Limit: &most}
	n.Run(full)
	n.awaitOutput("full", "full\n")
	n.sleeper("other")
	for range 3 {
		_, errOut, code, err := n.exec("full", "sleep 0 & wait", container.ExecConfig{})
		said := strings.ToLower(fmt.Sprint(errOut, err))
		if err == nil && code == 0 || !strings.Contains(said, "resource temporarily unavailable") {
			t.Errorf("exec without a process to spare: code %d, %q", code, said)
		}
	}
	if out, _, code, err := n.exec("other", "sleep 0 & wait; echo fine", container.ExecConfig{}); err != nil || code != 0 || out != "fine\n" {
		t.Errorf("the other container: %q, code %d, %v", out, code, err)
	}
	if s := n.mustState("full"); s.Status != container.Running {
		t.Errorf("the full one: %+v", s)
	}
}
