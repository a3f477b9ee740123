package apiserver

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	criportforward "k8s.io/cri-streaming/pkg/streaming/portforward"
	criremote "k8s.io/cri-streaming/pkg/streaming/remotecommand"

	"keelson.dev/keelson/controlplane/auth"
)

// kubelet is a kubelet's streaming server, without the rest of a kubelet: exec echoes, portforward echoes, logs count.
type kubelet struct {
	peers  chan string
	client kubernetes.Interface
}

func (k kubelet) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k.peers <- r.TLS.PeerCertificates[0].Subject.CommonName
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch parts[0] {
	case "containerLogs":
		fmt.Fprintf(w, "log of %s, tail %s\n", strings.Join(parts[1:], "/"), r.URL.Query().Get("tailLines"))
	case "exec":
		o, err := criremote.NewOptions(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		criremote.ServeExec(w, r, k, parts[2], "", parts[3], r.URL.Query()["command"], o, time.Minute, time.Minute, []string{"v4.channel.k8s.io"})
	case "portForward":
		criportforward.ServePortForward(w, r, k, parts[2], "", nil, time.Minute, time.Minute, []string{criportforward.ProtocolV1Name})
	case "stats":
		serveSummary(w, r, k.client)
	default:
		http.NotFound(w, r)
	}
}

func (kubelet) ExecInContainer(_ context.Context, _, _, container string, cmd []string, in io.Reader, out, _ io.WriteCloser, _ bool, _ <-chan criremote.TerminalSize, _ time.Duration) error {
	fmt.Fprintf(out, "%s: %s: ", container, strings.Join(cmd, " "))
	if in != nil {
		_, err := io.Copy(out, in)
		return err
	}
	return nil
}

func (kubelet) PortForward(_ context.Context, _, _ string, port int32, s io.ReadWriteCloser) error {
	defer s.Close()
	fmt.Fprintf(s, "port %d: ", port)
	line := make([]byte, 5)
	if _, err := io.ReadFull(s, line); err != nil {
		return err
	}
	_, err := s.Write(line)
	return err
}

// withKubelet starts a kubelet with a certificate of the cluster, and a node, and a pod on it.
func withKubelet(t *testing.T, r *running) kubelet {
	t.Helper()
	pair, err := r.PKI().CA.Issue(auth.Leaf{CommonName: "system:node:n1", Server: true, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}})
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	return startKubelet(t, r, "n1", "p", cert)
}

// startKubelet starts one that shows the certificates; without any, one that is nobody's.
func startKubelet(t *testing.T, r *running, node, name string, certs ...tls.Certificate) kubelet {
	t.Helper()
	clients := x509.NewCertPool()
	clients.AddCert(r.PKI().CA.Cert)
	k := kubelet{peers: make(chan string, 100), client: r.client}
	srv := httptest.NewUnstartedServer(k)
	srv.TLS = &tls.Config{Certificates: certs, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients}
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.StartTLS()
	t.Cleanup(srv.CloseClientConnections)
	t.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
	port := srv.Listener.Addr().(*net.TCPAddr).Port
	n, err := r.client.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}}, createOptions)
	if err != nil {
		t.Fatal(err)
	}
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "127.0.0.1"}}
	n.Status.DaemonEndpoints.KubeletEndpoint.Port = int32(port)
	must(t)(r.client.CoreV1().Nodes().UpdateStatus(t.Context(), n, updateOptions))
	p := pod(name)
	p.Spec.NodeName = node
	must(t)(r.client.CoreV1().Pods("default").Create(t.Context(), p, createOptions))
	return k
}

func TestPodStreams(t *testing.T) {
	r := start(t, "")
	k := withKubelet(t, r)
	t.Run("log", func(t *testing.T) {
		b, err := r.client.CoreV1().Pods("default").GetLogs("p", &corev1.PodLogOptions{TailLines: ptr(int64(7))}).DoRaw(t.Context())
		if err != nil || string(b) != "log of default/p/c, tail 7\n" {
			t.Errorf("%q, %v", b, err)
		}
		if peer := <-k.peers; peer != "kube-apiserver-kubelet-client" {
			t.Errorf("the kubelet was asked by %q", peer)
		}
		_, err = r.client.CoreV1().Pods("default").GetLogs("p", &corev1.PodLogOptions{Container: "x"}).Stream(t.Context())
		if !apierrors.IsBadRequest(err) || !strings.Contains(err.Error(), "container x is not valid for pod p") {
			t.Errorf("log of no container: %v", err)
		}
		// To a websocket, a log that ends with its first read comes whole.
		secure, err := rest.TLSConfigFor(r.admin)
		if err != nil {
			t.Fatal(err)
		}
		dialer := websocket.Dialer{TLSClientConfig: secure, Subprotocols: []string{"binary.k8s.io"}}
		conn, _, err := dialer.DialContext(t.Context(), strings.Replace(r.admin.Host, "https", "wss", 1)+"/api/v1/namespaces/default/pods/p/log?tailLines=7", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		var all, message []byte
		for err == nil {
			all = append(all, message...)
			_, message, err = conn.ReadMessage()
		}
		if string(all) != "log of default/p/c, tail 7\n" {
			t.Errorf("by websocket: %q, %v", all, err)
		}
	})
	t.Run("log of a kubelet that nobody vouches for", func(t *testing.T) { testUnverifiedLog(t, r) })
	t.Run("exec", func(t *testing.T) { testExec(t, r) })
	t.Run("portforward", func(t *testing.T) { testPortForward(t, r) })
	t.Run("reader", func(t *testing.T) { testReaderCannotExec(t, r) })
}

// testUnverifiedLog: a log is read from a kubelet with any certificate only if the client says that it may be.
func testUnverifiedLog(t *testing.T, r *running) {
	startKubelet(t, r, "stranger", "q")
	read := func(o *corev1.PodLogOptions) (string, error) {
		b, err := r.client.CoreV1().Pods("default").GetLogs("q", o).DoRaw(t.Context())
		return string(b), err
	}
	if text, err := read(&corev1.PodLogOptions{}); err == nil || !strings.Contains(text, "certificate signed by unknown authority") {
		t.Errorf("verified: %q, %v", text, err)
	}
	if text, err := read(&corev1.PodLogOptions{InsecureSkipTLSVerifyBackend: true}); err != nil || text != "log of default/q/c, tail \n" {
		t.Errorf("not verified: %q, %v", text, err)
	}
}

func execURL(r *running) *url.URL {
	return r.client.CoreV1().RESTClient().Post().Resource("pods").Namespace("default").Name("p").SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Command: []string{"say", "it"}, Stdin: true, Stdout: true}, scheme.ParameterCodec).URL()
}

