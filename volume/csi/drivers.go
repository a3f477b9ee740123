package csi

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/apimachinery/pkg/util/validation"
)

const (
	// callLimit is how long a driver has for one step of a volume: upstream's.
	callLimit = 2 * time.Minute
	// askLimit is for questions about the driver itself.
	askLimit = 15 * time.Second
	// asks is how often a driver that is just starting is asked before its registration fails.
	asks = 5
)

// Driver is a registered driver.
type Driver struct {
	Name string
	// Conn is closed when the driver is deregistered.
	Conn *grpc.ClientConn
	// Controller tells whether its socket serves the controller service too.
	Controller bool

	endpoint string
	info     *spec.NodeGetInfoResponse
	can      map[spec.NodeServiceCapability_RPC_Type]bool
}

func (d *Driver) node() spec.NodeClient { return spec.NewNodeClient(d.Conn) }

func (d *Driver) stages() bool {
	return d.can[spec.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME]
}

// open asks a driver about itself.
func open(ctx context.Context, name, endpoint string) (d *Driver, err error) {
	conn, err := grpc.NewClient("unix://"+endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			conn.Close()
		}
	}()
	d = &Driver{Name: name, Conn: conn, endpoint: endpoint, can: map[spec.NodeServiceCapability_RPC_Type]bool{}}
	for i, delay := 0, 250*time.Millisecond; ; i, delay = i+1, 2*delay {
		if err = d.ask(ctx); err == nil || i == asks-1 {
			return d, err
		}
		timer := time.NewTimer(delay)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, context.Cause(ctx)
		case <-timer.C:
		}
	}
}

func (d *Driver) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	var err error
	if d.info, err = d.node().NodeGetInfo(ctx, &spec.NodeGetInfoRequest{}); err != nil {
		return fmt.Errorf("NodeGetInfo: %w", err)
	}
	if d.info.NodeId == "" {
		return fmt.Errorf("NodeGetInfo: the driver gives this node no ID")
	}
	caps, err := d.node().NodeGetCapabilities(ctx, &spec.NodeGetCapabilitiesRequest{})
	if err != nil {
		return fmt.Errorf("NodeGetCapabilities: %w", err)
	}
	for _, c := range caps.GetCapabilities() {
		d.can[c.GetRpc().GetType()] = true
	}
	// A driver whose socket answers nothing about the whole plugin is one for nodes alone.
	whole, err := spec.NewIdentityClient(d.Conn).GetPluginCapabilities(ctx, &spec.GetPluginCapabilitiesRequest{})
	d.Controller = err == nil && slices.ContainsFunc(whole.GetCapabilities(), func(c *spec.PluginCapability) bool {
		return c.GetService().GetType() == spec.PluginCapability_Service_CONTROLLER_SERVICE
	})
	return nil
}

// checkPlugin says why a plugin cannot be registered as a driver.
func checkPlugin(name string, versions []string) error {
	if errs := validation.IsDNS1123Subdomain(strings.ToLower(name)); len(errs) > 0 || len(name) > 63 {
		return fmt.Errorf("%q is no name for a CSI driver: a domain name of at most 63 characters is wanted", name)
	}
	if !slices.ContainsFunc(versions, func(v string) bool { v = strings.TrimPrefix(v, "v"); return v == "1" || strings.HasPrefix(v, "1.") }) {
		return fmt.Errorf("CSI driver %s speaks the versions %v of the specification, this node version 1", name, versions)
	}
	return nil
}

// Register implements the handler of pluginwatch.
func (p *Plugin) Register(ctx context.Context, name, endpoint string, versions []string) error {
	if err := checkPlugin(name, versions); err != nil {
		return err
	}
	d, err := open(ctx, name, endpoint)
	if err != nil {
		return fmt.Errorf("CSI driver %s: %w", name, err)
	}
	p.mu.Lock()
	old := p.drivers[name]
	p.drivers[name] = d
	p.mu.Unlock()
	if old != nil {
		old.Conn.Close()
	}
	if err := p.announce(ctx, d); err != nil {
		p.forget(name, endpoint)
		return fmt.Errorf("CSI driver %s: %w", name, err)
	}
	p.changed(name)
	return nil
}

// Deregister implements the handler of pluginwatch.
func (p *Plugin) Deregister(name, endpoint string) {
	if !p.forget(name, endpoint) {
		return
	}
	p.changed(name)
	ctx, cancel := context.WithTimeout(context.Background(), askLimit)
	defer cancel()
	if err := p.withdraw(ctx, name); err != nil {
		p.log.Warn("take a CSI driver off CSINode", "driver", name, "err", err)
	}
}

// forget drops a driver if it is the one that serves at the endpoint.
func (p *Plugin) forget(name, endpoint string) bool {
	p.mu.Lock()
	d := p.drivers[name]
	mine := d != nil && d.endpoint == endpoint
	if mine {
		delete(p.drivers, name)
	}
	p.mu.Unlock()
	if mine {
		d.Conn.Close()
	}
	return mine
}

func (p *Plugin) driver(name string) (*Driver, error) {
	if d := p.Driver(name); d != nil {
		return d, nil
	}
	return nil, fmt.Errorf("driver name %s not found in the list of registered CSI drivers: does its pod run on this node?", name)
}

// Driver returns a registered driver or nil.
func (p *Plugin) Driver(name string) *Driver {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.drivers[name]
}

// Watch calls f with a driver's name whenever one comes or goes, and now for those that are there. f must be quick.
func (p *Plugin) Watch(f func(driver string)) {
	p.mu.Lock()
	p.watchers = append(p.watchers, f)
	var names []string
	for name := range p.drivers {
		names = append(names, name)
	}
	p.mu.Unlock()
	for _, name := range names {
		f(name)
	}
}

func (p *Plugin) changed(name string) {
	p.mu.Lock()
	watchers := slices.Clone(p.watchers)
	p.mu.Unlock()
	for _, f := range watchers {
		f(name)
	}
}
