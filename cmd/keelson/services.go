package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcore "k8s.io/client-go/kubernetes/typed/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"keelson.dev/keelson/controlplane/controller/loadbalancer"
	"keelson.dev/keelson/network/announce"
	"keelson.dev/keelson/network/dns"
	"keelson.dev/keelson/network/netfilter"
	"keelson.dev/keelson/network/policy"
	"keelson.dev/keelson/proxy"
	"keelson.dev/keelson/proxy/conntrack"
)

const dnsPort = 53

// tableEvery is how often we look whether the kernel's table of connections fills.
const tableEvery = 10 * time.Second

// services makes the node's Service proxy and cluster DNS, fed by shared informers; those of system are of kube-system alone.
// Events go to client.
func (n *node) services(o *options, client kubernetes.Interface, shared, system informers.SharedInformerFactory, log *slog.Logger) ([]task, error) {
	pods, services, own, err := ranges(o)
	if err != nil {
		return nil, err
	}
	health, metrics := "", ""
	if o.node.ProxyPort != 0 {
		health = net.JoinHostPort("", strconv.Itoa(o.node.ProxyPort))
	}
	if o.node.MetricsPort != 0 {
		metrics = net.JoinHostPort("127.0.0.1", strconv.Itoa(o.node.MetricsPort))
	}
	nodes := shared.Core().V1().Nodes().Lister()
	events := record.NewBroadcaster()
	teller := conflicts{events.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "service-proxy", Host: o.node.Name}), shared.Core().V1().Services().Lister()}
	n.tell = func(reason, what string) {
		teller.events.Event(nodeReference(nodes, o.node.Name), corev1.EventTypeWarning, reason, what)
	}
	addresses, err := newBalancer(o, teller.tell, log)
	if err != nil {
		return nil, err
	}
	p, err := proxy.New(proxy.Config{NodeName: o.node.Name, PodCIDR: pods, ServiceCIDR: services, Own: []netip.Addr{own}, Healthz: health, Metrics: metrics, Log: log.With("part", "proxy"),
		Eligible: func() bool { return staying(nodes.Get(o.node.Name)) }},
		proxy.Deps{Services: shared.Core().V1().Services().Informer(), EndpointSlices: shared.Discovery().V1().EndpointSlices().Informer(), Filter: n.filter, Announce: addresses})
	if err != nil {
		return nil, err
	}
	if err := teller.watchNodePorts(shared.Core().V1().Services().Informer()); err != nil {
		return nil, err
	}
	zone := dns.NewZone()
	core := shared.Core().V1()
	err = errors.Join(zone.Follow(core.Services().Informer(), shared.Discovery().V1().EndpointSlices().Informer()),
		n.policy.Follow(shared.Networking().V1().NetworkPolicies().Informer(), core.Namespaces().Informer(), core.Pods().Informer()))
	if err != nil {
		return nil, err
	}
	names, err := dns.New(dns.Config{Listen: []netip.AddrPort{netip.AddrPortFrom(own, dnsPort)}, Domain: o.plane.Domain, Ranges: []netip.Prefix{pods, services},
		ResolvConf: o.node.ResolvConf, Log: log.With("part", "dns")}, zone)
	if err != nil {
		return nil, err
	}
	if err := names.Follow(system.Core().V1().ConfigMaps().Informer()); err != nil {
		return nil, err
	}
	p.Serve(append(names.Collectors(), conntrack.Figures("/proc"))...)
	table := &conntrack.Alarm{Proc: "/proc", Share: 0.9, Every: tableEvery, Tell: n.tell, Reserve: n.reserve}
	return []task{{"service proxy", p.Run}, {"connection table", table.Run}, {"cluster DNS", names.Run}, {"network policy", n.policy.Run}, {"load balancer addresses", addresses.Run},
		{"load balancer events", func(ctx context.Context) error {
			events.StartRecordingToSink(&typedcore.EventSinkImpl{Interface: client.CoreV1().Events("")})
			<-ctx.Done()
			events.Shutdown()
			return nil
		}}}, nil
}

// reserve keeps the API, the kubelet and probes going while the table of connections is nearly full.
func (n *node) reserve(ctx context.Context, on bool) error {
	err := n.network.Reserve(ctx, on)
	switch {
	case err != nil:
		n.log.Error("what the node lives by cannot be kept out of the full table of connections", "error", err)
	case on:
		n.log.Warn("the table of connections is nearly full: connections of the API, the kubelet and probes are not tracked meanwhile")
	}
	return err
}

// nodeReference names the Node in its events; by its UID too, once it is known.
func nodeReference(nodes corelisters.NodeLister, name string) *corev1.ObjectReference {
	ref := &corev1.ObjectReference{Kind: "Node", Name: name, APIVersion: "v1"}
	if n, err := nodes.Get(name); err == nil {
		ref.UID = n.UID
	}
	return ref
}

// staying tells whether a node is not about to be removed. One that is not known (yet) stays.
func staying(n *corev1.Node, err error) bool {
	return err != nil || n.DeletionTimestamp == nil && !slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == "ToBeDeletedByClusterAutoscaler" })
}

