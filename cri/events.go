package cri

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/metadata"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/runtime/container"
)

// maxBehind is how many events a client may leave unread. One that falls further
// behind is cut off with an error, and must list to catch up: events are a
// wake-up, never the record.
const maxBehind = 4096

// hub gives each event to every subscriber without waiting for any.
type hub struct {
	mu     sync.Mutex
	subs   map[*subscriber]struct{}
	closed bool
}

type subscriber struct {
	events chan *runtimeapi.ContainerEventResponse // closed when cut off or at the hub's end
	cut    bool                                    // fell behind; written before events is closed
}

func (h *hub) subscribe() (*subscriber, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, false
	}
	s := &subscriber{events: make(chan *runtimeapi.ContainerEventResponse, maxBehind)}
	if h.subs == nil {
		h.subs = map[*subscriber]struct{}{}
	}
	h.subs[s] = struct{}{}
	return s, true
}

func (h *hub) unsubscribe(s *subscriber) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.subs, s)
}

func (h *hub) publish(e *runtimeapi.ContainerEventResponse) {
	if e == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.subs {
		select {
		case s.events <- e:
		default:
			s.cut = true
			close(s.events)
			delete(h.subs, s)
		}
	}
}

// close ends every subscription. It is idempotent.
func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for s := range h.subs {
		close(s.events)
		delete(h.subs, s)
	}
}

func (h *hub) idle() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.subs) == 0
}

// GetContainerEvents streams what happens to pods and containers until the
// client goes.
func (s *Server) GetContainerEvents(_ *runtimeapi.GetEventsRequest, out runtimeapi.RuntimeService_GetContainerEventsServer) error {
	sub, ok := s.events.subscribe()
	if !ok {
		return fmt.Errorf("%w: the server is shutting down", errState)
	}
	defer s.events.unsubscribe(sub)
	// The header tells the client that from now on it misses nothing; without it
	// the first would be sent with the first event.
	if err := out.SendHeader(metadata.MD{}); err != nil {
		return err
	}
	for {
		select {
		case e, ok := <-sub.events:
			if !ok && sub.cut {
				return fmt.Errorf("%w: %d events were not read; list containers and subscribe again", errTooBig, maxBehind)
			}
			if !ok {
				return nil
			}
			if err := out.Send(e); err != nil {
				return err
			}
		case <-out.Context().Done():
			return nil
		}
	}
}

// event describes a change with the state that the pod has now; nil when nobody
// listens. A sandbox's own events carry its id as the container's.
func (s *Server) event(sandboxID string, kind runtimeapi.ContainerEventType, id string) *runtimeapi.ContainerEventResponse {
	if s.events.idle() {
		return nil
	}
	e := &runtimeapi.ContainerEventResponse{ContainerId: id, ContainerEventType: kind, CreatedAt: time.Now().UnixNano()}
	if rec, err := s.sandboxes.Get(sandboxID); err == nil {
		e.PodSandboxStatus = s.sandboxStatus(rec)
	}
	e.ContainersStatuses = s.statusesOf(sandboxID)
	return e
}

func (s *Server) emit(sandboxID string, kind runtimeapi.ContainerEventType, id string) {
	s.events.publish(s.event(sandboxID, kind, id))
}

// follow turns the runtime's events into the clients'. Creation and deletion are
// told by the calls that make them, when the records agree.
func (s *Server) follow(ctx context.Context, changes <-chan container.Event) {
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-changes:
			if !ok {
				return
			}
			s.followOne(ctx, e)
		}
	}
}

// followOne tells one change of a container. After a gap every container is told
// with the state that it has now.
func (s *Server) followOne(ctx context.Context, e container.Event) {
	var kind runtimeapi.ContainerEventType
	switch e.Kind {
	case container.EventStarted:
		kind = runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT
	case container.EventExited:
		kind = runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT
	case container.EventLost:
		for _, rec := range s.containers.List() {
			s.emit(rec.SandboxID, kindOf(s.state(rec)), rec.ID)
		}
		return
	default:
		return
	}
	rec, err := s.containers.Get(e.ContainerID)
	if err != nil {
		return
	}
	s.emit(rec.SandboxID, kind, rec.ID)
	if e.Kind == container.EventExited && s.nri != nil {
		// A plugin that takes its time must not hold up what others are told. Ends
		// within the plugins' timeout; Close waits.
		s.readers.Go(func() { s.NRIUpdate(ctx, s.stopped(ctx, rec)) })
	}
}

func kindOf(st container.State) runtimeapi.ContainerEventType {
	switch st.Status {
	case container.Created:
		return runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT
	case container.Running:
		return runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT
	}
	return runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT
}
