package garbage

import (
	"context"
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/tools/cache"
)

const (
	retry  = 2 * time.Second        // after discovery failed; twice as long each time that it fails again
	seldom = 30 * time.Second       // the longest of these: another server's group may be away for weeks
	settle = 300 * time.Millisecond // a new CRD's endpoints appear a moment after its object does
)

// crds announces new resources: what discovery shows changes only with them and with aggregated APIs.
var triggers = []schema.GroupVersionResource{
	{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"},
	{Group: "apiregistration.k8s.io", Version: "v1", Resource: "apiservices"},
}

// Watcher feeds the graph: one reflector per deletable resource.
type Watcher struct {
	c       *collector
	refresh chan struct{}
	running map[schema.GroupVersionResource]context.CancelFunc
	lacks   lacks
	group   sync.WaitGroup
}

// lacks remembers what discovery did not show, to say it once and to look again ever less often.
type lacks struct {
	said  string
	delay time.Duration
}

// next tells whether err, of a discovery that has just been tried, is news, and when to try again: 0 if all was there.
func (l *lacks) next(err error) (news bool, again time.Duration) {
	if err == nil {
		*l = lacks{}
		return false, 0
	}
	news = l.said != err.Error()
	l.said, l.delay = err.Error(), min(max(2*l.delay, retry), seldom)
	return news, l.delay
}

func newWatcher(c *collector) *Watcher {
	return &Watcher{c: c, refresh: make(chan struct{}, 1), running: map[schema.GroupVersionResource]context.CancelFunc{}}
}

// Run follows discovery until ctx ends.
func (w *Watcher) Run(ctx context.Context) error {
	defer w.group.Wait()
	for ctx.Err() == nil {
		var again <-chan time.Time
		if delay := w.sync(ctx); delay > 0 {
			again = time.After(delay)
		}
		select {
		case <-ctx.Done():
		case <-again:
		case <-w.refresh:
			select {
			case <-ctx.Done():
			case <-time.After(settle):
			}
		}
	}
	return nil
}

// sync starts and stops reflectors by what discovery shows, and says when to try again if a part of it did not answer.
func (w *Watcher) sync(ctx context.Context) time.Duration {
	w.c.Discovery.Invalidate()
	lists, err := w.c.Discovery.ServerPreferredResources()
	w.c.Mapper.Reset()
	news, again := w.lacks.next(err)
	if news {
		w.c.Log.Warn("garbage collector: discovery is incomplete; objects of what is missing are not collected", "err", err)
	}
	found := deletable(lists)
	for gvr, kind := range found {
		if w.running[gvr] == nil {
			w.start(ctx, gvr, kind)
		}
	}
	for gvr, stop := range w.running {
		if _, ok := found[gvr]; !ok && !unknown(err, gvr.GroupVersion()) {
			stop()
			delete(w.running, gvr)
			for _, uid := range w.c.graph.ofResource(gvr) {
				w.look(w.c.graph.remove(uid))
			}
		}
	}
	return again
}

// unknown tells whether what gv has is not known after discovery failed with err: a silent API must not make its objects look gone,
// but one that is silent keeps nothing of the others that is no more.
func unknown(err error, gv schema.GroupVersion) bool {
	if err == nil {
		return false
	}
	silent, some := discovery.GroupDiscoveryFailedErrorGroups(err)
	return !some || silent[gv] != nil
}

// deletable picks what can be watched and deleted. Events own nothing, are owned by nothing, and are many.
func deletable(lists []*metav1.APIResourceList) map[schema.GroupVersionResource]string {
	out := map[schema.GroupVersionResource]string{}
	for _, list := range lists {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			continue
		}
		for _, r := range list.APIResources {
			has := func(verb string) bool { return slices.Contains(r.Verbs, verb) }
			if r.Name != "events" && has("delete") && has("list") && has("watch") {
				out[gv.WithResource(r.Name)] = r.Kind
			}
		}
	}
	return out
}

func (w *Watcher) start(ctx context.Context, gvr schema.GroupVersionResource, kind string) {
	ctx, stop := context.WithCancel(ctx)
	w.running[gvr] = stop
	client := w.c.Metadata.Resource(gvr)
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return client.List(ctx, o) },
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return client.Watch(ctx, o)
		},
	}
	store := &feed{w: w, gvr: gvr, kind: kind}
	reflector := cache.NewReflectorWithOptions(lw, &metav1.PartialObjectMetadata{}, store, cache.ReflectorOptions{Name: "garbage " + gvr.String()})
	w.group.Go(func() { reflector.RunWithContext(ctx) })
}

func (w *Watcher) look(uids []types.UID) {
	for _, uid := range uids {
		w.c.loop.Add(string(uid))
	}
}

// feed is a reflector's store that keeps nothing but the graph.
type feed struct {
	w    *Watcher
	gvr  schema.GroupVersionResource
	kind string
}

func (f *feed) Add(obj any) error {
	if m, ok := obj.(metav1.Object); ok {
		f.w.look(f.w.c.graph.set(newItem(f.gvr, f.kind, m)))
		f.announce()
	}
	return nil
}

func (f *feed) Update(obj any) error { return f.Add(obj) }

func (f *feed) Delete(obj any) error {
	if m, ok := obj.(metav1.Object); ok {
		f.w.look(f.w.c.graph.remove(m.GetUID()))
		f.announce()
	}
	return nil
}

// Replace follows a fresh list: what it lacks was deleted while nobody watched.
func (f *feed) Replace(list []any, _ string) error {
	seen := map[types.UID]bool{}
	for _, obj := range list {
		if m, ok := obj.(metav1.Object); ok {
			seen[m.GetUID()] = true
			f.w.look(f.w.c.graph.set(newItem(f.gvr, f.kind, m)))
		}
	}
	for _, uid := range f.w.c.graph.ofResource(f.gvr) {
		if !seen[uid] {
			f.w.look(f.w.c.graph.remove(uid))
		}
	}
	return nil
}

// Resync implements cache.ReflectorStore; there is nothing to repeat.
func (f *feed) Resync() error { return nil }

func (f *feed) announce() {
	if slices.Contains(triggers, f.gvr) {
		select {
		case f.w.refresh <- struct{}{}:
		default:
		}
	}
}
