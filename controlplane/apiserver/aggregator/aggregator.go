package aggregator

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/discovery/aggregated"
	"k8s.io/apiserver/pkg/endpoints/handlers/negotiation"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	kubeinformers "k8s.io/client-go/informers"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/component-base/metrics/legacyregistry"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	aggregatorserver "k8s.io/kube-aggregator/pkg/apiserver"
	aggregatorscheme "k8s.io/kube-aggregator/pkg/apiserver/scheme"
	"k8s.io/kube-aggregator/pkg/client/clientset_generated/clientset"
	"k8s.io/kube-aggregator/pkg/client/informers/externalversions"
	informersv1 "k8s.io/kube-aggregator/pkg/client/informers/externalversions/apiregistration/v1"
	"k8s.io/kube-aggregator/pkg/controllers/status/metrics"
	"k8s.io/kube-aggregator/pkg/controllers/status/remote"
)

// recheck is how often a server that serves a group is asked whether it still answers.
const recheck = 30 * time.Second

// ServiceResolver finds where a port of a Service answers.
type ServiceResolver interface {
	ResolveEndpoint(namespace, name string, port int32) (*url.URL, error)
}

// Config of an Aggregator. All fields are required.
type Config struct {
	// Client is an administrator's.
	Client *rest.Config
	// Cert and Key (PEM) are the front proxy's, by which other servers know this one.
	Cert, Key []byte
	Resolver  ServiceResolver
	// Discovery is where the documents of other servers are merged in, and all groups get their order.
	Discovery aggregated.ResourceManager
	// Announce is called when the versions of a group that others serve have changed.
	Announce func(group string)
	// Informers returns informers of Services and EndpointSlices that are not started yet. It is called at most once.
	Informers func() kubeinformers.SharedInformerFactory
	Log       *slog.Logger
}

// Aggregator routes requests by APIServices. All methods are safe for concurrent use.
type Aggregator struct {
	cfg       Config
	client    clientset.Interface
	services  informersv1.APIServiceInformer
	factory   externalversions.SharedInformerFactory
	delivered cache.ResourceEventHandlerRegistration
	locals    *locals
	routes    atomic.Pointer[routes]

	mu        sync.Mutex // guards what follows and changes of routes
	ctx       context.Context
	discovery aggregatorserver.DiscoveryAggregationController // nil until another server serves something
}

// New returns an Aggregator that routes everything here until Start.
func New(cfg Config) (*Aggregator, error) {
	client, err := clientset.NewForConfig(cfg.Client)
	if err != nil {
		return nil, fmt.Errorf("client of APIServices: %w", err)
	}
	a := &Aggregator{cfg: cfg, client: client, factory: externalversions.NewSharedInformerFactory(client, 0)}
	a.routes.Store(&routes{})
	a.prefer(schema.GroupVersion(apiregistrationv1.SchemeGroupVersion))
	a.services = a.factory.Apiregistration().V1().APIServices()
	a.locals = newLocals(a.services, client.ApiregistrationV1())
	m, err := availability()
	if err != nil {
		return nil, fmt.Errorf("metrics of availability: %w", err)
	}
	a.delivered, err = a.services.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { show(m, obj); a.update() },
		UpdateFunc: func(_, obj any) { show(m, obj); a.update() },
		DeleteFunc: func(obj any) {
			if name, err := cache.DeletionHandlingMetaNamespaceKeyFunc(obj); err == nil {
				m.ForgetAPIService(name)
			}
			a.update()
		},
	})
	return a, err
}

// show tells in the metrics whether an APIService of what is served here is available. Of others the library tells.
func show(m *metrics.Metrics, obj any) {
	if s, ok := obj.(*apiregistrationv1.APIService); ok && s.Spec.Service == nil {
		m.SetUnavailableGauge(s)
	}
}

// Start begins to follow the APIServices. ctx ends what runs.
func (a *Aggregator) Start(ctx context.Context) {
	a.mu.Lock()
	a.ctx = ctx
	a.mu.Unlock()
	a.factory.Start(ctx.Done())
}

// HasSynced tells whether the APIServices that were there at Start are routed.
func (a *Aggregator) HasSynced() bool { return a.delivered.HasSynced() }

// Run keeps the APIServices of what is served here until ctx ends. It waits for the informer's goroutines.
func (a *Aggregator) Run(ctx context.Context) {
	a.locals.run(ctx)
	a.factory.Shutdown()
}

// Wrap returns next behind the routes.
func (a *Aggregator) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		remote, group := a.routes.Load().find(req.URL.Path)
		switch {
		case remote != nil:
			remote.ServeHTTP(w, req)
		case group != nil:
			responsewriters.WriteObjectNegotiated(aggregatorscheme.Codecs, negotiation.DefaultEndpointRestrictions,
				schema.GroupVersion{}, w, req, http.StatusOK, group, false)
		default:
			next.ServeHTTP(w, req)
		}
	})
}

// update follows a change of APIServices.
func (a *Aggregator) update() {
	all, err := a.services.Lister().List(labels.Everything())
	if err != nil {
		return // an informer's store has no errors
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	old := a.routes.Load()
	if len(old.remote) == 0 && !slices.ContainsFunc(all, func(s *apiregistrationv1.APIService) bool { return s.Spec.Service != nil }) {
		return
	}
	now := newRoutes(all, old, a.newTarget)
	a.routes.Store(now)
	if a.discovery == nil {
		if err := a.watchRemotes(); err != nil {
			a.cfg.Log.Error("groups that other servers serve stay unavailable", "err", err)
			return
		}
	}
	for _, s := range all {
		if t := now.remote[groupVersion(s)]; t != nil {
			a.discovery.AddAPIService(s, t.asked())
		}
	}
	changed := map[string]bool{}
	for gv := range old.remote {
		if now.remote[gv] == nil {
			a.discovery.RemoveAPIService(gv.Version + "." + gv.Group)
			changed[gv.Group] = true
		}
	}
	for gv := range now.remote {
		changed[gv.Group] = changed[gv.Group] || old.remote[gv] == nil
	}
	for group, is := range changed {
		if is {
			a.cfg.Announce(group)
		}
	}
}

// availability is shared by all servers of a process, as the registry of metrics is.
var availability = sync.OnceValues(func() (*metrics.Metrics, error) {
	m := metrics.New()
	return m, m.Register(legacyregistry.Register, legacyregistry.CustomRegister)
})

// watchRemotes starts what only other servers need. Precondition: a.mu is held.
func (a *Aggregator) watchRemotes() error {
	m, err := availability()
	if err != nil {
		return fmt.Errorf("metrics of availability: %w", err)
	}
	kube, own := a.cfg.Informers(), externalversions.NewSharedInformerFactory(a.client, recheck)
	control, err := remote.New(own.Apiregistration().V1().APIServices(), kube.Core().V1().Services(), kube.Discovery().V1().EndpointSlices(),
		a.client.ApiregistrationV1(), nil, func() ([]byte, []byte) { return a.cfg.Cert, a.cfg.Key }, a.cfg.Resolver, m)
	if err != nil {
		return fmt.Errorf("availability of APIServices: %w", err)
	}
	stop := a.ctx.Done()
	a.discovery = aggregatorserver.NewDiscoveryManager(a.cfg.Discovery)
	own.Start(stop)
	kube.Start(stop)
	// They end with stop and have nothing to hand over, so nobody waits for them.
	go control.Run(2, stop)
	go a.discovery.Run(stop, make(chan struct{}, 1))
	return nil
}
