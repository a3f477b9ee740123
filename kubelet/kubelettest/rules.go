package kubelettest

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// What a runtime refuses, and the calls that do no more here than find their object.

func invalid(format string, args ...any) error {
	return status.Errorf(codes.InvalidArgument, format, args...)
}

// checkUserns: one range from 0 on within 32 bits, and none of the node's namespaces beside it.
func checkUserns(o *runtimeapi.NamespaceOption) error {
	u := o.GetUsernsOptions()
	switch {
	case u == nil || u.GetMode() == runtimeapi.NamespaceMode_NODE && len(u.GetUids())+len(u.GetGids()) == 0:
		return nil
	case u.GetMode() != runtimeapi.NamespaceMode_POD || len(u.GetUids()) != 1 || len(u.GetGids()) != 1:
		return invalid("user namespace %v", u)
	case slices.Contains([]runtimeapi.NamespaceMode{o.GetPid(), o.GetIpc(), o.GetNetwork()}, runtimeapi.NamespaceMode_NODE):
		return invalid("a user namespace with one of the node's")
	}
	for _, m := range append(slices.Clone(u.GetUids()), u.GetGids()...) {
		if m.GetContainerId() != 0 || m.GetLength() == 0 || uint64(m.GetHostId())+uint64(m.GetLength()) > math.MaxUint32 {
			return invalid("id mapping %v", m)
		}
	}
	return nil
}

// checkContainer refuses what asks for more than its pod may, or for what is not there.
func checkContainer(pod *runtimeapi.PodSandboxConfig, cfg *runtimeapi.ContainerConfig) error {
	sc := cfg.GetLinux().GetSecurityContext()
	if sc.GetPrivileged() && !pod.GetLinux().GetSecurityContext().GetPrivileged() {
		return invalid("a privileged container in an unprivileged sandbox")
	}
	if p := sc.GetApparmor(); p.GetProfileType() == runtimeapi.SecurityProfile_Localhost || strings.HasPrefix(sc.GetApparmorProfile(), "localhost/") {
		return invalid("no AppArmor here: profile %q", p.GetLocalhostRef())
	}
	if err := checkSELinux(sc.GetSelinuxOptions()); err != nil {
		return err
	}
	if p := sc.GetSeccomp(); p.GetProfileType() == runtimeapi.SecurityProfile_Localhost {
		if fi, err := os.Stat(p.GetLocalhostRef()); err != nil || !fi.Mode().IsRegular() {
			return invalid("seccomp profile %q is not a file", p.GetLocalhostRef())
		}
	}
	return checkLogPath(pod.GetLogDirectory(), cfg.GetLogPath())
}

// checkSELinux: here is none.
func checkSELinux(o *runtimeapi.SELinuxOption) error {
	if o.GetUser()+o.GetRole()+o.GetType()+o.GetLevel() != "" {
		return invalid("no SELinux here: %v", o)
	}
	return nil
}

// checkLogPath: within the directory, and through no link.
func checkLogPath(dir, name string) error {
	if dir == "" || name == "" {
		return nil
	}
	if !filepath.IsLocal(name) || filepath.Clean(name) == "." || strings.ContainsRune(name, 0) {
		return invalid("log path %q leaves its directory", name)
	}
	for at := name; at != "."; at = filepath.Dir(at) {
		if fi, err := os.Lstat(filepath.Join(dir, at)); err == nil && fi.Mode()&os.ModeSymlink != 0 {
			return invalid("log path %q leads through a link", name)
		}
	}
	return nil
}

// RuntimeConfig implements CRI.
func (r *Runtime) RuntimeConfig(context.Context, *runtimeapi.RuntimeConfigRequest) (*runtimeapi.RuntimeConfigResponse, error) {
	if r.Plain {
		return nil, status.Error(codes.Unimplemented, "not told")
	}
	return &runtimeapi.RuntimeConfigResponse{Linux: &runtimeapi.LinuxRuntimeConfiguration{CgroupDriver: runtimeapi.CgroupDriver_CGROUPFS}}, nil
}

// UpdateRuntimeConfig implements CRI.
func (r *Runtime) UpdateRuntimeConfig(context.Context, *runtimeapi.UpdateRuntimeConfigRequest) (*runtimeapi.UpdateRuntimeConfigResponse, error) {
	return &runtimeapi.UpdateRuntimeConfigResponse{}, nil
}

// UpdatePodSandboxResources implements CRI.
func (r *Runtime) UpdatePodSandboxResources(_ context.Context, q *runtimeapi.UpdatePodSandboxResourcesRequest) (*runtimeapi.UpdatePodSandboxResourcesResponse, error) {
	return &runtimeapi.UpdatePodSandboxResourcesResponse{}, r.hasBox(q.GetPodSandboxId())
}

// PodSandboxStats implements CRI: nobody uses anything.
func (r *Runtime) PodSandboxStats(_ context.Context, q *runtimeapi.PodSandboxStatsRequest) (*runtimeapi.PodSandboxStatsResponse, error) {
	return &runtimeapi.PodSandboxStatsResponse{Stats: &runtimeapi.PodSandboxStats{}}, r.hasBox(q.GetPodSandboxId())
}

// ContainerStats implements CRI: nobody uses anything.
func (r *Runtime) ContainerStats(_ context.Context, q *runtimeapi.ContainerStatsRequest) (*runtimeapi.ContainerStatsResponse, error) {
	return &runtimeapi.ContainerStatsResponse{Stats: &runtimeapi.ContainerStats{}}, r.hasContainer(q.GetContainerId())
}

func (r *Runtime) hasBox(id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.find(id) == nil {
		return notFound("sandbox", id)
	}
	return nil
}

func (r *Runtime) hasContainer(id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.container(id) == nil {
		return notFound("container", id)
	}
	return nil
}

// StreamContainers implements CRI: ListContainers, one at a time.
func (r *Runtime) StreamContainers(q *runtimeapi.StreamContainersRequest, out grpc.ServerStreamingServer[runtimeapi.StreamContainersResponse]) error {
	list, err := r.ListContainers(out.Context(), &runtimeapi.ListContainersRequest{Filter: q.GetFilter()})
	for _, c := range list.GetContainers() {
		if err == nil {
			err = out.Send(&runtimeapi.StreamContainersResponse{Containers: []*runtimeapi.Container{c}})
		}
	}
	return err
}

// repeated answers a creation whose name is taken: by the one that it may have been made by, or not at all.
func repeated(c *ctr, cfg *runtimeapi.ContainerConfig) (*runtimeapi.CreateContainerResponse, error) {
	if c.status.GetState() == runtimeapi.ContainerState_CONTAINER_CREATED && proto.Equal(c.config, cfg) {
		return &runtimeapi.CreateContainerResponse{ContainerId: c.status.GetId()}, nil
	}
	return nil, status.Errorf(codes.AlreadyExists, "container %v exists", cfg.GetMetadata())
}
