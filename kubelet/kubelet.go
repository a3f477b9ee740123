package kubelet

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	typedcore "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/kubelet/act"
	"keelson.dev/keelson/kubelet/criclient"
	"keelson.dev/keelson/kubelet/device"
	"keelson.dev/keelson/kubelet/eviction"
	"keelson.dev/keelson/kubelet/nodestatus"
	"keelson.dev/keelson/kubelet/observe"
	"keelson.dev/keelson/kubelet/pluginwatch"
	"keelson.dev/keelson/kubelet/podresources"
	"keelson.dev/keelson/kubelet/podworker"
	"keelson.dev/keelson/kubelet/probe"
	"keelson.dev/keelson/kubelet/pull"
	"keelson.dev/keelson/kubelet/qos"
	"keelson.dev/keelson/kubelet/shutdown"
	"keelson.dev/keelson/kubelet/source"
	"keelson.dev/keelson/kubelet/stats"
	"keelson.dev/keelson/kubelet/statuswriter"
)

// Kubelet runs the pods of one node.
type Kubelet struct {
	cfg     Config
	client  kubernetes.Interface
	log     *slog.Logger
	volumes Volumes
	parts   parts
	ready   chan struct{}

	mirrorWake chan struct{} // capacity 1: level, not count
	admission  chan struct{} // capacity 1: held while one pod is judged
	usage      *stats.Source
	nodeMemory int64 // bytes
	images     imageUses
	shortAt    map[eviction.Signal]time.Time // only the eviction goroutine's
	disks      diskWatch                     // the same

	mu      sync.Mutex
	ctx     context.Context            // of Run, for tasks that outlive one call; guarded by mu
	records map[types.UID]*recordEntry // guarded by mu
	statics map[string]*corev1.Pod     // namespace/name -> static pod; guarded by mu
	runtime string                     // the runtime's name, the scheme of container IDs; guarded by mu
}

// parts are the kubelet's own pieces, wired once in New.
type parts struct {
	cri     *criclient.Client
	metrics *metrics
	cluster *cluster
	pods    *source.API
	workers *podworker.Workers
	cache   *observe.Cache
	probes  *probe.Manager
	puller  *pull.Puller
	exec    *act.Executor
	writer  *statuswriter.Writer
	tree    *qos.Tree
	node    *nodestatus.Reporter
	events  record.EventBroadcaster
	objects *objectWatches
	devices *device.Manager
	plugins *pluginwatch.Watcher
	leaving *leaving
}

// recordEntry is a record with the last known version of its pod.
type recordEntry struct {
	*podRecord
	pod *corev1.Pod
}

// New wires a Kubelet; nothing runs before Run.
func New(cfg Config, d Deps) (*Kubelet, error) {
	if err := cfg.validate(d); err != nil {
		return nil, err
	}
	cfg.complete()
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	k := &Kubelet{
		cfg: cfg, client: d.Client, log: d.Log, volumes: d.Volumes, ready: make(chan struct{}),
		mirrorWake: make(chan struct{}, 1), admission: make(chan struct{}, 1),
		disks: diskWatch{sys: "/sys"}, images: newImageUses(), shortAt: map[eviction.Signal]time.Time{},
		records: map[types.UID]*recordEntry{}, statics: map[string]*corev1.Pod{}, runtime: "keelson",
	}
	p := &k.parts
	p.metrics, p.leaving = newMetrics(), newLeaving()
	if d.CRI != nil {
		p.cri = criclient.New(d.CRI)
	} else {
		var err error
		if p.cri, err = criclient.Dial(cfg.CRIEndpoint, p.metrics.criCall); err != nil {
			return nil, err
		}
	}
	if err := k.wire(d); err != nil {
		_ = p.cri.Close()
		return nil, err
	}
	return k, nil
}

