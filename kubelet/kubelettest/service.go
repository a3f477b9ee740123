package kubelettest

import (
	"context"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Version implements CRI.
func (r *Runtime) Version(context.Context, *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{Version: "0.1.0", RuntimeName: "keelson", RuntimeVersion: "0.0.1", RuntimeApiVersion: "v1"}, nil
}

// Status implements CRI.
func (r *Runtime) Status(_ context.Context, q *runtimeapi.StatusRequest) (*runtimeapi.StatusResponse, error) {
	return &runtimeapi.StatusResponse{Info: info(q.GetVerbose()), Status: &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
		{Type: runtimeapi.RuntimeReady, Status: true}, {Type: runtimeapi.NetworkReady, Status: true},
	}}, RuntimeHandlers: []*runtimeapi.RuntimeHandler{{Features: &runtimeapi.RuntimeHandlerFeatures{UserNamespaces: r.Userns, RecursiveReadOnlyMounts: r.Recursive}}}}, nil
}

// RunPodSandbox implements CRI.
func (r *Runtime) RunPodSandbox(_ context.Context, q *runtimeapi.RunPodSandboxRequest) (*runtimeapi.RunPodSandboxResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	cfg := q.GetConfig()
	if q.GetRuntimeHandler() != "" {
		return nil, invalid("unknown runtime handler %q", q.GetRuntimeHandler())
	}
	if err := checkUserns(cfg.GetLinux().GetSecurityContext().GetNamespaceOptions()); err != nil {
		return nil, err
	}
	if err := checkSELinux(cfg.GetLinux().GetSecurityContext().GetSelinuxOptions()); err != nil {
		return nil, err
	}
	if err := r.note("RunPodSandbox", cfg.GetMetadata().GetName()); err != nil {
		return nil, err
	}
	for _, b := range r.sandboxes {
		if proto.Equal(b.status.GetMetadata(), cfg.GetMetadata()) {
			if b.status.GetState() == runtimeapi.PodSandboxState_SANDBOX_READY && proto.Equal(b.config, cfg) {
				return &runtimeapi.RunPodSandboxResponse{PodSandboxId: b.status.GetId()}, nil
			}
			return nil, status.Errorf(codes.AlreadyExists, "sandbox %v exists", cfg.GetMetadata())
		}
	}
	b := &box{config: cfg, status: &runtimeapi.PodSandboxStatus{
		Id: r.id(), Metadata: cfg.GetMetadata(), CreatedAt: time.Now().UnixNano(),
		Labels: cfg.GetLabels(), Annotations: cfg.GetAnnotations(),
	}}
	if cfg.GetLinux().GetSecurityContext().GetNamespaceOptions().GetNetwork() != runtimeapi.NamespaceMode_NODE {
		b.status.Network = &runtimeapi.PodSandboxNetworkStatus{Ip: fmt.Sprintf("127.0.%d.%d", r.seq/250, r.seq%250+2)}
	}
	r.sandboxes = append(r.sandboxes, b)
	r.tell(b.status.GetId(), runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT, b)
	r.tell(b.status.GetId(), runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT, b)
	return &runtimeapi.RunPodSandboxResponse{PodSandboxId: b.status.GetId()}, nil
}

// StopPodSandbox implements CRI: it kills the sandbox's containers and is idempotent.
func (r *Runtime) StopPodSandbox(_ context.Context, q *runtimeapi.StopPodSandboxRequest) (*runtimeapi.StopPodSandboxResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if b := r.find(q.GetPodSandboxId()); b != nil {
		if err := r.note("StopPodSandbox", b.config.GetMetadata().GetName()); err != nil {
			return nil, err
		}
		r.stop(b)
	}
	return &runtimeapi.StopPodSandboxResponse{}, nil
}

// stop ends a sandbox with its containers, once. Preconditions: mu is held.
func (r *Runtime) stop(b *box) {
	for _, c := range r.containers {
		if c.box == b.status.GetId() {
			r.exit(c, 137)
		}
	}
	if b.status.GetState() == runtimeapi.PodSandboxState_SANDBOX_READY {
		b.status.State, b.status.Network = runtimeapi.PodSandboxState_SANDBOX_NOTREADY, nil
		r.tell(b.status.GetId(), runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT, b)
	}
}

