package probe

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/kubelet/criclient"
	"keelson.dev/keelson/kubelet/kubelettest"
	"keelson.dev/keelson/kubelet/observe"
)

// notes keeps the events.
type notes struct {
	mu  sync.Mutex
	all []string
}

func (n *notes) ContainerEvent(_ *corev1.Pod, _, _, reason, format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = append(n.all, reason+": "+fmt.Sprintf(format, args...))
}

func (n *notes) text() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Join(n.all, "\n")
}

func ask(t *testing.T, h corev1.ProbeHandler, timeout int32) (result, string, *notes) {
	t.Helper()
	n := &notes{}
	spec := &corev1.Container{Name: "c"}
	w := &worker{
		m:   New(Config{Events: n, Wake: func(types.UID) {}}),
		pod: &corev1.Pod{}, spec: spec, ips: []string{"127.0.0.1"}, kind: liveness,
		probe: &corev1.Probe{ProbeHandler: h, TimeoutSeconds: timeout}, subject: &subject{},
	}
	r, say := w.ask(t.Context())
	return r, say, n
}

func port(t *testing.T, rawurl string) intstr.IntOrString {
	t.Helper()
	u, err := url.Parse(rawurl)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	return intstr.FromInt(n)
}

func httpGet(path string, p intstr.IntOrString) corev1.ProbeHandler {
	return corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: p}}
}

// An HTTP probe reads little of a huge body, does not follow a redirect to another host, bounds headers, and ends in
// its timeout (PS15).
func TestHostile_PS15(t *testing.T) {
	var sent, elsewhere atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	defer other.Close()
	release := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/huge":
			chunk := make([]byte, 1<<20)
			for range 10 << 10 {
				n, err := w.Write(chunk)
				sent.Add(int64(n))
				if err != nil {
					return
				}
			}
		case "/away":
			to, _ := url.Parse(other.URL)
			http.Redirect(w, r, "http://localhost:"+to.Port()+"/", http.StatusFound)
		case "/here":
			http.Redirect(w, r, "/fine", http.StatusFound)
		case "/fat":
			w.Header().Set("X-Fat", strings.Repeat("x", 100<<10))
		case "/slow":
			<-release
		case "/broken":
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer srv.Close()
	defer close(release)
	p := port(t, srv.URL)
	for path, want := range map[string]result{
		"/fine": success, "/here": success, "/huge": success, "/away": success,
		"/fat": failure, "/slow": failure, "/broken": failure,
	} {
		limit := int32(30) // however long it takes here
		if path == "/slow" {
			limit = 1
		}
		r, say, n := ask(t, httpGet(path, p), limit)
		if r != want {
			t.Errorf("%s: result %d (%s), want %d", path, r, say, want)
		}
		if path == "/away" && !(strings.Contains(n.text(), "ProbeWarning") && strings.Contains(n.text(), `Response body: <a href="http://localhost:`)) {
			t.Errorf("%s: no warning about the redirect, with the answer: %q", path, n.text())
		}
	}
	if n := sent.Load(); n > 64<<20 {
		t.Errorf("the probe took %d bytes of a huge body", n)
	}
	if elsewhere.Load() != 0 {
		t.Error("the probe followed a redirect to another host")
	}
}

// A gRPC probe against a server without the health service, or a silent one, fails within its timeout (PS16).
func TestHostile_PS16(t *testing.T) {
	serve := func(register func(*grpc.Server)) intstr.IntOrString {
		lis, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := grpc.NewServer()
		register(s)
		go s.Serve(lis) // ends with Stop
		t.Cleanup(s.Stop)
		return intstr.FromInt(lis.Addr().(*net.TCPAddr).Port)
	}
	good := health.NewServer()
	good.SetServingStatus("down", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	healthy := serve(func(s *grpc.Server) { grpc_health_v1.RegisterHealthServer(s, good) })
	bare := serve(func(*grpc.Server) {})
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	down := "down"
	for name, c := range map[string]struct {
		port    intstr.IntOrString
		service *string
		want    result
	}{
		"healthy": {healthy, nil, success}, "service down": {healthy, &down, failure}, "unimplemented": {bare, nil, failure},
		"silent": {intstr.FromInt(silent.Addr().(*net.TCPAddr).Port), nil, failure},
	} {
		limit := int32(1)
		if c.want == success { // however long it takes here
			limit = 30
		}
		r, say, _ := ask(t, corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: c.port.IntVal, Service: c.service}}, limit)
		if r != c.want {
			t.Errorf("%s: result %d (%s), want %d", name, r, say, c.want)
		}
	}
}