func (k *Kubelet) wire(d Deps) error {
	cfg, p := k.cfg, &k.parts
	machine, err := nodestatus.ReadMachine()
	if err != nil {
		return fmt.Errorf("kubelet: read the machine's size: %w", err)
	}
	k.nodeMemory = machine.MemoryBytes
	cpu, memory := nodestatus.Allocatable(machine, cfg.Reserved)
	p.tree = qos.NewTree(qos.Config{
		Root: cfg.CgroupRoot, Systemd: cfg.SystemdCgroups, AllocatableMilliCPU: cpu, AllocatableMemory: memory, PidsMax: cfg.Node.PidsPerPod,
		SingleProcessOOMKill: cfg.Node.SingleProcessOOMKill,
	})
	p.cluster = newCluster(d.Client, cfg.Node.Name)
	if p.pods, err = source.NewAPI(d.Client, cfg.Node.Name, apiSink{k}); err != nil {
		return err
	}
	p.events = record.NewBroadcaster()
	p.devices = device.New(device.Config{
		Dir: filepath.Join(cfg.Paths.Root, "device-plugins"), Changed: func() { p.node.Wake() }, Wake: func(uid types.UID) { p.workers.Wake(uid) },
		Log: k.log,
	})
	p.exec = act.New(act.Config{
		Root: cfg.Paths.Root, LogRoot: cfg.Paths.PodLogs, LinkRoot: cfg.Paths.LogLinks,
		NodeName: cfg.Node.Name, Hostname: cfg.Node.Hostname, DNS: k.dns(),
		SeccompDefault: !cfg.NoSeccompDefault, SELinux: act.SELinuxOn(), NodeMemory: machine.MemoryBytes,
	}, act.Deps{
		CRI: p.cri, API: p.cluster, Tree: p.tree, SubPath: d.Volumes.SubPath, Log: k.log, Devices: p.devices.Container,
		Events: k.recorder(),
	})
	p.workers = podworker.New(k, k.log)
	p.metrics.registry.MustRegister(gauges{k})
	p.objects = newObjectWatches(d.Client, k.sourceChanged)
	p.cache = observe.New(observe.Config{Wake: p.workers.Wake, Message: k.lastWords, Log: k.log}, p.cri)
	k.usage = stats.New(stats.Config{Node: cfg.Node.Name, Root: cfg.Paths.Root, CRI: p.cri, Pods: nodeView{k}.Pods, Volumes: d.Measure})
	p.metrics.registry.MustRegister(k.usage.Claims())
	p.probes = probe.New(probe.Config{CRI: p.cri, Events: p.exec, Wake: p.workers.Wake, Mark: cfg.ProbeMark})
	p.puller = pull.New(pull.Config{Parallel: cfg.ParallelPulls, Ledger: filepath.Join(cfg.Paths.Root, "image-pulls")}, p.cri, p.cluster, p.exec)
	p.writer = statuswriter.New(statuswriter.Config{
		Client: d.Client, Target: k.target, Log: k.log,
		Written: func(uid types.UID) {
			p.workers.Wake(uid)
			p.leaving.poke()
		},
	})
	p.node = nodestatus.New(nodestatus.Config{
		Name: cfg.Node.Name, Hostname: cfg.Node.Hostname, IPs: cfg.Node.IPs, Labels: cfg.Node.Labels,
		Taints: cfg.Node.Taints, PodCIDRs: cfg.Node.PodCIDRs, ProviderID: cfg.Node.ProviderID,
		MaxPods: cfg.Node.MaxPods, Version: cfg.Node.Version, Reserved: cfg.Reserved,
		Root: cfg.Paths.Root, ServerAddr: cfg.Server.Addr, StatusEvery: cfg.StatusEvery, LeaseEvery: cfg.LeaseEvery,
	}, nodestatus.Deps{Client: d.Client, CRI: p.cri, Log: k.log, Node: p.cluster.Node, Devices: p.devices.Capacity, InUse: d.InUse})
	p.plugins = pluginwatch.New(filepath.Join(cfg.Paths.Root, "plugins_registry"), d.Plugins, k.log)
	return nil
}

func (k *Kubelet) dns() act.DNS {
	out := act.DNS{Domain: k.cfg.ClusterDomain, ResolvConf: k.cfg.Paths.ResolvConf}
	for _, a := range k.cfg.ClusterDNS {
		out.Servers = append(out.Servers, a.String())
	}
	return out
}

// Ready is closed when the node has been reported Ready to the API.
func (k *Kubelet) Ready() <-chan struct{} { return k.ready }

// Recheck asks for a look at the node's status and at some pods now: something beside the API changed what they say.
func (k *Kubelet) Recheck(pods ...types.UID) {
	k.parts.node.Wake()
	for _, uid := range pods {
		k.parts.workers.Wake(uid)
	}
}