// RemovePodSandbox implements CRI.
func (r *Runtime) RemovePodSandbox(_ context.Context, q *runtimeapi.RemovePodSandboxRequest) (*runtimeapi.RemovePodSandboxResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.find(q.GetPodSandboxId())
	if b == nil {
		return &runtimeapi.RemovePodSandboxResponse{}, nil
	}
	if err := r.note("RemovePodSandbox", b.config.GetMetadata().GetName()); err != nil {
		return nil, err
	}
	r.stop(b)
	r.containers = slices.DeleteFunc(r.containers, func(c *ctr) bool {
		if c.box != b.status.GetId() {
			return false
		}
		r.tell(c.status.GetId(), runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT, b)
		return true
	})
	r.sandboxes = slices.DeleteFunc(r.sandboxes, func(o *box) bool { return o == b })
	r.tell(b.status.GetId(), runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT, b)
	return &runtimeapi.RemovePodSandboxResponse{}, nil
}

// PodSandboxStatus implements CRI.
func (r *Runtime) PodSandboxStatus(_ context.Context, q *runtimeapi.PodSandboxStatusRequest) (*runtimeapi.PodSandboxStatusResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.find(q.GetPodSandboxId())
	if b == nil {
		return nil, notFound("sandbox", q.GetPodSandboxId())
	}
	out := &runtimeapi.PodSandboxStatusResponse{Info: info(q.GetVerbose()), Status: proto.Clone(b.status).(*runtimeapi.PodSandboxStatus)}
	if r.Plain {
		return out, nil
	}
	out.Timestamp = time.Now().UnixNano()
	out.ContainersStatuses = r.statuses(b)
	return out, nil
}

// ListPodSandbox implements CRI.
func (r *Runtime) ListPodSandbox(_ context.Context, q *runtimeapi.ListPodSandboxRequest) (*runtimeapi.ListPodSandboxResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := &runtimeapi.ListPodSandboxResponse{}
	for _, b := range r.sandboxes {
		if selects(q.GetFilter().GetLabelSelector(), b.status.GetLabels()) {
			out.Items = append(out.Items, &runtimeapi.PodSandbox{
				Id: b.status.GetId(), Metadata: b.status.GetMetadata(), State: b.status.GetState(),
				CreatedAt: b.status.GetCreatedAt(), Labels: b.status.GetLabels(),
			})
		}
	}
	return out, nil
}

// CreateContainer implements CRI.
func (r *Runtime) CreateContainer(_ context.Context, q *runtimeapi.CreateContainerRequest) (*runtimeapi.CreateContainerResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	cfg, b := q.GetConfig(), r.find(q.GetPodSandboxId())
	if b == nil || b.status.GetState() != runtimeapi.PodSandboxState_SANDBOX_READY {
		return nil, notFound("ready sandbox", q.GetPodSandboxId())
	}
	if err := r.note("CreateContainer", cfg.GetMetadata().GetName()); err != nil {
		return nil, err
	}
	if err := checkContainer(b.config, cfg); err != nil {
		return nil, err
	}
	for _, c := range r.containers {
		if c.box == b.status.GetId() && proto.Equal(c.config.GetMetadata(), cfg.GetMetadata()) {
			return repeated(c, cfg)
		}
	}
	c := &ctr{config: cfg, box: b.status.GetId(), dead: make(chan struct{}), status: &runtimeapi.ContainerStatus{
		Id: r.id(), Metadata: cfg.GetMetadata(), CreatedAt: time.Now().UnixNano(),
		Image: cfg.GetImage(), ImageRef: cfg.GetImage().GetImage(), ImageId: cfg.GetImage().GetImage(), Resources: &runtimeapi.ContainerResources{Linux: cfg.GetLinux().GetResources()},
		Labels: cfg.GetLabels(), Annotations: cfg.GetAnnotations(), Mounts: cfg.GetMounts(),
		User: r.User, LogPath: path.Join(b.config.GetLogDirectory(), cfg.GetLogPath()),
	}}
	r.containers = append(r.containers, c)
	r.tell(c.status.GetId(), runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT, b)
	return &runtimeapi.CreateContainerResponse{ContainerId: c.status.GetId()}, nil
}

