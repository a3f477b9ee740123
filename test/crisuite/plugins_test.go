package crisuite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/stub"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// plugin is a node plugin over the real socket. Its hooks are set before it connects.
type plugin struct {
	create func(*api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error)
	update func(*api.Container, *api.LinuxResources) []*api.ContainerUpdate
	run    func(context.Context, *api.PodSandbox) error

	mu     sync.Mutex
	seen   []string // "event container", in order
	synced []string
	ready  chan struct{}
	gone   chan struct{}
	stub   stub.Stub
}

func (p *plugin) saw(event, id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen = append(p.seen, event+" "+id)
}

// of gives the events of one object.
func (p *plugin) of(id string) (events []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.seen {
		if event, ok := strings.CutSuffix(s, " "+id); ok {
			events = append(events, event)
		}
	}
	return events
}

func (p *plugin) Synchronize(_ context.Context, pods []*api.PodSandbox, containers []*api.Container) ([]*api.ContainerUpdate, error) {
	for _, x := range pods {
		p.synced = append(p.synced, x.GetId())
	}
	for _, x := range containers {
		p.synced = append(p.synced, x.GetId())
	}
	close(p.ready)
	return nil, nil
}

func (p *plugin) RunPodSandbox(ctx context.Context, pod *api.PodSandbox) error {
	p.saw("run", pod.GetId())
	if p.run != nil {
		return p.run(ctx, pod)
	}
	return nil
}

func (p *plugin) StopPodSandbox(_ context.Context, pod *api.PodSandbox) error {
	p.saw("stop", pod.GetId())
	return nil
}

func (p *plugin) RemovePodSandbox(_ context.Context, pod *api.PodSandbox) error {
	p.saw("remove", pod.GetId())
	return nil
}

func (p *plugin) CreateContainer(_ context.Context, _ *api.PodSandbox, c *api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
	p.saw("create", c.GetId())
	if p.create != nil {
		return p.create(c)
	}
	return nil, nil, nil
}

func (p *plugin) PostCreateContainer(_ context.Context, _ *api.PodSandbox, c *api.Container) error {
	p.saw("created", c.GetId())
	return nil
}

func (p *plugin) StartContainer(_ context.Context, _ *api.PodSandbox, c *api.Container) error {
	p.saw("start", c.GetId())
	return nil
}

func (p *plugin) PostStartContainer(_ context.Context, _ *api.PodSandbox, c *api.Container) error {
	p.saw("started", c.GetId())
	return nil
}

func (p *plugin) UpdateContainer(_ context.Context, _ *api.PodSandbox, c *api.Container, r *api.LinuxResources) ([]*api.ContainerUpdate, error) {
	p.saw("update", c.GetId())
	if p.update != nil {
		return p.update(c, r), nil
	}
	return nil, nil
}

func (p *plugin) StopContainer(_ context.Context, _ *api.PodSandbox, c *api.Container) ([]*api.ContainerUpdate, error) {
	p.saw("stop", c.GetId())
	return nil, nil
}

func (p *plugin) RemoveContainer(_ context.Context, _ *api.PodSandbox, c *api.Container) error {
	p.saw("remove", c.GetId())
	return nil
}

// connect connects a plugin and waits until it is synchronized. It leaves at the test's end.
func (n *Node) connect(t *testing.T, index string, p *plugin) *plugin {
	t.Helper()
	p.ready, p.gone = make(chan struct{}), make(chan struct{})
	s, err := stub.New(p, stub.WithPluginName("suite"), stub.WithPluginIdx(index), stub.WithSocketPath(n.NRISocket()),
		stub.WithOnClose(func() { close(p.gone) }))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.stub = s
	t.Cleanup(s.Stop)
	select {
	case <-p.ready:
	case <-time.After(time.Minute):
		t.Fatal("the plugin was not synchronized")
	}
	return p
}

func TestPlugins(t *testing.T) {
	n := NewNode(t, logOf(t))
	for name, f := range map[string]func(*Bench, *Node){
		"events in order": pluginEvents, "a container is adjusted": pluginAdjusts, "limits are changed": pluginUpdates,
		"a refusal leaves nothing": pluginRefuses, "one that hangs is dropped": pluginHangs,
	} {
		t.Run(name, func(t *testing.T) { f(NewBench(t, n.target()), n) })
	}
}

