package container

import (
	"context"
	"sync"
	"time"
)

// hub hands events to its subscribers. Publishing never waits: a subscriber
// that lets maxBehind events pile up loses them and is told so.
type hub struct {
	mu     sync.Mutex
	subs   map[*subscriber]bool
	closed bool
}

type subscriber struct {
	mu    sync.Mutex
	queue []Event
	wake  chan struct{} // capacity 1
}

const maxBehind = 4096

func newHub() *hub { return &hub{subs: map[*subscriber]bool{}} }

func (h *hub) publish(id string, kind EventKind, at time.Time) {
	h.mu.Lock()
	subs := make([]*subscriber, 0, len(h.subs))
	for s := range h.subs {
		subs = append(subs, s)
	}
	h.mu.Unlock()
	for _, s := range subs {
		s.add(Event{ContainerID: id, Kind: kind, At: at})
	}
}

func (s *subscriber) add(e Event) {
	s.mu.Lock()
	if len(s.queue) >= maxBehind {
		s.queue = []Event{{Kind: EventLost, At: e.At}}
	} else {
		s.queue = append(s.queue, e)
	}
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// subscribe delivers events until ctx ends; then the channel is closed.
func (h *hub) subscribe(ctx context.Context) <-chan Event {
	s := &subscriber{wake: make(chan struct{}, 1)}
	out := make(chan Event)
	h.mu.Lock()
	h.subs[s] = true
	h.mu.Unlock()
	go func() { // ends with ctx
		defer close(out)
		defer func() {
			h.mu.Lock()
			delete(h.subs, s)
			h.mu.Unlock()
		}()
		for {
			s.mu.Lock()
			queue := s.queue
			s.queue = nil
			s.mu.Unlock()
			for _, e := range queue {
				select {
				case out <- e:
				case <-ctx.Done():
					return
				}
			}
			select {
			case <-s.wake:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}