// StartContainer implements CRI.
func (r *Runtime) StartContainer(_ context.Context, q *runtimeapi.StartContainerRequest) (*runtimeapi.StartContainerResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.container(q.GetContainerId())
	if c == nil {
		return nil, notFound("container", q.GetContainerId())
	}
	if err := r.note("StartContainer", c.config.GetMetadata().GetName()); err != nil {
		return nil, err
	}
	if c.status.GetState() != runtimeapi.ContainerState_CONTAINER_CREATED {
		return nil, status.Errorf(codes.FailedPrecondition, "container %s is %v", c.status.GetId(), c.status.GetState())
	}
	c.status.State, c.status.StartedAt = runtimeapi.ContainerState_CONTAINER_RUNNING, time.Now().UnixNano()
	r.tell(c.status.GetId(), runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT, r.find(c.box))
	code, is := strings.CutPrefix(c.config.GetImage().GetUserSpecifiedImage(), "exit:")
	if cmd := c.config.GetCommand(); len(cmd) == 3 && !is { // sh -c "exit 3"
		code, is = strings.CutPrefix(cmd[2], "exit ")
	}
	if is {
		n, _ := strconv.Atoi(code)
		r.exit(c, int32(n))
	}
	return &runtimeapi.StartContainerResponse{}, nil
}

// StopContainer implements CRI: TERM ends a container with 143, and with 137 after the timeout if it ignores TERM or
// has no time.
func (r *Runtime) StopContainer(ctx context.Context, q *runtimeapi.StopContainerRequest) (*runtimeapi.StopContainerResponse, error) {
	r.mu.Lock()
	c := r.container(q.GetContainerId())
	if c == nil {
		r.mu.Unlock()
		return &runtimeapi.StopContainerResponse{}, nil
	}
	err := r.note("StopContainer", c.config.GetMetadata().GetName())
	if err == nil && !r.IgnoreTerm && q.GetTimeout() > 0 {
		r.exit(c, 143)
	}
	running := c.status.GetState() == runtimeapi.ContainerState_CONTAINER_RUNNING
	r.mu.Unlock()
	if err != nil || !running {
		return &runtimeapi.StopContainerResponse{}, err
	}
	timer := time.NewTimer(time.Duration(q.GetTimeout()) * time.Second)
	defer timer.Stop()
	select {
	case <-c.dead:
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	case <-timer.C:
		r.mu.Lock()
		r.exit(c, 137)
		r.mu.Unlock()
	}
	return &runtimeapi.StopContainerResponse{}, nil
}

// RemoveContainer implements CRI.
func (r *Runtime) RemoveContainer(_ context.Context, q *runtimeapi.RemoveContainerRequest) (*runtimeapi.RemoveContainerResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.container(q.GetContainerId())
	if c == nil {
		return &runtimeapi.RemoveContainerResponse{}, nil
	}
	if err := r.note("RemoveContainer", c.config.GetMetadata().GetName()); err != nil {
		return nil, err
	}
	r.exit(c, 137)
	r.containers = slices.DeleteFunc(r.containers, func(o *ctr) bool { return o == c })
	r.tell(c.status.GetId(), runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT, r.find(c.box))
	return &runtimeapi.RemoveContainerResponse{}, nil
}

// ListContainers implements CRI.
func (r *Runtime) ListContainers(_ context.Context, q *runtimeapi.ListContainersRequest) (*runtimeapi.ListContainersResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := &runtimeapi.ListContainersResponse{}
	for _, c := range r.containers {
		f := q.GetFilter()
		switch {
		case f.GetPodSandboxId() != "" && !strings.HasPrefix(c.box, f.GetPodSandboxId()),
			f.GetId() != "" && !strings.HasPrefix(c.status.GetId(), f.GetId()),
			f.GetState() != nil && f.GetState().GetState() != c.status.GetState():
			continue
		}
		if selects(f.GetLabelSelector(), c.status.GetLabels()) {
			out.Containers = append(out.Containers, &runtimeapi.Container{
				Id: c.status.GetId(), PodSandboxId: c.box, Metadata: c.status.GetMetadata(),
				State: c.status.GetState(), CreatedAt: c.status.GetCreatedAt(), Labels: c.status.GetLabels(),
				ImageRef: c.status.GetImageRef(), ImageId: c.status.GetImageRef(),
			})
		}
	}
	return out, nil
}

// ContainerStatus implements CRI.
func (r *Runtime) ContainerStatus(_ context.Context, q *runtimeapi.ContainerStatusRequest) (*runtimeapi.ContainerStatusResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.container(q.GetContainerId())
	if c == nil {
		return nil, notFound("container", q.GetContainerId())
	}
	return &runtimeapi.ContainerStatusResponse{Status: proto.Clone(c.status).(*runtimeapi.ContainerStatus)}, nil
}

