// Command csidriver is a small CSI driver for tests: its volumes are folders and disk images below one folder. It plays a real driver's whole
// part, with a registration of its own, writes down what it is asked, and hangs or refuses when told to.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"path"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// driver serves all three services. Its data folder holds volumes/<id> with what is known of it in volumes/<id>.json, the file "calls" with one
// line of JSON for each call, and, if somebody makes them, "room" (the bytes that it says are left), "hang" (node calls never answer) and "refuse-<method>".
type driver struct {
	spec.UnimplementedIdentityServer
	spec.UnimplementedControllerServer
	spec.UnimplementedNodeServer
	registration.UnimplementedRegistrationServer

	name, node, data, endpoint string

	mu sync.Mutex // guards the files of data
}

func main() {
	d := &driver{}
	var registry string
	flag.StringVar(&d.name, "name", "", "the driver's name")
	flag.StringVar(&d.node, "node", "", "this node's ID")
	flag.StringVar(&d.data, "data", "", "where volumes are")
	flag.StringVar(&d.endpoint, "endpoint", "", "the driver's socket, by its path on the node")
	flag.StringVar(&registry, "registry", "", "the kubelet's folder of plugins")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := d.run(ctx, filepath.Join(registry, d.name+"-reg.sock")); err != nil {
		log.Fatal(err)
	}
}

func (d *driver) run(ctx context.Context, registry string) error {
	if err := os.MkdirAll(filepath.Join(d.data, "volumes"), 0o755); err != nil {
		return err
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(d.intercept))
	spec.RegisterIdentityServer(server, d)
	spec.RegisterControllerServer(server, d)
	spec.RegisterNodeServer(server, d)
	registrar := grpc.NewServer()
	registration.RegisterRegistrationServer(registrar, d)
	errs := make(chan error, 2)
	for _, s := range []struct {
		path string
		*grpc.Server
	}{{d.endpoint, server}, {registry, registrar}} {
		_ = os.Remove(s.path)
		l, err := net.Listen("unix", s.path)
		if err != nil {
			return err
		}
		go func() { errs <- s.Serve(l) }()
	}
	select {
	case err := <-errs:
		return err
	case <-ctx.Done():
		_ = os.Remove(registry)
		registrar.Stop()
		server.Stop()
		return nil
	}
}

// GetInfo and NotifyRegistrationStatus are the registration.
func (d *driver) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{Type: "CSIPlugin", Name: d.name, Endpoint: d.endpoint, SupportedVersions: []string{"1.0.0"}}, nil
}

func (d *driver) NotifyRegistrationStatus(_ context.Context, s *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	log.Printf("registered: %t %s", s.PluginRegistered, s.Error)
	return &registration.RegistrationStatusResponse{}, nil
}

// intercept writes a call down before it is served, and serves faults.
func (d *driver) intercept(ctx context.Context, request any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	method := path.Base(info.FullMethod)
	switch method {
	case "Probe", "GetPluginInfo", "GetPluginCapabilities", "NodeGetInfo", "NodeGetCapabilities", "ControllerGetCapabilities", "NodeGetVolumeStats", "GetCapacity":
		return next(ctx, request)
	}
	d.note(method, request)
	for {
		if _, err := os.Stat(filepath.Join(d.data, "hang")); err != nil {
			break
		}
		select {
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		case <-time.After(50 * time.Millisecond): // between looks at the fault's file
		}
	}
	if _, err := os.Stat(filepath.Join(d.data, "refuse-"+method)); err == nil {
		return nil, status.Error(codes.Internal, "told to refuse")
	}
	answer, err := next(ctx, request)
	if err != nil && status.Code(err) == codes.Unknown {
		err = status.Error(codes.Internal, err.Error())
	}
	log.Printf("%s: %v", method, err)
	return answer, err
}

func (d *driver) note(method string, request any) {
	line, err := json.Marshal(map[string]any{"method": method, "request": request})
	if err != nil {
		log.Print(err)
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	f, err := os.OpenFile(filepath.Join(d.data, "calls"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		log.Print(err)
		return
	}
	defer f.Close()
	fmt.Fprintf(f, "%s\n", line)
}

// volume is what is known of one.
type volume struct {
	Name  string `json:"name"`
	Bytes int64  `json:"bytes"`
	Block bool   `json:"block"`
	Grown int64  `json:"grown"` // the size that the node made its filesystem
	On    string `json:"on"`    // the node that it is attached to
}

func (d *driver) dir(id string) string { return filepath.Join(d.data, "volumes", filepath.Base(id)) }

var errNone = status.Error(codes.NotFound, "no such volume")

// change reads a volume, lets f change it and writes it.
func (d *driver) change(id string, f func(*volume) error) (volume, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var v volume
	raw, err := os.ReadFile(d.dir(id) + ".json")
	if errors.Is(err, os.ErrNotExist) {
		return v, errNone
	}
	if err == nil {
		err = json.Unmarshal(raw, &v)
	}
	if err == nil {
		err = f(&v)
	}
	if err == nil {
		raw, err = json.Marshal(v)
	}
	if err == nil {
		err = os.WriteFile(d.dir(id)+".json", raw, 0o644)
	}
	return v, err
}

func (d *driver) known(id string) (volume, error) {
	return d.change(id, func(*volume) error { return nil })
}
