package observe

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/kubelet/criclient"
)

// Config says how to observe.
type Config struct {
	// Relist is the safety net: how often everything is listed although the event stream is healthy. Default 5 min.
	Relist time.Duration
	// Poll is how often everything is listed when the runtime has no event stream at all. Default 1 s.
	Poll time.Duration
	// Wake is called, from any goroutine, when a pod's picture may have changed. It must not block. Required.
	Wake func(types.UID)
	// Message reads the termination message of a container that has just been seen dead; optional. It is called
	// once per container.
	Message func(types.UID, Container) string
	Log     *slog.Logger
}

// Cache holds the last picture of every pod. It is safe for concurrent use.
type Cache struct {
	cfg Config
	cri *criclient.Client

	mu   sync.Mutex
	pods map[types.UID]*entry // guarded by mu
	byID map[string]types.UID // container and sandbox ID -> pod; guarded by mu
	// old are the pods that the runtime held before we began; nil while that is not known. Guarded by mu.
	old map[types.UID]bool
}

// entry is one pod's picture. stale counts changes that were heard of; a refresh that began before the last one
// does not make the picture fresh. listed: boxes holds all sandboxes that the runtime has of the pod, so that their
// statuses say everything and nothing need be searched for.
type entry struct {
	pod         Pod
	stale, seen int
	listed      bool
	boxes       []string
}

// New makes a Cache; Run feeds it.
func New(cfg Config, cri *criclient.Client) *Cache {
	if cfg.Relist == 0 {
		cfg.Relist = 5 * time.Minute
	}
	if cfg.Poll == 0 {
		cfg.Poll = time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Cache{cfg: cfg, cri: cri, pods: map[types.UID]*entry{}, byID: map[string]types.UID{}}
}

// Prime notes what the runtime holds now. Pods that come later are known to have nothing before we give it to them.
func (c *Cache) Prime(ctx context.Context) error {
	pods, err := c.List(ctx)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.old = map[types.UID]bool{}
	for _, p := range pods {
		c.old[p.UID] = true
	}
	return nil
}

// Get returns the pod's picture, reading it from the runtime when it is not known to be fresh. A pod of which the
// runtime holds nothing has neither sandboxes nor containers.
func (c *Cache) Get(ctx context.Context, uid types.UID) (Pod, error) {
	c.mu.Lock()
	e := c.pods[uid]
	if e != nil && e.seen == e.stale {
		defer c.mu.Unlock()
		return e.pod, nil
	}
	if e == nil {
		e = &entry{pod: Pod{UID: uid}, stale: 1, listed: c.old != nil && !c.old[uid]}
		c.pods[uid] = e
	}
	gen, old, listed, boxes := e.stale, e.pod, e.listed, slices.Clone(e.boxes)
	c.mu.Unlock()

	fresh, ok, err := Pod{}, false, error(nil)
	if listed {
		fresh, ok, err = c.ask(ctx, uid, old, boxes)
	}
	if err == nil && !ok {
		fresh, err = c.read(ctx, uid, old)
	}
	if err != nil {
		return Pod{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e.pod, e.seen = fresh, gen
	if !ok && e.stale == gen { // else a sandbox may have been made meanwhile that the list lacks
		e.listed, e.boxes = true, nil
		for _, s := range fresh.Sandboxes {
			e.boxes = append(e.boxes, s.ID)
		}
	}
	for _, s := range fresh.Sandboxes {
		c.byID[s.ID] = uid
	}
	for _, k := range fresh.Containers {
		c.byID[k.ID] = uid
	}
	return fresh, nil
}

// Made notes a sandbox that was made for the pod, or with an empty ID that one may have been: the runtime did not say.
func (c *Cache) Made(uid types.UID, id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.pods[uid]
	if e == nil {
		return
	}
	e.stale++
	if id == "" {
		e.listed = false
		return
	}
	e.boxes = append(e.boxes, id)
	c.byID[id] = uid
}

// ask reads the statuses of the sandboxes that a pod is known to have. ok is false when that does not tell of the
// containers, which only runtimes with an event stream do (CRI: PodSandboxStatusResponse.timestamp).
func (c *Cache) ask(ctx context.Context, uid types.UID, old Pod, boxes []string) (pod Pod, ok bool, err error) {
	pod = Pod{UID: uid, Namespace: old.Namespace, Name: old.Name}
	for _, id := range boxes {
		s, err := c.cri.Runtime.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id})
		if status.Code(err) == codes.NotFound {
			continue // removed
		}
		if err != nil {
			return Pod{}, false, fmt.Errorf("status of sandbox %s of pod %s: %w", id, uid, err)
		}
		if s.GetTimestamp() == 0 {
			return Pod{}, false, nil
		}
		pod.Sandboxes = append(pod.Sandboxes, sandbox(s.GetStatus()))
		for _, k := range s.GetContainersStatuses() {
			pod.Containers = append(pod.Containers, c.seen(uid, old, container(k, id)))
		}
	}
	pod.Sort()
	return pod, true, nil
}

// seen completes a container that was read: the last words of one that has just died are fetched once.
func (c *Cache) seen(uid types.UID, old Pod, k Container) Container {
	if k.State != Exited {
		return k
	}
	if i := slices.IndexFunc(old.Containers, func(o Container) bool { return o.ID == k.ID && o.State == Exited }); i >= 0 {
		return old.Containers[i]
	}
	if c.cfg.Message != nil {
		if m := c.cfg.Message(uid, k); m != "" {
			k.Message = m
		}
	}
	return k
}

// Known returns all containers as last seen, without asking the runtime.
func (c *Cache) Known() []Container {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []Container
	for _, e := range c.pods {
		out = append(out, e.pod.Containers...)
	}
	return out
}

// Touch marks a pod's picture as out of date: its worker has just acted on the runtime.
func (c *Cache) Touch(uid types.UID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.pods[uid]; e != nil {
		e.stale++
	}
}

// Forget drops a pod that is gone for good.
func (c *Cache) Forget(uid types.UID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pods, uid)
	maps.DeleteFunc(c.byID, func(_ string, u types.UID) bool { return u == uid })
}

