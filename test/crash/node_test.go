package crash

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/image/imagetest"
	"keelson.dev/keelson/runtime/failpoint"
	"keelson.dev/keelson/test/lab"
)

const (
	pulledImage   = "registry.test/crash:1"
	importedImage = "registry.test/imported:1"
)

// node is `keelson cri` on places of its own, with a registry.
type node struct {
	*lab.Cluster
	runtimeapi.RuntimeServiceClient
	images   runtimeapi.ImageServiceClient
	conn     *grpc.ClientConn
	registry *httptest.Server
	archive  []byte // an image archive, for import
	baseline state

	mu sync.Mutex // held by whoever starts the daemon
}

func (n *node) points() string { return filepath.Join(n.Dir, "points") }
func (n *node) trace() string  { return n.points() + ".trace" }

// arm orders a point; "" takes the order back.
func (n *node) arm(order string) error { return os.WriteFile(n.points(), []byte(order), 0o600) }

// newNode starts one. discard takes it away.
func newNode(ctx context.Context) (n *node, err error) {
	n = &node{}
	defer func() {
		if err != nil {
			n.discard(context.WithoutCancel(ctx))
		}
	}()
	if n.Cluster, err = lab.New(lab.Options{Runtime: true}); err != nil {
		return n, err
	}
	if err := os.Chmod(n.Dir, 0o711); err != nil { // containers' inits of any user pass through
		return n, err
	}
	if err := errors.Join(n.serveImages(), os.WriteFile(n.trace(), nil, 0o600)); err != nil {
		return n, err
	}
	if err := n.start(ctx); err != nil {
		return n, err
	}
	n.conn, err = grpc.NewClient("unix://"+n.CRISocket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 5 * time.Millisecond, Multiplier: 1, MaxDelay: 5 * time.Millisecond}}))
	if err != nil {
		return n, err
	}
	n.RuntimeServiceClient, n.images = runtimeapi.NewRuntimeServiceClient(n.conn), runtimeapi.NewImageServiceClient(n.conn)
	return n, nil
}

func (n *node) serveImages() error {
	registry := imagetest.NewRegistry()
	shell, err := imagetest.Busybox()
	if err != nil {
		return err
	}
	if _, err := registry.Add(pulledImage, shell); err != nil {
		return err
	}
	n.registry = httptest.NewServer(registry)
	if err := imagetest.WriteHosts(n.CertsDir(), n.registry.URL, "registry.test"); err != nil {
		return err
	}
	img, err := imagetest.Build(imagetest.Spec{Layers: []imagetest.Layer{
		imagetest.Files(map[string]string{"data/one": "one"}), imagetest.Files(map[string]string{"data/two": "two"})}})
	if err != nil {
		return err
	}
	tag, err := name.NewTag(importedImage)
	if err != nil {
		return err
	}
	var archive bytes.Buffer
	if err := tarball.Write(tag, img, &archive); err != nil {
		return err
	}
	n.archive = archive.Bytes()
	return nil
}

// environment is one for all nodes of a process: nodes start one at a time.
var environment sync.Mutex

// start starts the daemon, in the place of one that lives, and waits until it
// answers. One that ends at a point meanwhile is started again, without the
// point.
func (n *node) start(ctx context.Context) error {
	return n.restarted(ctx, func() error { return nil })
}

// restarted does something while no daemon lives.
func (n *node) restarted(ctx context.Context, between func() error) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for range 3 {
		err := errors.Join(n.Kill(), between(), n.launch())
		if err == nil {
			err = n.WaitRuntime(ctx)
		}
		if err == nil || !strings.Contains(err.Error(), "the runtime ended") {
			return err
		}
		if text, _ := os.ReadFile(n.points()); len(text) == 0 {
			return err
		}
		if err := n.arm(""); err != nil {
			return err
		}
	}
	return errors.New("the daemon does not start")
}

func (n *node) launch() error {
	environment.Lock()
	defer environment.Unlock()
	if err := os.Setenv(failpoint.Variable, "@"+n.points()); err != nil {
		return err
	}
	defer os.Unsetenv(failpoint.Variable)
	return n.Start()
}

// discard takes the node away, whatever state it is in.
func (n *node) discard(ctx context.Context) {
	if n.conn != nil {
		n.conn.Close()
	}
	if n.Cluster != nil {
		_ = n.arm("")
		if err := n.Remove(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "discard a node:", err)
		}
	}
	if n.registry != nil {
		n.registry.Close()
	}
}

// killKeeper kills the keeper and waits for its end.
func (n *node) killKeeper() error {
	pid, err := n.Keeper()
	if err != nil {
		return nil
	}
	return kill(pid)
}

func kill(pid int) error {
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill %d: %w", pid, err)
	}
	for processState(pid) != "" && processState(pid) != "Z" {
		time.Sleep(time.Millisecond) // a child of others: there is nothing to wait on
	}
	return nil
}

// processState is the letter of /proc/pid/stat, "" for none.
func processState(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	_, after, _ := strings.Cut(string(text), ") ")
	return after[:min(1, len(after))]
}

// eventually tries until fn says "" or gives up with what it said last.
func eventually(t *testing.T, what string, fn func() string) bool {
	t.Helper()
	const limit = 60 * time.Second
	last := ""
	for end := time.Now().Add(limit); ; time.Sleep(5 * time.Millisecond) {
		if last = fn(); last == "" {
			return true
		}
		if time.Now().After(end) {
			t.Errorf("%s: not within %s: %s", what, limit, last)
			return false
		}
	}
}
