package kubelet_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/cri-streaming/pkg/streaming"
	streamcommand "k8s.io/cri-streaming/pkg/streaming/remotecommand"

	"keelson.dev/keelson/kubelet"
)

// echo is a runtime's streaming side: exec answers with its command and input, port-forward with its input.
type echo struct{}

func (echo) Exec(_ context.Context, id string, cmd []string, in io.Reader, out, _ io.WriteCloser, _ bool, _ <-chan streamcommand.TerminalSize) error {
	fmt.Fprintf(out, "ran %s\n", strings.Join(cmd, " "))
	if in != nil {
		_, err := io.Copy(out, in)
		return err
	}
	return nil
}

func (echo) Attach(_ context.Context, _ string, _ io.Reader, out, _ io.WriteCloser, _ bool, _ <-chan streamcommand.TerminalSize) error {
	_, err := io.WriteString(out, "attached\n")
	return err
}

func (echo) PortForward(_ context.Context, _ string, port int32, stream io.ReadWriteCloser) error {
	defer stream.Close()
	fmt.Fprintf(stream, "port %d\n", port)
	return nil
}

// tokens knows three callers by bearer token: admin may everything, monitor may only read through the proxy right,
// nobody else is anyone.
func tokens(r *http.Request) (*authenticator.Response, bool, error) {
	name, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok || name != "admin" && name != "monitor" {
		return nil, false, nil
	}
	return &authenticator.Response{User: &user.DefaultInfo{Name: name}}, true, nil
}

func rights(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	reads := a.GetVerb() == "get" && a.GetSubresource() == "proxy"
	if a.GetUser().GetName() == "admin" || a.GetUser().GetName() == "monitor" && reads {
		return authorizer.DecisionAllow, "", nil
	}
	return authorizer.DecisionNoOpinion, "", nil
}

func selfSigned(t *testing.T) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "node-1"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

// serving starts a node with its API and streams; the returned config speaks to it as admin.
func serving(t *testing.T) (*node, *rest.Config) {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := lis.Addr().String()
	lis.Close()
	n := start(t, func(c *kubelet.Config) {
		c.Server = kubelet.Server{
			Addr: addr, TLS: selfSigned(t),
			Authn: authenticator.RequestFunc(tokens), Authz: authorizer.AuthorizerFunc(rights),
		}
	})
	mux := http.NewServeMux()
	front := httptest.NewServer(mux)
	t.Cleanup(front.Close)
	base, err := url.Parse(front.URL)
	if err != nil {
		t.Fatal(err)
	}
	conf := streaming.DefaultConfig
	conf.BaseURL = base
	streams, err := streaming.NewServer(conf, echo{})
	if err != nil {
		t.Fatal(err)
	}
	mux.Handle("/", streams)
	n.runtime.Streams = streams
	return n, &rest.Config{Host: "https://" + addr, BearerToken: "admin", TLSClientConfig: rest.TLSClientConfig{Insecure: true}}
}

func get(t *testing.T, c *rest.Config, token, path string) (int, string) {
	t.Helper()
	who := rest.CopyConfig(c)
	who.BearerToken = token
	client, err := rest.HTTPClientFor(who)
	if err != nil {
		t.Fatal(err)
	}
	res, err := client.Get(c.Host + path)
	if err != nil {
		t.Fatalf("GET %s: %v", path, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("GET %s: %v", path, err)
	}
	return res.StatusCode, string(b)
}

func TestServerStreams(t *testing.T) {
	n, conf := serving(t)
	n.create(pod("web", corev1.Container{Name: "web", Image: "nginx:1"}))
	n.until("web", "Running", running)
	target, err := url.Parse(conf.Host + "/exec/default/web/web?command=echo&command=hi&input=1&output=1&error=1")
	if err != nil {
		t.Fatal(err)
	}
	exec, err := remotecommand.NewSPDYExecutor(conf, "POST", target)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	err = exec.StreamWithContext(t.Context(), remotecommand.StreamOptions{
		Stdin: strings.NewReader("input\n"), Stdout: &out, Stderr: io.Discard,
	})
	if want := "ran echo hi\ninput\n"; err != nil || out.String() != want {
		t.Errorf("exec over SPDY = %q, %v; want %q", out.String(), err, want)
	}
	// The published streaming server speaks WebSocket only up to v4, which cannot close its input alone.
	exec, err = remotecommand.NewWebSocketExecutorForProtocols(conf, "GET",
		conf.Host+"/exec/default/web/web?command=echo&command=hi&output=1", "v4.channel.k8s.io")
	if err != nil {
		t.Fatal(err)
	}
	out.Reset()
	err = exec.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdout: &out})
	if want := "ran echo hi\n"; err != nil || out.String() != want {
		t.Errorf("exec over WebSocket = %q, %v; want %q", out.String(), err, want)
	}

	transport, upgrader, err := spdy.RoundTripperFor(conf)
	if err != nil {
		t.Fatal(err)
	}
	at, _ := url.Parse(conf.Host + "/portForward/default/web")
	ready := make(chan struct{})
	stop := make(chan struct{})
	fw, err := portforward.New(spdy.NewDialer(upgrader, &http.Client{Transport: transport}, "POST", at), []string{"0:8080"}, stop, ready, io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- fw.ForwardPorts() }() // ends with stop
	defer func() {
		close(stop)
		if err := <-ended; err != nil {
			t.Errorf("port-forward ended with %v", err)
		}
	}()
	<-ready
	ports, err := fw.GetPorts()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", ports[0].Local))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if b, err := io.ReadAll(conn); err != nil || string(b) != "port 8080\n" {
		t.Errorf("port-forward gave %q, %v; want port 8080", b, err)
	}
}