// read asks the runtime for one pod. Statuses of containers that were already known dead are taken from old.
func (c *Cache) read(ctx context.Context, uid types.UID, old Pod) (Pod, error) {
	byPod := map[string]string{LabelPodUID: string(uid)}
	boxes, err := c.cri.Runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{
		Filter: &runtimeapi.PodSandboxFilter{LabelSelector: byPod}})
	if err != nil {
		return Pod{}, fmt.Errorf("list sandboxes of pod %s: %w", uid, err)
	}
	list, err := c.cri.Runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{
		Filter: &runtimeapi.ContainerFilter{LabelSelector: byPod}})
	if err != nil {
		return Pod{}, fmt.Errorf("list containers of pod %s: %w", uid, err)
	}
	pod := Pod{UID: uid}
	for _, b := range boxes.GetItems() {
		s, err := c.cri.Runtime.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: b.GetId()})
		if status.Code(err) == codes.NotFound {
			continue // removed since the list
		}
		if err != nil {
			return Pod{}, fmt.Errorf("status of sandbox %s of pod %s: %w", b.GetId(), uid, err)
		}
		pod.Namespace, pod.Name = b.GetMetadata().GetNamespace(), b.GetMetadata().GetName()
		pod.Sandboxes = append(pod.Sandboxes, sandbox(s.GetStatus()))
	}
	for _, k := range list.GetContainers() {
		if i := slices.IndexFunc(old.Containers, func(o Container) bool { return o.ID == k.GetId() && o.State == Exited }); i >= 0 {
			pod.Containers = append(pod.Containers, old.Containers[i])
			continue
		}
		s, err := c.cri.Runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: k.GetId()})
		if status.Code(err) == codes.NotFound {
			continue
		}
		if err != nil {
			return Pod{}, fmt.Errorf("status of container %s of pod %s: %w", k.GetId(), uid, err)
		}
		pod.Containers = append(pod.Containers, c.seen(uid, old, container(s.GetStatus(), k.GetPodSandboxId())))
	}
	pod.Sort()
	return pod, nil
}

// List names every pod of which the runtime holds anything, with namespace and name but without details. It
// always asks the runtime.
func (c *Cache) List(ctx context.Context) ([]Pod, error) {
	boxes, err := c.cri.Runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return nil, fmt.Errorf("list all sandboxes: %w", err)
	}
	list, err := c.cri.Runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	if err != nil {
		return nil, fmt.Errorf("list all containers: %w", err)
	}
	found := map[types.UID]Pod{}
	add := func(labels map[string]string) types.UID {
		uid := types.UID(labels[LabelPodUID])
		if uid != "" { // anything without the label is not ours: leave it alone
			found[uid] = Pod{UID: uid, Namespace: labels[LabelPodNamespace], Name: labels[LabelPodName]}
		}
		return uid
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range boxes.GetItems() {
		c.byID[b.GetId()] = add(b.GetLabels())
	}
	for _, k := range list.GetContainers() {
		c.byID[k.GetId()] = add(k.GetLabels())
	}
	return slices.Collect(maps.Values(found)), nil
}
