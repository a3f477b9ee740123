package server

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"keelson.dev/keelson/kubelet/criclient"
	"keelson.dev/keelson/kubelet/observe"
)

// Node is what the server asks the kubelet.
type Node interface {
	// Pods that this node has, with their newest statuses.
	Pods() []*corev1.Pod
	// Pod by name, nil if there is none.
	Pod(namespace, name string) *corev1.Pod
	// Container returns the newest instance, or the one before it. The error says what the container waits for.
	Container(ctx context.Context, pod *corev1.Pod, name string, previous bool) (observe.Container, error)
	// Sandbox returns the ID of the pod's ready sandbox.
	Sandbox(ctx context.Context, pod *corev1.Pod) (string, error)
	// Ended is closed when a container has ended; at once if it has. The function frees the watch.
	Ended(pod types.UID, container string) (<-chan struct{}, func())
}

// Config of a Server; all required.
type Config struct {
	Node    string // its name
	Addr    string
	TLS     *tls.Config
	LogRoot string // directory of pod logs
	// HostLogs is the directory that /logs shows, /var/log; "" for none.
	HostLogs string
	Authn    authenticator.Request
	Authz    authorizer.Authorizer
	// Extra are further pages by path: metrics and statistics.
	Extra map[string]http.Handler
	CRI   *criclient.Client
	Log   *slog.Logger
}

// Server is the kubelet's HTTPS API.
type Server struct {
	cfg  Config
	node Node
}

// New makes a Server.
func New(cfg Config, node Node) *Server { return &Server{cfg: cfg, node: node} }

// Handler is the whole API with authentication and authorization.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, p := range []string{"/healthz", "/healthz/ping", "/healthz/syncloop", "/healthz/log"} {
		mux.HandleFunc(p, Healthy)
	}
	mux.HandleFunc("GET /pods", s.pods)
	mux.HandleFunc("GET /pods/{$}", s.pods)
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", s.logs)
	for _, verb := range []string{"exec", "attach"} {
		h := s.exec
		if verb == "attach" {
			h = s.attach
		}
		mux.HandleFunc("/"+verb+"/{namespace}/{pod}/{container}", h)
		mux.HandleFunc("/"+verb+"/{namespace}/{pod}/{uid}/{container}", h)
	}
	mux.HandleFunc("/portForward/{namespace}/{pod}", s.portForward)
	mux.HandleFunc("/portForward/{namespace}/{pod}/{uid}", s.portForward)
	mux.HandleFunc("POST /run/{namespace}/{pod}/{container}", s.run)
	mux.HandleFunc("POST /run/{namespace}/{pod}/{uid}/{container}", s.run)
	for path, h := range s.cfg.Extra {
		mux.Handle("GET "+path, h)
	}
	if s.cfg.HostLogs != "" {
		if root, err := os.OpenRoot(s.cfg.HostLogs); err == nil { // links that lead out of it are refused
			mux.Handle("GET /logs/", http.StripPrefix("/logs/", http.FileServerFS(root.FS())))
		}
	}
	return s.guard(mux)
}

// Healthy says that the process answers.
func Healthy(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") }

// Listen takes the address; callers wait from now on until Run serves them.
func (s *Server) Listen(ctx context.Context) (net.Listener, error) {
	lis, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("listen for the kubelet API on %s: %w", s.cfg.Addr, err)
	}
	return lis, nil
}

// Run serves on Listen's listener, which it closes, until ctx ends; streams that are open then are cut.
func (s *Server) Run(ctx context.Context, lis net.Listener) error {
	conf := s.cfg.TLS.Clone()
	conf.ClientAuth = tls.RequestClientCert // checked by the authenticator, which also takes tokens
	conf.MinVersion = max(conf.MinVersion, tls.VersionTLS12)
	return Serve(ctx, &http.Server{
		Handler: s.Handler(), ReadHeaderTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 64 << 10, ErrorLog: slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return ctx },
	}, tls.NewListener(lis, conf))
}

// Serve runs an HTTP server on a listener until ctx ends.
func Serve(ctx context.Context, srv *http.Server, lis net.Listener) error {
	stopped := context.AfterFunc(ctx, func() { srv.Close() })
	defer stopped()
	if err := srv.Serve(lis); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (s *Server) pods(w http.ResponseWriter, _ *http.Request) {
	list := corev1.PodList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"}, Items: []corev1.Pod{}}
	for _, p := range s.node.Pods() {
		list.Items = append(list.Items, *p)
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(list); err != nil {
		s.cfg.Log.Debug("write pod list", "err", err)
	}
}

// pod finds the pod that a path names, or answers that there is none.
func (s *Server) pod(w http.ResponseWriter, r *http.Request) *corev1.Pod {
	p := s.node.Pod(r.PathValue("namespace"), r.PathValue("pod"))
	if uid := r.PathValue("uid"); p == nil || uid != "" && string(p.UID) != uid {
		http.Error(w, fmt.Sprintf("pod %q not found", r.PathValue("pod")+"_"+r.PathValue("namespace")), http.StatusNotFound)
		return nil
	}
	return p
}
