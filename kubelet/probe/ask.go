package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/kubelet/act"
	"keelson.dev/keelson/kubelet/criclient"
)

// maxAnswer is how much of an answer is read, in bytes.
const maxAnswer = 10 << 10

// userAgent names us to the probed.
const userAgent = "kube-probe/1.37"

// exec runs a command in the container. The runtime kills it, and what it forked, when its timeout is over (PS14).
func (w *worker) exec(ctx context.Context, cmd []string, limit time.Duration) (result, string) {
	argv := make([]string, len(cmd))
	for i, s := range cmd {
		env := map[string]string{}
		for _, e := range w.spec.Env {
			if e.ValueFrom == nil {
				env[e.Name] = e.Value
			}
		}
		argv[i] = act.Expand(s, env)
	}
	// The call gets longer than the command: the answer that it was killed is an answer.
	call, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit+30*time.Second)
	defer cancel()
	res, err := w.m.cfg.CRI.Runtime.ExecSync(call, &runtimeapi.ExecSyncRequest{
		ContainerId: w.con.ID, Cmd: argv, Timeout: int64(limit / time.Second),
	})
	switch {
	case status.Code(err) == codes.DeadlineExceeded, errors.Is(err, context.DeadlineExceeded):
		return failure, fmt.Sprintf("command timed out: %q timed out after %s", cmd, limit)
	case err != nil:
		return unclear, criclient.Message(err)
	case res.GetExitCode() != 0:
		out := append(res.GetStdout(), res.GetStderr()...)
		return failure, string(out[:min(len(out), maxAnswer)])
	}
	return success, ""
}

// client fetches without keeping connections and without checking certificates, which for a pod's own certificate
// would prove nothing (documented for probes).
func (w *worker) client() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext:       w.dialer().DialContext,
			TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
			DisableKeepAlives: true, DisableCompression: true, Proxy: nil,
			MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(next *http.Request, via []*http.Request) error {
			if next.URL.Hostname() != via[0].URL.Hostname() || len(via) >= 10 {
				return http.ErrUseLastResponse
			}
			return nil
		},
	}
}

func (w *worker) http(ctx context.Context, get *corev1.HTTPGetAction) (result, string) {
	host, port, err := w.address(get.Host, get.Port)
	if err != nil {
		return unclear, err.Error()
	}
	u, err := url.Parse(get.Path)
	if err != nil {
		u = &url.URL{Path: get.Path}
	}
	u.Scheme, u.Host = "http", net.JoinHostPort(host, port)
	if get.Scheme == corev1.URISchemeHTTPS {
		u.Scheme = "https"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return unclear, err.Error()
	}
	headers(req, get.HTTPHeaders)
	c := w.client()
	defer c.CloseIdleConnections()
	res, err := c.Do(req)
	if err != nil {
		return failure, err.Error()
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return failure, err.Error()
	}
	if res.StatusCode >= 200 && res.StatusCode < 400 {
		if res.StatusCode >= 300 {
			w.m.cfg.Events.ContainerEvent(w.pod, w.spec.Name, corev1.EventTypeWarning, "ProbeWarning",
				"%s probe warning: Probe terminated redirects, Response body: %s", w.kind, strings.ToValidUTF8(string(body), "\uFFFD"))
		}
		return success, ""
	}
	return failure, fmt.Sprintf("HTTP probe failed with statuscode: %d", res.StatusCode)
}

func headers(req *http.Request, list []corev1.HTTPHeader) {
	req.Header.Set("User-Agent", userAgent)
	req.Header.Set("Accept", "*/*")
	own := map[string]bool{}
	for _, h := range list {
		key := http.CanonicalHeaderKey(h.Name)
		switch {
		case key == "Host":
			req.Host = h.Value
		case !own[key]:
			own[key] = true
			req.Header.Set(key, h.Value)
		default:
			req.Header.Add(key, h.Value)
		}
	}
	for _, k := range []string{"User-Agent", "Accept"} {
		if req.Header.Get(k) == "" { // an empty value asks for none at all
			req.Header[k] = nil
		}
	}
}

func (w *worker) tcp(ctx context.Context, sock *corev1.TCPSocketAction) (result, string) {
	host, port, err := w.address(sock.Host, sock.Port)
	if err != nil {
		return unclear, err.Error()
	}
	conn, err := w.dialer().DialContext(ctx, "tcp", net.JoinHostPort(host, port))
	if err != nil {
		return failure, err.Error()
	}
	conn.Close()
	return success, ""
}

// grpc asks the standard health service.
func (w *worker) grpc(ctx context.Context, g *corev1.GRPCAction) (result, string) {
	host, port, err := w.address("", intstr.FromInt32(g.Port))
	if err != nil {
		return unclear, err.Error()
	}
	addr := net.JoinHostPort(host, port)
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUserAgent(userAgent), grpc.WithDisableServiceConfig(), grpc.WithNoProxy(),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			return w.dialer().DialContext(ctx, "tcp", addr)
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)))
	if err != nil {
		return failure, err.Error()
	}
	defer conn.Close()
	service := ""
	if g.Service != nil {
		service = *g.Service
	}
	ctx = metadata.NewOutgoingContext(ctx, metadata.MD{})
	res, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: service})
	switch {
	case status.Code(err) == codes.Unimplemented:
		return failure, "this server does not implement the grpc health protocol (grpc.health.v1.Health)"
	case status.Code(err) == codes.DeadlineExceeded, status.Code(err) == codes.Unavailable:
		return failure, fmt.Sprintf("timeout: failed to connect service %q within the probe's timeout: %s", addr, criclient.Message(err))
	case err != nil:
		return failure, fmt.Sprintf("error: health rpc probe failed: %s", criclient.Message(err))
	case res.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING:
		return failure, fmt.Sprintf("service unhealthy (responded with %q)", res.GetStatus().String())
	}
	return success, ""
}

// dialer makes the probe's connection. A mark that we may not set (without privileges) is one that nobody asks for.
func (w *worker) dialer() *net.Dialer {
	d := &net.Dialer{}
	if mark := w.m.cfg.Mark; mark != 0 {
		d.Control = func(_, _ string, c syscall.RawConn) error {
			return c.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, mark) })
		}
	}
	return d
}

// address is where to ask: the pod's address unless the probe names a host.
func (w *worker) address(host string, p intstr.IntOrString) (h, port string, err error) {
	n, err := act.Port(p, w.spec)
	if err != nil {
		return "", "", err
	}
	if host == "" {
		if len(w.ips) == 0 {
			return "", "", errors.New("the pod has no address yet")
		}
		host = w.ips[0]
	}
	return host, strconv.Itoa(n), nil
}