func TestTCP(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt(lis.Addr().(*net.TCPAddr).Port)}}
	if r, say, _ := ask(t, h, 30); r != success {
		t.Errorf("open port: result %d (%s)", r, say)
	}
	lis.Close()
	if r, _, _ := ask(t, h, 1); r != failure {
		t.Error("closed port: no failure")
	}
}

// Startup comes first; liveness condemns after its threshold; readiness follows its answers (by exec).
func TestLifeOfProbes(t *testing.T) {
	rt, conn := kubelettest.New(t)
	var started, alive, ready atomic.Bool
	alive.Store(true)
	rt.OnExec = func(_ string, cmd []string) (string, int32) {
		ok := map[string]*atomic.Bool{"started": &started, "alive": &alive, "ready": &ready}[cmd[0]].Load()
		if ok {
			return "", 0
		}
		return "not " + cmd[0], 1
	}
	cri := criclient.New(conn)
	id := runContainer(t, cri)
	n, woken := &notes{}, make(chan struct{}, 100)
	m := New(Config{CRI: cri, Events: n, Wake: func(types.UID) { woken <- struct{}{} }})
	probe := func(cmd string) *corev1.Probe {
		return &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{cmd}}},
			PeriodSeconds: 1, TimeoutSeconds: 30, SuccessThreshold: 1, FailureThreshold: 100}
	}
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u"}}
	p.Spec.Containers = []corev1.Container{{Name: "c", StartupProbe: probe("started"), LivenessProbe: probe("alive"), ReadinessProbe: probe("ready")}}
	p.Spec.Containers[0].LivenessProbe.FailureThreshold = 1
	ctx, cancel := context.WithCancel(t.Context())
	running := []observe.Container{{ID: id, Name: "c", State: observe.Running, StartedAt: time.Now()}}
	m.Set(ctx, p, nil, running, false)
	until := func(what string, ok func() bool) {
		t.Helper()
		deadline := time.After(20 * time.Second)
		for !ok() {
			select {
			case <-woken:
			case <-time.After(10 * time.Millisecond):
			case <-deadline:
				t.Fatalf("%s did not come within 20 s; events:\n%s", what, n.text())
			}
		}
	}
	if got, _ := m.Results("u"); got[id].Started || got[id].Ready {
		t.Errorf("at the beginning: %+v, want neither started nor ready", got[id])
	}
	started.Store(true)
	until("started", func() bool { got, _ := m.Results("u"); return got[id].Started })
	if got, _ := m.Results("u"); got[id].Ready {
		t.Error("ready before its probe said so")
	}
	ready.Store(true)
	until("ready", func() bool { got, _ := m.Results("u"); return got[id].Ready })
	ready.Store(false)
	alive.Store(false)
	until("condemned", func() bool {
		_, bad := m.Results("u")
		return bad[id] == "Container c failed liveness probe, will be restarted"
	})
	if !strings.Contains(n.text(), "Unhealthy: Liveness probe failed: not alive") {
		t.Errorf("events = %q", n.text())
	}
	cancel()
	m.Wait()
}

func runContainer(t *testing.T, cri *criclient.Client) string {
	t.Helper()
	box, err := cri.Runtime.RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: &runtimeapi.PodSandboxConfig{Metadata: &runtimeapi.PodSandboxMetadata{Name: "p"}}})
	if err != nil {
		t.Fatal(err)
	}
	c, err := cri.Runtime.CreateContainer(t.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: box.GetPodSandboxId(),
		Config: &runtimeapi.ContainerConfig{Metadata: &runtimeapi.ContainerMetadata{Name: "c"}, Image: &runtimeapi.ImageSpec{}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cri.Runtime.StartContainer(t.Context(), &runtimeapi.StartContainerRequest{ContainerId: c.GetContainerId()}); err != nil {
		t.Fatal(err)
	}
	return c.GetContainerId()
}

// NW1: connections of probes have the mark that the packet filter asks for.
func TestMark(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	w := &worker{m: &Manager{cfg: Config{Mark: 5}}}
	c, err := w.dialer().DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	want := 5
	if os.Geteuid() != 0 {
		want = 0 // and the probe is made all the same
	}
	if err := raw.Control(func(fd uintptr) {
		if mark, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK); err != nil || mark != want {
			t.Errorf("mark %d, %v; want %d", mark, err, want)
		}
	}); err != nil {
		t.Fatal(err)
	}
}