func pluginEvents(b *Bench, n *Node) {
	first := n.connect(b.T, "10", &plugin{})
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	id := b.StartIn(pod, pc, b.ContainerConfig("exit 3"))
	late := n.connect(b.T, "20", &plugin{})
	for _, want := range []string{pod, id} {
		if !slices.Contains(late.synced, want) {
			b.Errorf("a plugin that came late was synchronized with %v, without %s", late.synced, want)
		}
	}
	// It ended of itself: the plugins hear of it without anybody's asking.
	b.within("the plugins hear of the end", func() bool { return slices.Contains(first.of(id), "stop") })
	b.RemovePod(pod)
	b.RemovePod(pod)
	if got, want := fmt.Sprint(first.of(id)), "[create created start started stop remove]"; got != want {
		b.Errorf("the container's events: %s, want %s", got, want)
	}
	if got, want := fmt.Sprint(first.of(pod)), "[run stop remove]"; got != want {
		b.Errorf("the pod's events: %s, want %s", got, want)
	}
	if got := late.of(id); len(got) == 0 || got[len(got)-1] != "remove" {
		b.Errorf("the late plugin heard %v", got)
	}
}

// within waits for what another process does.
func (b *Bench) within(what string, f func() bool) {
	b.Helper()
	for range 3000 {
		if f() {
			return
		}
		time.Sleep(20 * time.Millisecond) // the plugin has no event that could be waited on
	}
	b.Fatalf("not within a minute: %s", what)
}

func pluginAdjusts(b *Bench, n *Node) {
	dir, trace := b.TempDir(), filepath.Join(b.TempDir(), "trace")
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("of the plugin\n"), 0o644); err != nil {
		b.Fatal(err)
	}
	var saw *api.Container
	score := 555
	n.connect(b.T, "10", &plugin{create: func(c *api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
		saw, _ = proto.Clone(c).(*api.Container)
		a := &api.ContainerAdjustment{}
		a.AddEnv("ADDED", "by a plugin")
		a.AddEnv("GIVEN", "changed")
		a.AddMount(&api.Mount{Source: dir, Destination: "/plugin", Type: "bind", Options: []string{"rbind", "ro"}})
		a.AddDevice(&api.LinuxDevice{Path: "/dev/other-null", Type: "c", Major: 1, Minor: 3, FileMode: api.FileMode(0o666)})
		a.AddAnnotation("of", "plugin")
		a.AddRlimit("RLIMIT_NOFILE", 512, 256)
		a.SetLinuxMemoryLimit(64 << 20)
		a.SetLinuxPidLimits(77)
		a.SetLinuxOomScoreAdj(&score)
		a.AddHooks(&api.Hooks{
			CreateRuntime: []*api.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "cat > " + trace}}},
			Poststop:      []*api.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "cat >> " + trace}}},
		})
		return a, nil, nil
	}})
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	id := b.StartIn(pod, pc, b.ContainerConfig("exec sleep 1000", func(c *runtimeapi.ContainerConfig) {
		c.Envs = []*runtimeapi.KeyValue{{Key: "GIVEN", Value: []byte("x")}}
		c.Linux.Resources.MemoryLimitInBytes = 128 << 20
	}))
	for script, want := range map[string]string{
		"tr '\\0' '\\n' < /proc/1/environ | grep -E '^(ADDED|GIVEN)=' | sort": "ADDED=by a plugin\nGIVEN=changed\n",
		"echo $ADDED":      "by a plugin\n", // of an exec, too
		"cat /plugin/file": "of the plugin\n",
		"echo gone > /dev/other-null && stat -c %t:%T /dev/other-null": "1:3\n",
		"grep '^Max open files' /proc/1/limits | tr -s ' '":            "Max open files 256 512 files \n",
		"cat /proc/1/oom_score_adj":                                    "555\n",
	} {
		if got := b.Sh(id, script); got != want {
			b.Errorf("%q gives %q, want %q", script, got, want)
		}
	}
	if r := b.ShCode(id, "touch /plugin/x"); r.GetExitCode() == 0 {
		b.Error("the plugin's mount is not read-only")
	}
	if got := b.Status(id).GetResources().GetLinux().GetMemoryLimitInBytes(); got != 64<<20 {
		b.Errorf("the status tells of %d bytes, want the plugin's", got)
	}
	if text, err := os.ReadFile(trace); err != nil || !strings.Contains(string(text), id) {
		b.Errorf("the hook got %q, %v; want the container's state", text, err)
	}
	b.RemovePod(pod)
	b.within("the hook of the end", func() bool {
		text, _ := os.ReadFile(trace)
		return strings.Contains(string(text), `"status":"stopped"`)
	})
	if saw.GetLinux().GetResources().GetMemory().GetLimit().GetValue() != 128<<20 || !slices.Contains(saw.GetEnv(), "GIVEN=x") ||
		saw.GetPodSandboxId() != pod || len(saw.GetMounts()) == 0 || saw.GetLinux().GetCgroupsPath() == "" {
		b.Errorf("the plugin saw %v", saw)
	}
}

