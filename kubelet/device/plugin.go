package device

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// plugin is a registered plugin. A new registration of its resource takes its place.
type plugin struct {
	resource string
	options  *api.DevicePluginOptions
	conn     *grpc.ClientConn
	cancel   context.CancelFunc
	gone     *time.Timer // removes the resource of a plugin that has gone away; nil while it is there
}

func (p *plugin) client() api.DevicePluginClient { return api.NewDevicePluginClient(p.conn) }

// connect makes the connection to a plugin's socket, which is in the folder that plugins put theirs in: a name that leads
// elsewhere is refused.
func connect(dir string, q *api.RegisterRequest) (*plugin, error) {
	if filepath.Base(q.GetEndpoint()) != q.GetEndpoint() || q.GetEndpoint() == "." || q.GetEndpoint() == ".." {
		return nil, fmt.Errorf("endpoint %q must be the name of a socket in %s", q.GetEndpoint(), dir)
	}
	conn, err := grpc.NewClient("unix://"+filepath.Join(dir, q.GetEndpoint()), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	return &plugin{resource: q.GetResourceName(), options: q.GetOptions(), conn: conn}, nil
}

// follow receives lists of devices until the stream ends, which it says why.
func (p *plugin) follow(ctx context.Context, listed func([]*api.Device)) error {
	stream, err := p.client().ListAndWatch(ctx, &api.Empty{}, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	for {
		list, err := stream.Recv()
		if err != nil {
			return err
		}
		listed(list.GetDevices())
	}
}

// prefer asks the plugin which of the free devices it would give; nil when it has no opinion.
func (p *plugin) prefer(ctx context.Context, free, must []string, want int) []string {
	if !p.options.GetGetPreferredAllocationAvailable() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	res, err := p.client().GetPreferredAllocation(ctx, &api.PreferredAllocationRequest{ContainerRequests: []*api.ContainerPreferredAllocationRequest{
		{AvailableDeviceIDs: append(append([]string(nil), must...), free...), MustIncludeDeviceIDs: must, AllocationSize: int32(want)}}})
	if err != nil || len(res.GetContainerResponses()) != 1 {
		return nil // an opinion, not a condition
	}
	return res.GetContainerResponses()[0].GetDeviceIDs()
}

// allocate tells the plugin of an allocation and returns what the container needs.
func (p *plugin) allocate(ctx context.Context, ids []string) (*api.ContainerAllocateResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	res, err := p.client().Allocate(ctx, &api.AllocateRequest{ContainerRequests: []*api.ContainerAllocateRequest{{DevicesIds: ids}}})
	if err != nil {
		return nil, err
	}
	if n := len(res.GetContainerResponses()); n != 1 {
		return nil, fmt.Errorf("the device plugin answered for %d containers, not for one", n)
	}
	return res.GetContainerResponses()[0], nil
}

// preStart lets the plugin prepare devices before a container's start, if it wants to.
func (p *plugin) preStart(ctx context.Context, ids []string) error {
	if !p.options.GetPreStartRequired() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, api.KubeletPreStartContainerRPCTimeoutInSecs*time.Second)
	defer cancel()
	_, err := p.client().PreStartContainer(ctx, &api.PreStartContainerRequest{DevicesIds: ids})
	return err
}

// close ends the plugin's stream and connection.
func (p *plugin) close() {
	p.cancel()
	_ = p.conn.Close()
	if p.gone != nil {
		p.gone.Stop()
	}
}
