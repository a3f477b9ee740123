package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/network/netfilter"
	"keelson.dev/keelson/proxy/conntrack"
	"keelson.dev/keelson/proxy/model"
	"keelson.dev/keelson/proxy/rules"
	"keelson.dev/keelson/proxy/track"
)

// Config is the node's place in the cluster.
type Config struct {
	NodeName    string
	Zone        string       // optional
	PodCIDR     netip.Prefix // all pod addresses of the cluster; required
	ServiceCIDR netip.Prefix // optional: unused addresses in it are refused instead of leaving by the default route
	// Own are cluster IPs that the node answers itself (the cluster DNS): their Services get no rules.
	Own     []netip.Addr
	Retry   time.Duration // after a failed transaction; default 1 s
	Healthz string        // address of the proxy's own health, ":10256"; "" for none
	Metrics string        // address of its metrics, "127.0.0.1:10249"; "" for none
	// Eligible tells whether load balancers may send to the node, which is not so while it is being removed. Optional; must return soon.
	Eligible func() bool
	Log      *slog.Logger // optional
}

// Deps are the proxy's ways to the world.
type Deps struct {
	Services       cache.SharedIndexInformer // of Services; started by the caller, after New
	EndpointSlices cache.SharedIndexInformer // of EndpointSlices; the same
	Filter         Filter
	Conntrack      Conntrack // optional; default the kernel's
	Announce       Announcer // optional: who draws the load balancers' addresses to this node
}

// Announcer speaks for addresses on the node's networks. Set replaces them all and does not wait.
type Announcer interface{ Set([]netip.Addr) }

// Filter is the packet filter; netfilter's IPTables and Fake are ones.
type Filter interface {
	Apply(ctx context.Context, owner netfilter.Owner, s netfilter.Set) error
}

// Conntrack ends stale UDP connections.
type Conntrack interface {
	Clean(conntrack.Expect) (uint, error)
}

// Proxy keeps a node's rules for Services. Run it once.
type Proxy struct {
	cfg     Config
	deps    Deps
	changes *track.Changes
	table   *rules.Table
	ports   map[types.NamespacedName][]model.Port // as last put into the table
	before  []model.Port                          // UDP ports as they were before the transaction that is pending
	pending bool                                  // the table has what the kernel has not
	health  *health
	metrics *metrics
}

