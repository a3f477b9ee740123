package nri

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/nri/pkg/adaptation"
	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/log"
)

// RequestTimeout is how long a plugin may take to answer before it is
// disconnected. It is the library's setting for the whole process.
const RequestTimeout = 4 * time.Second

// Config says where plugins are.
type Config struct {
	// Socket is where plugins connect; "" turns NRI off.
	Socket string
	// Plugins holds programs that are started with the runtime, PluginConfigs
	// their files of settings; "" is the field's place for each.
	Plugins, PluginConfigs string
	// Name and Version are the runtime's.
	Name, Version string
	Log           *slog.Logger
}

// Runtime is what plugins see and change.
type Runtime interface {
	// NRIState gives every pod and container that is made.
	NRIState() ([]*api.PodSandbox, []*api.Container)
	// NRIUpdate changes limits and gives those that could not be changed.
	NRIUpdate(ctx context.Context, updates []*api.ContainerUpdate) (failed []*api.ContainerUpdate)
}

// Hub tells plugins of events. A nil Hub has no plugins. It is safe for
// concurrent use.
type Hub struct {
	runtime Runtime
	log     *slog.Logger
	all     *adaptation.Adaptation
	plugins atomic.Int64 // connected and synchronized; exact while synchronization is blocked

	mu    sync.Mutex
	stops map[string]*sync.Once // by container; done once its stop was told
}

// Open starts the plugins of the folder and listens for others. Where another
// runtime's plugins connect already it leaves them alone and gives a nil Hub,
// with a word in the log. End it with Close.
func Open(cfg Config, runtime Runtime) (*Hub, error) {
	if cfg.Socket == "" {
		return nil, nil
	}
	if c, err := net.DialTimeout("unix", cfg.Socket, time.Second); err == nil {
		_ = c.Close()
		cfg.Log.Warn("NRI plugins are not served: another runtime has the socket", "socket", cfg.Socket)
		return nil, nil
	}
	h := &Hub{runtime: runtime, log: cfg.Log, stops: map[string]*sync.Once{}}
	log.Set(libraryLog{cfg.Log})
	adaptation.SetPluginRequestTimeout(RequestTimeout)
	options := []adaptation.Option{adaptation.WithSocketPath(cfg.Socket), adaptation.WithMetrics(count{&h.plugins})}
	if cfg.Plugins != "" {
		options = append(options, adaptation.WithPluginPath(cfg.Plugins))
	}
	if cfg.PluginConfigs != "" {
		options = append(options, adaptation.WithPluginConfigPath(cfg.PluginConfigs))
	}
	var err error
	if h.all, err = adaptation.New(cfg.Name, cfg.Version, h.synchronize, h.unsolicited, options...); err != nil {
		return nil, fmt.Errorf("nri: %w", err)
	}
	if err := h.all.Start(); err != nil {
		h.all.Stop()
		return nil, fmt.Errorf("nri: start plugins and listen on %s: %w", cfg.Socket, err)
	}
	return h, nil
}

// Close disconnects the plugins.
func (h *Hub) Close() {
	if h != nil {
		h.all.Stop()
	}
}

// synchronize gives a plugin that connects the state, and does what it asks.
// No hook runs meanwhile, and nothing is between its hook and the state.
func (h *Hub) synchronize(ctx context.Context, plugin adaptation.SyncCB) error {
	pods, containers := h.runtime.NRIState()
	updates, err := plugin(ctx, pods, containers)
	if err != nil {
		return err
	}
	h.runtime.NRIUpdate(ctx, updates)
	return nil
}

func (h *Hub) unsolicited(ctx context.Context, updates []*api.ContainerUpdate) ([]*api.ContainerUpdate, error) {
	return h.runtime.NRIUpdate(ctx, updates), nil
}

// hold keeps plugins from being synchronized until release, and says whether
// there is one to tell.
func (h *Hub) hold() (any bool, release func()) {
	block := h.all.BlockPluginSync()
	return h.plugins.Load() > 0, block.Unblock
}

// tell runs hook if there are plugins. An error of theirs is what hook gives.
func (h *Hub) tell(hook func() error) error {
	if h == nil {
		return nil
	}
	any, release := h.hold()
	defer release()
	if !any {
		return nil
	}
	return hook()
}

// note is tell for what has happened and cannot fail any more.
func (h *Hub) note(event string, hook func() error) {
	if err := h.tell(hook); err != nil && !errors.Is(err, context.Canceled) {
		h.log.Warn("an NRI plugin failed", "event", event, "err", err)
	}
}

// count is the library's metrics, of which the number of plugins is of use here.
type count struct{ plugins *atomic.Int64 }

func (c count) UpdatePluginCount(n int)                        { c.plugins.Store(int64(n)) }
func (count) RecordPluginInvocation(string, string, error)     {}
func (count) RecordPluginLatency(_, _ string, _ time.Duration) {}
func (count) RecordPluginAdjustments(string, string, *adaptation.ContainerAdjustment, int, int) {
}

// libraryLog is the library's log, told apart by its origin.
type libraryLog struct{ to *slog.Logger }

func (l libraryLog) Debugf(ctx context.Context, format string, args ...any) {
	l.to.DebugContext(ctx, "nri: "+fmt.Sprintf(format, args...))
}

// Infof is for every step of every plugin, which is more than an operator asks for.
func (l libraryLog) Infof(ctx context.Context, format string, args ...any) {
	l.to.DebugContext(ctx, "nri: "+fmt.Sprintf(format, args...))
}

func (l libraryLog) Warnf(ctx context.Context, format string, args ...any) {
	l.to.WarnContext(ctx, "nri: "+fmt.Sprintf(format, args...))
}

// Errorf leaves out that there is no WebAssembly, which is so on purpose.
func (l libraryLog) Errorf(ctx context.Context, format string, args ...any) {
	for _, a := range args {
		if err, ok := a.(error); ok && errors.Is(err, adaptation.ErrWasmDisabled) {
			return
		}
	}
	l.to.ErrorContext(ctx, "nri: "+fmt.Sprintf(format, args...))
}
