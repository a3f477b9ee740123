package pluginwatch

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// plugin is a plugin's registration behind a real socket; told is what it hears of it.
type plugin struct {
	registration.UnimplementedRegistrationServer
	info *registration.PluginInfo
	told chan *registration.RegistrationStatus
}

func (p *plugin) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return p.info, nil
}

func (p *plugin) NotifyRegistrationStatus(_ context.Context, s *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	p.told <- s
	return &registration.RegistrationStatusResponse{}, nil
}

// serve puts a plugin's socket at a path; the returned function ends it, and with it the socket.
func serve(t *testing.T, path string, info *registration.PluginInfo) (p *plugin, stop func()) {
	t.Helper()
	p = &plugin{info: info, told: make(chan *registration.RegistrationStatus, 100)}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	registration.RegisterRegistrationServer(s, p)
	go func() { _ = s.Serve(l) }() // ends with Stop
	t.Cleanup(s.Stop)
	return p, s.Stop
}

// handler writes down what it is asked and refuses as often as it is told to.
type handler struct {
	mu     sync.Mutex
	refuse int
	heard  chan string
}

func (h *handler) Register(_ context.Context, name, endpoint string, versions []string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.refuse > 0 {
		h.refuse--
		return errors.New("not now")
	}
	h.heard <- "+" + name + " " + filepath.Base(endpoint) + " " + versions[0]
	return nil
}

func (h *handler) Deregister(name, endpoint string) {
	h.heard <- "-" + name + " " + filepath.Base(endpoint)
}

// next is what one of a channel's senders says next.
func next[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(time.Minute):
		t.Fatal(what, ": never")
		panic("unreachable")
	}
}

func hears(t *testing.T, h *handler, want string) {
	t.Helper()
	if got := next(t, want, h.heard); got != want {
		t.Fatalf("the handler hears %q, want %q", got, want)
	}
}

// watching runs a Watcher of a folder that is not there yet; the returned function ends it.
func watching(t *testing.T, dir string, h *handler) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- New(dir, map[string]Handler{CSI: h}, slog.New(slog.DiscardHandler)).Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := next(t, "the watcher's end", done); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func driver(endpoint string) *registration.PluginInfo {
	return &registration.PluginInfo{Type: CSI, Name: "driver", Endpoint: endpoint, SupportedVersions: []string{"1.0.0"}}
}

// TestWatch: a plugin is registered while its socket is there, also one that was there before or is in a folder that comes later; the end of
// the watcher takes nothing back.
func TestWatch(t *testing.T) {
	dir, h := t.TempDir(), &handler{heard: make(chan string, 100)}
	p, end := serve(t, filepath.Join(dir, "a.sock"), driver("/elsewhere/csi.sock"))
	stop := watching(t, dir, h)
	hears(t, h, "+driver csi.sock 1.0.0")
	if s := next(t, "the plugin is told", p.told); !s.PluginRegistered || s.Error != "" {
		t.Errorf("the plugin is told %v", s)
	}
	end()
	hears(t, h, "-driver csi.sock")
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	serve(t, filepath.Join(dir, "folder", "b.sock"), driver(""))
	hears(t, h, "+driver b.sock 1.0.0")
	stop()
	hears(t, h2(t, dir), "+driver b.sock 1.0.0") // the next process finds it
	if len(h.heard) != 0 {
		t.Errorf("at the watcher's end the handler heard %q", <-h.heard)
	}
}

// h2 is the handler of another process that watches the folder.
func h2(t *testing.T, dir string) *handler {
	h := &handler{heard: make(chan string, 100)}
	watching(t, dir, h)
	return h
}

// TestWatch_Refused: a plugin hears why it is not registered, and is tried again; of a kind that nobody serves it hears so.
func TestWatch_Refused(t *testing.T) {
	dir, h := t.TempDir(), &handler{refuse: 1, heard: make(chan string, 100)}
	p, _ := serve(t, filepath.Join(dir, "a.sock"), driver(""))
	odd, _ := serve(t, filepath.Join(dir, "odd.sock"), &registration.PluginInfo{Type: "Toaster", Name: "odd"})
	hidden, _ := serve(t, filepath.Join(dir, ".hidden.sock"), driver(""))
	watching(t, dir, h)
	if s := next(t, "the plugin is told", p.told); s.PluginRegistered || s.Error != "not now" {
		t.Errorf("the plugin is told %v", s)
	}
	hears(t, h, "+driver a.sock 1.0.0")
	if s := next(t, "the plugin is told again", p.told); !s.PluginRegistered {
		t.Errorf("the plugin is told %v", s)
	}
	if s := next(t, "the odd one is told", odd.told); s.PluginRegistered || s.Error != `plugins of the kind "Toaster" are not supported` {
		t.Errorf("the odd one is told %v", s)
	}
	if len(hidden.told) != 0 {
		t.Errorf("a hidden socket is told %v", <-hidden.told)
	}
}

// TestWatch_Replaced: a new instance at an old one's path is registered after the old one was taken back; a socket behind which nobody answers
// holds up no other.
func TestWatch_Replaced(t *testing.T) {
	dir, h := t.TempDir(), &handler{heard: make(chan string, 100)}
	dead, err := net.Listen("unix", filepath.Join(dir, "dead.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer dead.Close()
	path := filepath.Join(dir, "a.sock")
	serve(t, path, driver(""))
	watching(t, dir, h)
	hears(t, h, "+driver a.sock 1.0.0")
	fresh := filepath.Join(dir, ".fresh")
	serve(t, fresh, driver(""))
	if err := os.Rename(fresh, path); err != nil { // at once: no look at the folder sees it without the socket
		t.Fatal(err)
	}
	hears(t, h, "-driver a.sock")
	hears(t, h, "+driver a.sock 1.0.0")
}
