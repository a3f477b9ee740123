package crisuite

import (
	"bytes"
	"log/slog"
	"os"
	"sync"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/kubelet/kubelettest"
)

func TestMain(m *testing.M) {
	code := m.Run()
	RemoveKeeper()
	os.Exit(code)
}

// testLog keeps the node's log and shows it when the test failed.
type testLog struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *testLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func logOf(tb testing.TB) *slog.Logger {
	l := &testLog{}
	tb.Cleanup(func() {
		if tb.Failed() {
			l.mu.Lock()
			defer l.mu.Unlock()
			tb.Logf("the node's log:\n%s", l.buf.String())
		}
	})
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

func (n *Node) target() Target {
	return Target{Socket: n.Socket, Image: BusyboxImage, CgroupParent: n.Cgroup, Processes: true, LogDir: n.Dir + "/logs", CDIDir: n.Dir + "/cdi"}
}

// TestModel holds the kubelet's fake runtime to what it claims of the real one.
func TestModel(t *testing.T) {
	_, conn := kubelettest.New(t)
	_, err := runtimeapi.NewImageServiceClient(conn).PullImage(t.Context(), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: BusyboxImage}})
	if err != nil {
		t.Fatal(err)
	}
	Run(t, Target{Conn: conn, Image: BusyboxImage, CgroupParent: "/model", LogDir: t.TempDir()})
}

func TestSuite(t *testing.T) {
	Run(t, NewNode(t, logOf(t)).target())
}
