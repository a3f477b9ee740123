package observe

import (
	"context"
	"errors"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// errNoStream says that the runtime has no event stream.
var errNoStream = errors.New("the runtime has no event stream")

// Run follows the runtime's events until ctx ends. Whenever the stream begins, every known pod is marked stale and
// woken, since events may have been missed before; and again each Relist. A runtime without a stream (containerd
// 1.6) is listed each Poll.
func (c *Cache) Run(ctx context.Context) error {
	delay := 100 * time.Millisecond
	for {
		began := time.Now()
		err := c.follow(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, errNoStream) {
			c.cfg.Log.Warn("the runtime has no container event stream: polling it instead", "every", c.cfg.Poll)
			return c.poll(ctx)
		}
		if time.Since(began) > time.Minute {
			delay = 100 * time.Millisecond
		}
		c.cfg.Log.Warn("container event stream ended: reconnecting", "in", delay, "err", err)
		if !sleep(ctx, delay) {
			return nil
		}
		delay = min(2*delay, 5*time.Second)
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// follow reads one stream to its end. The reader goroutine ends when the stream's context, cancelled here, does.
func (c *Cache) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.cri.Runtime.GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{})
	if err != nil {
		return noStream(err)
	}
	events, ended := make(chan *runtimeapi.ContainerEventResponse), make(chan error, 1)
	go func() {
		for {
			ev, err := stream.Recv()
			if err != nil {
				ended <- err
				return
			}
			select {
			case events <- ev:
			case <-ctx.Done():
				ended <- ctx.Err()
				return
			}
		}
	}()
	relist := time.NewTicker(c.cfg.Relist)
	defer relist.Stop()
	c.staleAll()
	for {
		select {
		case ev := <-events:
			c.event(ctx, ev)
		case <-relist.C:
			c.staleAll()
		case err := <-ended:
			return noStream(err) // the only way out, so the reader has ended
		}
	}
}

func noStream(err error) error {
	if code := status.Code(err); code == codes.Unimplemented {
		return errNoStream
	}
	return err
}

// event finds the pod that an event is about and marks it.
func (c *Cache) event(ctx context.Context, ev *runtimeapi.ContainerEventResponse) {
	uid := types.UID(ev.GetPodSandboxStatus().GetMetadata().GetUid())
	for _, s := range ev.GetContainersStatuses() {
		if uid == "" {
			uid = types.UID(s.GetLabels()[LabelPodUID])
		}
	}
	if uid == "" {
		c.mu.Lock()
		uid = c.byID[ev.GetContainerId()]
		c.mu.Unlock()
	}
	if uid == "" { // about something not yet seen: rare enough to look at everything
		if _, err := c.List(ctx); err != nil {
			return
		}
		c.mu.Lock()
		uid = c.byID[ev.GetContainerId()]
		c.mu.Unlock()
	}
	if uid != "" && !c.knows(uid, ev) {
		c.Touch(uid)
		c.cfg.Wake(uid)
	}
}

// knows tells whether an event is no news: the pod's picture was read after it. Most events are of our own making.
func (c *Cache) knows(uid types.UID, ev *runtimeapi.ContainerEventResponse) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.pods[uid]
	if e == nil || e.seen != e.stale {
		return false
	}
	i := slices.IndexFunc(e.pod.Containers, func(k Container) bool { return k.ID == ev.GetContainerId() })
	switch ev.GetContainerEventType() {
	case runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT:
		return i >= 0 || slices.ContainsFunc(e.pod.Sandboxes, func(s Sandbox) bool { return s.ID == ev.GetContainerId() })
	case runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT:
		return i >= 0 && e.pod.Containers[i].State != Created ||
			slices.ContainsFunc(e.pod.Sandboxes, func(s Sandbox) bool { return s.ID == ev.GetContainerId() && s.Ready })
	case runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT:
		return i >= 0 && e.pod.Containers[i].State == Exited
	}
	return false
}

func (c *Cache) staleAll() {
	c.mu.Lock()
	uids := make([]types.UID, 0, len(c.pods))
	for uid, e := range c.pods {
		e.stale++
		e.listed = false
		uids = append(uids, uid)
	}
	c.mu.Unlock()
	for _, uid := range uids {
		c.cfg.Wake(uid)
	}
}

// poll stands in for the stream: it lists states and marks the pods whose states changed.
func (c *Cache) poll(ctx context.Context) error {
	last := map[string]string{}
	for {
		now, owner, err := c.states(ctx)
		if err == nil {
			for id, s := range now {
				if last[id] != s {
					c.mark(owner[id])
				}
			}
			for id := range last {
				if _, still := now[id]; !still {
					c.mu.Lock()
					uid := c.byID[id]
					c.mu.Unlock()
					c.mark(uid)
				}
			}
			last = now
		}
		if !sleep(ctx, c.cfg.Poll) {
			return nil
		}
	}
}

func (c *Cache) mark(uid types.UID) {
	if uid != "" {
		c.Touch(uid)
		c.cfg.Wake(uid)
	}
}

func (c *Cache) states(ctx context.Context) (states map[string]string, owner map[string]types.UID, err error) {
	boxes, err := c.cri.Runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return nil, nil, err
	}
	list, err := c.cri.Runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	if err != nil {
		return nil, nil, err
	}
	states, owner = map[string]string{}, map[string]types.UID{}
	for _, b := range boxes.GetItems() {
		states[b.GetId()], owner[b.GetId()] = b.GetState().String(), types.UID(b.GetLabels()[LabelPodUID])
	}
	for _, k := range list.GetContainers() {
		states[k.GetId()], owner[k.GetId()] = k.GetState().String(), types.UID(k.GetLabels()[LabelPodUID])
	}
	return states, owner, nil
}
