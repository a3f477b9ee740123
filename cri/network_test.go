package cri

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestHostile_CR13: a network that hangs or fails costs its own pod an error in
// the caller's time; what it did not give back is asked for again until it does.
func TestHostile_CR13(t *testing.T) {
	w := newWorld()
	s := start(t, w, t.TempDir())
	ctx := t.Context()

	// The attachment fails, and so does taking it back.
	tries, mended := 0, make(chan struct{})
	w.hook = func(step string) error {
		switch step {
		case "Setup":
			return errStep
		case "Teardown":
			if tries++; tries < 3 {
				return errStep
			}
			close(mended)
		}
		return nil
	}
	if _, err := s.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: podConfig("web")}); !errors.Is(err, errStep) {
		t.Fatalf("error %v, want the network's", err)
	}
	if len(w.left()) == 0 {
		t.Fatal("nothing is left: the way back did not fail")
	}
	<-mended
	if err := s.Close(); err != nil { // waits for who tries
		t.Error(err)
	}
	nothingLeft(t, s, w)

	// The release hangs until the caller's time is over, then fails, then works.
	w.hook = nil
	s = start(t, w, t.TempDir())
	pod := runPod(t, s, podConfig("web"))
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	w.hook = func(step string) error {
		if step != "Teardown" {
			return nil
		}
		<-short.Done()
		return short.Err()
	}
	if _, err := s.StopPodSandbox(short, &runtimeapi.StopPodSandboxRequest{PodSandboxId: pod}); status.Code(toStatus(err)) != codes.DeadlineExceeded {
		t.Errorf("a release that hangs: %v, want DeadlineExceeded", err)
	}
	runPod(t, s, podConfig("other")) // meanwhile, and afterwards, other pods come
	w.hook = func(step string) error {
		if step == "Teardown" {
			return errStep
		}
		return nil
	}
	for _, call := range []func() error{
		func() error {
			_, err := s.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: pod})
			return err
		},
		func() error {
			_, err := s.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: pod})
			return err
		},
	} {
		if err := call(); !errors.Is(err, errStep) {
			t.Errorf("a release that fails: %v, want the network's error", err)
		}
	}
	if list, err := s.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{}); err != nil || len(list.GetItems()) != 2 {
		t.Errorf("%v, %v: the pod must be there for who asks again", list, err)
	}
	w.hook = nil
	for _, p := range s.sandboxes.List() {
		removePod(t, s, p.ID)
	}
	nothingLeft(t, s, w)
}
