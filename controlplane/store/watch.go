package store

import (
	"context"
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/cacher/metrics"
)

const (
	// watchBacklog is how many events a watcher may be behind before its watch is ended.
	watchBacklog = 1000
	// watchParting is how many of them its reader still gets after Stop, as from the watch cache.
	watchParting = 10
)

// patient has watches whose reader may fall behind. The watch cache keeps ten events for each watcher of a kind that has been
// quiet, and ends the watch of one that does not read for a tenth of a second, all watchers together: on a busy machine a burst
// of pods ended the watches of clients that did nothing wrong, whose lists then made it busier. The events waiting here are
// shared by all watchers and cost a few words each.
type patient struct {
	storage.Interface
	resource schema.GroupResource
	revision func() int64 // of the newest write
}

func (p patient) Watch(ctx context.Context, key string, o storage.ListOptions) (watch.Interface, error) {
	w, err := p.Interface.Watch(ctx, key, o)
	if err != nil {
		return nil, err
	}
	// Asked after the watch began: whatever is newer comes from the watch cache's dispatcher.
	return newBacklog(w, backlogConfig{limit: watchBacklog, began: uint64(p.revision()), ended: func() {
		metrics.TerminatedWatchersCounter.WithLabelValues(p.resource.Group, p.resource.Resource).Inc()
	}}), nil
}

type backlogConfig struct {
	limit int    // of events that wait
	began uint64 // revision up to which events are of the time before the watch
	ended func() // called if the watch is ended because its reader is the limit behind
}

// backlog is a watch that reads ahead of its reader. It owns its source. What was there when the watch began, which is copied for
// each watcher, waits in the source; from then on the source is never kept waiting: a watch that is the limit behind ends, after
// the events that wait. Who reads goes on from the last with another. If the watch cache waited for it instead, what patience
// the cache has would be used up, and watchers that read would be ended with those that do not.
type backlog struct {
	backlogConfig
	source  watch.Interface
	out     chan watch.Event
	stopped chan struct{}
	stop    func()
}

func newBacklog(source watch.Interface, c backlogConfig) *backlog {
	b := &backlog{backlogConfig: c, source: source, out: make(chan watch.Event, watchParting), stopped: make(chan struct{})}
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
	source, live, limit := b.source.ResultChan(), false, b.limit
	var waiting []watch.Event
	for source != nil || len(waiting) > 0 {
		in, out, next := source, b.out, watch.Event{}
		if source != nil && len(waiting)+len(b.out) >= limit {
			if in = nil; live {
				source = nil
				b.source.Stop()
				b.ended()
			}
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
			if !live && b.isLive(e) {
				live, limit = true, limit+len(waiting)+len(b.out)
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

func (b *backlog) isLive(e watch.Event) bool {
	rv, err := storage.APIObjectVersioner{}.ObjectResourceVersion(e.Object)
	return err != nil || rv > b.began // an error is the watch's end
}