// Run works until ctx ends and returns after all of its goroutines have. Containers go on running. An error means
// that it could not begin, or that its server failed.
func (k *Kubelet) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	k.mu.Lock()
	k.ctx = ctx
	k.mu.Unlock()
	p := &k.parts
	defer p.cri.Close()
	if err := k.begin(ctx); err != nil {
		return err
	}
	p.workers.Start(ctx)
	sink := p.events.StartRecordingToSink(&typedcore.EventSinkImpl{Interface: k.client.CoreV1().Events("")})
	defer func() {
		sink.Stop()
		p.events.Shutdown()
	}()
	var wg sync.WaitGroup
	run := func(what string, f func(context.Context) error) {
		wg.Go(func() { // each f returns after ctx
			if err := f(ctx); err != nil && ctx.Err() == nil {
				k.log.Error("kubelet part failed", "part", what, "err", err)
				cancel(fmt.Errorf("kubelet %s: %w", what, err))
			}
		})
	}
	// Such a part waits for better times: a full disk at the start must not end what needs no disk.
	insist := func(what string, f func(context.Context) error) { run(what, k.insisting(what, f)) }
	run("services watch", func(ctx context.Context) error { p.cluster.services.RunWithContext(ctx); return nil })
	run("node watch", func(ctx context.Context) error { p.cluster.nodes.RunWithContext(ctx); return nil })
	run("runtime events", p.cache.Run)
	run("pod status writer", p.writer.Run)
	run("pod watch", p.pods.Run)
	if err := k.serve(ctx, run); err != nil { // before the node can be Ready: whoever sees it so may ask for a pod's log at once
		cancel(err)
	}
	run("node status", func(ctx context.Context) error { return p.node.Run(ctx, func() { close(k.ready) }) })
	if !k.cfg.Shutdown.Off {
		run("machine's shutdown", shutdown.New(k.shutdown(), machine{k}).Run)
	}
	insist("pod cgroups", func(ctx context.Context) error { return p.tree.Watch(ctx, k.cgroupsBack) })
	insist("device plugins", p.devices.Run)
	insist("pod resources", (&podresources.Server{
		Socket: filepath.Join(k.cfg.Paths.Root, "pod-resources", "kubelet.sock"), Pods: nodeView{k}.Pods, Devices: p.devices, Log: k.log,
	}).Run)
	insist("plugins", func(ctx context.Context) error {
		select { // what is told of a plugin belongs to the node's object
		case <-k.ready:
			return p.plugins.Run(ctx)
		case <-ctx.Done():
			return nil
		}
	})
	run("orphans", k.orphans)
	run("mirror pods", k.mirrors)
	if dir := k.cfg.Paths.Manifests; dir != "" {
		run("static pods", source.NewFolder(dir, k.cfg.Node.Name, staticSink{k}, k.log).Run)
	}
	k.housekeeping(run)
	wg.Wait()
	p.workers.Wait()
	p.probes.Wait()
	p.objects.wg.Wait()
	if cause := context.Cause(ctx); cause != nil && cause != context.Canceled && cause != context.DeadlineExceeded {
		return cause
	}
	return nil
}

// insisting runs a part again, less and less often, when it fails.
func (k *Kubelet) insisting(what string, f func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		for delay := time.Second; ; delay = min(2*delay, 30*time.Second) {
			err := f(ctx)
			if err == nil || ctx.Err() != nil {
				return err
			}
			k.log.Error("kubelet part failed: will try again", "part", what, "after", delay, "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(delay):
			}
		}
	}
}

// begin waits for the runtime and makes the upper cgroups.
func (k *Kubelet) begin(ctx context.Context) error {
	delay := 10 * time.Millisecond
	for try := 0; ; try++ {
		v, err := k.parts.cri.Runtime.Version(ctx, &runtimeapi.VersionRequest{})
		if err == nil {
			k.mu.Lock()
			k.runtime = v.GetRuntimeName()
			k.mu.Unlock()
			break
		}
		level := slog.LevelDebug
		if try%60 == 8 { // for more than two seconds: longer than both take to start side by side; then once a minute
			level = slog.LevelWarn
		}
		k.log.Log(ctx, level, "container runtime does not answer yet", "err", criclient.Message(err))
		timer := time.NewTimer(delay)
		delay = min(2*delay, time.Second)
		select {
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("kubelet: the container runtime never answered: %s", criclient.Message(err))
		case <-timer.C:
		}
	}
	k.adoptDriver(ctx)
	if err := k.parts.cache.Prime(ctx); err != nil {
		return fmt.Errorf("kubelet: look at what the runtime holds: %w", err)
	}
	for _, dir := range []string{k.cfg.Paths.PodLogs, k.cfg.Paths.LogLinks} {
		if dir == "" {
			continue
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("kubelet: make log directory: %w", err)
		}
	}
	if err := k.parts.tree.Setup(); err != nil {
		return fmt.Errorf("kubelet: set up pod cgroups below %s: %w", k.cfg.CgroupRoot, err)
	}
	return nil
}

// adoptDriver makes the pods' cgroups the way the runtime does (KEP-4033): the runtime's word counts, and the
// configuration only for a runtime that says nothing, such as one too old to be asked.
func (k *Kubelet) adoptDriver(ctx context.Context) {
	r, err := k.parts.cri.Runtime.RuntimeConfig(ctx, &runtimeapi.RuntimeConfigRequest{})
	if err != nil || r.GetLinux() == nil {
		k.log.Info("the runtime does not tell its cgroup driver; the configured one it is", "driver", k.parts.tree.Driver(), "err", criclient.Message(err))
		return
	}
	k.parts.tree.UseSystemd(r.GetLinux().GetCgroupDriver() == runtimeapi.CgroupDriver_SYSTEMD)
}

// entry returns the pod's record, making it if need be, and notes the pod's newest version.
func (k *Kubelet) entry(pod *corev1.Pod) *podRecord {
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.records[pod.UID]
	if e == nil {
		e = &recordEntry{podRecord: newRecord()}
		k.records[pod.UID] = e
	}
	e.pod = pod
	return e.podRecord
}

// known returns a pod's record and newest version, or nils.
func (k *Kubelet) known(uid types.UID) (*podRecord, *corev1.Pod) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if e := k.records[uid]; e != nil {
		return e.podRecord, e.pod
	}
	return nil, nil
}

func (k *Kubelet) background() context.Context {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ctx
}

func (k *Kubelet) runtimeName() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.runtime
}
