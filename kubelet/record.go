package kubelet

import (
	"context"
	"maps"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"keelson.dev/keelson/kubelet/act"
	"keelson.dev/keelson/kubelet/plan"
	"keelson.dev/keelson/kubelet/podstatus"
)

// podRecord is what is remembered of one pod while it has a worker: the planner's memory and the tasks that run beside
// the worker. The worker and its tasks share it.
type podRecord struct {
	wg sync.WaitGroup // the tasks

	mu       sync.Mutex
	mem      plan.Memory            // guarded by mu
	vols     map[string]act.Mounted // guarded by mu
	refs     map[string]string      // container name -> image reference; guarded by mu
	tasks    map[string]*task       // by what they do; guarded by mu
	told     map[string]string      // container name -> last back-off told in an event; guarded by mu
	began    time.Time              // first sight; zero once the pod ran
	pulls    [2]time.Time           // when the first pull began and the last one ended; guarded by mu
	admitted bool                   // guarded by mu
	final    *corev1.PodStatus      // the status that the pod ended with; guarded by mu
	changed  bool                   // an object in its volumes changed; guarded by mu
	shown    *corev1.Pod            // the version that downward API volumes show; guarded by mu
	granted  *corev1.Pod            // the version whose resources are granted; guarded by mu
	pending  podstatus.Resize       // why the newest resources are not; guarded by mu
	exits    exits                  // who waits for a container's end; guarded by mu
}

// exits are the channels to close when a container has ended, by its ID.
type exits map[string][]chan struct{}

// close closes the channels of one container.
func (e exits) close(id string) {
	for _, ch := range e[id] {
		close(ch)
	}
	delete(e, id)
}

type task struct{ cancel context.CancelFunc }

func newRecord() *podRecord {
	return &podRecord{
		began: time.Now(),
		mem: plan.Memory{
			Images: map[string]plan.Step{}, Starts: map[string]plan.Step{}, Crashes: map[string]plan.Crash{},
			Stops: map[string]plan.Stop{}, Applied: map[string]plan.Resources{}, Resizes: map[string]plan.Step{},
		},
		refs: map[string]string{}, tasks: map[string]*task{}, told: map[string]string{}, exits: exits{},
	}
}

// memory is a copy of the planner's memory.
func (r *podRecord) memory() plan.Memory {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.mem
	m.Images, m.Starts = maps.Clone(m.Images), maps.Clone(m.Starts)
	m.Applied, m.Resizes = maps.Clone(m.Applied), maps.Clone(m.Resizes)
	m.Crashes, m.Stops = maps.Clone(m.Crashes), maps.Clone(m.Stops)
	return m
}

// with runs f under the lock.
func (r *podRecord) with(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

// spawn runs f beside the worker, instead of a task that does the same and is cancelled. f gets a context that ends
// with parent, with cancel and with the task's replacement; done is called under the lock unless it was replaced,
// and wake after that, without the lock.
func (r *podRecord) spawn(parent context.Context, what string, wake func(), f func(context.Context) (done func())) {
	ctx, cancel := context.WithCancel(parent)
	t := &task{cancel: cancel}
	r.mu.Lock()
	if old := r.tasks[what]; old != nil {
		old.cancel()
	}
	r.tasks[what] = t
	r.mu.Unlock()
	r.wg.Go(func() { // ends with ctx: replaced, cancelled, or the daemon stops
		defer cancel()
		done := f(ctx)
		r.with(func() {
			if r.tasks[what] == t {
				delete(r.tasks, what)
				done()
			}
		})
		wake()
	})
}

// cancel ends tasks without waiting; what selects by name.
func (r *podRecord) cancel(what func(string) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, t := range r.tasks {
		if what(name) {
			t.cancel()
		}
	}
}
