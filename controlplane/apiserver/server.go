package apiserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/features"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	genericapiserver "k8s.io/apiserver/pkg/server"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/controlplane/apiserver/openapi"
	"keelson.dev/keelson/controlplane/auth"
	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/store"
)

// minWatch is the shortest time a watch without timeoutSeconds lasts; the longest is twice that. Ending them now and
// then spreads clients over the servers.
const minWatch = 30 * time.Minute

// leaderGrace is how long a starting server waits for a leader before it goes on without.
const leaderGrace = 300 * time.Millisecond

// retryBoot is the pause before the objects of a new cluster are tried again.
const retryBoot = time.Second

// Server is the API server. All methods are safe for concurrent use.
type Server struct {
	cfg      Config
	log      *slog.Logger
	store    *store.Store
	pki      *auth.PKI
	listener net.Listener
	loopback *loopback
	codecs   codecs
	convert  lazyConverter
	generic  *genericapiserver.GenericAPIServer
	authz    authorizers
	tokens   *auth.Tokens
	authn    authenticator.Request
	kubelets *kubelets
	docs     *openapi.Documents
	aggregation
	// informers feed admission; they are started by Run.
	informers informers.SharedInformerFactory
	stores    map[schema.GroupResource]*genericregistry.Store // written by New only
	ready     chan struct{}
	stopping  chan struct{} // closed by stop
	stop      func()        // called at the end of Run and by Close
}

