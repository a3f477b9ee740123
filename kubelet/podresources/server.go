// Package podresources serves the pod resources API (KEP-606, k8s.io/kubelet/pkg/apis/podresources/v1) on a unix socket:
// which devices each container of the node has, for those who measure them. It reads and decides nothing. Only root may
// connect: the answers name every pod of the node.
package podresources

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	api "k8s.io/kubelet/pkg/apis/podresources/v1"

	"keelson.dev/keelson/kubelet/device"
)

// Devices tells who has which devices. *device.Manager is one.
type Devices interface {
	Of(types.UID) map[string][]device.Given
	Allocatable() []device.Given
}

// Server answers. All fields are required.
type Server struct {
	api.UnimplementedPodResourcesListerServer
	// Socket is the path to listen on, /var/lib/kubelet/pod-resources/kubelet.sock.
	Socket  string
	Pods    func() []*corev1.Pod // of the node
	Devices Devices
	Log     *slog.Logger
}

// Run serves until ctx ends. A socket that cannot be made is no reason for a node to stop.
func (s *Server) Run(ctx context.Context) error {
	lis, err := s.listen(ctx)
	if err != nil {
		s.Log.Warn("the pod resources API is not served", "err", err)
		<-ctx.Done()
		return nil
	}
	g := grpc.NewServer()
	api.RegisterPodResourcesListerServer(g, s)
	stop := context.AfterFunc(ctx, g.Stop)
	defer stop()
	if err := g.Serve(lis); err != nil && ctx.Err() == nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve pod resources: %w", err)
	}
	return nil
}

func (s *Server) listen(ctx context.Context) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(s.Socket), 0o750); err != nil {
		return nil, err
	}
	if err := os.Remove(s.Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	lis, err := (&net.ListenConfig{}).Listen(ctx, "unix", s.Socket)
	if err != nil {
		return nil, err
	}
	return lis, os.Chmod(s.Socket, 0o600)
}

// List implements the API: all pods that have not ended.
func (s *Server) List(context.Context, *api.ListPodResourcesRequest) (*api.ListPodResourcesResponse, error) {
	out := &api.ListPodResourcesResponse{}
	for _, p := range s.Pods() {
		if p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed {
			out.PodResources = append(out.PodResources, s.resources(p))
		}
	}
	return out, nil
}

// Get implements the API.
func (s *Server) Get(_ context.Context, q *api.GetPodResourcesRequest) (*api.GetPodResourcesResponse, error) {
	for _, p := range s.Pods() {
		if p.Name == q.GetPodName() && p.Namespace == q.GetPodNamespace() {
			return &api.GetPodResourcesResponse{PodResources: s.resources(p)}, nil
		}
	}
	return nil, status.Errorf(codes.NotFound, "pod %s in namespace %s not found", q.GetPodName(), q.GetPodNamespace())
}

// GetAllocatableResources implements the API. Cores and memory are shared by all, so none is named.
func (s *Server) GetAllocatableResources(context.Context, *api.AllocatableResourcesRequest) (*api.AllocatableResourcesResponse, error) {
	return &api.AllocatableResourcesResponse{Devices: devices(s.Devices.Allocatable())}, nil
}

func (s *Server) resources(p *corev1.Pod) *api.PodResources {
	out, has := &api.PodResources{Name: p.Name, Namespace: p.Namespace}, s.Devices.Of(p.UID)
	add := func(c *corev1.Container) {
		out.Containers = append(out.Containers, &api.ContainerResources{Name: c.Name, Devices: devices(has[c.Name])})
	}
	for i := range p.Spec.InitContainers {
		c := &p.Spec.InitContainers[i] // those that have ended have handed their devices on
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			add(c)
		}
	}
	for i := range p.Spec.Containers {
		add(&p.Spec.Containers[i])
	}
	return out
}

func devices(list []device.Given) []*api.ContainerDevices {
	var out []*api.ContainerDevices
	for _, g := range list {
		d := &api.ContainerDevices{ResourceName: g.Resource, DeviceIds: slices.Clone(g.IDs)}
		if len(g.Numa) > 0 {
			d.Topology = &api.TopologyInfo{}
			for _, n := range g.Numa {
				d.Topology.Nodes = append(d.Topology.Nodes, &api.NUMANode{ID: n})
			}
		}
		out = append(out, d)
	}
	return out
}
