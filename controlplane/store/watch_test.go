package store

import (
	"strconv"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

func numbered(n int) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{ResourceVersion: strconv.Itoa(n)}}
}

// TestBacklogOfASlowReader: the source is never blocked by a reader who is less than the limit behind, and no event is lost
// or out of order, also when the source ends before the reader has read.
func TestBacklogOfASlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := watch.NewFake() // unbuffered: it blocks like a watch cache's watcher whose few places are full
		b := newBacklog(source, 500)
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
		n := 0
		for e := range b.ResultChan() {
			if got := e.Object.(*corev1.Pod).ResourceVersion; got != strconv.Itoa(n) {
				t.Fatalf("event %s, want %d", got, n)
			}
			n++
		}
		if n != 501 {
			t.Errorf("%d events, want 501", n)
		}
		<-full
		b.Stop()
		b.Stop()
	})
}

// TestBacklogStops: Stop ends the source and the goroutine, events or not (synctest waits for every goroutine).
func TestBacklogStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := watch.NewFake()
		b := newBacklog(source, 10)
		source.Add(numbered(1))
		b.Stop()
		if !source.IsStopped() {
			t.Error("the source goes on")
		}
		for range b.ResultChan() {
		}
	})
}