// conflicts tells Services of others that claim their addresses or ports.
type conflicts struct {
	events   record.EventRecorder
	services corelisters.ServiceLister
}

func (c conflicts) tell(addr netip.Addr, by net.HardwareAddr) {
	all, err := c.services.List(labels.Everything())
	if err != nil {
		return // a cache's list has no errors
	}
	for _, s := range all {
		for _, in := range s.Status.LoadBalancer.Ingress {
			if in.IP == addr.String() {
				c.events.Eventf(s, corev1.EventTypeWarning, "AddressConflict", "Another machine on the network, %s, claims the load balancer address %s too: clients may reach either. Take the address from it, or out of --load-balancer-range", by, addr)
			}
		}
	}
}

// watchNodePorts tells Services of node ports that a process of the node listens on: packets come to the Service, and that
// process waits in vain.
func (c conflicts) watchNodePorts(services cache.SharedIndexInformer) error {
	look := func(old, now any) {
		s, is := now.(*corev1.Service)
		if !is {
			return
		}
		before, _ := old.(*corev1.Service)
		for _, p := range s.Spec.Ports {
			network := strings.ToLower(string(p.Protocol))
			known := func(q corev1.ServicePort) bool { return q.NodePort == p.NodePort && q.Protocol == p.Protocol }
			if p.NodePort == 0 || network == "sctp" || before != nil && slices.ContainsFunc(before.Spec.Ports, known) {
				continue
			}
			if err := portFree(network, "", int(p.NodePort), nil); errors.Is(err, syscall.EADDRINUSE) {
				c.events.Eventf(s, corev1.EventTypeWarning, "NodePortInUse", "A process of the node listens on this Service's node port and is not reached any more: %v", err)
			}
		}
	}
	_, err := services.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(now any) { look(nil, now) }, UpdateFunc: look})
	return err
}

// balancer announces the addresses that our own controller assigned; another balancer's are its own affair.
type balancer struct {
	*announce.Announcer
	pool loadbalancer.Pool
}

func newBalancer(o *options, conflict func(netip.Addr, net.HardwareAddr), log *slog.Logger) (balancer, error) {
	pool, err := loadbalancer.ParsePool(o.plane.Balancer)
	if err != nil {
		return balancer{}, fmt.Errorf("--load-balancer-range: %w", err)
	}
	// The pods' links begin with the bridge's name.
	pods := func(name string) bool { return strings.HasPrefix(name, o.node.Bridge) }
	return balancer{announce.New(announce.Config{Skip: pods, Conflict: conflict, Log: log.With("part", "announce")}), pool}, nil
}

// Set announces those of the addresses that are ours.
func (b balancer) Set(addrs []netip.Addr) {
	b.Announcer.Set(slices.DeleteFunc(addrs, func(a netip.Addr) bool { return !b.pool.Has(a) }))
}

// ranges are those that the node serves: of IPv4.
func ranges(o *options) (pods, services netip.Prefix, dns netip.Addr, err error) {
	if pods, err = netip.ParsePrefix(o.node.ClusterCIDR); err != nil {
		return pods, services, dns, fmt.Errorf("--cluster-cidr: %w", err)
	}
	all, err := o.plane.serviceRanges()
	if err != nil {
		return pods, services, dns, err
	}
	if dns, err = netip.ParseAddr(o.plane.DNS); err != nil {
		err = fmt.Errorf("--cluster-dns: %w", err)
	}
	return pods, all[0], dns, err
}

// newPolicy makes the engine of NetworkPolicies. A pod's address is let go only when what holds for the pod is in force.
func newPolicy(o *options, filter *netfilter.IPTables, log *slog.Logger) (*policy.Engine, error) {
	own, err := netip.ParsePrefix(o.node.PodCIDR)
	if err != nil {
		return nil, fmt.Errorf("--pod-cidr: %w", err)
	}
	_, _, address, err := ranges(o)
	if err != nil {
		return nil, err
	}
	return policy.New(policy.Config{PodCIDR: own, Log: log.With("part", "policy"),
		Extra: []policy.Pod{{Namespace: metav1.NamespaceSystem, Name: "kube-dns", Addr: address, Labels: labels.Set{"k8s-app": "kube-dns"}}}}, filter), nil
}

// ensureDNSService makes the Service by which pods and charts know the cluster DNS. It has no endpoints: every node answers
// its address itself.
func ensureDNSService(ctx context.Context, client kubernetes.Interface, address string) error {
	ports := []corev1.ServicePort{
		{Name: "dns", Protocol: corev1.ProtocolUDP, Port: dnsPort, TargetPort: intstr.FromInt32(dnsPort)},
		{Name: "dns-tcp", Protocol: corev1.ProtocolTCP, Port: dnsPort, TargetPort: intstr.FromInt32(dnsPort)},
	}
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: "kube-dns",
			Labels: map[string]string{"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"}},
		Spec: corev1.ServiceSpec{ClusterIP: address, Ports: ports},
	}
	services := client.CoreV1().Services(service.Namespace)
	if _, err := services.Get(ctx, service.Name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		return err
	}
	_, err := services.Create(ctx, service, metav1.CreateOptions{})
	return err
}
