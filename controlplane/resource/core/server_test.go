package core_test

import (
	"context"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"keelson.dev/keelson/controlplane/apiserver"
)

// start runs an API server in dir until the test ends or stop is called, and returns an administrator's client.
func start(t *testing.T, dir string, services ...netip.Prefix) (client kubernetes.Interface, stop func()) {
	t.Helper()
	config := apiserver.Config{DataDir: dir, BindAddress: netip.MustParseAddr("127.0.0.1"), Port: -1, NodeName: "n1", ServiceCIDRs: services}
	s, err := apiserver.New(config, apiserver.Deps{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = func() {
		cancel()
		if err, ok := <-done; ok {
			close(done)
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		}
	}
	t.Cleanup(stop)
	select {
	case <-s.Ready():
	case err := <-done:
		t.Fatalf("server ended before it was ready: %v", err)
	case <-time.After(time.Minute):
		t.Fatal("server is not ready")
	}
	path := filepath.Join(dir, "kubeconfig")
	if err := s.WriteAdminKubeconfig(path); err != nil {
		t.Fatal(err)
	}
	rc, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	rc.QPS = -1
	client, err = kubernetes.NewForConfig(rc)
	if err != nil {
		t.Fatal(err)
	}
	// No controllers run here: admission of pods wants what one of them makes.
	_, err = client.CoreV1().ServiceAccounts("default").Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, create)
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	return client, stop
}

var (
	create = metav1.CreateOptions{}
	update = metav1.UpdateOptions{}
	get    = metav1.GetOptions{}
	remove = metav1.DeleteOptions{}
	dryRun = []string{metav1.DryRunAll}
)

// ok fails the test on error: pod := ok[*corev1.Pod](t)(client.Get(...)).
func ok[T any](t *testing.T) func(T, error) T {
	t.Helper()
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func wantError(t *testing.T, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("got error %v, want one with %q", err, text)
	}
}
