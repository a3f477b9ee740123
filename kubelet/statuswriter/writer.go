package statuswriter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/workqueue"

	"keelson.dev/keelson/kubelet/podstatus"
)

// Config of a Writer; all fields are required but Parallel.
type Config struct {
	Client kubernetes.Interface
	// Target returns the API's newest known object for a pod: itself, or the mirror of a static pod; nil if none.
	Target func(types.UID) *corev1.Pod
	// Written is called, from any goroutine, after a pod's newest status has reached the API.
	Written func(types.UID)
	// Parallel is how many patches may be under way. Default 8.
	Parallel int
	Log      *slog.Logger
}

// Writer writes statuses. It is safe for concurrent use.
type Writer struct {
	cfg   Config
	queue workqueue.TypedRateLimitingInterface[types.UID]

	mu   sync.Mutex
	want map[types.UID]corev1.PodStatus // guarded by mu
	open map[types.UID]bool             // differs from what was written; guarded by mu
	last map[types.UID]*corev1.Pod      // answer to the last patch, until the watch has caught up; guarded by mu
}

// New makes a Writer.
func New(cfg Config) *Writer {
	if cfg.Parallel == 0 {
		cfg.Parallel = 8
	}
	limit := workqueue.NewTypedItemExponentialFailureRateLimiter[types.UID](50*time.Millisecond, 10*time.Second)
	return &Writer{
		cfg: cfg, queue: workqueue.NewTypedRateLimitingQueue(limit),
		want: map[types.UID]corev1.PodStatus{}, open: map[types.UID]bool{}, last: map[types.UID]*corev1.Pod{},
	}
}

// interimDelay is how long a status waits that is expected to be overtaken: one write instead of three for a pod that
// starts quickly, and news all the same of one that does not.
const interimDelay = 100 * time.Millisecond

// Set says what the pod's status is to be. The same status again costs nothing. An interim status is written only if
// no other comes within a moment.
func (w *Writer) Set(uid types.UID, status corev1.PodStatus, interim bool) {
	w.mu.Lock()
	old, known := w.want[uid]
	if known && equality.Semantic.DeepEqual(old, status) {
		open := w.open[uid]
		w.mu.Unlock()
		if open && !interim { // it was an interim one and has turned out to stay
			w.queue.Add(uid)
		}
		return
	}
	w.want[uid], w.open[uid] = status, true
	w.mu.Unlock()
	if interim {
		w.queue.AddAfter(uid, interimDelay)
		return
	}
	w.queue.Add(uid)
}

// Wanted returns what was last set.
func (w *Writer) Wanted(uid types.UID) (corev1.PodStatus, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s, has := w.want[uid]
	return s, has
}

// Check compares what the API has with what was set and writes again if someone else changed it.
func (w *Writer) Check(uid types.UID) {
	target := w.cfg.Target(uid)
	if target == nil {
		return
	}
	w.mu.Lock()
	want, known := w.want[uid]
	base := w.base(uid, target)
	w.mu.Unlock()
	if known && !equality.Semantic.DeepEqual(base.Status, merged(want, base.Status)) {
		w.mu.Lock()
		w.open[uid] = true
		w.mu.Unlock()
		w.queue.Add(uid)
	}
}

// Flushed tells whether nothing is left to be written for the pod.
func (w *Writer) Flushed(uid types.UID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.open[uid]
}

// Forget drops a pod that is gone.
func (w *Writer) Forget(uid types.UID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.want, uid)
	delete(w.open, uid)
	delete(w.last, uid)
}

// Run writes until ctx ends.
func (w *Writer) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for range w.cfg.Parallel {
		wg.Go(func() { // ends when the queue is shut down
			for {
				uid, over := w.queue.Get()
				if over {
					return
				}
				w.one(ctx, uid)
				w.queue.Done(uid)
			}
		})
	}
	<-ctx.Done()
	w.queue.ShutDown()
	wg.Wait()
	return nil
}

func (w *Writer) one(ctx context.Context, uid types.UID) {
	target := w.cfg.Target(uid)
	w.mu.Lock()
	want, known := w.want[uid]
	var base *corev1.Pod
	if target != nil {
		base = w.base(uid, target)
	}
	w.mu.Unlock()
	if !known {
		w.queue.Forget(uid)
		return
	}
	if base == nil { // a static pod without mirror yet, or gone: Check comes when the watch shows it
		w.settle(uid, want, nil)
		return
	}
	answer, err := w.patch(ctx, base, merged(want, base.Status))
	switch {
	case err == nil:
		w.queue.Forget(uid)
		w.settle(uid, want, answer)
	case gone(err):
		w.queue.Forget(uid)
		w.settle(uid, want, nil)
	case ctx.Err() != nil:
	default:
		w.cfg.Log.Warn("write pod status: will try again", "pod", base.Namespace+"/"+base.Name, "err", err)
		w.queue.AddRateLimited(uid)
	}
}

