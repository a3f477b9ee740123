package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/tools/record"

	"keelson.dev/keelson/controlplane/apiserver"
	"keelson.dev/keelson/controlplane/controller"
	"keelson.dev/keelson/controlplane/controller/aggregation"
	"keelson.dev/keelson/controlplane/controller/bootstraptoken"
	"keelson.dev/keelson/controlplane/controller/certificates"
	"keelson.dev/keelson/controlplane/controller/cronjob"
	"keelson.dev/keelson/controlplane/controller/csi"
	"keelson.dev/keelson/controlplane/controller/daemonset"
	"keelson.dev/keelson/controlplane/controller/deployment"
	"keelson.dev/keelson/controlplane/controller/endpoints"
	"keelson.dev/keelson/controlplane/controller/endpointslice"
	"keelson.dev/keelson/controlplane/controller/ephemeralvolume"
	"keelson.dev/keelson/controlplane/controller/garbage"
	"keelson.dev/keelson/controlplane/controller/job"
	"keelson.dev/keelson/controlplane/controller/loadbalancer"
	"keelson.dev/keelson/controlplane/controller/namespace"
	"keelson.dev/keelson/controlplane/controller/nodelifecycle"
	"keelson.dev/keelson/controlplane/controller/persistentvolume"
	"keelson.dev/keelson/controlplane/controller/podgc"
	"keelson.dev/keelson/controlplane/controller/policystatus"
	"keelson.dev/keelson/controlplane/controller/provision"
	"keelson.dev/keelson/controlplane/controller/replicaset"
	"keelson.dev/keelson/controlplane/controller/resourceclaim"
	"keelson.dev/keelson/controlplane/controller/rootca"
	accounts "keelson.dev/keelson/controlplane/controller/serviceaccount"
	"keelson.dev/keelson/controlplane/controller/servicecidr"
	"keelson.dev/keelson/controlplane/controller/statefulset"
	"keelson.dev/keelson/controlplane/controller/storageversion"
	"keelson.dev/keelson/controlplane/controller/ttl"
	"keelson.dev/keelson/controlplane/controller/volumeprotection"
	"keelson.dev/keelson/controlplane/informer"
	"keelson.dev/keelson/controlplane/scheduler"
	"keelson.dev/keelson/volume/local"
)

// plane is the control plane in one process: the API server, and scheduler and controllers as its in-process clients.
type plane struct {
	server *apiserver.Server
	pool   loadbalancer.Pool
	node   string       // the node beside this server
	disks  *local.Store // and its volumes
	// The CSI drivers on that node; set before control.
	drivers csi.Drivers
	shared  informers.SharedInformerFactory // of everything in this process; started by control's tasks
	log     *slog.Logger
}

func newPlane(o *options, log *slog.Logger) (*plane, error) {
	bind, err := netip.ParseAddr(o.plane.Address)
	if err != nil {
		return nil, fmt.Errorf("--bind-address: %w", err)
	}
	advertise, err := netip.ParseAddr(o.plane.Advertise)
	if err != nil {
		return nil, fmt.Errorf("--advertise-address: %w", err)
	}
	services, err := o.plane.serviceRanges()
	if err != nil {
		return nil, err
	}
	pool, err := loadbalancer.ParsePool(o.plane.Balancer)
	if err != nil {
		return nil, fmt.Errorf("--load-balancer-range: %w", err)
	}
	disks, err := local.Open(o.place.volumes())
	if err != nil {
		return nil, err
	}
	server, err := apiserver.New(apiserver.Config{
		DataDir: o.place.server(), BindAddress: bind, Port: o.plane.Port, AdvertiseAddress: advertise, ServiceCIDRs: services,
		ClusterDomain: o.plane.Domain, NodeName: o.node.Name, ExtraSANs: append(o.plane.TLSSANs, o.node.IP), KubeletPort: o.node.KubeletPort,
		AuditPolicy: o.plane.AuditPolicy, AuthenticationConfig: o.plane.AuthenticationConfig,
	}, apiserver.Deps{Log: log.With("part", "apiserver")})
	if err != nil {
		return nil, err
	}
	p := &plane{server: server, pool: pool, node: o.node.Name, disks: disks, log: log}
	client, err := kubernetes.NewForConfig(p.as(user.KubeControllerManager))
	if err != nil {
		return nil, errors.Join(err, server.Close())
	}
	p.shared = informer.New(client, informer.Options{Transform: p.shares()})
	return p, nil
}

// as returns an in-process client configuration of a user.
func (p *plane) as(name string, groups ...string) *rest.Config {
	return p.server.ClientConfig(&user.DefaultInfo{Name: name, Groups: append(groups, user.AllAuthenticated)})
}

// asAccount returns a client of a controller's service account in kube-system.
func (p *plane) asAccount(name string) (kubernetes.Interface, error) {
	groups := serviceaccount.MakeGroupNames("kube-system")
	return kubernetes.NewForConfig(p.as(serviceaccount.MakeUsername("kube-system", name), groups...))
}

