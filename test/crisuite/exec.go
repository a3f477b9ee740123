package crisuite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	utilexec "k8s.io/client-go/util/exec"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

var execSpecs = []Spec{
	{"exec gives output and code", true, execSync},
	{"exec ends at its timeout", true, execTimeout},
	{"exec streams over both transports", true, execStreams},
	{"exec with a tty", true, execTTY},
	{"attach to stdin and stdout", true, attach},
	{"TestHostile_CR8: an exec's endless output is cut and nothing else", true, execFlood},
	{"TestHostile_ST5: an exec ends with its client", true, execOrphan},
	{"TestHostile_CR10: a stream's address works once", true, streamOnce},
}

func execSync(b *Bench) {
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	id := b.StartIn(pod, pc, b.ContainerConfig("exec sleep 1000", func(c *runtimeapi.ContainerConfig) {
		c.Envs, c.WorkingDir = []*runtimeapi.KeyValue{{Key: "A", Value: []byte("b c")}}, "/tmp"
	}))
	r := b.ShCode(id, `echo "out $A $PWD"; echo err >&2; exit 3`)
	if string(r.GetStdout()) != "out b c /tmp\n" || string(r.GetStderr()) != "err\n" || r.GetExitCode() != 3 {
		b.Errorf("got %v", r)
	}
	if r, err := b.ExecSync(b.Context(), &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: []string{"/no/such"}}); err == nil && r.GetExitCode() == 0 {
		b.Error("a program that is not there ran")
	}
	if _, err := b.StopContainer(b.Context(), &runtimeapi.StopContainerRequest{ContainerId: id}); err != nil {
		b.Fatal(err)
	}
	if _, err := b.ExecSync(b.Context(), &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: []string{"true"}}); status.Code(err) != codes.FailedPrecondition {
		b.Errorf("exec in a stopped container: %v", err)
	}
}

func execTimeout(b *Bench) {
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	id := b.StartIn(pod, pc, b.ContainerConfig("exec sleep 1000"))
	_, err := b.ExecSync(b.Context(), &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: []string{"sleep", "4321"}, Timeout: 1})
	if status.Code(err) != codes.DeadlineExceeded {
		b.Errorf("error %v, want DeadlineExceeded", err)
	}
	if got := b.Sh(id, "ps | grep -c '[s]leep 4321' || true"); got != "0\n" {
		b.Errorf("the command goes on after its timeout: %s", got)
	}
}

// dialers open a stream's address with the clients that kubectl is made of.
var dialers = map[string]func(*url.URL) (remotecommand.Executor, error){
	"spdy": func(u *url.URL) (remotecommand.Executor, error) {
		return remotecommand.NewSPDYExecutor(&rest.Config{}, "POST", u)
	},
	"websocket": func(u *url.URL) (remotecommand.Executor, error) {
		return remotecommand.NewWebSocketExecutor(&rest.Config{}, "GET", u.String())
	},
}

func (b *Bench) execURL(r *runtimeapi.ExecRequest) *url.URL {
	b.Helper()
	resp, err := b.Exec(b.Context(), r)
	if err != nil {
		b.Fatal(err)
	}
	u, err := url.Parse(resp.GetUrl())
	if err != nil {
		b.Fatal(err)
	}
	return u
}

func execStreams(b *Bench) {
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	id := b.StartIn(pod, pc, b.ContainerConfig("exec sleep 1000"))
	big := strings.Repeat("0123456789abcdef", 1<<16) // 1 MiB each way
	for name, dial := range dialers {
		ex, err := dial(b.execURL(&runtimeapi.ExecRequest{ContainerId: id, Cmd: []string{"sh", "-c", "cat; echo done >&2; exit 5"}, Stdin: true, Stdout: true, Stderr: true}))
		if err != nil {
			b.Fatal(err)
		}
		var out, errb bytes.Buffer
		err = ex.StreamWithContext(b.Context(), remotecommand.StreamOptions{Stdin: strings.NewReader(big), Stdout: &out, Stderr: &errb})
		var code utilexec.CodeExitError
		if !errors.As(err, &code) || code.Code != 5 {
			b.Errorf("%s: error %v, want code 5", name, err)
		}
		if out.String() != big || errb.String() != "done\n" {
			b.Errorf("%s: %d of %d bytes came back, stderr %q", name, out.Len(), len(big), errb.String())
		}
	}
}

