package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	utilexec "k8s.io/client-go/util/exec"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// echo is a runtime whose commands are functions of the test.
type echo struct {
	exec    func(ctx context.Context, s IO) (int32, error)
	forward func(ctx context.Context, conn io.ReadWriteCloser) error
}

func (e echo) Exec(ctx context.Context, _ string, _ []string, s IO) (int32, error) {
	return e.exec(ctx, s)
}
func (e echo) Attach(ctx context.Context, _ string, s IO) error {
	_, err := e.exec(ctx, s)
	return err
}
func (e echo) PortForward(ctx context.Context, _ string, _ int32, c io.ReadWriteCloser) error {
	return e.forward(ctx, c)
}

func serve(t *testing.T, rt Runtime) *Server {
	t.Helper()
	s, err := New(Config{Log: slog.New(slog.DiscardHandler)}, rt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func execURL(t *testing.T, s *Server, r any) *url.URL {
	t.Helper()
	text, err := s.URL(r)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

type dialer func(*url.URL) (remotecommand.Executor, error)

var dialers = map[string]dialer{
	"spdy": func(u *url.URL) (remotecommand.Executor, error) {
		return remotecommand.NewSPDYExecutor(&rest.Config{}, "POST", u)
	},
	"websocket": func(u *url.URL) (remotecommand.Executor, error) {
		return remotecommand.NewWebSocketExecutor(&rest.Config{}, "GET", u.String())
	},
}

func eachTransport(t *testing.T, f func(t *testing.T, dial dialer)) {
	for name, dial := range dialers {
		t.Run(name, func(t *testing.T) { f(t, dial) })
	}
}

func TestExecCopiesStreamsAndExitCode(t *testing.T) {
	eachTransport(t, func(t *testing.T, dial dialer) {
		s := serve(t, echo{exec: func(_ context.Context, s IO) (int32, error) {
			// Reading to the end proves that closing stdin reaches us (v5).
			in, err := io.ReadAll(s.Stdin)
			if err != nil {
				return 0, err
			}
			fmt.Fprintf(s.Stdout, "out:%s", in)
			fmt.Fprint(s.Stderr, "err")
			return 7, nil
		}})
		ex, err := dial(execURL(t, s, &runtimeapi.ExecRequest{ContainerId: "c", Cmd: []string{"x"}, Stdin: true, Stdout: true, Stderr: true}))
		if err != nil {
			t.Fatal(err)
		}
		var out, errb bytes.Buffer
		err = ex.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: strings.NewReader("hello"), Stdout: &out, Stderr: &errb})
		var code utilexec.CodeExitError
		if !errors.As(err, &code) || code.Code != 7 {
			t.Errorf("error %v, want exit code 7", err)
		}
		if out.String() != "out:hello" || errb.String() != "err" {
			t.Errorf("stdout %q, stderr %q", out.String(), errb.String())
		}
	})
}

func TestExecErrorIsTold(t *testing.T) {
	eachTransport(t, func(t *testing.T, dial dialer) {
		s := serve(t, echo{exec: func(context.Context, IO) (int32, error) { return 0, errors.New("no such file") }})
		ex, err := dial(execURL(t, s, &runtimeapi.ExecRequest{ContainerId: "c", Stdout: true}))
		if err != nil {
			t.Fatal(err)
		}
		err = ex.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdout: io.Discard})
		if err == nil || !strings.Contains(err.Error(), "no such file") {
			t.Errorf("error %v does not tell what went wrong", err)
		}
	})
}

type sizeQueue chan remotecommand.TerminalSize

func (q sizeQueue) Next() *remotecommand.TerminalSize {
	s, ok := <-q
	if !ok {
		return nil
	}
	return &s
}

func TestResizeReachesTheRuntime(t *testing.T) {
	eachTransport(t, func(t *testing.T, dial dialer) {
		s := serve(t, echo{exec: func(_ context.Context, s IO) (int32, error) {
			size := <-s.Resize
			fmt.Fprintf(s.Stdout, "%dx%d", size.Width, size.Height)
			return 0, nil
		}})
		ex, err := dial(execURL(t, s, &runtimeapi.ExecRequest{ContainerId: "c", Stdin: true, Stdout: true, Tty: true}))
		if err != nil {
			t.Fatal(err)
		}
		q := make(sizeQueue, 1)
		q <- remotecommand.TerminalSize{Width: 120, Height: 40}
		var out bytes.Buffer
		stdin, keep := io.Pipe()
		defer keep.Close()
		if err := ex.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: stdin, Stdout: &out, Tty: true, TerminalSizeQueue: q}); err != nil {
			t.Fatal(err)
		}
		if out.String() != "120x40" {
			t.Errorf("the runtime saw %q", out.String())
		}
	})
}

// TestHostile_ST5: what a vanished client started is ended at once, although it
// reads no stdin.
func TestHostile_ST5(t *testing.T) {
	eachTransport(t, func(t *testing.T, dial dialer) {
		started, ended := make(chan struct{}), make(chan struct{})
		s := serve(t, echo{exec: func(ctx context.Context, _ IO) (int32, error) {
			close(started)
			<-ctx.Done()
			close(ended)
			return 0, ctx.Err()
		}})
		ex, err := dial(execURL(t, s, &runtimeapi.ExecRequest{ContainerId: "c", Stdout: true}))
		if err != nil {
			t.Fatal(err)
		}
		ctx, vanish := context.WithCancel(t.Context())
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			_ = ex.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: io.Discard})
		}()
		<-started
		vanish()
		<-gone
		<-ended
	})
}

