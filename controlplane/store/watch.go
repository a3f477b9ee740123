package store

import (
	"context"
	"sync"

	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/storage"
)

const (
	// watchBacklog is how many events a watcher may be behind before the watch cache loses its patience with it.
	watchBacklog = 1000
	// watchParting is how many of them its reader still gets after Stop, as from the watch cache.
	watchParting = 10
)

// patient has watches whose reader may fall behind. The watch cache keeps ten events for each watcher of a kind that has been
// quiet, and ends the watch of one that does not read for a tenth of a second, all watchers together: on a busy machine a burst
// of pods ended the watches of clients that did nothing wrong, whose lists then made it busier. The events waiting here are
// shared by all watchers and cost a few words each.
type patient struct{ storage.Interface }

func (p patient) Watch(ctx context.Context, key string, o storage.ListOptions) (watch.Interface, error) {
	w, err := p.Interface.Watch(ctx, key, o)
	if err != nil {
		return nil, err
	}
	return newBacklog(w, watchBacklog), nil
}

// backlog is a watch that reads ahead of its reader. It owns its source.
type backlog struct {
	source  watch.Interface
	limit   int
	out     chan watch.Event
	stopped chan struct{}
	stop    func()
}

func newBacklog(source watch.Interface, limit int) *backlog {
	b := &backlog{source: source, limit: limit, out: make(chan watch.Event, watchParting), stopped: make(chan struct{})}
	b.stop = sync.OnceFunc(func() {
		close(b.stopped)
		source.Stop()
	})
	go b.run()
	return b
}

// ResultChan implements watch.Interface. It is closed when the source's is and all of its events were read, or after Stop
// and the few that were ready for the reader.
func (b *backlog) ResultChan() <-chan watch.Event { return b.out }

// Stop implements watch.Interface. It may be called more than once.
func (b *backlog) Stop() { b.stop() }

func (b *backlog) run() {
	defer close(b.out)
	source := b.source.ResultChan()
	var waiting []watch.Event
	for source != nil || len(waiting) > 0 {
		in, out, next := source, b.out, watch.Event{}
		if len(waiting)+len(b.out) >= b.limit {
			in = nil // from here on it is between the reader and the watch cache
		}
		if len(waiting) > 0 {
			next = waiting[0]
		} else {
			out = nil
		}
		select {
		case e, open := <-in:
			if !open {
				source = nil
				continue
			}
			waiting = append(waiting, e)
		case out <- next:
			waiting[0] = watch.Event{} // its object may be the last of it
			if waiting = waiting[1:]; len(waiting) == 0 {
				waiting = nil
			}
		case <-b.stopped:
			return
		}
	}
}