func execTTY(b *Bench) {
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	id := b.StartIn(pod, pc, b.ContainerConfig("exec sleep 1000"))
	for name, dial := range dialers {
		ex, err := dial(b.execURL(&runtimeapi.ExecRequest{ContainerId: id, Cmd: []string{"sh"}, Stdin: true, Stdout: true, Tty: true}))
		if err != nil {
			b.Fatal(err)
		}
		sizes := make(sizeQueue, 1)
		sizes <- remotecommand.TerminalSize{Width: 123, Height: 45}
		in, script := io.Pipe()
		go func() { // ends when the shell has read it all, or with the stream
			fmt.Fprint(script, "until [ \"$(stty size)\" = '45 123' ]; do :; done; stty size; tty; echo $TERM; exit 6\n")
		}()
		var out bytes.Buffer
		err = ex.StreamWithContext(b.Context(), remotecommand.StreamOptions{Stdin: in, Stdout: &out, Tty: true, TerminalSizeQueue: sizes})
		_ = in.Close()
		var code utilexec.CodeExitError
		if !errors.As(err, &code) || code.Code != 6 {
			b.Errorf("%s: %v, want code 6", name, err)
		}
		if !strings.Contains(out.String(), "\r\n45 123\r\n") || !strings.Contains(out.String(), "/dev/pts/") || !strings.Contains(out.String(), "xterm") {
			b.Errorf("%s: %q", name, out.String())
		}
	}
}

type sizeQueue chan remotecommand.TerminalSize

// Next implements remotecommand.TerminalSizeQueue.
func (q sizeQueue) Next() *remotecommand.TerminalSize {
	s, ok := <-q
	if !ok {
		return nil
	}
	return &s
}

func attach(b *Bench) {
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	for name, dial := range dialers {
		id := b.StartIn(pod, pc, b.ContainerConfig("", func(c *runtimeapi.ContainerConfig) {
			c.Command, c.Stdin, c.StdinOnce = []string{"sh", "-c", "read x; echo got $x; echo e >&2"}, true, true
		}))
		resp, err := b.Attach(b.Context(), &runtimeapi.AttachRequest{ContainerId: id, Stdin: true, Stdout: true, Stderr: true})
		if err != nil {
			b.Fatal(err)
		}
		u, err := url.Parse(resp.GetUrl())
		if err != nil {
			b.Fatal(err)
		}
		ex, err := dial(u)
		if err != nil {
			b.Fatal(err)
		}
		var out, errb bytes.Buffer
		if err := ex.StreamWithContext(b.Context(), remotecommand.StreamOptions{Stdin: strings.NewReader("hello\n"), Stdout: &out, Stderr: &errb}); err != nil {
			b.Errorf("%s: %v", name, err)
		}
		if out.String() != "got hello\n" || errb.String() != "e\n" {
			b.Errorf("%s: stdout %q, stderr %q", name, out.String(), errb.String())
		}
		b.Await(id)
		if got, _ := b.contents(b.log(id)); got != "got hello\n" {
			b.Errorf("%s: the log has %q", name, got)
		}
	}
}

func execFlood(b *Bench) {
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	id := b.StartIn(pod, pc, b.ContainerConfig("exec sleep 1000"))
	r := b.ShCode(id, "head -c 100000000 /dev/zero; head -c 1000 /dev/zero >&2; exit 9")
	if n := len(r.GetStdout()); n < 15<<20 || n > 16<<20 || r.GetExitCode() != 9 {
		b.Errorf("%d bytes, code %d; want almost 16 MiB and the command's own code", n, r.GetExitCode())
	}
}

func execOrphan(b *Bench) {
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	id := b.StartIn(pod, pc, b.ContainerConfig("exec sleep 1000"))
	for name, dial := range dialers {
		ex, err := dial(b.execURL(&runtimeapi.ExecRequest{ContainerId: id, Cmd: []string{"sh", "-c", "echo up; exec sleep 9876"}, Stdout: true}))
		if err != nil {
			b.Fatal(err)
		}
		ctx, vanish := context.WithCancel(b.Context())
		gone := make(chan struct{})
		out := make(signalWriter, 1)
		go func() {
			defer close(gone)
			_ = ex.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: out})
		}()
		<-out
		vanish()
		<-gone
		b.eventually(name+": the exec'd process to end", func() bool {
			return b.Sh(id, "ps | grep -c '[s]leep 9876' || true") == "0\n"
		})
	}
}

// signalWriter tells once that something was written.
type signalWriter chan struct{}

func (w signalWriter) Write(p []byte) (int, error) {
	select {
	case w <- struct{}{}:
	default:
	}
	return len(p), nil
}

func streamOnce(b *Bench) {
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	id := b.StartIn(pod, pc, b.ContainerConfig("exec sleep 1000"))
	u := b.execURL(&runtimeapi.ExecRequest{ContainerId: id, Cmd: []string{"true"}, Stdout: true})
	for n := range 2 {
		ex, err := dialers["spdy"](u)
		if err != nil {
			b.Fatal(err)
		}
		if err := ex.StreamWithContext(b.Context(), remotecommand.StreamOptions{Stdout: io.Discard}); (err == nil) != (n == 0) {
			b.Errorf("use %d of one address: %v", n+1, err)
		}
	}
}