func testExec(t *testing.T, r *running) {
	u := execURL(r)
	ws, err := remotecommand.NewWebSocketExecutor(r.admin, http.MethodGet, u.String())
	if err != nil {
		t.Fatal(err)
	}
	sp, err := remotecommand.NewSPDYExecutor(r.admin, http.MethodPost, u)
	if err != nil {
		t.Fatal(err)
	}
	for name, e := range map[string]remotecommand.Executor{"websocket": ws, "spdy": sp} {
		var out bytes.Buffer
		err := e.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: strings.NewReader("hello"), Stdout: &out})
		if err != nil || out.String() != "c: say it: hello" {
			t.Errorf("%s: %q, %v", name, out.String(), err)
		}
	}
}

func testPortForward(t *testing.T, r *running) {
	u := r.client.CoreV1().RESTClient().Post().Resource("pods").Namespace("default").Name("p").SubResource("portforward").URL()
	ws, err := portforward.NewSPDYOverWebsocketDialer(u, r.admin)
	if err != nil {
		t.Fatal(err)
	}
	rt, up, err := spdy.RoundTripperFor(r.admin)
	if err != nil {
		t.Fatal(err)
	}
	for name, dialer := range map[string]any{"websocket": ws, "spdy": spdy.NewDialer(up, &http.Client{Transport: rt}, http.MethodPost, u)} {
		stop, ready := make(chan struct{}), make(chan struct{})
		f, err := newForwarder(dialer, stop, ready)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- f.ForwardPorts() }()
		select {
		case <-ready:
		case err := <-done:
			t.Fatalf("%s: %v", name, err)
		}
		ports, err := f.GetPorts()
		if err != nil {
			t.Fatal(err)
		}
		conn, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(int(ports[0].Local)))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write([]byte("hello"))
		got, err := io.ReadAll(conn)
		if err != nil || string(got) != "port 80: hello" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		conn.Close()
		close(stop)
		<-done
	}
}

// testReaderCannotExec: a WebSocket begins with GET, and the right to get pods/exec is not the right to run commands.
func testReaderCannotExec(t *testing.T, r *running) {
	must(t)(r.client.RbacV1().ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "get-exec"},
		Rules: []rbacv1.PolicyRule{{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"pods/exec"}}}}, createOptions))
	must(t)(r.client.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "get-exec"},
		Subjects: []rbacv1.Subject{{Kind: "User", APIGroup: rbacv1.GroupName, Name: "joe"}},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "get-exec"}}, createOptions))
	joe := r.with(t, "joe")
	var err error
	eventually(t, "joe's get is let through to the second question", func() bool {
		var e remotecommand.Executor
		if e, err = remotecommand.NewWebSocketExecutor(joe, http.MethodGet, execURL(r).String()); err != nil {
			t.Fatal(err)
		}
		err = e.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: strings.NewReader("x"), Stdout: io.Discard})
		return err != nil && strings.Contains(err.Error(), "cannot create pods/exec")
	})
}

// The proxy does not reach into the server's own machine, whatever address an object claims.
func TestHostile_AP19(t *testing.T) {
	r := start(t, "")
	inside := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "inside") }))
	defer inside.Close()
	_, port, _ := net.SplitHostPort(inside.Listener.Addr().String())
	p, err := r.client.CoreV1().Pods("default").Create(t.Context(), pod("liar"), createOptions)
	if err != nil {
		t.Fatal(err)
	}
	for _, ip := range []string{"127.0.0.1", "169.254.169.254", "::1"} {
		p.Status.PodIP, p.Status.PodIPs = ip, []corev1.PodIP{{IP: ip}}
		if p, err = r.client.CoreV1().Pods("default").UpdateStatus(t.Context(), p, updateOptions); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the address is seen", func() bool {
			seen, err := r.kubelets.objects.Pod(t.Context(), "default", "liar", false)
			return err == nil && seen.Status.PodIP == ip
		})
		b, err := r.client.CoreV1().RESTClient().Get().AbsPath("/api/v1/namespaces/default/pods/liar:" + port + "/proxy/").DoRaw(t.Context())
		if err == nil || strings.Contains(string(b), "inside") {
			t.Errorf("proxy to %s: %q, %v", ip, b, err)
		}
	}
}

func newForwarder(dialer any, stop <-chan struct{}, ready chan struct{}) (*portforward.PortForwarder, error) {
	return portforward.NewOnAddresses(dialer.(httpstream.Dialer), []string{"127.0.0.1"}, []string{"0:80"}, stop, ready, io.Discard, io.Discard)
}
