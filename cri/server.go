package cri

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/cri/nri"
	"keelson.dev/keelson/cri/podstore"
	"keelson.dev/keelson/cri/stream"
	"keelson.dev/keelson/cri/translate"
)

// maxMessage is the largest message either side sends: the kubelet's limit.
const maxMessage = 16 << 20

// Config is what the server needs to know of the machine and of its operator.
type Config struct {
	// RunDir holds records and the pods' files; a tmpfs, so that it is empty
	// after a boot.
	RunDir string
	// Version is the runtime's version, "1.37.2+keelson1" in form.
	Version string
	// Systemd selects the systemd cgroup driver; else cgroupfs.
	Systemd bool
	// CgroupParent holds the pods that name no parent; default /keelson.
	CgroupParent string
	// Handlers are the RuntimeClass handlers served beside "".
	Handlers []string
	// StreamAddr is where exec, attach and port-forward are served; default a
	// free port of 127.0.0.1. StreamTLS makes that HTTPS.
	StreamAddr string
	StreamTLS  *tls.Config
	// CDIDirs hold CDI specs; default /etc/cdi and /var/run/cdi.
	CDIDirs []string
	// IgnoreSELinux accepts SELinux options where SELinux is off, without effect.
	IgnoreSELinux bool
	// SELinux confines every container where SELinux is on, not only those that
	// ask for it.
	SELinux bool
	// NRI says where node plugins connect; its zero value is nowhere.
	NRI nri.Config
	Log *slog.Logger
}

// Server is both CRI services. Create with New, run with Serve, end with Close.
type Server struct {
	runtimeapi.UnimplementedRuntimeServiceServer
	runtimeapi.UnimplementedImageServiceServer

	cfg        Config
	deps       Deps
	log        *slog.Logger
	host       translate.Host
	sandboxes  *podstore.Table[*podstore.Sandbox]
	containers *podstore.Table[*podstore.Container]
	gates      gates
	events     hub
	stream     *stream.Server
	nri        *nri.Hub // nil without
	cpu        cpuRates
	appArmor   appArmor
	imageRoot  string          // where images and writable layers are
	life       context.Context // ends with stop: of the event reader and of creations without a client
	stop       context.CancelFunc
	readers    sync.WaitGroup // and those creations
}

// New opens the records, takes back what was left half made, and starts the
// streaming server. The caller ends it with Close.
func New(cfg Config, deps Deps) (*Server, error) {
	if cfg.CgroupParent == "" {
		cfg.CgroupParent = "/keelson"
	}
	if len(cfg.CDIDirs) == 0 {
		cfg.CDIDirs = []string{"/etc/cdi", "/var/run/cdi"}
	}
	s := &Server{cfg: cfg, deps: deps, log: cfg.Log, appArmor: appArmor{log: cfg.Log}}
	var err error
	if s.host, err = hostFacts(cfg.Systemd, cfg.IgnoreSELinux); err != nil {
		return nil, err
	}
	used, err := deps.Images.Usage()
	if err != nil {
		return nil, fmt.Errorf("look at the image store: %w", err)
	}
	s.imageRoot = used.Path
	if err := os.MkdirAll(s.podDir(""), 0o700); err != nil {
		return nil, fmt.Errorf("cri state: %w", err)
	}
	var serr, cerr error
	s.sandboxes, serr = podstore.Open[*podstore.Sandbox](filepath.Join(cfg.RunDir, "sandboxes"))
	s.containers, cerr = podstore.Open[*podstore.Container](filepath.Join(cfg.RunDir, "containers"))
	if s.sandboxes == nil || s.containers == nil {
		return nil, errors.Join(serr, cerr)
	}
	if err := errors.Join(serr, cerr); err != nil {
		s.log.Error("some records could not be read and are set aside", "err", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	s.life, s.stop = ctx, stop
	// Subscribed before anything is looked at, so that no change falls between.
	changes := deps.Containers.Events(ctx)
	s.recover(ctx)
	if err := s.openNRI(); err != nil {
		stop()
		return nil, err
	}
	s.stream, err = stream.New(stream.Config{Addr: cfg.StreamAddr, TLS: cfg.StreamTLS, Log: s.log}, streamer{s})
	if err != nil {
		s.nri.Close()
		stop()
		return nil, err
	}
	// Ends when Close cancels ctx.
	s.readers.Go(func() { s.follow(ctx, changes) })
	return s, nil
}

// Close ends streams and events. Pods and containers go on.
func (s *Server) Close() error {
	s.stop()
	s.events.close()
	s.nri.Close()
	err := s.stream.Close()
	s.readers.Wait()
	return err
}

// Listen makes the CRI socket, mode 0660, root's. A socket left by a dead server
// is replaced; one that a live server answers on is an error.
func Listen(path string) (net.Listener, error) {
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		_ = c.Close()
		return nil, fmt.Errorf("listen on %s: another server answers there; stop it or choose another socket", path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("replace the old socket: %w", err)
	}
	// The socket appears under its name only with its final mode, since a
	// connection made in between would pass.
	tmp := fmt.Sprintf("%s.%d", path, os.Getpid())
	_ = os.Remove(tmp)
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	ln.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(tmp, 0o660), os.Rename(tmp, path)); err != nil {
		_ = ln.Close()
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return ln, nil
}

// Serve answers on ln until ctx ends or ln fails. Calls under way get a moment
// to finish; those that do not are cancelled and roll back.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	g := grpc.NewServer(
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage),
		grpc.UnaryInterceptor(s.unary), grpc.StreamInterceptor(s.streaming),
	)
	runtimeapi.RegisterRuntimeServiceServer(g, s)
	runtimeapi.RegisterImageServiceServer(g, s)
	failed := make(chan error, 1)
	// Ends when g is stopped, below.
	go func() { failed <- g.Serve(ln) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	s.events.close() // event streams end only so
	graceful := make(chan struct{})
	go func() { g.GracefulStop(); close(graceful) }()
	select {
	case <-graceful:
	case <-time.After(5 * time.Second):
		g.Stop()
		<-graceful
	}
	return <-failed
}

func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
	defer s.caught(info.FullMethod, &err)
	start := time.Now()
	resp, err = next(ctx, req)
	err = toStatus(err)
	s.logged(info.FullMethod, start, err)
	return resp, err
}

func (s *Server) streaming(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	defer s.caught(info.FullMethod, &err)
	return toStatus(next(srv, ss))
}

// caught turns a panic into an error of the one call: a bug in one RPC must not
// take the other pods' runtime away.
func (s *Server) caught(method string, err *error) {
	if p := recover(); p != nil {
		s.log.Error("panic in a CRI call", "method", method, "panic", p, "stack", string(debug.Stack()))
		*err = status.Errorf(codes.Internal, "%s: internal error: %v", method, p)
	}
}

func (s *Server) logged(method string, start time.Time, err error) {
	if code := status.Code(err); err == nil || code == codes.NotFound || code == codes.Canceled {
		s.log.Debug("cri", "method", method, "took", time.Since(start), "code", code) // what callers ask for on purpose
		return
	}
	s.log.Info("cri call failed", "method", method, "took", time.Since(start), "code", status.Code(err), "err", err)
}

func (s *Server) podDir(id string) string { return filepath.Join(s.cfg.RunDir, "pods", id) }
