package cri

import (
	"cmp"
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/cri/podstore"
	"keelson.dev/keelson/runtime/container"
)

// ContainerStatus describes one container.
func (s *Server) ContainerStatus(_ context.Context, req *runtimeapi.ContainerStatusRequest) (*runtimeapi.ContainerStatusResponse, error) {
	rec, err := s.container(req.GetContainerId())
	if err != nil {
		return nil, err
	}
	st := s.state(rec)
	resp := &runtimeapi.ContainerStatusResponse{Status: s.containerStatus(rec, st)}
	if req.GetVerbose() {
		resp.Info = infoMap(map[string]any{
			"sandboxID": rec.SandboxID, "pid": st.Pid, "config": rec.Config, "runtimeSpecProcessArgs": rec.Process.Args,
			"imageID": rec.ImageID, "logPath": rec.LogPath,
		})
	}
	return resp, nil
}

// state joins in what the runtime knows. A container of which the runtime cannot
// tell is unknown.
func (s *Server) state(rec *podstore.Container) container.State {
	st, err := s.deps.Containers.State(rec.ID)
	if err != nil {
		return container.State{ID: rec.ID, SandboxID: rec.SandboxID, Status: container.Unknown, CreatedAt: rec.CreatedAt, Message: err.Error()}
	}
	return st
}

func containerStateOf(st container.State) runtimeapi.ContainerState {
	switch st.Status {
	case container.Created:
		return runtimeapi.ContainerState_CONTAINER_CREATED
	case container.Running:
		return runtimeapi.ContainerState_CONTAINER_RUNNING
	case container.Exited:
		return runtimeapi.ContainerState_CONTAINER_EXITED
	}
	return runtimeapi.ContainerState_CONTAINER_UNKNOWN
}

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func (s *Server) containerStatus(rec *podstore.Container, st container.State) *runtimeapi.ContainerStatus {
	state := containerStateOf(st)
	out := &runtimeapi.ContainerStatus{
		Id: rec.ID, Metadata: rec.Config.GetMetadata(), State: state, CreatedAt: rec.CreatedAt.UnixNano(),
		Image: s.imageSpec(rec), ImageRef: rec.ImageRef, ImageId: rec.ImageID,
		Labels: rec.Config.GetLabels(), Annotations: rec.Config.GetAnnotations(), Mounts: mountsOf(rec),
		LogPath: rec.LogPath, Resources: &runtimeapi.ContainerResources{Linux: rec.Resources},
		User: containerUser(rec), StopSignal: rec.StopSignalName,
	}
	if state != runtimeapi.ContainerState_CONTAINER_CREATED {
		out.StartedAt = nanos(st.StartedAt)
	}
	if state == runtimeapi.ContainerState_CONTAINER_EXITED || state == runtimeapi.ContainerState_CONTAINER_UNKNOWN {
		out.FinishedAt, out.ExitCode = nanos(st.FinishedAt), st.ExitCode
		out.Reason, out.Message = exitReason(st), st.Message
	}
	return out
}

// mountsOf are the mounts as they were asked for; an image volume's tells which
// image it is (KEP-5365).
func mountsOf(rec *podstore.Container) []*runtimeapi.Mount {
	mounts := rec.Config.GetMounts()
	if len(rec.VolumeImages) == 0 {
		return mounts
	}
	out := slices.Clone(mounts)
	for n, id := range rec.VolumeImages {
		m, _ := proto.Clone(mounts[n]).(*runtimeapi.Mount)
		m.Image.ImageRef, out[n] = id, m
	}
	return out
}

// exitReason is never empty for a container that ended: the kubelet shows it.
func exitReason(st container.State) string {
	switch {
	case st.Reason != "":
		return st.Reason
	case st.Status == container.Unknown:
		return "Unknown"
	case st.ExitCode == 0:
		return "Completed"
	}
	return "Error"
}

func containerUser(rec *podstore.Container) *runtimeapi.ContainerUser {
	if rec.Process == nil {
		return nil
	}
	u := rec.Process.User
	out := &runtimeapi.LinuxContainerUser{Uid: int64(u.UID), Gid: int64(u.GID)}
	for _, g := range u.AdditionalGids {
		out.SupplementalGroups = append(out.SupplementalGroups, int64(g))
	}
	return &runtimeapi.ContainerUser{Linux: out}
}

// imageSpec names the image by its tag where it still has one.
func (s *Server) imageSpec(rec *podstore.Container) *runtimeapi.ImageSpec {
	asked := rec.Config.GetImage()
	spec := &runtimeapi.ImageSpec{Image: asked.GetImage(), UserSpecifiedImage: asked.GetUserSpecifiedImage(), Annotations: asked.GetAnnotations(), RuntimeHandler: asked.GetRuntimeHandler()}
	if img, err := s.deps.Images.Get(rec.ImageID); err == nil && len(img.RepoTags) > 0 && !slices.Contains(img.RepoTags, spec.Image) {
		spec.Image = img.RepoTags[0]
	}
	return spec
}

// statusesOf describes the containers of a pod, the newest first.
func (s *Server) statusesOf(sandboxID string) []*runtimeapi.ContainerStatus {
	var out []*runtimeapi.ContainerStatus
	for _, rec := range s.filterContainers("", sandboxID, nil) {
		out = append(out, s.containerStatus(rec, s.state(rec)))
	}
	return out
}

// ListContainers lists containers, the newest first.
func (s *Server) ListContainers(_ context.Context, req *runtimeapi.ListContainersRequest) (*runtimeapi.ListContainersResponse, error) {
	return &runtimeapi.ListContainersResponse{Containers: s.listContainers(req.GetFilter())}, nil
}

func (s *Server) listContainers(f *runtimeapi.ContainerFilter) []*runtimeapi.Container {
	var out []*runtimeapi.Container
	for _, rec := range s.filterContainers(f.GetId(), f.GetPodSandboxId(), f.GetLabelSelector()) {
		state := containerStateOf(s.state(rec))
		if f.GetState() != nil && f.GetState().GetState() != state {
			continue
		}
		out = append(out, &runtimeapi.Container{
			Id: rec.ID, PodSandboxId: rec.SandboxID, Metadata: rec.Config.GetMetadata(), Image: rec.Config.GetImage(),
			ImageRef: rec.ImageRef, ImageId: rec.ImageID, State: state, CreatedAt: rec.CreatedAt.UnixNano(),
			Labels: rec.Config.GetLabels(), Annotations: rec.Config.GetAnnotations(),
		})
	}
	return out
}

func (s *Server) filterContainers(id, sandboxID string, labels map[string]string) []*podstore.Container {
	var list []*podstore.Container
	if id != "" {
		if rec, err := s.containers.Get(id); err == nil {
			list = append(list, rec)
		}
	} else {
		list = s.containers.List()
	}
	if sandboxID != "" {
		if pod, err := s.sandboxes.Get(sandboxID); err == nil {
			sandboxID = pod.ID
		}
	}
	list = slices.DeleteFunc(list, func(r *podstore.Container) bool {
		return sandboxID != "" && r.SandboxID != sandboxID || !matches(r.Config.GetLabels(), labels)
	})
	slices.SortFunc(list, func(a, b *podstore.Container) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	return list
}
