package apiserver

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"keelson.dev/keelson/controlplane/auth"
	"keelson.dev/keelson/controlplane/store"
)

// startTimeout bounds waits that normally take a fraction of a second; servers that start side by side on one busy core took longer than 30 s.
const startTimeout = 2 * time.Minute

// running is a server under test, with an administrator's client over TLS.
type running struct {
	*Server
	dir    string
	admin  *rest.Config
	client kubernetes.Interface
	stop   func()
}

// start runs a server in dir ("": a new one) until the test ends or stop is called.
func start(t testing.TB, dir string) *running {
	t.Helper()
	if dir == "" {
		dir = t.TempDir()
	}
	return startWith(t, testConfig(dir))
}

// startWith runs a server with a configuration of the test's own.
func startWith(t testing.TB, cfg Config) *running {
	t.Helper()
	dir := cfg.DataDir
	s, err := New(cfg, Deps{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	r := &running{Server: s, dir: dir}
	r.stop = func() {
		cancel()
		if err, ok := <-done; ok {
			close(done)
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		}
	}
	t.Cleanup(r.stop)
	select {
	case <-s.Ready():
	case err := <-done:
		t.Fatalf("server ended before it was ready: %v", err)
	case <-time.After(startTimeout):
		t.Fatal("server is not ready")
	}
	path := filepath.Join(dir, "kubeconfig")
	if err := s.WriteAdminKubeconfig(path); err != nil {
		t.Fatal(err)
	}
	if r.admin, err = clientcmd.BuildConfigFromFlags("", path); err != nil {
		t.Fatal(err)
	}
	r.admin.QPS = -1
	r.client = r.as(t, r.admin)
	// No controllers run here: admission of pods wants what one of them makes.
	_, err = r.client.CoreV1().ServiceAccounts("default").Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, createOptions)
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	return r
}

func testConfig(dir string) Config {
	return Config{DataDir: dir, BindAddress: netip.MustParseAddr("127.0.0.1"), Port: -1, NodeName: "n1"}
}

func (r *running) as(t testing.TB, c *rest.Config) kubernetes.Interface {
	t.Helper()
	k, err := kubernetes.NewForConfig(c)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// with returns a configuration with a certificate for the name and groups.
func (r *running) with(t testing.TB, name string, groups ...string) *rest.Config {
	t.Helper()
	k, err := r.PKI().Kubeconfig(r.localURL(), auth.Leaf{CommonName: name, Organizations: groups})
	if err != nil {
		t.Fatal(err)
	}
	c, err := clientcmd.NewDefaultClientConfig(*k, nil).ClientConfig()
	if err != nil {
		t.Fatal(err)
	}
	c.QPS = -1
	return c
}

// bearer returns a configuration with a token and nothing else.
func (r *running) bearer(token string) *rest.Config {
	c := rest.AnonymousClientConfig(r.admin)
	c.BearerToken, c.QPS = token, -1
	return c
}

// eventually waits for a condition that a watch or a cache brings about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(startTimeout)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not in %v: %s", startTimeout, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestRestartKeepsObjectsAndIdentity(t *testing.T) {
	r := start(t, "")
	must(t)(r.client.CoreV1().ConfigMaps("default").Create(t.Context(), configMap("kept"), createOptions))
	before, err := os.ReadFile(filepath.Join(r.dir, "kubeconfig"))
	if err != nil {
		t.Fatal(err)
	}
	r.stop()

	again := start(t, r.dir)
	must(t)(again.client.CoreV1().ConfigMaps("default").Get(t.Context(), "kept", getOptions))
	// The port is another (it was a free one), the authority is the same: only the server line may differ.
	after, _ := os.ReadFile(filepath.Join(r.dir, "kubeconfig"))
	ca := func(b []byte) string {
		for _, l := range strings.Split(string(b), "\n") {
			if strings.Contains(l, "certificate-authority-data") {
				return l
			}
		}
		return ""
	}
	if ca(before) == "" || ca(before) != ca(after) {
		t.Error("the authority changed with a restart")
	}
	if fi, err := os.Stat(filepath.Join(r.dir, "kubeconfig")); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("kubeconfig mode %v, %v; want 0600", fi.Mode(), err)
	}
}

func TestPortInUseIsNamed(t *testing.T) {
	r := start(t, "")
	c := testConfig(t.TempDir())
	c.Port = r.Port()
	_, err := New(c, Deps{Log: slog.New(slog.DiscardHandler)})
	if err == nil {
		t.Fatal("a second server took the same port")
	}
	for _, want := range []string{fmt.Sprint(r.Port()), fmt.Sprintf("process %d", os.Getpid())} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not name %q", err, want)
		}
	}
}

// A second server on the same data is refused and told who has it (the lock is per open file, so one process can show it).
func TestHostile_RA12(t *testing.T) {
	r := start(t, "")
	_, err := New(testConfig(r.dir), Deps{Log: slog.New(slog.DiscardHandler)})
	if !errors.Is(err, store.ErrLocked) || !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) {
		t.Errorf("error %v; want %v with this process's id", err, store.ErrLocked)
	}
}

var serveDir = flag.String("serve", "", "serve from this directory on port 16443 until killed (for a look by hand)")

func TestServeByHand(t *testing.T) {
	if *serveDir == "" {
		t.Skip("needs -serve DIR")
	}
	began := time.Now()
	c := testConfig(*serveDir)
	c.Port = 16443
	s, err := New(c, Deps{Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.WriteAdminKubeconfig(filepath.Join(*serveDir, "kubeconfig")); err != nil {
		t.Fatal(err)
	}
	built := time.Since(began)
	go func() {
		<-s.Ready()
		fmt.Println("built", built, "ready", time.Since(began))
	}()
	if err := s.Run(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// BenchmarkStart is a cold start: from nothing to ready. rss is of the test process, which has the server in it.
func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		r := start(b, b.TempDir())
		b.StopTimer()
		b.ReportMetric(rss(b), "rss-MiB")
		r.stop()
		b.StartTimer()
	}
}

func rss(b *testing.B) float64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Skip("needs /proc: ", err)
	}
	for _, line := range strings.Split(string(status), "\n") {
		var kb float64
		if n, _ := fmt.Sscanf(line, "VmRSS: %f kB", &kb); n == 1 {
			return kb / 1024
		}
	}
	return 0
}