// TestHostile_ST4: a client that never reads stops the writer, and nothing piles
// up in between.
func TestHostile_ST4(t *testing.T) {
	eachTransport(t, func(t *testing.T, dial dialer) {
		const limit = 64 << 20 // far above all socket buffers on the way
		stuck := make(chan struct{})
		wrote := make(chan int, 1)
		s := serve(t, echo{exec: func(ctx context.Context, s IO) (int32, error) {
			stop := time.AfterFunc(2*time.Second, func() { close(stuck) })
			defer stop.Stop()
			n, chunk := 0, make([]byte, 64<<10)
			for n < limit {
				m, err := s.Stdout.Write(chunk)
				n += m
				if err != nil {
					break
				}
			}
			wrote <- n
			return 0, ctx.Err()
		}})
		ex, err := dial(execURL(t, s, &runtimeapi.ExecRequest{ContainerId: "c", Stdout: true}))
		if err != nil {
			t.Fatal(err)
		}
		ctx, vanish := context.WithCancel(t.Context())
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			_ = ex.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: blocked{ctx}})
		}()
		select {
		case <-stuck:
		case n := <-wrote:
			t.Fatalf("%d bytes went to a client that reads none", n)
		}
		vanish()
		<-gone
		if n := <-wrote; n >= limit {
			t.Errorf("%d bytes were taken for a client that reads none", n)
		}
	})
}

// blocked is a client's terminal that takes nothing.
type blocked struct{ ctx context.Context }

func (b blocked) Write([]byte) (int, error) { <-b.ctx.Done(); return 0, b.ctx.Err() }

// TestHostile_ST2: a failed upgrade leaves no connection that could be used on.
func TestHostile_ST2(t *testing.T) {
	s := serve(t, echo{exec: func(context.Context, IO) (int32, error) { return 0, nil }})
	u := execURL(t, s, &runtimeapi.ExecRequest{ContainerId: "c", Stdout: true})
	resp, err := http.Post(u.String(), "", nil) // no upgrade header
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode < 400 || !resp.Close {
		t.Errorf("status %d, connection closed %v; want an error and a closed connection", resp.StatusCode, resp.Close)
	}
}

func TestWrongTokensAndMethods(t *testing.T) {
	s := serve(t, echo{exec: func(context.Context, IO) (int32, error) { return 0, nil }})
	for path, want := range map[string]int{"/exec/" + strings.Repeat("0", 32): 404, "/exec/": 404, "/attach/x": 404, "/portforward/..": 404, "/": 404} {
		resp, err := http.Get(s.base + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("GET %s: %d, want %d", path, resp.StatusCode, want)
		}
	}
	u := execURL(t, s, &runtimeapi.ExecRequest{ContainerId: "c", Stdout: true})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, u.String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("DELETE: %d", resp.StatusCode)
	}
}

// TestHostile_ST6: garbage and oversized frames end the connection and nothing
// else; an unknown subprotocol is refused.
func TestHostile_ST6(t *testing.T) {
	s := serve(t, echo{exec: func(ctx context.Context, s IO) (int32, error) {
		_, _ = io.Copy(io.Discard, s.Stdin)
		return 0, ctx.Err()
	}})
	handshake := func(protocol string) (net.Conn, string) {
		u := execURL(t, s, &runtimeapi.ExecRequest{ContainerId: "c", Stdin: true, Stdout: true})
		c, err := net.Dial("tcp", u.Host)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\nOrigin: http://x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: %s\r\n\r\n", u.Path, protocol)
		line := make([]byte, 12)
		if _, err := io.ReadFull(c, line); err != nil {
			t.Fatal(err)
		}
		return c, string(line)
	}
	if _, line := handshake("v9.nothing"); !strings.HasSuffix(line, "403") && !strings.HasSuffix(line, "400") {
		t.Errorf("unknown subprotocol: %q", line)
	}
	for name, frame := range map[string][]byte{
		"garbage":  []byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
		"oversize": {0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 1, 2, 3},
		"empty":    {0x82, 0x80, 0, 0, 0, 0},
		"channel":  {0x82, 0x82, 0, 0, 0, 0, 99, 1},
	} {
		t.Run(name, func(t *testing.T) {
			c, line := handshake("v5.channel.k8s.io")
			if !strings.HasSuffix(line, "101") {
				t.Fatalf("no upgrade: %q", line)
			}
			if _, err := c.Write(frame); err != nil {
				t.Fatal(err)
			}
			_ = c.(*net.TCPConn).CloseWrite()
			if _, err := io.Copy(io.Discard, c); err != nil && !errors.Is(err, io.EOF) {
				t.Log(err) // a reset is as good an end
			}
		})
	}
	// The server answers on.
	if _, line := handshake("v4.channel.k8s.io"); !strings.HasSuffix(line, "101") {
		t.Errorf("after garbage: %q", line)
	}
}

// TestCloseEndsStreams: Close does not wait for clients.
func TestCloseEndsStreams(t *testing.T) {
	started := make(chan struct{})
	s, err := New(Config{Log: slog.New(slog.DiscardHandler)}, echo{exec: func(ctx context.Context, _ IO) (int32, error) {
		close(started)
		<-ctx.Done()
		return 0, ctx.Err()
	}})
	if err != nil {
		t.Fatal(err)
	}
	ex, err := dialers["websocket"](execURL(t, s, &runtimeapi.ExecRequest{ContainerId: "c", Stdout: true}))
	if err != nil {
		t.Fatal(err)
	}
	gone := make(chan error)
	go func() {
		gone <- ex.StreamWithContext(context.Background(), remotecommand.StreamOptions{Stdout: io.Discard})
	}()
	<-started
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-gone; err == nil {
		t.Error("the client was not told")
	}
}
