package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"keelson.dev/keelson/proxy/model"
	"keelson.dev/keelson/proxy/track"
)

// health answers load balancers: per Service with a healthCheckNodePort whether this node has endpoints of it, and for the
// proxy as a whole whether its rules are up to date.
type health struct {
	log *slog.Logger
	wg  sync.WaitGroup

	mu      sync.Mutex
	failing bool
	servers map[types.NamespacedName]*healthServer
	updated time.Time      // when the rules were last in force
	own     []*http.Server // of Run's goroutine
}

type healthServer struct {
	port   int32
	server *http.Server // nil when the port could not be had; tried again with the Service's next change
	local  int
}

func newHealth(log *slog.Logger) *health {
	return &health{log: log, servers: map[types.NamespacedName]*healthServer{}}
}

// listen serves /healthz and /livez: the first as load balancers ask it, which is also no while the node is about to go.
func (h *health) listen(ctx context.Context, addr string, eligible func() bool) error {
	mux := http.NewServeMux()
	answer := func(node bool) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			h.mu.Lock()
			failing, updated := h.failing, h.updated
			h.mu.Unlock()
			now, takes := time.Now(), eligible()
			if !failing {
				updated = now // nothing is pending: the rules are of this moment
			}
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("X-Content-Type-Options", "nosniff")
			if failing || node && !takes {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
			fmt.Fprintf(w, `{"lastUpdated": %q,"currentTime": %q, "nodeEligible": %v}`, updated.UTC(), now.UTC(), takes)
		}
	}
	mux.HandleFunc("GET /healthz", answer(true))
	mux.HandleFunc("GET /livez", answer(false))
	s, err := h.serve(ctx, addr, mux)
	h.own = append(h.own, s)
	return err
}

// listenMetrics serves what monitoring asks of a service proxy, under the names and on the port that it knows.
func (h *health) listenMetrics(ctx context.Context, addr string, metrics http.Handler) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") })
	mux.HandleFunc("GET /proxyMode", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "iptables") })
	s, err := h.serve(ctx, addr, mux)
	h.own = append(h.own, s)
	return err
}

// serve runs a server until close; its goroutine is waited for there.
func (h *health) serve(ctx context.Context, addr string, handler http.Handler) (*http.Server, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("health address: %w", err)
	}
	s := &http.Server{Handler: handler, ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second, MaxHeaderBytes: 8 << 10}
	h.wg.Go(func() {
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			h.log.Error("health server ended", "address", addr, "error", err)
		}
	})
	return s, nil
}

func (h *health) synced(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.failing = err != nil; err == nil {
		h.updated = time.Now()
	}
}

// set brings a Service's health server to what it asks for now.
func (h *health) set(ch track.Change, ports []model.Port) {
	var want int32
	if ch.Service != nil && len(ports) > 0 && ports[0].ExternalLocal {
		want = ch.Service.Spec.HealthCheckNodePort
	}
	local := map[string]bool{}
	for _, p := range ports {
		for _, ep := range p.Local {
			local[ep.Addr().String()] = true
		}
	}
	h.mu.Lock()
	old := h.servers[ch.Name]
	if old != nil && old.port == want && old.server != nil {
		old.local = len(local)
		h.mu.Unlock()
		return
	}
	delete(h.servers, ch.Name)
	h.mu.Unlock()
	if old != nil && old.server != nil {
		old.server.Close()
	}
	if want == 0 {
		return
	}
	hs := &healthServer{port: want, local: len(local)}
	s, err := h.serve(context.Background(), ":"+strconv.Itoa(int(want)), h.answer(ch.Name, hs))
	if err != nil {
		h.log.Error("no health check port for a Service", "service", ch.Name, "port", want, "error", err)
	}
	h.mu.Lock()
	hs.server, h.servers[ch.Name] = s, hs
	h.mu.Unlock()
}

func (h *health) answer(name types.NamespacedName, hs *healthServer) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		h.mu.Lock()
		n, failing := hs.local, h.failing
		h.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("X-Load-Balancing-Endpoint-Weight", strconv.Itoa(n))
		if n == 0 || failing {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		json.NewEncoder(w).Encode(map[string]any{
			"service":             map[string]string{"namespace": name.Namespace, "name": name.Name},
			"localEndpoints":      n,
			"serviceProxyHealthy": !failing,
		})
	})
}

func (h *health) close() {
	h.mu.Lock()
	servers := slices.Clone(h.own)
	for _, s := range h.servers {
		servers = append(servers, s.server)
	}
	h.mu.Unlock()
	for _, s := range servers {
		if s != nil {
			s.Close()
		}
	}
	h.wg.Wait()
}
