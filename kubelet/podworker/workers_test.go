package podworker

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"keelson.dev/keelson/kubelet/plan"
)

// script is a Syncer whose answers are set by UID and which notes its calls.
type script struct {
	mu      sync.Mutex
	calls   []string
	busy    map[types.UID]bool
	overlap bool
	hold    map[types.UID]chan struct{} // Terminate waits for it
	done    map[types.UID]bool          // Sync says Done
}

func newScript() *script {
	return &script{busy: map[types.UID]bool{}, hold: map[types.UID]chan struct{}{}, done: map[types.UID]bool{}}
}

func (s *script) call(what string, r Request) func() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy[r.Pod.UID] {
		s.overlap = true
	}
	s.busy[r.Pod.UID] = true
	s.calls = append(s.calls, what+" "+string(r.Pod.UID))
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.busy[r.Pod.UID] = false
	}
}

func (s *script) Sync(ctx context.Context, r Request) Result {
	defer s.call("sync", r)()
	s.mu.Lock()
	done := s.done[r.Pod.UID]
	s.mu.Unlock()
	return Result{Done: done}
}

func (s *script) Terminate(ctx context.Context, r Request) Result {
	defer s.call("terminate", r)()
	s.mu.Lock()
	hold := s.hold[r.Pod.UID]
	s.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		default:
			return Result{}
		}
	}
	return Result{Done: true}
}

func (s *script) Clean(ctx context.Context, r Request) Result {
	defer s.call("clean", r)()
	return Result{Done: true}
}

func (s *script) Ended(uid types.UID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, "ended "+string(uid))
}

func (s *script) order() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Compact(slices.Clone(s.calls))
}

func pod(name, uid string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID(uid)}}
}

func with(t *testing.T, f func(*Workers, *script)) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript()
		w := New(s, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		w.Start(ctx)
		f(w, s)
		cancel()
		w.Wait()
		if s.overlap {
			t.Error("two calls for one pod overlapped")
		}
	})
}

func TestLife(t *testing.T) {
	with(t, func(w *Workers, s *script) {
		p := pod("a", "1")
		w.Set(p)
		synctest.Wait()
		gone := p.DeepCopy()
		now := metav1.Now()
		gone.DeletionTimestamp = &now
		w.Set(gone)
		synctest.Wait()
		if st := w.Status("1"); st != Terminated {
			t.Errorf("state after deletion = %s, want %s until the API drops the pod", st, Terminated)
		}
		w.Drop(gone)
		synctest.Wait()
		want := []string{"sync 1", "terminate 1", "clean 1", "ended 1"}
		if got := s.order(); !slices.Equal(got, want) {
			t.Errorf("calls = %q, want %q", got, want)
		}
	})
}

// A pod of the same name begins only after the old one is cleaned (HOSTILE PS25).
func TestHostile_PS25(t *testing.T) {
	with(t, func(w *Workers, s *script) {
		s.hold["old"] = make(chan struct{})
		old := pod("db-0", "old")
		w.Set(old)
		synctest.Wait()
		w.Drop(old) // forced deletion: gone from the API, its process lives
		w.Set(pod("db-0", "new"))
		synctest.Wait()
		if st := w.Status("new"); st != Waiting {
			t.Errorf("the new pod is %s while the old one lives, want %s", st, Waiting)
		}
		close(s.hold["old"])
		w.Wake("old")
		synctest.Wait()
		want := []string{"sync old", "terminate old", "clean old", "ended old", "sync new"}
		if got := s.order(); !slices.Equal(got, want) {
			t.Errorf("calls = %q, want %q", got, want)
		}
	})
}

func TestFinishedPodStaysUntilDropped(t *testing.T) {
	with(t, func(w *Workers, s *script) {
		s.done["1"] = true
		p := pod("job", "1")
		w.Set(p)
		synctest.Wait()
		if got, want := s.order(), []string{"sync 1", "terminate 1", "clean 1"}; !slices.Equal(got, want) {
			t.Errorf("calls = %q, want %q", got, want)
		}
		w.Drop(p)
		synctest.Wait()
		if st := w.Status("1"); st != "" {
			t.Errorf("state after drop = %s, want none", st)
		}
	})
}

// A terminal phase read from the API after a restart is never synced again.
func TestTerminalPhaseIsFinal(t *testing.T) {
	with(t, func(w *Workers, s *script) {
		p := pod("done", "1")
		p.Status.Phase = corev1.PodSucceeded
		w.Set(p)
		synctest.Wait()
		if slices.Contains(s.order(), "sync 1") {
			t.Errorf("a Succeeded pod was synced: %q", s.order())
		}
	})
}

func TestSameUIDComesBack(t *testing.T) {
	with(t, func(w *Workers, s *script) {
		s.hold["1"] = make(chan struct{})
		p := pod("static", "1")
		w.Set(p)
		synctest.Wait()
		w.Drop(p)
		w.Set(p)
		close(s.hold["1"])
		w.Wake("1")
		synctest.Wait()
		want := []string{"sync 1", "terminate 1", "clean 1", "ended 1", "sync 1"}
		if got := s.order(); !slices.Equal(got, want) {
			t.Errorf("calls = %q, want %q", got, want)
		}
	})
}

// Only a shorter grace moves an ending; the reason that came first stays.
func TestEndingOnlyGetsShorter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &worker{wake: make(chan struct{}, 1)}
		begin := time.Now()
		k.end(plan.Ending{Since: begin, Grace: 30 * time.Second, Reason: "Evicted"})
		for _, c := range []struct {
			after, grace time.Duration
			want         time.Duration // of the ending, since begin
		}{{time.Second, time.Minute, 30 * time.Second}, {time.Second, 5 * time.Second, 7 * time.Second}, {time.Second, 30 * time.Second, 7 * time.Second}} {
			time.Sleep(c.after)
			k.end(plan.Ending{Since: time.Now(), Grace: c.grace})
			if got := k.req.Ending.Since.Add(k.req.Ending.Grace).Sub(begin); got != c.want || k.req.Ending.Reason != "Evicted" {
				t.Errorf("after a request for %s the pod ends %s after the first (reason %q), want %s", c.grace, got, k.req.Ending.Reason, c.want)
			}
		}
	})
}
