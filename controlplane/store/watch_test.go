package store

import (
	"strconv"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/apis/example"
	"k8s.io/apiserver/pkg/storage"
)

func numbered(n int) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{ResourceVersion: strconv.Itoa(n)}}
}

// TestBacklogOfASlowReader: at the beginning of a watch the source is never blocked by a reader who is less than the limit behind, and
// no event is lost or out of order, also when the source ends before the reader has read.
func TestBacklogOfASlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := watch.NewFake() // unbuffered: it blocks like a watch cache's watcher whose few places are full
		b := newBacklog(source, backlogConfig{limit: 500, began: 1000})
		for n := range 500 {
			source.Modify(numbered(n))
		}
		full := make(chan struct{})
		go func() {
			source.Modify(numbered(500))
			source.Stop()
			close(full)
		}()
		synctest.Wait()
		select {
		case <-full:
			t.Error("more than the limit was taken from the source")
		default:
		}
		expectNumbered(t, b, 501)
		<-full
		b.Stop()
		b.Stop()
	})
}

// expectNumbered reads a watch to its end.
func expectNumbered(t *testing.T, w watch.Interface, want int) {
	t.Helper()
	n := 0
	for e := range w.ResultChan() {
		if got := e.Object.(*corev1.Pod).ResourceVersion; got != strconv.Itoa(n) {
			t.Fatalf("event %s, want %d", got, n)
		}
		n++
	}
	if n != want {
		t.Errorf("%d events, want %d", n, want)
	}
}

// TestBacklogEnds: after its beginning a watch never keeps its source waiting: one whose reader is the limit behind is ended, and gives
// what waits without a gap.
func TestBacklogEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source, ended := watch.NewFake(), 0
		b := newBacklog(source, backlogConfig{limit: 500, began: 99, ended: func() { ended++ }})
		for n := range 600 { // 100 of the beginning, which do not count
			if source.IsStopped() {
				t.Fatalf("ended after %d events", n)
			}
			source.Modify(numbered(n))
			synctest.Wait()
		}
		if !source.IsStopped() || ended != 1 {
			t.Errorf("500 behind: source stopped %v, said %d times", source.IsStopped(), ended)
		}
		expectNumbered(t, b, 600)
		b.Stop()
	})
}

// TestBacklogStops: Stop ends the source and the goroutine, events or not (synctest waits for every goroutine).
func TestBacklogStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := watch.NewFake()
		b := newBacklog(source, backlogConfig{limit: 10})
		source.Add(numbered(1))
		b.Stop()
		if !source.IsStopped() {
			t.Error("the source goes on")
		}
		for range b.ResultChan() {
		}
	})
}

// TestNoBookmarksOfOthers: a watch without a cache is not told of the progress that another kind's cache asks for.
func TestNoBookmarksOfOthers(t *testing.T) {
	s := open(t, t.TempDir())
	events, others := pods(t, s, true), pods(t, s, false)
	w, err := events.Watch(t.Context(), "/pods/", storage.ListOptions{Recursive: true, Predicate: storage.Everything})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	for n := range 3 {
		pod := &example.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: strconv.Itoa(n)}}
		if err := events.Create(t.Context(), "/pods/ns/"+pod.Name, pod, &example.Pod{}, 0); err != nil {
			t.Fatal(err)
		}
		if e := <-w.ResultChan(); e.Type != watch.Added {
			t.Fatalf("event %d: %s of %v, want ADDED", n, e.Type, e.Object)
		}
		if err := others.RequestWatchProgress(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestProgressBesideANewCache: a quiet kind's cache is brought up to date for who lists it, also beside one that has just been filled,
// which as yet has nothing to be told.
func TestProgressBesideANewCache(t *testing.T) {
	s := open(t, t.TempDir())
	quiet := pods(t, s, false)
	if _, err := s.client.Put(t.Context(), "/registry/others/one", "written"); err != nil {
		t.Fatal(err)
	}
	pods(t, s, false)
	if _, err := quiet.Stats(t.Context()); err != nil { // which waits until the cache has all that was written, and gives up if it does not get it
		t.Error(err)
	}
}