// New takes the data directory and the port and builds the server; it serves nothing until Run. Who does not call Run
// must call Close.
func New(cfg Config, deps Deps) (*Server, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	// What cannot be read (its key is lost) can be found and deleted by who may and says so: KEP-3926.
	if err := utilfeature.DefaultMutableFeatureGate.Set(string(features.AllowUnsafeMalformedObjectDeletion) + "=true"); err != nil {
		return nil, err
	}
	publishVersion()
	s := &Server{
		cfg: cfg, log: deps.Log, loopback: &loopback{}, ready: make(chan struct{}), stopping: make(chan struct{}),
		stores: map[schema.GroupResource]*genericregistry.Store{},
	}
	s.counts.stores = s.stores
	s.stop = sync.OnceFunc(func() { close(s.stopping) })
	if s.store, err = store.Open(store.Config{Dir: filepath.Join(cfg.DataDir, "db"), History: cfg.History, Log: deps.Log}); err != nil {
		return nil, err
	}
	if err := s.build(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// build makes everything above the store, which elects its leader meanwhile.
func (s *Server) build() error {
	var err error
	if s.listener, err = listen(s.cfg.BindAddress, s.cfg.Port); err != nil {
		return err
	}
	s.cfg.Port = s.listener.Addr().(*net.TCPAddr).Port
	if s.pki, err = auth.OpenPKI(filepath.Join(s.cfg.DataDir, "pki")); err != nil {
		return err
	}
	if s.authz, err = newAuthorizers(); err != nil {
		return err
	}
	if s.tokens, err = auth.NewTokens("https://kubernetes.default.svc."+s.cfg.ClusterDomain, s.pki.TokenKey, tokenObjects{s.stores}); err != nil {
		return err
	}
	if s.kubelets, err = newKubelets(s.pki, tokenObjects{s.stores}, s.cfg.KubeletPort); err != nil {
		return err
	}
	if s.docs, err = openapi.New(); err != nil {
		return err
	}
	groups := s.groups()
	if s.codecs, err = newCodecs(groups); err != nil {
		return err
	}
	s.convert = newLazyConverter(s.codecs.scheme)
	// Storages begin to read as soon as they are made, and complain if nobody leads. A member that is alone leads by now;
	// one that waits for others is given up on soon, and the storages wait for it.
	select {
	case <-s.store.Ready():
	case <-time.After(leaderGrace):
	}
	return s.serve(groups)
}

// serve builds the storage of the groups and puts them on a generic server.
func (s *Server) serve(groups []resource.Group) error {
	b := builder{codecs: s.codecs, store: s.store, deps: resource.Deps{
		Store:        func(gr schema.GroupResource) *genericregistry.Store { return s.stores[gr] },
		ServiceCIDRs: ipNets(s.cfg.ServiceCIDRs),
		NodePorts:    s.cfg.NodePorts,
		Healthy:      s.store.Healthy,
	}}
	built := make([]versions, len(groups))
	for i, g := range groups {
		var err error
		if built[i], err = b.storages(g, s.stores); err != nil {
			return err
		}
	}
	config, err := s.genericConfig()
	if err != nil {
		return err
	}
	if err := s.aggregate(config, groups); err != nil {
		return err
	}
	completed := config.Complete(nil)
	custom, err := s.crdServer(config)
	if err != nil {
		return fmt.Errorf("build server of custom resources: %w", err)
	}
	s.generic, err = completed.New("keelson", custom.GenericAPIServer)
	if err != nil {
		return fmt.Errorf("build server: %w", err)
	}
	if err := s.announceCustomGroups(custom); err != nil {
		return err
	}
	s.docs.Sources = s.aggregator.Sources
	s.docs.Delegate(custom.GenericAPIServer.UnprotectedHandler())
	// Not the library's default of a minute: the rest of the process waits for the server to end.
	s.generic.ShutdownTimeout = 2 * time.Second
	in := installer{server: s.generic, codecs: s.codecs, config: config, converter: s.convert}
	for i, g := range groups {
		if err := in.install(g, built[i]); err != nil {
			return err
		}
		if g.Name == admissionv1.GroupName {
			// The other form of the list of groups is shared with the server of custom resources; this one has to be told, in its place.
			s.generic.DiscoveryGroupManager.AddGroup(describe(apiextensions.GroupName, "v1"))
		}
	}
	s.docs.Install(s.generic.Handler.NonGoRestfulMux)
	return s.publishTokenKeys()
}

// Run serves until ctx ends, or the store fails. It releases everything before it returns.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.informers.Start(s.stopping)
	defer s.informers.Shutdown()
	defer s.stop()
	var wg sync.WaitGroup // every goroutine in it ends with ctx
	wg.Go(func() { s.authz.rbac.Run(ctx, s.source) })
	wg.Go(func() { s.authz.node.Run(ctx, s.source) })
	wg.Go(func() {
		if err := s.boot(ctx); err != nil {
			cancel(err)
		}
	})
	wg.Go(func() {
		select {
		case <-s.ready:
			if err := s.identify(ctx); err != nil {
				s.log.Warn("leases of this server", "err", err)
			}
		case <-ctx.Done():
		}
	})
	wg.Go(func() {
		select {
		case err := <-s.store.Err():
			cancel(fmt.Errorf("store failed: %w", err))
		case <-ctx.Done():
		}
	})
	err := s.generic.PrepareRun().RunWithContext(ctx)
	cause := context.Cause(ctx)
	cancel(nil)
	wg.Wait()
	if errors.Is(cause, context.Canceled) {
		cause = nil
	}
	return errors.Join(err, cause, s.store.Close())
}

// boot brings a started server to ready.
func (s *Server) boot(ctx context.Context) error {
	select {
	case <-s.store.Ready():
	case <-ctx.Done():
		return nil
	}
	s.aggregator.Start(ctx)
	for err := s.bootstrap(ctx); err != nil; err = s.bootstrap(ctx) {
		switch {
		case ctx.Err() != nil:
			return nil
		case !passing(err):
			return fmt.Errorf("make the objects of a new cluster: %w", err)
		}
		s.log.Warn("the objects of a new cluster take long to make: trying again", "err", err)
		select {
		case <-time.After(retryBoot):
		case <-ctx.Done():
		}
	}
	if err := s.authz.synced(ctx); err != nil {
		return nil // the server is stopping
	}
	// Until definitions and APIServices are known, what they add is not there (see innerChain).
	if !cache.WaitForCacheSync(ctx.Done(), s.announced.HasSynced, s.aggregator.HasSynced) {
		return nil
	}
	close(s.ready)
	s.log.Info("API server ready", "address", s.listener.Addr())
	s.convert.warm()
	s.aggregator.Run(ctx)
	return nil
}

// Close releases a server that was not Run.
func (s *Server) Close() error {
	var err error
	s.stop()
	if s.generic != nil {
		s.generic.Destroy()
	}
	if s.listener != nil {
		err = s.listener.Close()
	}
	return errors.Join(err, s.store.Close())
}

// Ready is closed when /readyz turns ok for the first time.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Port the server listens on.
func (s *Server) Port() int { return s.cfg.Port }

// URL at which this machine and others reach the server.
func (s *Server) URL() string {
	return "https://" + net.JoinHostPort(s.cfg.AdvertiseAddress.String(), strconv.Itoa(s.cfg.Port))
}

// localURL is how processes on this machine reach the server.
func (s *Server) localURL() string {
	host := s.cfg.BindAddress
	if host.IsUnspecified() {
		host = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return "https://" + net.JoinHostPort(host.String(), strconv.Itoa(s.cfg.Port))
}

// ClientConfig returns the configuration of an in-process client whose requests are u's, without a socket between.
// Before Ready, requests of all but system:masters are refused: what RBAC allows is not known yet.
func (s *Server) ClientConfig(u user.Info) *rest.Config { return s.loopback.config(u) }

// PKI of the cluster.
func (s *Server) PKI() *auth.PKI { return s.pki }

// Tokens issues the tokens of ServiceAccounts.
func (s *Server) Tokens() *auth.Tokens { return s.tokens }

// WriteAdminKubeconfig writes (0600) a kubeconfig of a cluster administrator for this machine.
func (s *Server) WriteAdminKubeconfig(path string) error {
	return s.pki.WriteKubeconfig(path, s.localURL(), auth.Leaf{CommonName: "kubernetes-admin", Organizations: []string{user.SystemPrivilegedGroup}})
}