// control makes scheduler and controllers and returns what runs them, and the informers. Whoever else reads an informer
// must have asked for it before.
func (p *plane) control() ([]task, error) {
	client, err := kubernetes.NewForConfig(p.as(user.KubeControllerManager))
	if err != nil {
		return nil, err
	}
	shared := p.shared
	loops, watcher, err := p.controllers(client, shared)
	if err != nil {
		return nil, err
	}
	sched, broadcast, err := p.scheduler(shared)
	if err != nil {
		return nil, err
	}
	tasks := []task{
		{"informers", p.whenReady(func(ctx context.Context) error {
			shared.Start(ctx.Done())
			<-ctx.Done()
			shared.Shutdown()
			return nil
		})},
		{"scheduler", sched.Run}, {"scheduler events", broadcast}, {"garbage watcher", p.whenReady(watcher.Run)},
	}
	for _, loop := range loops {
		tasks = append(tasks, task{"controller " + loop.Name(), p.whenReady(loop.Run)})
	}
	return tasks, nil
}

// systemInformers are of kube-system alone, for kinds of which the whole cluster has too many to keep; the task runs them.
func (p *plane) systemInformers() (informers.SharedInformerFactory, task, error) {
	client, err := kubernetes.NewForConfig(p.as(user.KubeControllerManager))
	if err != nil {
		return nil, task{}, err
	}
	f := informer.New(client, informer.Options{Namespace: metav1.NamespaceSystem, Transform: p.shares()})
	return f, task{"system informers", p.whenReady(func(ctx context.Context) error {
		f.Start(ctx.Done())
		<-ctx.Done()
		f.Shutdown()
		return nil
	})}, nil
}

