// Package devicetest has a working device plugin for tests: it serves the plugin API on a socket, registers, tells
// changes of its devices to whoever listens, and keeps what it was asked.
package devicetest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// Plugin is one device plugin. Set its fields before Start.
type Plugin struct {
	api.UnimplementedDevicePluginServer
	Dir, Endpoint, Resource string
	Options                 *api.DevicePluginOptions
	// Answer says what a container gets with its devices.
	Answer func(ids []string) *api.ContainerAllocateResponse
	// Refuse makes Allocate fail.
	Refuse error
	// Prefer answers GetPreferredAllocation.
	Prefer func(available []string, size int) []string

	mu      sync.Mutex
	devices []*api.Device // guarded by mu
	changed chan struct{} // closed and replaced at each change; guarded by mu
	asked   []string      // "Allocate a,b"; guarded by mu
	server  *grpc.Server
}

// Start serves and registers once a kubelet takes registrations: one that starts makes the folder and deletes the sockets
// that it finds in it. Stop ends the plugin.
func (p *Plugin) Start(ctx context.Context, devices ...*api.Device) error {
	conn, err := p.kubelet(ctx)
	if err != nil {
		return err
	}
	conn.Close()
	p.changed, p.devices = make(chan struct{}), devices
	lis, err := (&net.ListenConfig{}).Listen(ctx, "unix", filepath.Join(p.Dir, p.Endpoint))
	if err != nil {
		return err
	}
	p.server = grpc.NewServer()
	api.RegisterDevicePluginServer(p.server, p)
	go func() { _ = p.server.Serve(lis) }() // ended by Stop
	return p.Register(ctx)
}

// Register tells the kubelet of the plugin.
func (p *Plugin) Register(ctx context.Context) error {
	conn, err := p.kubelet(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = api.NewRegistrationClient(conn).Register(ctx, &api.RegisterRequest{
		Version: api.Version, Endpoint: p.Endpoint, ResourceName: p.Resource, Options: p.Options})
	return err
}

// kubelet connects to one that answers, for which it waits a minute: a socket may be there of one that has ended.
func (p *Plugin) kubelet(ctx context.Context) (*grpc.ClientConn, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	socket := filepath.Join(p.Dir, "kubelet.sock")
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: 20 * time.Second, Backoff: backoff.Config{BaseDelay: 5 * time.Millisecond, Multiplier: 1.5, MaxDelay: 100 * time.Millisecond}}))
	if err != nil {
		return nil, err
	}
	conn.Connect()
	for s := conn.GetState(); s != connectivity.Ready; s = conn.GetState() {
		if !conn.WaitForStateChange(ctx, s) {
			conn.Close()
			return nil, fmt.Errorf("no kubelet answers at %s: %w", socket, ctx.Err())
		}
	}
	return conn, nil
}

// Stop ends the plugin at once, as a crash would.
func (p *Plugin) Stop() {
	if p.server != nil {
		p.server.Stop()
	}
}

// Set changes the devices; every listener hears of it.
func (p *Plugin) Set(devices ...*api.Device) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.devices = devices
	close(p.changed)
	p.changed = make(chan struct{})
}

// Asked is what the plugin was asked, in order.
func (p *Plugin) Asked() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.asked...)
}

func (p *Plugin) note(what string, ids []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, what+" "+strings.Join(ids, ","))
}

// Healthy makes healthy devices of the given IDs.
func Healthy(ids ...string) []*api.Device {
	var out []*api.Device
	for _, id := range ids {
		out = append(out, &api.Device{ID: id, Health: api.Healthy})
	}
	return out
}

// GetDevicePluginOptions implements the plugin API.
func (p *Plugin) GetDevicePluginOptions(context.Context, *api.Empty) (*api.DevicePluginOptions, error) {
	return p.Options, nil
}

// ListAndWatch implements the plugin API.
func (p *Plugin) ListAndWatch(_ *api.Empty, out grpc.ServerStreamingServer[api.ListAndWatchResponse]) error {
	for {
		p.mu.Lock()
		list, changed := p.devices, p.changed
		p.mu.Unlock()
		if err := out.Send(&api.ListAndWatchResponse{Devices: list}); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-out.Context().Done():
			return nil
		}
	}
}

// GetPreferredAllocation implements the plugin API.
func (p *Plugin) GetPreferredAllocation(_ context.Context, q *api.PreferredAllocationRequest) (*api.PreferredAllocationResponse, error) {
	if p.Prefer == nil {
		return nil, errors.New("no preference")
	}
	res := &api.PreferredAllocationResponse{}
	for _, c := range q.GetContainerRequests() {
		res.ContainerResponses = append(res.ContainerResponses, &api.ContainerPreferredAllocationResponse{
			DeviceIDs: p.Prefer(c.GetAvailableDeviceIDs(), int(c.GetAllocationSize()))})
	}
	return res, nil
}

// Allocate implements the plugin API.
func (p *Plugin) Allocate(_ context.Context, q *api.AllocateRequest) (*api.AllocateResponse, error) {
	res := &api.AllocateResponse{}
	for _, c := range q.GetContainerRequests() {
		p.note("Allocate", c.GetDevicesIds())
		if p.Refuse != nil {
			return nil, p.Refuse
		}
		answer := &api.ContainerAllocateResponse{}
		if p.Answer != nil {
			answer = p.Answer(c.GetDevicesIds())
		}
		res.ContainerResponses = append(res.ContainerResponses, answer)
	}
	return res, nil
}

// PreStartContainer implements the plugin API.
func (p *Plugin) PreStartContainer(_ context.Context, q *api.PreStartContainerRequest) (*api.PreStartContainerResponse, error) {
	p.note("PreStart", q.GetDevicesIds())
	return &api.PreStartContainerResponse{}, nil
}
