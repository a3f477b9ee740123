package statuswriter

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

func apiPod() *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "u"}}
	p.Status.Phase = corev1.PodPending
	p.Status.Conditions = []corev1.PodCondition{{Type: "example.com/gate", Status: "True"}, {Type: corev1.PodScheduled, Status: "True"}}
	return p
}

// with runs a Writer over a client whose watch is the client itself.
func with(t *testing.T, client *fake.Clientset, f func(*Writer, <-chan types.UID)) {
	t.Helper()
	written := make(chan types.UID, 100)
	w := New(Config{Client: client, Written: func(u types.UID) { written <- u }, Log: slog.New(slog.DiscardHandler),
		Target: func(types.UID) *corev1.Pod {
			p, err := client.CoreV1().Pods("ns").Get(context.Background(), "p", metav1.GetOptions{})
			if err != nil {
				return nil
			}
			return p
		}})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }() // ends with cancel
	f(w, written)
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func await(t *testing.T, c <-chan types.UID) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(20 * time.Second):
		t.Fatal("the status was not written within 20 s")
	}
}

// A terminal status gets through however often the API fails, and conditions of others stay.
func TestTerminalStatusIsNotLost(t *testing.T) {
	client := fake.NewClientset(apiPod())
	var tries atomic.Int32
	client.PrependReactor("patch", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
		if tries.Add(1) <= 3 {
			return true, nil, errors.New("the API is away")
		}
		return false, nil, nil
	})
	with(t, client, func(w *Writer, written <-chan types.UID) {
		w.Set("u", corev1.PodStatus{Phase: corev1.PodSucceeded, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: "False"}}}, false)
		if w.Flushed("u") {
			t.Error("flushed before it was written")
		}
		await(t, written)
		if !w.Flushed("u") {
			t.Error("not flushed after it was written")
		}
		p, err := client.CoreV1().Pods("ns").Get(t.Context(), "p", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if p.Status.Phase != corev1.PodSucceeded || !has(p.Status.Conditions, "example.com/gate") || !has(p.Status.Conditions, corev1.PodReady) {
			t.Errorf("status = %+v", p.Status)
		}
	})
}

// A status that is set again costs no call; one that somebody else overwrote is restored.
func TestOnlyChangesAreWritten(t *testing.T) {
	client := fake.NewClientset(apiPod())
	patches := func() (n int) {
		for _, a := range client.Actions() {
			if a.GetVerb() == "patch" {
				n++
			}
		}
		return n
	}
	with(t, client, func(w *Writer, written <-chan types.UID) {
		want := corev1.PodStatus{Phase: corev1.PodRunning}
		w.Set("u", want, false)
		await(t, written)
		w.Set("u", want, false)
		w.Check("u")
		if n := patches(); n != 1 {
			t.Errorf("%d patches, want 1", n)
		}
	})
}

// Of interim statuses that overtake each other, one is written.
func TestInterim(t *testing.T) {
	client := fake.NewClientset(apiPod())
	with(t, client, func(w *Writer, written <-chan types.UID) {
		w.Set("u", corev1.PodStatus{Phase: corev1.PodPending, Message: "soon"}, true)
		w.Set("u", corev1.PodStatus{Phase: corev1.PodRunning}, false)
		await(t, written)
		p, _ := client.CoreV1().Pods("ns").Get(t.Context(), "p", metav1.GetOptions{})
		if p.Status.Phase != corev1.PodRunning || p.Status.Message != "" {
			t.Errorf("status = %+v", p.Status)
		}
		w.Set("u", corev1.PodStatus{Phase: corev1.PodRunning, Message: "alone"}, true)
		await(t, written)
		p, _ = client.CoreV1().Pods("ns").Get(t.Context(), "p", metav1.GetOptions{})
		if p.Status.Message != "alone" {
			t.Errorf("an interim status that nothing overtook was not written: %+v", p.Status)
		}
	})
}

// A pod that is gone settles its status: nobody waits for it for ever.
func TestGone(t *testing.T) {
	client := fake.NewClientset()
	with(t, client, func(w *Writer, written <-chan types.UID) {
		w.Set("u", corev1.PodStatus{Phase: corev1.PodFailed}, false)
		await(t, written)
		if !w.Flushed("u") {
			t.Error("not flushed although the pod is gone")
		}
	})
}