// whenReady starts a client once the server answers: before, RBAC would refuse it and it would back off.
func (p *plane) whenReady(run func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		select {
		case <-p.server.Ready():
			return run(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

func (p *plane) scheduler(shared informers.SharedInformerFactory) (*scheduler.Scheduler, func(context.Context) error, error) {
	client, err := kubernetes.NewForConfig(p.as(user.KubeScheduler))
	if err != nil {
		return nil, nil, err
	}
	broadcaster := events.NewBroadcaster(&events.EventSinkImpl{Interface: client.EventsV1()})
	broadcast := func(ctx context.Context) error {
		defer broadcaster.Shutdown()
		if err := broadcaster.StartRecordingToSinkWithContext(ctx); err != nil {
			return err
		}
		<-ctx.Done()
		return nil
	}
	s, err := scheduler.New(scheduler.Config{Log: p.log.With("part", "scheduler")}, scheduler.Deps{
		Client: client, Informers: shared, Events: broadcaster.NewRecorder(scheme.Scheme, corev1.DefaultSchedulerName)})
	return s, broadcast, err
}

// controllers are listed once, each under its own identity. The watcher feeds the garbage collector.
func (p *plane) controllers(client kubernetes.Interface, shared informers.SharedInformerFactory) ([]*controller.Loop, *garbage.Watcher, error) {
	cleaner, finder, err := p.metadataClients("namespace-controller")
	if err != nil {
		return nil, nil, err
	}
	collector, everything, err := p.metadataClients("generic-garbage-collector")
	if err != nil {
		return nil, nil, err
	}
	broadcaster := record.NewBroadcaster()
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")})
	var watcher *garbage.Watcher
	var names []string // the list's accounts
	list := []struct {
		account string
		make    func(controller.Deps) (*controller.Loop, error)
	}{
		{"namespace-controller", func(d controller.Deps) (*controller.Loop, error) {
			return namespace.New(namespace.Deps{Deps: d, Discovery: finder, Metadata: cleaner})
		}},
		{"generic-garbage-collector", func(d controller.Deps) (loop *controller.Loop, err error) {
			cached := memory.NewMemCacheClient(everything)
			loop, watcher = garbage.New(garbage.Deps{Deps: d, Discovery: cached, Metadata: collector,
				Mapper: restmapper.NewDeferredDiscoveryRESTMapper(cached)})
			return loop, nil
		}},
		{"resourcequota-controller", p.quotas},
		{"certificate-controller", p.certificates},
		{"podcertificaterequestcleaner", certificates.NewPodCleaner},
		{"service-account-controller", func(d controller.Deps) (*controller.Loop, error) { return accounts.New(d, names) }},
		{"tokens-controller", p.accountTokens},
		{"legacy-service-account-token-cleaner", p.oldTokens},
		{"token-cleaner", bootstraptoken.NewCleaner},
		{"bootstrap-signer", bootstraptoken.NewSigner},
		{"root-ca-cert-publisher", func(d controller.Deps) (*controller.Loop, error) { return rootca.New(d, p.server.PKI().CA.PEM) }},
		{"kube-apiserver-serving-clustertrustbundle-publisher", func(d controller.Deps) (*controller.Loop, error) { return rootca.NewBundle(d, p.server.PKI().CA.PEM) }},
		{"endpoint-controller", endpoints.New},
		{"endpointslice-controller", endpointslice.New},
		{"endpointslicemirroring-controller", endpointslice.NewMirror},
		{"replicaset-controller", replicaset.New},
		{"replication-controller", replicaset.NewReplicationController},
		{"deployment-controller", deployment.New},
		{"statefulset-controller", statefulset.New},
		{"daemon-set-controller", daemonset.New},
		{"node-controller", nodelifecycle.New},
		{"pod-garbage-collector", podgc.New},
		{"job-controller", job.New},
		{"cronjob-controller", cronjob.New},
		{"ttl-after-finished-controller", ttl.New},
		{"disruption-controller", p.disruption},
		{"horizontal-pod-autoscaler", p.autoscaler},
		{"clusterrole-aggregation-controller", aggregation.New},
		{"service-controller", p.balancer},
		{"service-cidrs-controller", servicecidr.New},
		{"persistent-volume-binder", func(d controller.Deps) (*controller.Loop, error) { return persistentvolume.New(d, helloImage) }},
		{"persistent-volume-binder", func(d controller.Deps) (*controller.Loop, error) { return provision.New(d, p.node, p.disks) }},
		{"attachdetach-controller", func(d controller.Deps) (*controller.Loop, error) { return csi.NewAttachDetach(d, p.drivers) }},
		{"csi-controller", func(d controller.Deps) (*controller.Loop, error) { return csi.NewAttacher(d, p.drivers) }},
		{"csi-controller", func(d controller.Deps) (*controller.Loop, error) { return csi.NewProvisioner(d, p.drivers) }},
		{"csi-controller", func(d controller.Deps) (*controller.Loop, error) { return csi.NewCapacity(d, p.drivers) }},
		{"pvc-protection-controller", volumeprotection.NewClaims},
		{"volumeattributesclass-protection-controller", volumeprotection.NewClasses},
		{"pv-protection-controller", volumeprotection.NewVolumes},
		{"ephemeral-volume-controller", ephemeralvolume.New},
		{"resource-claim-controller", resourceclaim.New},
		{"storage-version-migrator-controller", p.migrator},
		{"validatingadmissionpolicy-status-controller", p.policyStatus},
	}
	for _, c := range list {
		names = append(names, c.account)
	}
	var loops []*controller.Loop
	var errs []error
	for _, c := range list {
		own, err := p.asAccount(c.account)
		if err != nil {
			return nil, nil, err
		}
		loop, err := c.make(controller.Deps{Client: own, Informers: shared, Log: p.log,
			Events: broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: c.account})})
		if errs = append(errs, err); loop != nil {
			loops = append(loops, loop)
		}
	}
	return loops, watcher, errors.Join(errs...)
}

// balancer assigns load balancer addresses. Without any of our own there is none: every Service's status is somebody else's.
func (p *plane) balancer(d controller.Deps) (*controller.Loop, error) {
	if len(p.pool) == 0 {
		return nil, nil
	}
	return loadbalancer.New(d, p.pool)
}

// policyStatus also reads the schemas of what is not built in.
func (p *plane) policyStatus(d controller.Deps) (*controller.Loop, error) {
	_, finder, err := p.metadataClients("validatingadmissionpolicy-status-controller")
	if err != nil {
		return nil, err
	}
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(finder))
	return policystatus.New(policystatus.Deps{Deps: d, Discovery: finder, Mapper: mapper})
}

// migrator touches objects of every kind.
func (p *plane) migrator(d controller.Deps) (*controller.Loop, error) {
	client, finder, err := p.metadataClients("storage-version-migrator-controller")
	if err != nil {
		return nil, err
	}
	return storageversion.New(storageversion.Deps{Deps: d, Discovery: finder, Metadata: client})
}

// metadataClients returns clients that see every kind, of a service account in kube-system.
func (p *plane) metadataClients(account string) (metadata.Interface, *discovery.DiscoveryClient, error) {
	config := p.as(serviceaccount.MakeUsername("kube-system", account), serviceaccount.MakeGroupNames("kube-system")...)
	client, err := metadata.NewForConfig(config)
	if err != nil {
		return nil, nil, err
	}
	finder, err := discovery.NewDiscoveryClientForConfig(config)
	return client, finder, err
}

// shares is the transformation of informers' objects: the server's own where it has them, without managed fields, which no reader wants.
func (p *plane) shares() cache.TransformFunc {
	shared := p.server.Shared()
	return func(obj any) (any, error) {
		obj, err := shared(obj)
		if o, ok := obj.(runtime.Object); ok {
			if m, err := meta.Accessor(o); err == nil {
				m.SetManagedFields(nil)
			}
		}
		return obj, err
	}
}
