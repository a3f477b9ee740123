package cri

import (
	"context"

	"github.com/containerd/nri/pkg/api"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"keelson.dev/keelson/cri/nri"
	"keelson.dev/keelson/cri/podstore"
	"keelson.dev/keelson/cri/translate"
	"keelson.dev/keelson/runtime/container"
)

// openNRI serves node plugins, which hear first of what is there.
func (s *Server) openNRI() error {
	cfg := s.cfg.NRI
	cfg.Name, cfg.Version, cfg.Log = runtimeName, s.cfg.Version, s.log
	hub, err := nri.Open(cfg, s)
	if err != nil {
		return err
	}
	for _, rec := range s.containers.List() {
		if st := s.state(rec); st.Status != container.Created && st.Status != container.Running {
			hub.WasStopped(rec.ID)
		}
	}
	s.nri = hub
	return nil
}

func (s *Server) podView(rec *podstore.Sandbox) nri.PodView {
	return func() *api.PodSandbox {
		box, err := s.deps.Sandboxes.Get(rec.ID)
		if err != nil {
			box = nil // its namespaces are gone: what was asked for is still known
		}
		return nri.Pod(rec, box)
	}
}

// podViewOf is the view of a container's pod.
func (s *Server) podViewOf(rec *podstore.Container) nri.PodView {
	return func() *api.PodSandbox {
		pod, err := s.sandbox(rec.SandboxID)
		if err != nil {
			return &api.PodSandbox{Id: rec.SandboxID}
		}
		return s.podView(pod)()
	}
}

// containerView is a container's view. A nil spec is looked up: the container is made.
func (s *Server) containerView(rec *podstore.Container, spec *specs.Spec) nri.ContainerView {
	return func() *api.Container {
		if spec != nil {
			return nri.Container(rec, spec, container.State{Status: container.Created})
		}
		made, err := s.deps.Containers.Spec(rec.ID)
		if err != nil {
			made = nil // it is gone
		}
		return nri.Container(rec, made, s.state(rec))
	}
}

// adjust changes what a container is made from as plugins ask.
func (s *Server) adjust(rec *podstore.Container, spec *specs.Spec, a *api.ContainerAdjustment) error {
	if a == nil {
		return nil
	}
	if err := nri.Adjust(spec, a, s.host.SwapAccounting, s.injectDevices); err != nil {
		return err
	}
	rec.Process = spec.Process
	rec.Resources = translate.Merge(rec.Resources, nri.Asked(a.GetLinux().GetResources()))
	return nil
}

// stopped tells plugins that a container has ended, if it ever ran; see Hub.Stopped.
// They hear of it even if the caller has gone: it is told once.
func (s *Server) stopped(ctx context.Context, rec *podstore.Container) []*api.ContainerUpdate {
	if s.nri == nil {
		return nil
	}
	if st := s.state(rec); st.StartedAt.IsZero() || st.Status == container.Running {
		return nil
	}
	return s.nri.Stopped(context.WithoutCancel(ctx), rec.ID, s.podViewOf(rec), s.containerView(rec, nil))
}

// NRIState gives plugins the pods and containers that are made.
func (s *Server) NRIState() (pods []*api.PodSandbox, containers []*api.Container) {
	for _, rec := range s.sandboxes.List() {
		pods = append(pods, s.podView(rec)())
	}
	for _, rec := range s.containers.List() {
		containers = append(containers, s.containerView(rec, nil)())
	}
	return pods, containers
}

// NRIUpdate changes the limits of containers as plugins ask, and gives those that
// could not be changed. The caller holds no container's gate.
func (s *Server) NRIUpdate(ctx context.Context, updates []*api.ContainerUpdate) (failed []*api.ContainerUpdate) {
	for _, u := range updates {
		if err := s.updateOne(ctx, u); err != nil {
			s.log.Warn("a container's limits could not be changed as an NRI plugin asks", "id", u.GetContainerId(), "err", err)
			if !u.GetIgnoreFailure() {
				failed = append(failed, u)
			}
		}
	}
	return failed
}

func (s *Server) updateOne(ctx context.Context, u *api.ContainerUpdate) error {
	asked := u.GetLinux().GetResources()
	if asked == nil {
		return nil
	}
	rec, unlock, err := s.lockContainer(ctx, u.GetContainerId())
	if err != nil {
		return err
	}
	defer unlock()
	return s.limit(ctx, rec, nri.Asked(asked), asked.ToOCI().Pids)
}