var errOtherUID = errors.New("a pod of the same name and another UID is in its place")

func gone(err error) bool {
	return apierrors.IsNotFound(err) || apierrors.IsConflict(err) || errors.Is(err, errOtherUID)
}

// settle notes a finished write, unless a newer wish came meanwhile (which is in the queue already).
func (w *Writer) settle(uid types.UID, wrote corev1.PodStatus, answer *corev1.Pod) {
	w.mu.Lock()
	want, known := w.want[uid]
	newest := known && equality.Semantic.DeepEqual(want, wrote)
	if newest {
		w.open[uid] = false
	}
	if answer != nil && known {
		w.last[uid] = answer
	}
	w.mu.Unlock()
	if newest {
		w.cfg.Written(uid)
	}
}

// base is the newest version of the API's object that we know: the watch's or the answer to our last patch.
// Preconditions: mu is held.
func (w *Writer) base(uid types.UID, seen *corev1.Pod) *corev1.Pod {
	last := w.last[uid]
	if last == nil || last.UID != seen.UID {
		return seen
	}
	a, errA := strconv.ParseUint(last.ResourceVersion, 10, 64)
	b, errB := strconv.ParseUint(seen.ResourceVersion, 10, 64)
	if errA == nil && errB == nil && b >= a {
		delete(w.last, uid)
		return seen
	}
	return last
}

func (w *Writer) patch(ctx context.Context, base *corev1.Pod, status corev1.PodStatus) (*corev1.Pod, error) {
	body, changed, err := Diff(base, status)
	if err != nil || !changed {
		return nil, err
	}
	answer, err := w.cfg.Client.CoreV1().Pods(base.Namespace).Patch(ctx, base.Name,
		types.StrategicMergePatchType, body, metav1.PatchOptions{}, "status")
	if err != nil {
		return nil, err
	}
	if answer.UID != base.UID {
		return nil, errOtherUID
	}
	return answer, nil
}

// Diff is the patch that turns base's status into status, guarded by base's UID.
func Diff(base *corev1.Pod, status corev1.PodStatus) (body []byte, changed bool, err error) {
	if equality.Semantic.DeepEqual(base.Status, status) {
		return nil, false, nil
	}
	old, err := json.Marshal(corev1.Pod{Status: base.Status})
	if err != nil {
		return nil, false, fmt.Errorf("encode pod status: %w", err)
	}
	now, err := json.Marshal(corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: base.UID}, Status: status})
	if err != nil {
		return nil, false, fmt.Errorf("encode pod status: %w", err)
	}
	body, err = strategicpatch.CreateTwoWayMergePatch(old, now, corev1.Pod{})
	if err != nil {
		return nil, false, fmt.Errorf("compute status patch: %w", err)
	}
	return body, true, nil
}

// merged is want with everybody else's conditions, and fields that only the API server writes, as base has them.
func merged(want, base corev1.PodStatus) corev1.PodStatus {
	var out []corev1.PodCondition
	mine := func(c corev1.PodCondition) bool { return podstatus.Owned(c.Type) }
	for _, c := range want.Conditions {
		if mine(c) || !has(base.Conditions, c.Type) {
			out = append(out, c)
		}
	}
	for _, c := range base.Conditions {
		if !mine(c) {
			out = append(out, c)
		}
	}
	want.Conditions = order(out, base.Conditions)
	if want.NominatedNodeName == "" {
		want.NominatedNodeName = base.NominatedNodeName
	}
	if want.ResourceClaimStatuses == nil {
		want.ResourceClaimStatuses = base.ResourceClaimStatuses
	}
	return want
}

func has(list []corev1.PodCondition, t corev1.PodConditionType) bool {
	return slices.ContainsFunc(list, func(c corev1.PodCondition) bool { return c.Type == t })
}

// order keeps the order that the API has, so that a patch does not reshuffle the list.
func order(list, like []corev1.PodCondition) []corev1.PodCondition {
	rank := func(t corev1.PodConditionType) int {
		i := slices.IndexFunc(like, func(c corev1.PodCondition) bool { return c.Type == t })
		if i < 0 {
			return len(like)
		}
		return i
	}
	slices.SortStableFunc(list, func(a, b corev1.PodCondition) int { return rank(a.Type) - rank(b.Type) })
	return list
}