// ReopenContainerLog implements CRI.
func (r *Runtime) ReopenContainerLog(_ context.Context, q *runtimeapi.ReopenContainerLogRequest) (*runtimeapi.ReopenContainerLogResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.container(q.GetContainerId())
	if c == nil {
		return nil, notFound("container", q.GetContainerId())
	}
	if err := r.note("ReopenContainerLog", c.config.GetMetadata().GetName()); err != nil {
		return nil, err
	}
	return &runtimeapi.ReopenContainerLogResponse{}, os.WriteFile(c.status.GetLogPath(), nil, 0o640)
}

// ListPodSandboxStats implements CRI.
func (r *Runtime) ListPodSandboxStats(context.Context, *runtimeapi.ListPodSandboxStatsRequest) (*runtimeapi.ListPodSandboxStatsResponse, error) {
	r.mu.Lock()
	f := r.onStats
	r.mu.Unlock()
	if f == nil {
		return &runtimeapi.ListPodSandboxStatsResponse{}, nil
	}
	return &runtimeapi.ListPodSandboxStatsResponse{Stats: f()}, nil
}

// SetStats has ListPodSandboxStats answered by f; without it nobody uses anything.
func (r *Runtime) SetStats(f func() []*runtimeapi.PodSandboxStats) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.onStats = f
}

// UpdateContainerResources implements CRI.
func (r *Runtime) UpdateContainerResources(_ context.Context, q *runtimeapi.UpdateContainerResourcesRequest) (*runtimeapi.UpdateContainerResourcesResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.container(q.GetContainerId())
	if c == nil {
		return nil, notFound("container", q.GetContainerId())
	}
	if err := r.note("UpdateContainerResources", c.config.GetMetadata().GetName()); err != nil {
		return nil, err
	}
	if q.GetLinux().GetCpuQuota() < -1 {
		return nil, invalid("CPU quota %d", q.GetLinux().GetCpuQuota())
	}
	all := &runtimeapi.LinuxContainerResources{}
	proto.Merge(all, c.status.GetResources().GetLinux())
	proto.Merge(all, q.GetLinux()) // what is zero stays as it was
	c.status.Resources = &runtimeapi.ContainerResources{Linux: all}
	return &runtimeapi.UpdateContainerResourcesResponse{}, nil
}

// ExecSync implements CRI.
func (r *Runtime) ExecSync(_ context.Context, q *runtimeapi.ExecSyncRequest) (*runtimeapi.ExecSyncResponse, error) {
	r.mu.Lock()
	c := r.container(q.GetContainerId())
	r.mu.Unlock()
	if c == nil {
		return nil, notFound("container", q.GetContainerId())
	}
	if r.OnExec == nil {
		return &runtimeapi.ExecSyncResponse{}, nil
	}
	out, code := r.OnExec(c.config.GetMetadata().GetName(), q.GetCmd())
	return &runtimeapi.ExecSyncResponse{Stdout: []byte(out), ExitCode: code}, nil
}

// Exec implements CRI.
func (r *Runtime) Exec(_ context.Context, q *runtimeapi.ExecRequest) (*runtimeapi.ExecResponse, error) {
	if err := r.hasContainer(q.GetContainerId()); err != nil {
		return nil, err
	}
	return r.Streams.GetExec(q)
}

// Attach implements CRI.
func (r *Runtime) Attach(_ context.Context, q *runtimeapi.AttachRequest) (*runtimeapi.AttachResponse, error) {
	if err := r.hasContainer(q.GetContainerId()); err != nil {
		return nil, err
	}
	return r.Streams.GetAttach(q)
}

// PortForward implements CRI.
func (r *Runtime) PortForward(_ context.Context, q *runtimeapi.PortForwardRequest) (*runtimeapi.PortForwardResponse, error) {
	if err := r.hasBox(q.GetPodSandboxId()); err != nil {
		return nil, err
	}
	return r.Streams.GetPortForward(q)
}

// GetContainerEvents implements CRI.
func (r *Runtime) GetContainerEvents(_ *runtimeapi.GetEventsRequest, out grpc.ServerStreamingServer[runtimeapi.ContainerEventResponse]) error {
	if r.Plain {
		return status.Error(codes.Unimplemented, "no events here")
	}
	w := make(chan *runtimeapi.ContainerEventResponse, 100)
	r.mu.Lock()
	r.watchers[w] = true
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.watchers, w)
	}()
	if err := out.SendHeader(nil); err != nil { // from now on nothing is missed
		return err
	}
	for {
		select {
		case <-out.Context().Done():
			return nil
		case ev := <-w:
			if err := out.Send(ev); err != nil {
				return err
			}
		}
	}
}
