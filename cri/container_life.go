package cri

import (
	"context"
	"errors"
	"fmt"
	"math"
	"syscall"
	"time"

	"github.com/containerd/nri/pkg/api"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/cri/nri"
	"keelson.dev/keelson/cri/podstore"
	"keelson.dev/keelson/cri/translate"
	"keelson.dev/keelson/runtime/container"
)

func (s *Server) container(id string) (*podstore.Container, error) {
	if id == "" {
		return nil, invalid("no container id")
	}
	rec, err := s.containers.Get(id)
	if err != nil {
		return nil, fmt.Errorf("container %w", err)
	}
	return rec, nil
}

// lockContainer finds a container and takes its gate.
func (s *Server) lockContainer(ctx context.Context, id string) (*podstore.Container, func(), error) {
	rec, err := s.container(id)
	if err != nil {
		return nil, nil, err
	}
	unlock, err := s.gates.lock(ctx, containerGate(rec.ID))
	if err != nil {
		return nil, nil, err
	}
	rec, err = s.container(rec.ID)
	if err != nil {
		unlock()
		return nil, nil, err
	}
	return rec, unlock, nil
}

// StartContainer runs a created container's process.
func (s *Server) StartContainer(ctx context.Context, req *runtimeapi.StartContainerRequest) (*runtimeapi.StartContainerResponse, error) {
	rec, unlock, err := s.lockContainer(ctx, req.GetContainerId())
	if err != nil {
		return nil, err
	}
	defer unlock()
	if _, err := s.readySandbox(rec.SandboxID); err != nil {
		return nil, fmt.Errorf("start container %s: %w", rec.ID, err)
	}
	st, err := s.deps.Containers.State(rec.ID)
	if err != nil {
		return nil, fmt.Errorf("start container %s: %w", rec.ID, err)
	}
	if st.Status != container.Created {
		return nil, fmt.Errorf("start container %s: %w: it is %s, and only a created one can be started", rec.ID, errState, containerStateOf(st))
	}
	pod, view := s.podViewOf(rec), s.containerView(rec, nil)
	if err := s.nri.Start(ctx, pod, view); err != nil {
		return nil, fmt.Errorf("start container %s: %w", rec.ID, err)
	}
	if _, err := s.deps.Containers.Start(ctx, rec.ID); err != nil {
		return nil, err // it says which container could not be started; users read it in the pod's status
	}
	atContainerStarted.Reach()
	s.nri.Started(ctx, pod, view)
	return &runtimeapi.StartContainerResponse{}, nil
}

// StopContainer asks the container to end and kills it when the timeout is over.
// No gate is held: a second call with a shorter timeout must not wait for the
// first. It is idempotent.
func (s *Server) StopContainer(ctx context.Context, req *runtimeapi.StopContainerRequest) (*runtimeapi.StopContainerResponse, error) {
	rec, err := s.container(req.GetContainerId())
	if err != nil {
		return &runtimeapi.StopContainerResponse{}, ignoreMissing(err)
	}
	grace, err := seconds("timeout", req.GetTimeout())
	if err != nil {
		return nil, err
	}
	sig := syscall.Signal(rec.StopSignal)
	if grace == 0 {
		sig = syscall.SIGKILL
	}
	err = s.deps.Containers.Stop(ctx, rec.ID, sig, grace)
	if err != nil && !missing(err) && !errors.Is(err, container.ErrNotRunning) {
		return nil, fmt.Errorf("stop container %s: %w", rec.ID, err)
	}
	s.NRIUpdate(ctx, s.stopped(ctx, rec))
	return &runtimeapi.StopContainerResponse{}, nil
}

// seconds reads a timeout of the API; nothing waits longer than a Duration can
// say.
func seconds(what string, n int64) (time.Duration, error) {
	if n < 0 {
		return 0, invalid("%s is negative (%d s)", what, n)
	}
	return time.Duration(min(n, math.MaxInt64/int64(time.Second))) * time.Second, nil
}

// RemoveContainer kills the container if it runs and forgets it. It is
// idempotent.
func (s *Server) RemoveContainer(ctx context.Context, req *runtimeapi.RemoveContainerRequest) (*runtimeapi.RemoveContainerResponse, error) {
	if req.GetContainerId() == "" {
		return nil, invalid("no container id")
	}
	if err := s.removeContainer(ctx, req.GetContainerId()); err != nil {
		return nil, err
	}
	return &runtimeapi.RemoveContainerResponse{}, nil
}

// removeContainer takes the effects back before the record, so that a call cut
// short is finished by the next or by the next start.
func (s *Server) removeContainer(ctx context.Context, id string) error {
	rec, unlock, err := s.lockContainer(ctx, id)
	if err != nil {
		return ignoreMissing(err)
	}
	var others []*api.ContainerUpdate
	defer func() {
		unlock() // before another container's gate is taken
		s.NRIUpdate(ctx, others)
	}()
	gone := s.event(rec.SandboxID, runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT, rec.ID)
	if err := s.kill(ctx, rec.ID); err != nil {
		return fmt.Errorf("remove container %s: %w", rec.ID, err)
	}
	others = s.stopped(ctx, rec)
	s.nri.Removed(ctx, s.podViewOf(rec), s.containerView(rec, nil))
	if err := s.dismantle(ctx, rec); err != nil {
		return fmt.Errorf("remove container %s: %w", rec.ID, err)
	}
	s.cpu.forget(rec.ID)
	s.nri.Forget(rec.ID)
	s.events.publish(gone)
	return nil
}