// New registers with the informers; they are started afterwards.
func New(cfg Config, deps Deps) (*Proxy, error) {
	if !cfg.PodCIDR.IsValid() || cfg.NodeName == "" || deps.Filter == nil || deps.Services == nil || deps.EndpointSlices == nil {
		return nil, errors.New("proxy: node name, pod range, informers and filter are required")
	}
	if cfg.Retry == 0 {
		cfg.Retry = time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Eligible == nil {
		cfg.Eligible = func() bool { return true }
	}
	if deps.Conntrack == nil {
		deps.Conntrack = conntrack.Table{}
	}
	c, err := track.New(deps.Services, deps.EndpointSlices)
	if err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	return &Proxy{cfg: cfg, deps: deps, changes: c, ports: map[types.NamespacedName][]model.Port{},
		table: rules.NewTable(rules.Cluster{Pods: cfg.PodCIDR, Services: cfg.ServiceCIDR}), health: newHealth(cfg.Log), metrics: newMetrics()}, nil
}

// Serve adds metrics of others to those that Metrics serves. Not after Run.
func (p *Proxy) Serve(more ...prometheus.Collector) { p.metrics.registry.MustRegister(more...) }

// Run keeps the rules until ctx ends; they stay in force afterwards. It returns an error only when its health address cannot be had.
func (p *Proxy) Run(ctx context.Context) error {
	defer p.health.close()
	if p.cfg.Healthz != "" {
		if err := p.health.listen(ctx, p.cfg.Healthz, p.cfg.Eligible); err != nil {
			return fmt.Errorf("proxy: %w", err)
		}
	}
	if p.cfg.Metrics != "" {
		if err := p.health.listenMetrics(ctx, p.cfg.Metrics, p.metrics.handler()); err != nil {
			return fmt.Errorf("proxy: metrics: %w", err)
		}
	}
	if !cache.WaitForCacheSync(ctx.Done(), p.deps.Services.HasSynced, p.deps.EndpointSlices.HasSynced) {
		return nil
	}
	p.pending = true // even a cluster without Services has rules
	var retry <-chan time.Time
	for {
		p.take()
		retry = nil
		if err := p.sync(ctx); err != nil && ctx.Err() == nil {
			p.cfg.Log.Error("rules of Services are not up to date; trying again", "error", err, "after", p.cfg.Retry)
			retry = time.After(p.cfg.Retry)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-p.changes.Wake():
		case <-retry:
		}
	}
}

// take brings the table to the Services that changed.
func (p *Proxy) take() {
	node := model.Node{Name: p.cfg.NodeName, Zone: p.cfg.Zone}
	for _, ch := range p.changes.Take() {
		var ports []model.Port
		if ch.Service != nil {
			ports = model.Ports(ch.Service, ch.Slices, node)
		}
		ports = slices.DeleteFunc(ports, func(q model.Port) bool { return slices.Contains(p.cfg.Own, q.ClusterIP) })
		p.health.set(ch, ports)
		old := p.ports[ch.Name]
		if reflect.DeepEqual(old, ports) {
			continue
		}
		p.pending = true
		p.metrics.changes.Inc()
		p.put(old, ports)
		if p.ports[ch.Name] = ports; len(ports) == 0 {
			delete(p.ports, ch.Name)
		}
	}
}

// put replaces a Service's ports in the table, one by one.
func (p *Proxy) put(old, ports []model.Port) {
	now := map[string]bool{}
	for _, q := range ports {
		now[id(q)] = true
		i := slices.IndexFunc(old, func(o model.Port) bool { return id(o) == id(q) })
		if i < 0 || !reflect.DeepEqual(old[i], q) {
			p.table.Put(id(q), rules.ForPort(q, rules.Cluster{Pods: p.cfg.PodCIDR, Services: p.cfg.ServiceCIDR}))
			if q.Proto == "udp" { // also a new one: senders may have been there first
				p.before = append(p.before, q)
			}
		}
	}
	for _, o := range old {
		if !now[id(o)] {
			p.table.Put(id(o), rules.Port{})
		}
		if o.Proto == "udp" {
			p.before = append(p.before, o)
		}
	}
}

func id(p model.Port) string { return p.Key.String() + "/" + p.Proto }

// sync applies the table and then ends UDP connections that it no longer has.
func (p *Proxy) sync(ctx context.Context) error {
	if !p.pending {
		return nil
	}
	start := time.Now()
	err := p.deps.Filter.Apply(ctx, netfilter.Service, p.table.Set())
	p.health.synced(err)
	p.metrics.synced(start, err)
	if err != nil {
		return err
	}
	p.pending = false
	p.announce() // not before the rules are there: nobody is to be drawn here in vain
	if len(p.before) > 0 {
		var now []model.Port
		for _, ports := range p.ports {
			now = append(now, ports...)
		}
		n, err := p.deps.Conntrack.Clean(conntrack.For(now, p.before))
		if err != nil {
			p.pending = true
			return err
		}
		if n > 0 {
			p.cfg.Log.Info("ended UDP connections to endpoints that are gone", "connections", n)
		}
		p.before = nil
	}
	p.cfg.Log.Debug("rules of Services are up to date", "services", len(p.ports), "took", time.Since(start))
	return nil
}

// announce has the node speak for the load balancers' addresses that it serves. Under the Local policy those are the ones with an
// endpoint here.
func (p *Proxy) announce() {
	if p.deps.Announce == nil {
		return
	}
	var out []netip.Addr
	for _, ports := range p.ports {
		for _, q := range ports {
			if !q.ExternalLocal || len(q.Local) > 0 {
				out = append(out, q.Balancer...)
			}
		}
	}
	p.deps.Announce.Set(out)
}