func TestServerLogs(t *testing.T) {
	n, conf := serving(t)
	once := pod("web", corev1.Container{Name: "web", Image: "nginx:1"})
	once.Spec.RestartPolicy = corev1.RestartPolicyNever // so that the log asked for is always this one
	p := n.create(once)
	n.until("web", "Running", running)
	dir := filepath.Join(n.cfg.Paths.PodLogs, "default_web_"+string(p.UID), "web")
	line := "2026-11-22T17:00:00.000000000Z stdout F hello\n"
	if err := os.WriteFile(filepath.Join(dir, "0.log"), []byte(line+line), 0o644); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/containerLogs/default/web/web":             "hello\nhello\n",
		"/containerLogs/default/web/web?tailLines=1": "hello\n",
	} {
		if code, body := get(t, conf, "admin", path); code != 200 || body != want {
			t.Errorf("GET %s = %d %q, want 200 %q", path, code, body, want)
		}
	}
	for path, want := range map[string]int{
		"/containerLogs/default/web/none":                404,
		"/containerLogs/default/none/web":                404,
		"/containerLogs/default/web/web?previous=true":   400,
		"/containerLogs/default/web/web?tailLines=-1":    422,
		"/containerLogs/default/web/web?limitBytes=zero": 422,
	} {
		if code, body := get(t, conf, "admin", path); code != want {
			t.Errorf("GET %s = %d %q, want %d", path, code, body, want)
		}
	}
	// A follow ends by itself when the container does.
	followed := make(chan string, 1)
	go func() {
		_, body := get(t, conf, "admin", "/containerLogs/default/web/web?follow=true")
		followed <- body
	}()
	if err := n.runtime.Exit("web", "web", 0); err != nil {
		t.Fatal(err)
	}
	select {
	case body := <-followed:
		if !strings.HasPrefix(body, "hello\nhello\n") {
			t.Errorf("follow gave %q", body)
		}
	case <-time.After(20 * time.Second):
		t.Error("follow did not end within 20 s of the container's end")
	}
}

// Only reading rights on the node must not give a shell, whatever the HTTP method (ST1); nobody is anonymous (AP40).
func TestHostile_ST1(t *testing.T) {
	n, conf := serving(t)
	n.create(pod("web", corev1.Container{Name: "web", Image: "nginx:1"}))
	n.until("web", "Running", running)
	paths := []string{
		"/exec/default/web/web?command=id&output=1", "/attach/default/web/web?output=1", "/portForward/default/web",
	}
	for _, p := range paths {
		u, _ := url.Parse(conf.Host + p)
		weak := rest.CopyConfig(conf)
		weak.BearerToken = "monitor"
		exec, err := remotecommand.NewWebSocketExecutor(weak, "GET", u.String())
		if err != nil {
			t.Fatal(err)
		}
		err = exec.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdout: io.Discard})
		if err == nil || !strings.Contains(err.Error(), "403") && !strings.Contains(strings.ToLower(err.Error()), "forbidden") {
			t.Errorf("WebSocket GET %s with only get on nodes/proxy: %v, want 403", p, err)
		}
	}
	if code, _ := get(t, conf, "monitor", "/pods"); code != 200 {
		t.Errorf("GET /pods with get on nodes/proxy = %d, want 200", code)
	}
	for _, p := range append(paths, "/pods", "/metrics", "/metrics/cadvisor", "/stats/summary", "/logs/", "/healthz", "/configz", "/containerLogs/default/web/web", "/nothing") {
		if code, _ := get(t, conf, "", p); code != 401 {
			t.Errorf("anonymous GET %s = %d, want 401", p, code)
		}
	}
}

func TestServerPages(t *testing.T) {
	n, conf := serving(t)
	n.create(pod("web", corev1.Container{Name: "web", Image: "nginx:1"}))
	n.until("web", "Running", running)
	for path, want := range map[string]string{
		"/healthz": "ok", "/pods": `"name":"web"`, "/configz": "KubeletConfiguration",
		"/metrics": "kubelet_pod_worker_duration_seconds", "/metrics/resource": "node_memory_working_set_bytes",
		"/metrics/cadvisor": "container_memory_working_set_bytes",
	} {
		if code, body := get(t, conf, "admin", path); code != 200 || !strings.Contains(body, want) {
			t.Errorf("GET %s = %d without %q: %.300s", path, code, want, body)
		}
	}
}
