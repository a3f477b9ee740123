package cri

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/image"
	"keelson.dev/keelson/network"
	"keelson.dev/keelson/runtime/container"
	"keelson.dev/keelson/runtime/sandbox"
)

// world is a machine in memory: what exists, by name, and a hook before every
// step that a test may use to fail or to cancel there.
type world struct {
	mu     sync.Mutex
	things map[string]bool // "netns x", "rootfs y": what a leak check looks at
	states map[string]*container.State
	boxes  map[string]*sandbox.Sandbox
	events []chan container.Event
	steps  []string
	hook   func(step string) error
	down   error // why no container can be started
}

func newWorld() *world {
	return &world{things: map[string]bool{}, states: map[string]*container.State{}, boxes: map[string]*sandbox.Sandbox{}}
}

// step runs the hook, then makes or unmakes a thing even when the hook fails in
// a making: an effect may be half done.
func (w *world) step(ctx context.Context, name, thing string, exists bool) error {
	w.mu.Lock()
	hook := w.hook
	w.steps = append(w.steps, name)
	w.mu.Unlock()
	var err error
	if hook != nil {
		err = hook(name)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !exists {
		if err == nil {
			delete(w.things, thing)
		}
		return err
	}
	w.things[thing] = true
	if err == nil {
		err = ctx.Err()
	}
	return err
}

func (w *world) left() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Sorted(maps.Keys(w.things))
}

func (w *world) publish(e container.Event) {
	for _, c := range w.events {
		c <- e
	}
}

type (
	fakeImages     struct{ *world }
	fakeRootfs     struct{ *world }
	fakeContainers struct{ *world }
	fakeSandboxes  struct{ *world }
	fakeNetwork    struct{ *world }
)

func (fakeImages) Pull(_ context.Context, ref string, _ *image.Auth) (image.Image, error) {
	if ref == "unsigned" {
		return image.Image{}, fmt.Errorf("%w: no signature", image.ErrSignature)
	}
	return fakeImages{}.Get(ref)
}

func (fakeImages) Get(ref string) (image.Image, error) {
	if ref == "none" {
		return image.Image{}, image.ErrNotFound
	}
	return image.Image{ID: "sha256:1", RepoTags: []string{"reg/img:1"}, RepoDigests: []string{"reg/img@sha256:2"}, Size: 1, Config: image.ImageConfig{Cmd: []string{"/init"}, User: "1002:5"}}, nil
}
func (f fakeImages) List() []image.Image                { i, _ := f.Get(""); return []image.Image{i} }
func (fakeImages) Remove(context.Context, string) error { return nil }
func (fakeImages) Usage() (image.Usage, error) {
	return image.Usage{Path: "/images", Bytes: 1, Inodes: 1}, nil
}

func (f fakeRootfs) MountRootfs(ctx context.Context, id, _ string, _ image.RootfsOptions) (string, error) {
	return "/rootfs/" + id, f.step(ctx, "MountRootfs", "rootfs "+id, true)
}

func (f fakeRootfs) UnmountRootfs(ctx context.Context, id string) error {
	return f.step(ctx, "UnmountRootfs", "rootfs "+id, false)
}
func (f fakeRootfs) RootfsUsage(string) (image.Usage, error) { return image.Usage{}, nil }
func (f fakeRootfs) MountImage(ctx context.Context, id, _ string, _ image.ViewOptions) (string, error) {
	return "/img/" + id, f.step(ctx, "MountImage", "image "+id, true)
}

func (f fakeRootfs) UnmountImage(ctx context.Context, id string) error {
	return f.step(ctx, "UnmountImage", "image "+id, false)
}

func (f fakeContainers) Create(ctx context.Context, cfg container.Config) error {
	err := f.step(ctx, "Create", "container "+cfg.ID, true)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.states[cfg.ID] = &container.State{ID: cfg.ID, SandboxID: cfg.SandboxID, Status: container.Created, CreatedAt: time.Now()}
	return err
}

func (f fakeContainers) Start(ctx context.Context, id string) (container.State, error) {
	if err := f.step(ctx, "Start", "container "+id, true); err != nil {
		return container.State{}, err
	}
	f.mu.Lock()
	st := f.states[id]
	st.Status, st.Pid, st.StartedAt = container.Running, 42, time.Now()
	f.mu.Unlock()
	f.publish(container.Event{ContainerID: id, Kind: container.EventStarted})
	return *st, nil
}

func (f fakeContainers) Stop(ctx context.Context, id string, sig syscall.Signal, _ time.Duration) error {
	f.mu.Lock()
	st := f.states[id]
	f.mu.Unlock()
	if st == nil {
		return container.ErrNotFound
	}
	if err := f.step(ctx, "Stop", "container "+id, true); err != nil {
		return err
	}
	f.mu.Lock()
	was := st.Status
	if was == container.Running {
		st.Status, st.FinishedAt, st.ExitCode = container.Exited, time.Now(), 128+int32(sig)
	}
	f.mu.Unlock()
	if was == container.Running {
		f.publish(container.Event{ContainerID: id, Kind: container.EventExited})
	}
	return nil
}

