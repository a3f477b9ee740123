package scheduler

import (
	"container/heap"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	corehelpers "k8s.io/component-helpers/scheduling/corev1"
)

const (
	firstBackOff = time.Second
	maxBackOff   = 10 * time.Second
	parkedLimit  = 5 * time.Minute // a parked pod gets another look after this, whatever happened
)

// place is where a queued pod waits.
type place int

const (
	ready   place = iota // in the heap, waiting for its turn
	backing              // refused a moment ago: ready again at .until
	parked               // unschedulable: ready again when something changes, or at .until
)

// queue holds the pods that have no node. It is not safe for concurrent use; times are passed in.
type queue struct {
	pods  map[types.UID]*waiting
	order readyHeap
}

type waiting struct {
	pod      *corev1.Pod
	place    place
	until    time.Time
	since    time.Time // first seen: the older pod of equal priority goes first
	attempts int
	cures    Change // of a parked pod
	index    int    // in the heap
}

func newQueue() *queue { return &queue{pods: map[types.UID]*waiting{}} }

// put adds a pod or refreshes its object. A parked pod whose spec or labels changed is tried again.
func (q *queue) put(pod *corev1.Pod, now time.Time) {
	w := q.pods[pod.UID]
	if w == nil {
		w = &waiting{since: now, index: -1}
		q.pods[pod.UID] = w
		w.pod = pod
		q.ready(w)
		return
	}
	changed := w.pod.Generation != pod.Generation || len(w.pod.Spec.SchedulingGates) != len(pod.Spec.SchedulingGates)
	w.pod = pod
	if w.place == parked && changed {
		q.ready(w)
	}
}

func (q *queue) remove(uid types.UID) {
	w := q.pods[uid]
	if w == nil {
		return
	}
	if w.index >= 0 {
		heap.Remove(&q.order, w.index)
	}
	delete(q.pods, uid)
}

// next returns the pod whose turn it is and leaves it in the queue's books; nil if none is ready.
func (q *queue) next() *corev1.Pod {
	if q.order.Len() == 0 {
		return nil
	}
	w := heap.Pop(&q.order).(*waiting)
	w.attempts++
	return w.pod
}

// park keeps a pod that fits nowhere until something changes that cures one of its reasons.
func (q *queue) park(uid types.UID, cures Change, now time.Time) {
	if w := q.pods[uid]; w != nil && w.index < 0 {
		w.place, w.until, w.cures = parked, now.Add(parkedLimit), cures
	}
}

// retry backs a pod off whose binding failed.
func (q *queue) retry(uid types.UID, now time.Time) {
	if w := q.pods[uid]; w != nil && w.index < 0 {
		w.place, w.until = backing, now.Add(w.backOff())
	}
}

// changed makes the parked pods ready that such a change could have helped, or backs them off if they were refused just now.
func (q *queue) changed(what Change, now time.Time) {
	for _, w := range q.pods {
		if w.place != parked || w.index >= 0 || w.cures&what == 0 {
			continue
		}
		refusedAt := w.until.Add(-parkedLimit)
		if due := refusedAt.Add(w.backOff()); w.attempts > 1 && due.After(now) {
			w.place, w.until = backing, due
			continue
		}
		q.ready(w)
	}
}

// due makes ready what has waited long enough and returns when the next one will be; zero if none waits.
func (q *queue) due(now time.Time) time.Time {
	var first time.Time
	for _, w := range q.pods {
		if w.place == ready {
			continue
		}
		if !w.until.After(now) {
			q.ready(w)
			continue
		}
		if first.IsZero() || w.until.Before(first) {
			first = w.until
		}
	}
	return first
}

func (q *queue) ready(w *waiting) {
	w.place = ready
	if w.index < 0 {
		heap.Push(&q.order, w)
	}
}

// counts returns how many pods are ready, backing off and parked.
func (q *queue) counts() (active, backoff, unschedulable int) {
	for _, w := range q.pods {
		switch w.place {
		case ready:
			active++
		case backing:
			backoff++
		case parked:
			unschedulable++
		}
	}
	return active, backoff, unschedulable
}

func (w *waiting) backOff() time.Duration {
	d := firstBackOff
	for i := 1; i < w.attempts && d < maxBackOff; i++ {
		d *= 2
	}
	return min(d, maxBackOff)
}

// readyHeap orders by priority, then age.
type readyHeap []*waiting

func (h readyHeap) Len() int { return len(h) }
func (h readyHeap) Less(i, j int) bool {
	if a, b := corehelpers.PodPriority(h[i].pod), corehelpers.PodPriority(h[j].pod); a != b {
		return a > b
	}
	return h[i].since.Before(h[j].since)
}
func (h readyHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}
func (h *readyHeap) Push(x any) {
	w := x.(*waiting)
	w.index = len(*h)
	*h = append(*h, w)
}
func (h *readyHeap) Pop() any {
	old := *h
	w := old[len(old)-1]
	w.index = -1
	*h = old[:len(old)-1]
	return w
}
