package stream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/streaming/pkg/httpstream"
)

// Runtime does what the streams are for.
type Runtime interface {
	// Exec runs cmd until it ends, and gives its exit code.
	Exec(ctx context.Context, containerID string, cmd []string, s IO) (int32, error)
	Attach(ctx context.Context, containerID string, s IO) error
	// PortForward copies between conn and a port in the pod until either ends.
	PortForward(ctx context.Context, sandboxID string, port int32, conn io.ReadWriteCloser) error
}

// IO are the ends of a stream; those not asked for are nil.
type IO struct {
	Stdin          io.Reader
	Stdout, Stderr io.WriteCloser
	TTY            bool
	Resize         <-chan Size
}

// Size is that of a terminal, in characters.
type Size = remotecommand.TerminalSize

// Config says where and how to serve. Zero times mean the defaults.
type Config struct {
	// Addr is host:port to listen on; default 127.0.0.1:0.
	Addr string
	// TLS serves HTTPS; nil serves HTTP.
	TLS *tls.Config
	// Idle closes a connection on which nothing moved; default four hours.
	Idle time.Duration
	// Creation is how long a client may take to open its SPDY streams; default
	// 30 seconds.
	Creation time.Duration
	Log      *slog.Logger
}

// Server is the streaming server. Create with New, end with Close.
type Server struct {
	cfg     Config
	runtime Runtime
	tokens  tokens
	http    *http.Server
	base    string
	ctx     context.Context // ends with the server, for hijacked connections
	cancel  context.CancelFunc
	streams sync.WaitGroup // running handlers
	served  chan struct{}  // closed when the accept loop has ended
}

// New listens and serves until Close.
func New(cfg Config, rt Runtime) (*Server, error) {
	if cfg.Addr == "" {
		cfg.Addr = "127.0.0.1:0"
	}
	if cfg.Idle == 0 {
		cfg.Idle = 4 * time.Hour
	}
	if cfg.Creation == 0 {
		cfg.Creation = 30 * time.Second
	}
	ln, err := net.Listen("tcp", cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("streaming server: %w", err)
	}
	s := &Server{cfg: cfg, runtime: rt, base: "http://" + ln.Addr().String(), served: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if cfg.TLS != nil {
		s.base = "https://" + ln.Addr().String()
		ln = tls.NewListener(ln, cfg.TLS)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/exec/{token}", s.serve)
	mux.HandleFunc("/attach/{token}", s.serve)
	mux.HandleFunc("/portforward/{token}", s.serve)
	s.http = &http.Server{Handler: mux, ReadHeaderTimeout: 30 * time.Second, ErrorLog: slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug)}
	// Ends when Close closes the listener.
	go func() {
		defer close(s.served)
		if err := s.http.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			cfg.Log.Error("streaming server ended", "err", err)
		}
	}()
	return s, nil
}

// Close ends every stream and waits for its handler.
func (s *Server) Close() error {
	s.cancel()
	err := s.http.Close()
	<-s.served
	s.streams.Wait()
	return err
}

// URL gives the address at which req, an ExecRequest, AttachRequest or
// PortForwardRequest that was found valid, can be opened once.
func (s *Server) URL(req any) (string, error) {
	var kind string
	switch req.(type) {
	case *runtimeapi.ExecRequest:
		kind = "exec"
	case *runtimeapi.AttachRequest:
		kind = "attach"
	case *runtimeapi.PortForwardRequest:
		kind = "portforward"
	default:
		return "", fmt.Errorf("no stream for %T", req)
	}
	token, err := s.tokens.issue(req)
	if err != nil {
		return "", err
	}
	return s.base + "/" + kind + "/" + token, nil
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodPost {
		http.Error(w, "streams are opened by GET or POST", http.StatusMethodNotAllowed)
		return
	}
	req, ok := s.tokens.redeem(r.PathValue("token"))
	if !ok {
		http.NotFound(w, r)
		return
	}
	s.streams.Add(1)
	defer s.streams.Done()
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	watched := &watchedWriter{ResponseWriter: w, ctx: ctx, gone: cancel}
	r = r.WithContext(ctx)
	switch req := req.(type) {
	case *runtimeapi.ExecRequest:
		o := remotecommand.Options{Stdin: req.GetStdin(), Stdout: req.GetStdout(), Stderr: req.GetStderr(), TTY: req.GetTty()}
		s.command(watched, r, o, func(ctx context.Context, io IO) error {
			code, err := s.runtime.Exec(ctx, req.GetContainerId(), req.GetCmd(), io)
			if err == nil && code != 0 {
				return exitError(code)
			}
			return err
		})
	case *runtimeapi.AttachRequest:
		o := remotecommand.Options{Stdin: req.GetStdin(), Stdout: req.GetStdout(), Stderr: req.GetStderr(), TTY: req.GetTty()}
		s.command(watched, r, o, func(ctx context.Context, io IO) error {
			return s.runtime.Attach(ctx, req.GetContainerId(), io)
		})
	case *runtimeapi.PortForwardRequest:
		portforward.ServePortForward(watched, r, forwarder{ctx, s.runtime}, req.GetPodSandboxId(), "",
			&portforward.V4Options{Ports: req.GetPort()}, s.cfg.Idle, s.cfg.Creation, portforward.SupportedProtocols)
	}
}

// forwarder carries the connection's context to a library that has none for
// WebSockets.
type forwarder struct {
	ctx     context.Context
	runtime Runtime
}

func (f forwarder) PortForward(_ context.Context, sandboxID, _ string, port int32, conn io.ReadWriteCloser) error {
	err := f.runtime.PortForward(f.ctx, sandboxID, port, conn)
	if s, ok := conn.(httpstream.Stream); ok && err != nil {
		// The library resets the data stream when it is told of an error, and calls
		// us before it has accepted that stream: the client would see a refused
		// stream and never ask for the error. A write, even of nothing, waits until
		// the stream is accepted.
		_, _ = s.Write(nil)
	}
	return err
}
