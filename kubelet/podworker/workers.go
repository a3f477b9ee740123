package podworker

import (
	"context"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"keelson.dev/keelson/kubelet/plan"
)

// State is where a pod stands in its life on this node.
type State string

// The states; see the package comment for the edges.
const (
	Waiting     State = "waiting"
	Syncing     State = "syncing"
	Terminating State = "terminating"
	Terminated  State = "terminated"
)

// Request is what a Syncer is to bring about.
type Request struct {
	Pod *corev1.Pod // the newest version; read only
	// Ending is set in Terminating and Terminated.
	Ending *plan.Ending
	// Gone: no source wants the pod any more, so nothing of it is to stay.
	Gone bool
	// Finished: the pod ended by itself or had a terminal phase to begin with.
	Finished bool
}

// Result is what a Syncer call came to.
type Result struct {
	// Next is when to call again if nothing happens before; zero for never.
	Next time.Time
	// Done: the state's purpose is reached.
	Done bool
	// End, from Sync only, asks to end the pod for a reason of its own.
	End *plan.Ending
}

// Syncer does the work. Calls for one pod never overlap; calls for different pods do. ctx ends when the daemon stops
// and, for Sync, also when the pod starts to end.
type Syncer interface {
	// Sync brings a pod closer to running as specified. Done: it has run to its end.
	Sync(ctx context.Context, r Request) Result
	// Terminate stops the pod. Done: nothing of it runs.
	Terminate(ctx context.Context, r Request) Result
	// Clean frees what the pod held on the node and, if it is deleted, completes the deletion in the API. Done: all
	// that the request asks for is freed.
	Clean(ctx context.Context, r Request) Result
	// Ended is called once, when the worker of a pod that is Gone and Clean ends.
	Ended(uid types.UID)
}

// Workers is the set of all pod workers. It is safe for concurrent use.
type Workers struct {
	sync Syncer
	log  *slog.Logger
	wg   sync.WaitGroup

	mu    sync.Mutex
	ctx   context.Context       // of Start; guarded by mu
	pods  map[types.UID]*worker // guarded by mu
	names map[string]types.UID  // namespace/name -> the pod that holds it; guarded by mu
}

// worker is one pod's worker. Everything but wake is guarded by Workers.mu.
type worker struct {
	uid    types.UID
	name   string
	state  State
	req    Request
	cancel context.CancelFunc // of a running Sync
	again  *corev1.Pod        // set while a dropped pod of the same UID came back
	wake   chan struct{}      // capacity 1: level, not count
}

// New makes an empty set.
func New(s Syncer, log *slog.Logger) *Workers {
	return &Workers{sync: s, log: log, pods: map[types.UID]*worker{}, names: map[string]types.UID{}}
}

// Start lets workers run until ctx ends. It must be called once, before anything else.
func (w *Workers) Start(ctx context.Context) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ctx = ctx
}

// Wait returns when all workers have returned, which they do after Start's ctx ended.
func (w *Workers) Wait() { w.wg.Wait() }

// Set makes pod known or replaces the known version of it.
func (w *Workers) Set(pod *corev1.Pod) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if k := w.pods[pod.UID]; k != nil {
		if k.req.Gone {
			k.again = pod
			return
		}
		k.req.Pod = pod
		w.wish(k)
		return
	}
	w.start(pod, false)
}

// Drop says that no source wants the pod any more. pod is used if it was not known before: it is an orphan whose
// remains are to be cleaned.
func (w *Workers) Drop(pod *corev1.Pod) {
	w.mu.Lock()
	defer w.mu.Unlock()
	k := w.pods[pod.UID]
	if k == nil {
		w.start(pod, true)
		return
	}
	k.again = nil
	k.req.Gone = true
	if pod.DeletionTimestamp != nil { // the last words of the API: they may shorten the grace
		k.req.Pod = pod
	}
	w.wish(k)
}

// Wake has the pod looked at soon. Unknown pods are ignored.
func (w *Workers) Wake(uid types.UID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if k := w.pods[uid]; k != nil {
		k.poke()
	}
}

// End ends a pod for a reason of the node's own (eviction, failed admission). The first reason stands.
func (w *Workers) End(uid types.UID, e plan.Ending) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if k := w.pods[uid]; k != nil {
		k.end(e)
	}
}

// Status returns a pod's state, "" when it has no worker.
func (w *Workers) Status(uid types.UID) State {
	w.mu.Lock()
	defer w.mu.Unlock()
	if k := w.pods[uid]; k != nil {
		return k.state
	}
	return ""
}

// Each calls f for a copy of every pod's request and state, in no order.
func (w *Workers) Each(f func(Request, State)) {
	type row struct {
		r Request
		s State
	}
	w.mu.Lock()
	rows := make([]row, 0, len(w.pods))
	for _, k := range w.pods {
		rows = append(rows, row{k.req, k.state})
	}
	w.mu.Unlock()
	for _, r := range rows {
		f(r.r, r.s)
	}
}

// start makes a worker. Preconditions: mu is held, the UID has none.
func (w *Workers) start(pod *corev1.Pod, gone bool) {
	k := &worker{
		uid: pod.UID, name: pod.Namespace + "/" + pod.Name, state: Waiting,
		req: Request{Pod: pod, Gone: gone}, wake: make(chan struct{}, 1),
	}
	w.pods[pod.UID] = k
	w.wish(k)
	ctx := w.ctx
	w.wg.Add(1)
	go func() { // ends with Start's ctx or when the pod is gone
		defer w.wg.Done()
		w.loop(ctx, k)
	}()
}

// wish draws the conclusions of a new wish. Preconditions: mu is held.
func (w *Workers) wish(k *worker) {
	pod := k.req.Pod
	if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		k.req.Finished = true
	}
	switch {
	case pod.DeletionTimestamp != nil:
		grace := plan.Grace(pod)
		if s := pod.DeletionGracePeriodSeconds; s != nil {
			grace = time.Duration(*s) * time.Second
		}
		k.end(plan.Ending{Since: time.Now(), Grace: grace})
	case k.req.Gone || k.req.Finished:
		k.end(plan.Ending{Since: time.Now(), Grace: plan.Grace(pod)})
	}
	k.poke()
}

// end begins the ending, or brings its end forward. Preconditions: mu is held.
func (k *worker) end(e plan.Ending) {
	switch old := k.req.Ending; {
	case old == nil:
		k.req.Ending = &e
	case e.Grace < old.Grace && e.Since.Add(e.Grace).Before(old.Since.Add(old.Grace)):
		sooner := *old
		sooner.Since, sooner.Grace = e.Since, e.Grace
		k.req.Ending = &sooner
	}
	if k.cancel != nil {
		k.cancel()
	}
	k.poke()
}

func (k *worker) poke() {
	select {
	case k.wake <- struct{}{}:
	default: // one is pending: it will see this wish too
	}
}
