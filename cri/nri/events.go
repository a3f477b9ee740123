package nri

import (
	"context"
	"fmt"
	"sync"

	"github.com/containerd/nri/pkg/adaptation"
	"github.com/containerd/nri/pkg/api"
)

// Each event takes the views as functions, which are called only when there is
// a plugin to tell.
type (
	// PodView describes a pod.
	PodView func() *api.PodSandbox
	// ContainerView describes a container.
	ContainerView func() *api.Container
)

// RunPod tells of a pod that is about to be ready, then has commit put it into
// the runtime's state; a plugin's error says that it must not be.
func (h *Hub) RunPod(ctx context.Context, pod PodView, commit func() error) error {
	if h == nil {
		return commit()
	}
	any, release := h.hold()
	defer release()
	if any {
		if err := h.all.RunPodSandbox(ctx, &adaptation.RunPodSandboxRequest{Pod: pod()}); err != nil {
			return fmt.Errorf("an NRI plugin refuses the pod: %w", err)
		}
	}
	return commit()
}

// UpdatePod tells of a pod's new resources, before and after they are in force.
func (h *Hub) UpdatePod(ctx context.Context, pod PodView, overhead, resources *api.LinuxResources) error {
	return h.tell(func() error {
		p := pod()
		if _, err := h.all.UpdatePodSandbox(ctx, &adaptation.UpdatePodSandboxRequest{Pod: p, OverheadLinuxResources: overhead, LinuxResources: resources}); err != nil {
			return err
		}
		return h.all.PostUpdatePodSandbox(ctx, &adaptation.PostUpdatePodSandboxRequest{Pod: p})
	})
}

// StopPod tells of a pod whose containers have ended and whose network is still there.
func (h *Hub) StopPod(ctx context.Context, pod PodView) {
	h.note("StopPodSandbox", func() error { return h.all.StopPodSandbox(ctx, &adaptation.StopPodSandboxRequest{Pod: pod()}) })
}

// RemovePod tells of a pod's removal.
func (h *Hub) RemovePod(ctx context.Context, pod PodView) {
	h.note("RemovePodSandbox", func() error { return h.all.RemovePodSandbox(ctx, &adaptation.RemovePodSandboxRequest{Pod: pod()}) })
}

// Create asks how the container is to be adjusted, then has commit make it so
// and put it into the runtime's state. It gives which others' limits are to
// change.
func (h *Hub) Create(ctx context.Context, pod PodView, c ContainerView, commit func(*api.ContainerAdjustment) error) (others []*api.ContainerUpdate, err error) {
	if h == nil {
		return nil, commit(nil)
	}
	any, release := h.hold()
	defer release()
	if !any {
		return nil, commit(nil)
	}
	answer, err := h.all.CreateContainer(ctx, &adaptation.CreateContainerRequest{Pod: pod(), Container: c()})
	if err != nil {
		return nil, fmt.Errorf("an NRI plugin refuses the container: %w", err)
	}
	return answer.GetUpdate(), commit(answer.GetAdjust())
}

// Created tells of a container that was made.
func (h *Hub) Created(ctx context.Context, pod PodView, c ContainerView) {
	h.note("PostCreateContainer", func() error {
		return h.all.PostCreateContainer(ctx, &adaptation.PostCreateContainerRequest{Pod: pod(), Container: c()})
	})
}

// Start tells of a container that is about to start; an error says that it must not.
func (h *Hub) Start(ctx context.Context, pod PodView, c ContainerView) error {
	return h.tell(func() error {
		if err := h.all.StartContainer(ctx, &adaptation.StartContainerRequest{Pod: pod(), Container: c()}); err != nil {
			return fmt.Errorf("an NRI plugin refuses the start: %w", err)
		}
		return nil
	})
}

// Started tells of a container that runs.
func (h *Hub) Started(ctx context.Context, pod PodView, c ContainerView) {
	h.note("PostStartContainer", func() error {
		return h.all.PostStartContainer(ctx, &adaptation.PostStartContainerRequest{Pod: pod(), Container: c()})
	})
}

// Update asks what limits a container is to have instead of those given, and
// which others' are to change. A nil answer leaves them as given.
func (h *Hub) Update(ctx context.Context, id string, pod PodView, c ContainerView, limits *api.LinuxResources) (own *api.LinuxResources, others []*api.ContainerUpdate, err error) {
	err = h.tell(func() error {
		answer, err := h.all.UpdateContainer(ctx, &adaptation.UpdateContainerRequest{Pod: pod(), Container: c(), LinuxResources: limits})
		if err != nil {
			return err
		}
		for _, u := range answer.GetUpdate() {
			if u.GetContainerId() == id {
				own = u.GetLinux().GetResources()
			} else {
				others = append(others, u)
			}
		}
		return nil
	})
	return own, others, err
}

// Updated tells that new limits are in force.
func (h *Hub) Updated(ctx context.Context, pod PodView, c ContainerView) {
	h.note("PostUpdateContainer", func() error {
		return h.all.PostUpdateContainer(ctx, &adaptation.PostUpdateContainerRequest{Pod: pod(), Container: c()})
	})
}

// Stopped tells, once for each container, that it has ended, and gives what
// others' limits are to change. Every call returns after it was told.
func (h *Hub) Stopped(ctx context.Context, id string, pod PodView, c ContainerView) (others []*api.ContainerUpdate) {
	if h == nil {
		return nil
	}
	h.once(id).Do(func() {
		h.note("StopContainer", func() error {
			answer, err := h.all.StopContainer(ctx, &adaptation.StopContainerRequest{Pod: pod(), Container: c()})
			others = answer.GetUpdate()
			return err
		})
	})
	return others
}

// WasStopped says that a container ended before this hub was there.
func (h *Hub) WasStopped(id string) {
	if h != nil {
		h.once(id).Do(func() {})
	}
}

func (h *Hub) once(id string) *sync.Once {
	h.mu.Lock()
	defer h.mu.Unlock()
	once := h.stops[id]
	if once == nil {
		once = &sync.Once{}
		h.stops[id] = once
	}
	return once
}

// Removed tells of a container's removal, which is about to be.
func (h *Hub) Removed(ctx context.Context, pod PodView, c ContainerView) {
	h.note("RemoveContainer", func() error {
		return h.all.RemoveContainer(ctx, &adaptation.RemoveContainerRequest{Pod: pod(), Container: c()})
	})
}

// Forget is for a container that the runtime does not know any more.
func (h *Hub) Forget(id string) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.stops, id)
}