func pluginUpdates(b *Bench, n *Node) {
	var other string
	p := n.connect(b.T, "10", &plugin{update: func(c *api.Container, r *api.LinuxResources) []*api.ContainerUpdate {
		own, further := &api.ContainerUpdate{ContainerId: c.GetId()}, &api.ContainerUpdate{ContainerId: other}
		own.SetLinuxCPUShares(r.GetCpu().GetShares().GetValue() / 2)
		further.SetLinuxCPUShares(333)
		return []*api.ContainerUpdate{own, further}
	}})
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	id, second := b.StartIn(pod, pc, b.ContainerConfig("exec sleep 1000")), b.StartIn(pod, pc, b.ContainerConfig("exec sleep 1000"))
	other = second
	_, err := b.UpdateContainerResources(b.Context(), &runtimeapi.UpdateContainerResourcesRequest{ContainerId: id, Linux: &runtimeapi.LinuxContainerResources{CpuShares: 1000}})
	if err != nil {
		b.Fatal(err)
	}
	shares := func(id string) int64 { return b.Status(id).GetResources().GetLinux().GetCpuShares() }
	if own, further := shares(id), shares(second); own != 500 || further != 333 {
		b.Errorf("shares %d and %d, want the plugin's 500 and 333", own, further)
	}
	// Of its own accord, for one container that is there and one that is not.
	good, bad := &api.ContainerUpdate{ContainerId: id}, &api.ContainerUpdate{ContainerId: "no-such-container"}
	good.SetLinuxCPUShares(700)
	bad.SetLinuxCPUShares(700)
	failed, err := p.stub.UpdateContainers([]*api.ContainerUpdate{good, bad})
	if err != nil || len(failed) != 1 || failed[0].GetContainerId() != bad.GetContainerId() || shares(id) != 700 {
		b.Errorf("unasked updates: failed %v, %v; shares %d, want 700", failed, err, shares(id))
	}
}

func pluginRefuses(b *Bench, n *Node) {
	refuse := true
	n.connect(b.T, "10", &plugin{create: func(*api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
		if refuse {
			return nil, nil, errors.New("not today")
		}
		return nil, nil, nil
	}})
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	cfg := b.ContainerConfig("exec sleep 1000")
	_, err := b.CreateContainer(b.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: cfg, SandboxConfig: pc})
	if err == nil || !strings.Contains(err.Error(), "not today") {
		b.Errorf("the plugin's refusal gives %v", err)
	}
	list, err := b.ListContainers(b.Context(), &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{PodSandboxId: pod}})
	if err != nil || len(list.GetContainers()) > 0 {
		b.Errorf("left behind: %v, %v", list.GetContainers(), err)
	}
	refuse = false
	b.StartIn(pod, pc, cfg)
}

// pluginHangs: nobody but the call that found out waits for a plugin that does not answer.
func pluginHangs(b *Bench, n *Node) {
	over := make(chan struct{})
	defer close(over)
	p := n.connect(b.T, "10", &plugin{run: func(context.Context, *api.PodSandbox) error {
		<-over
		return nil
	}})
	pc := b.PodConfig()
	pod := b.RunPod(pc)
	select {
	case <-p.gone:
	case <-time.After(time.Minute):
		b.Error("the plugin that did not answer is still connected")
	}
	b.Sh(b.StartIn(pod, pc, b.ContainerConfig("exec sleep 1000")), "true")
	again := n.connect(b.T, "10", &plugin{})
	if !slices.Contains(again.synced, pod) {
		b.Errorf("after it came back it was synchronized with %v", again.synced)
	}
}