func (f fakeContainers) Remove(ctx context.Context, id string) error {
	f.mu.Lock()
	_, ok := f.states[id]
	f.mu.Unlock()
	if !ok {
		return container.ErrNotFound
	}
	if err := f.step(ctx, "Remove", "container "+id, false); err != nil {
		return err
	}
	f.mu.Lock()
	delete(f.states, id)
	f.mu.Unlock()
	return nil
}
func (f fakeContainers) Update(context.Context, string, *specs.LinuxResources) error { return nil }

func (f fakeContainers) State(id string) (container.State, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	st, ok := f.states[id]
	if !ok {
		return container.State{}, container.ErrNotFound
	}
	return *st, nil
}

func (f fakeContainers) List() []container.State {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []container.State
	for _, st := range f.states {
		out = append(out, *st)
	}
	return out
}

func (fakeContainers) Spec(string) (*specs.Spec, error) { return &specs.Spec{}, nil }

func (f fakeContainers) Stats(string, bool) (container.Stats, error) {
	return container.Stats{At: time.Now()}, nil
}

func (f fakeContainers) Events(context.Context) <-chan container.Event {
	c := make(chan container.Event, 10000)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.world.events = append(f.world.events, c)
	return c
}

func (f fakeContainers) Exec(_ context.Context, _ string, cfg container.ExecConfig) (int32, error) {
	return 0, nil
}
func (f fakeContainers) Status() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.down
}
func (f fakeContainers) Attach(context.Context, string, container.Streams) error { return nil }
func (f fakeContainers) ReopenLog(context.Context, string) error                 { return nil }

func (f fakeSandboxes) Create(ctx context.Context, cfg sandbox.Config) (*sandbox.Sandbox, error) {
	err := f.step(ctx, "CreateSandbox", "sandbox "+cfg.ID, true)
	sb := &sandbox.Sandbox{Config: cfg, CgroupPath: cfg.CgroupParent}
	f.mu.Lock()
	f.boxes[cfg.ID] = sb
	f.mu.Unlock()
	return sb, err
}

func (f fakeSandboxes) Remove(ctx context.Context, id string) error {
	if err := f.step(ctx, "RemoveSandbox", "sandbox "+id, false); err != nil {
		return err
	}
	f.mu.Lock()
	delete(f.boxes, id)
	f.mu.Unlock()
	return nil
}

func (f fakeSandboxes) Get(id string) (*sandbox.Sandbox, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	sb, ok := f.boxes[id]
	if !ok {
		return nil, sandbox.ErrNotFound
	}
	return sb, nil
}

func (f fakeSandboxes) List() []*sandbox.Sandbox {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Values(f.boxes))
}

func (f fakeNetwork) Setup(ctx context.Context, p network.Pod) (network.Attachment, error) {
	err := f.step(ctx, "Setup", "network "+p.SandboxID, true)
	return network.Attachment{NetNSPath: "/netns/" + p.SandboxID, IPs: []netip.Addr{netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("fd00::3")}}, err
}

func (f fakeNetwork) Teardown(ctx context.Context, id string) error {
	return f.step(ctx, "Teardown", "network "+id, false)
}
func (f fakeNetwork) Status() error { return nil }

// start gives a server over w whose records are in dir.
func start(t *testing.T, w *world, dir string) *Server {
	t.Helper()
	s, err := New(Config{RunDir: dir, Version: "1.0.0", Log: slog.New(slog.DiscardHandler)}, Deps{
		Images: fakeImages{w}, Rootfs: fakeRootfs{w}, Containers: fakeContainers{w}, Sandboxes: fakeSandboxes{w}, Network: fakeNetwork{w},
		ResolveUser: func(string, string) (image.User, error) { return image.User{UID: 1002, GID: 5}, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func podConfig(name string) *runtimeapi.PodSandboxConfig {
	return &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "ns", Uid: "uid-" + name}, Hostname: name,
		Labels: map[string]string{"app": name}, Linux: &runtimeapi.LinuxPodSandboxConfig{},
	}
}

func ctrConfig(name string) *runtimeapi.ContainerConfig {
	return &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: name}, Image: &runtimeapi.ImageSpec{Image: "reg/img:1"},
		Linux: &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER},
		}},
		Mounts: []*runtimeapi.Mount{{ContainerPath: "/v", Readonly: true, Image: &runtimeapi.ImageSpec{Image: "vol"}}},
	}
}

func runPod(t *testing.T, s *Server, cfg *runtimeapi.PodSandboxConfig) string {
	t.Helper()
	resp, err := s.RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: cfg})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetPodSandboxId()
}

func createCtr(t *testing.T, s *Server, pod string, cfg *runtimeapi.ContainerConfig) string {
	t.Helper()
	resp, err := s.CreateContainer(t.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: cfg})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetContainerId()
}

func removePod(t *testing.T, s *Server, id string) {
	t.Helper()
	if _, err := s.RemovePodSandbox(t.Context(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id}); err != nil {
		t.Fatal(err)
	}
}

func nothingLeft(t *testing.T, s *Server, w *world) {
	t.Helper()
	if l := w.left(); len(l) > 0 {
		t.Errorf("left behind: %v", l)
	}
	if n := len(s.sandboxes.List()) + len(s.sandboxes.Unfinished()) + len(s.containers.List()) + len(s.containers.Unfinished()); n > 0 {
		t.Errorf("%d records are left", n)
	}
	if len(s.gates.m) > 0 {
		t.Errorf("gates are left: %v", s.gates.m)
	}
}

var errStep = fmt.Errorf("this step fails")
