package server

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/proxy"
	translator "k8s.io/apiserver/pkg/util/proxy"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/streaming/pkg/httpstream/wsstream"

	"keelson.dev/keelson/kubelet/criclient"
	"keelson.dev/keelson/kubelet/observe"
	"keelson.dev/keelson/kubelet/plan"
)

// streams are the channels that a client asked for.
type streams struct{ stdin, stdout, stderr, tty bool }

// asked reads them from a query, in the kubelet's words (input, output, error) or the API's.
func asked(q url.Values) (streams, error) {
	on := func(names ...string) bool {
		for _, n := range names {
			if v := q.Get(n); v == "1" || v == "true" {
				return true
			}
		}
		return false
	}
	s := streams{on("input", "stdin"), on("output", "stdout"), on("error", "stderr"), on("tty")}
	if s.tty {
		s.stderr = false // a terminal has one output
	}
	if !s.stdin && !s.stdout && !s.stderr {
		return s, errors.New("you must specify at least 1 of stdin, stdout, stderr")
	}
	return s, nil
}

// target finds the running container that a path names, or answers why not.
func (s *Server) target(w http.ResponseWriter, r *http.Request) (c observe.Container, ok bool) {
	pod := s.pod(w, r)
	if pod == nil {
		return c, false
	}
	name := r.PathValue("container")
	c, err := s.node.Container(r.Context(), pod, name, false)
	if err == nil && c.State != observe.Running {
		err = fmt.Errorf("container %q is not running", name)
	}
	if err != nil {
		http.Error(w, fmt.Sprintf("unable to upgrade connection: %s", err), statusOf(pod, name))
		return c, false
	}
	return c, true
}

func statusOf(pod *corev1.Pod, container string) int {
	if plan.Find(pod, container) == nil {
		return http.StatusNotFound
	}
	return http.StatusBadRequest
}

func (s *Server) exec(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	want, err := asked(q)
	if err == nil && len(q["command"]) == 0 {
		err = errors.New("you must specify a command")
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c, ok := s.target(w, r)
	if !ok {
		return
	}
	res, err := s.cfg.CRI.Runtime.Exec(r.Context(), &runtimeapi.ExecRequest{
		ContainerId: c.ID, Cmd: q["command"], Tty: want.tty, Stdin: want.stdin, Stdout: want.stdout, Stderr: want.stderr,
	})
	s.pass(w, r, res.GetUrl(), err, want.translated)
}

func (s *Server) attach(w http.ResponseWriter, r *http.Request) {
	want, err := asked(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c, ok := s.target(w, r)
	if !ok {
		return
	}
	res, err := s.cfg.CRI.Runtime.Attach(r.Context(), &runtimeapi.AttachRequest{
		ContainerId: c.ID, Tty: want.tty, Stdin: want.stdin, Stdout: want.stdout, Stderr: want.stderr,
	})
	s.pass(w, r, res.GetUrl(), err, want.translated)
}

func (s *Server) portForward(w http.ResponseWriter, r *http.Request) {
	pod := s.pod(w, r)
	if pod == nil {
		return
	}
	var ports []int32
	q := r.URL.Query()
	for _, text := range append(q["port"], q["ports"]...) {
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil || n == 0 {
			http.Error(w, fmt.Sprintf("invalid port %q", text), http.StatusBadRequest)
			return
		}
		ports = append(ports, int32(n))
	}
	id, err := s.node.Sandbox(r.Context(), pod)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	res, err := s.cfg.CRI.Runtime.PortForward(r.Context(), &runtimeapi.PortForwardRequest{PodSandboxId: id, Port: ports})
	s.pass(w, r, res.GetUrl(), err, tunnelled)
}

// pass hands the client's upgrade on to the runtime's streaming server. A redirect from there is not followed and a
// connection whose upgrade failed is closed, not used again (HOSTILE ST2, ST3): the library sees to both.
//
// The runtime speaks SPDY, a client that came straight through the API server may speak WebSocket: wrap is between the two.
func (s *Server) pass(w http.ResponseWriter, r *http.Request, to string, err error, wrap wrapping) {
	if err != nil {
		http.Error(w, criclient.Message(err), http.StatusInternalServerError)
		return
	}
	u, err := url.Parse(to)
	if err != nil || u.Host == "" {
		s.cfg.Log.Error("the runtime gave no usable stream address", "url", to, "err", err)
		http.Error(w, "the container runtime gave no usable stream address", http.StatusInternalServerError)
		return
	}
	wrap(r, u, proxy.NewUpgradeAwareHandler(u, nil, false, true, responder{s})).ServeHTTP(w, r)
}

// wrapping makes of what passes a request on to the runtime's URL what the request needs.
type wrapping func(*http.Request, *url.URL, http.Handler) http.Handler

// translated turns a WebSocket's channels into the streams of exec and attach.
func (s streams) translated(r *http.Request, u *url.URL, pass http.Handler) http.Handler {
	if !wsstream.IsWebSocketRequestWithStreamCloseProtocol(r) {
		return pass
	}
	return translator.NewStreamTranslatorHandler(u, nil, 0, translator.Options{Stdin: s.stdin, Stdout: s.stdout, Stderr: s.stderr, Tty: s.tty})
}

// tunnelled takes port-forward's SPDY out of the WebSocket that it came through.
func tunnelled(r *http.Request, _ *url.URL, pass http.Handler) http.Handler {
	if !wsstream.IsWebSocketRequestWithTunnelingProtocol(r) {
		return pass
	}
	return translator.NewTunnelingHandler(pass)
}

// responder answers a failed upgrade.
type responder struct{ s *Server }

// Error implements proxy.ErrorResponder.
func (p responder) Error(w http.ResponseWriter, r *http.Request, err error) {
	p.s.cfg.Log.Warn("pass stream to the runtime", "path", r.URL.Path, "err", err)
	http.Error(w, err.Error(), http.StatusInternalServerError)
}

// runTimeout bounds a command started by /run.
const runTimeout = 10 * time.Minute

// run runs a command and answers with its output.
func (s *Server) run(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	cmd := q["command"]
	if len(cmd) == 0 && q.Get("cmd") != "" {
		cmd = []string{q.Get("cmd")}
	}
	if len(cmd) == 0 {
		http.Error(w, "you must specify a command", http.StatusBadRequest)
		return
	}
	c, ok := s.target(w, r)
	if !ok {
		return
	}
	res, err := s.cfg.CRI.Runtime.ExecSync(r.Context(), &runtimeapi.ExecSyncRequest{
		ContainerId: c.ID, Cmd: cmd, Timeout: int64(runTimeout / time.Second),
	})
	if err != nil {
		http.Error(w, criclient.Message(err), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	if res.GetExitCode() != 0 {
		w.WriteHeader(http.StatusInternalServerError)
	}
	_, _ = w.Write(append(res.GetStdout(), res.GetStderr()...)) // the client may be gone: nobody to tell
}
