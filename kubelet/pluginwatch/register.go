package pluginwatch

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

const (
	askLimit              = 10 * time.Second // for one answer of a plugin about itself
	firstRetry, lastRetry = 500 * time.Millisecond, time.Minute
)

// serve registers a socket, again and again if need be, and takes it back when there ends but ctx does not.
func (w *Watcher) serve(ctx, there context.Context, path string) {
	for delay := firstRetry; ; delay = min(2*delay, lastRetry) {
		info, handler, err := w.register(there, path)
		if err == nil {
			w.log.Info("plugin registered", "kind", info.Type, "name", info.Name, "socket", path)
			<-there.Done()
			if ctx.Err() == nil {
				handler.Deregister(info.Name, endpoint(info, path))
				w.log.Info("plugin gone", "kind", info.Type, "name", info.Name, "socket", path)
			}
			return
		}
		if there.Err() != nil {
			return
		}
		w.log.Warn("plugin is not registered: will try again", "socket", path, "err", err, "after", delay)
		timer := time.NewTimer(delay)
		select {
		case <-there.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// register does it once. The plugin hears how it went.
func (w *Watcher) register(ctx context.Context, path string) (*registration.PluginInfo, Handler, error) {
	conn, err := grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, nil, err
	}
	defer conn.Close()
	plugin := registration.NewRegistrationClient(conn)
	ask, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	info, err := plugin.GetInfo(ask, &registration.InfoRequest{})
	if err != nil {
		return nil, nil, fmt.Errorf("ask what it is: %w", err)
	}
	handler := w.handlers[info.Type]
	if handler == nil {
		err = fmt.Errorf("plugins of the kind %q are not supported", info.Type)
	} else {
		err = handler.Register(ctx, info.Name, endpoint(info, path), info.SupportedVersions)
	}
	status := &registration.RegistrationStatus{PluginRegistered: err == nil}
	if err != nil {
		status.Error = err.Error()
	}
	tell, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	if _, told := plugin.NotifyRegistrationStatus(tell, status); told != nil {
		w.log.Warn("tell a plugin how its registration went", "socket", path, "err", told)
	}
	return info, handler, err
}

// endpoint is where the plugin serves: its registration's own socket if it names no other.
func endpoint(info *registration.PluginInfo, path string) string {
	if info.Endpoint == "" {
		return path
	}
	return info.Endpoint
}
