package cri

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/cri/podstore"
	"keelson.dev/keelson/runtime/container"
)

// StopPodSandbox kills what runs in the pod and gives its network and namespaces
// back. It is idempotent; a pod that is gone is stopped.
func (s *Server) StopPodSandbox(ctx context.Context, req *runtimeapi.StopPodSandboxRequest) (*runtimeapi.StopPodSandboxResponse, error) {
	rec, unlock, err := s.lockSandbox(ctx, req.GetPodSandboxId())
	if err != nil {
		return &runtimeapi.StopPodSandboxResponse{}, ignoreMissing(err)
	}
	defer unlock()
	if err := s.stopSandbox(ctx, rec); err != nil {
		return nil, fmt.Errorf("stop sandbox %s: %w", rec.ID, err)
	}
	return &runtimeapi.StopPodSandboxResponse{}, nil
}

// RemovePodSandbox stops the pod, removes its containers and forgets it. It is
// idempotent.
func (s *Server) RemovePodSandbox(ctx context.Context, req *runtimeapi.RemovePodSandboxRequest) (*runtimeapi.RemovePodSandboxResponse, error) {
	rec, unlock, err := s.lockSandbox(ctx, req.GetPodSandboxId())
	if err != nil {
		return &runtimeapi.RemovePodSandboxResponse{}, ignoreMissing(err)
	}
	defer unlock()
	if err := s.stopSandbox(ctx, rec); err != nil {
		return nil, fmt.Errorf("remove sandbox %s: %w", rec.ID, err)
	}
	// Creations that had passed the state check see it stopped and roll back;
	// their traces must be gone before the pod's.
	drained, err := s.gates.lock(ctx, useGate(rec.ID))
	if err != nil {
		return nil, err
	}
	defer drained()
	for _, c := range s.containersOf(rec.ID) {
		if err := s.removeContainer(ctx, c.ID); err != nil {
			return nil, fmt.Errorf("remove sandbox %s: %w", rec.ID, err)
		}
	}
	gone := s.event(rec.ID, runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT, rec.ID)
	s.nri.RemovePod(ctx, s.podView(rec))
	atPodEmptied.Reach()
	err = os.RemoveAll(s.podDir(rec.ID))
	atPodUnfiled.Reach()
	if err = errors.Join(err, s.sandboxes.Delete(rec.ID)); err != nil {
		return nil, fmt.Errorf("remove sandbox %s: %w", rec.ID, err)
	}
	releasePodLabels(rec)
	s.events.publish(gone)
	return &runtimeapi.RemovePodSandboxResponse{}, nil
}

// lockSandbox finds a sandbox and takes its gate; the record is the one that
// holds under the gate.
func (s *Server) lockSandbox(ctx context.Context, id string) (*podstore.Sandbox, func(), error) {
	if id == "" {
		return nil, nil, invalid("no sandbox id")
	}
	rec, err := s.sandboxes.Get(id)
	if err != nil {
		return nil, nil, fmt.Errorf("sandbox %w", err)
	}
	unlock, err := s.gates.lock(ctx, podGate(rec.ID))
	if err != nil {
		return nil, nil, err
	}
	rec, err = s.sandboxes.Get(rec.ID)
	if err != nil {
		unlock()
		return nil, nil, fmt.Errorf("sandbox %w", err)
	}
	return rec, unlock, nil
}

func podGate(id string) string       { return "pod " + id }
func useGate(id string) string       { return "creation in pod " + id }
func containerGate(id string) string { return "container " + id }

// stopSandbox needs the pod's gate. Each step is idempotent and the record says
// which are done, so that a call cut short is finished by the next.
func (s *Server) stopSandbox(ctx context.Context, rec *podstore.Sandbox) error {
	if rec.State == podstore.Stopped && rec.NetworkDown {
		return nil
	}
	stopped := *rec
	stopped.State = podstore.Stopped
	if err := s.sandboxes.Update(&stopped); err != nil {
		return err
	}
	atPodStopping.Reach()
	if err := s.killAll(ctx, rec.ID); err != nil {
		return err
	}
	atPodKilled.Reach()
	s.nri.StopPod(ctx, s.podView(rec))
	if !hostNetwork(rec.Config) {
		if err := s.deps.Network.Teardown(ctx, rec.ID); err != nil {
			return fmt.Errorf("give the pod network back: %w", err)
		}
	}
	atPodUnwired.Reach()
	if err := ignoreMissing(s.deps.Sandboxes.Remove(ctx, rec.ID)); err != nil {
		return err
	}
	atPodUnboxed.Reach()
	down := stopped
	down.NetworkDown = true
	if err := s.sandboxes.Update(&down); err != nil {
		return err
	}
	s.emit(rec.ID, runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT, rec.ID)
	return nil
}

// killAll ends the pod's containers side by side.
func (s *Server) killAll(ctx context.Context, sandboxID string) error {
	list := s.containersOf(sandboxID)
	errs := make([]error, len(list))
	var wg sync.WaitGroup
	for i, c := range list {
		wg.Go(func() {
			// A start under way ends before the kill; later ones see the pod
			// stopped.
			unlock, err := s.gates.lock(ctx, containerGate(c.ID))
			if err != nil {
				errs[i] = err
				return
			}
			unlock()
			if errs[i] = s.kill(ctx, c.ID); errs[i] == nil {
				s.NRIUpdate(ctx, s.stopped(ctx, c))
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (s *Server) kill(ctx context.Context, id string) error {
	err := s.deps.Containers.Stop(ctx, id, syscall.SIGKILL, 0)
	if missing(err) || errors.Is(err, container.ErrNotRunning) {
		return nil
	}
	return err
}

func (s *Server) containersOf(sandboxID string) []*podstore.Container {
	var out []*podstore.Container
	for _, c := range s.containers.List() {
		if c.SandboxID == sandboxID {
			out = append(out, c)
		}
	}
	return out
}