func (s *Server) dismantle(ctx context.Context, rec *podstore.Container) error {
	if err := s.kill(ctx, rec.ID); err != nil {
		return err
	}
	atContainerKilled.Reach()
	if err := ignoreMissing(s.deps.Containers.Remove(ctx, rec.ID)); err != nil {
		return err
	}
	atContainerRemoved.Reach()
	if err := s.deps.Rootfs.UnmountRootfs(ctx, rec.ID); err != nil {
		return fmt.Errorf("unmount the root filesystem: %w", err)
	}
	for _, id := range rec.ImageMounts {
		if err := s.deps.Rootfs.UnmountImage(ctx, id); err != nil {
			return fmt.Errorf("unmount an image volume: %w", err)
		}
	}
	atContainerUnmounted.Reach()
	return s.containers.Delete(rec.ID)
}

// UpdateContainerResources changes the limits of a container. Fields that are
// zero stay as they are.
func (s *Server) UpdateContainerResources(ctx context.Context, req *runtimeapi.UpdateContainerResourcesRequest) (*runtimeapi.UpdateContainerResourcesResponse, error) {
	rec, unlock, err := s.lockContainer(ctx, req.GetContainerId())
	if err != nil {
		return nil, err
	}
	var others []*api.ContainerUpdate
	defer func() {
		unlock() // before another container's gate is taken
		s.NRIUpdate(ctx, others)
	}()
	if req.GetLinux() == nil {
		return &runtimeapi.UpdateContainerResourcesResponse{}, nil
	}
	st, err := s.deps.Containers.State(rec.ID)
	if err != nil {
		return nil, fmt.Errorf("update container %s: %w", rec.ID, err)
	}
	if st.Status != container.Created && st.Status != container.Running {
		return nil, fmt.Errorf("update container %s: %w: it is %s", rec.ID, errState, containerStateOf(st))
	}
	if _, err := translate.Resources(req.GetLinux(), s.host); err != nil {
		return nil, err
	}
	pod, view := s.podViewOf(rec), s.containerView(rec, nil)
	own, others, err := s.nri.Update(ctx, rec.ID, pod, view, nri.Limits(req.GetLinux()))
	if err != nil {
		return nil, fmt.Errorf("update container %s: %w", rec.ID, err)
	}
	asked, pids := req.GetLinux(), (*specs.LinuxPids)(nil)
	if own != nil {
		asked, pids = nri.Asked(own), own.ToOCI().Pids
	}
	if err := s.limit(ctx, rec, asked, pids); err != nil {
		return nil, fmt.Errorf("update container %s: %w", rec.ID, err)
	}
	s.nri.Updated(ctx, pod, view)
	return &runtimeapi.UpdateContainerResourcesResponse{}, nil
}

// limit needs the container's gate: it lays what is asked over the limits in
// force. pids is what only plugins ask for.
func (s *Server) limit(ctx context.Context, rec *podstore.Container, asked *runtimeapi.LinuxContainerResources, pids *specs.LinuxPids) error {
	merged := translate.Merge(rec.Resources, asked)
	res, err := translate.Resources(merged, s.host)
	if err != nil {
		return err
	}
	res.Pids = pids
	// The effect first: a limit that the kernel refused must not be reported.
	if err := s.deps.Containers.Update(ctx, rec.ID, res); err != nil {
		return err
	}
	atContainerUpdated.Reach()
	next := *rec
	next.Resources = merged
	return s.containers.Update(&next)
}

// ReopenContainerLog opens the log anew after the kubelet moved it away.
func (s *Server) ReopenContainerLog(ctx context.Context, req *runtimeapi.ReopenContainerLogRequest) (*runtimeapi.ReopenContainerLogResponse, error) {
	rec, unlock, err := s.lockContainer(ctx, req.GetContainerId())
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := s.running(rec.ID); err != nil {
		return nil, fmt.Errorf("reopen the log: %w", err)
	}
	if err := s.deps.Containers.ReopenLog(ctx, rec.ID); err != nil {
		return nil, fmt.Errorf("reopen the log of container %s: %w", rec.ID, err)
	}
	return &runtimeapi.ReopenContainerLogResponse{}, nil
}

// running is an error unless the container runs.
func (s *Server) running(id string) error {
	st, err := s.deps.Containers.State(id)
	if err != nil {
		return fmt.Errorf("container %s: %w", id, err)
	}
	if st.Status != container.Running {
		return fmt.Errorf("%w: container %s is %s, not running", errState, id, containerStateOf(st))
	}
	return nil
}

// CheckpointContainer is not there yet.
func (s *Server) CheckpointContainer(context.Context, *runtimeapi.CheckpointContainerRequest) (*runtimeapi.CheckpointContainerResponse, error) {
	return nil, fmt.Errorf("%w: keelson does not checkpoint containers yet", errUnimplemented)
}

// CheckpointPod is not there yet.
func (s *Server) CheckpointPod(context.Context, *runtimeapi.CheckpointPodRequest) (*runtimeapi.CheckpointPodResponse, error) {
	return nil, fmt.Errorf("%w: keelson does not checkpoint pods yet", errUnimplemented)
}

// RestorePod is not there yet.
func (s *Server) RestorePod(context.Context, *runtimeapi.RestorePodRequest) (*runtimeapi.RestorePodResponse, error) {
	return nil, fmt.Errorf("%w: keelson does not restore pods yet", errUnimplemented)
}
