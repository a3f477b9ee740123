package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/network/dns"
	"keelson.dev/keelson/proxy"
)

const dnsPort = 53

// services makes the node's Service proxy and cluster DNS, fed by shared informers.
func (n *node) services(o *options, shared informers.SharedInformerFactory, log *slog.Logger) ([]task, error) {
	pods, services, own, err := ranges(o)
	if err != nil {
		return nil, err
	}
	health := ""
	if o.node.ProxyPort != 0 {
		health = net.JoinHostPort("", strconv.Itoa(o.node.ProxyPort))
	}
	p, err := proxy.New(proxy.Config{NodeName: o.node.Name, PodCIDR: pods, ServiceCIDR: services, Own: []netip.Addr{own}, Healthz: health, Log: log.With("part", "proxy")},
		proxy.Deps{Services: shared.Core().V1().Services().Informer(), EndpointSlices: shared.Discovery().V1().EndpointSlices().Informer(), Filter: n.filter})
	if err != nil {
		return nil, err
	}
	zone := dns.NewZone()
	err = errors.Join(
		feed(shared.Core().V1().Services().Informer(), zone.SetService, func(s *corev1.Service) { zone.DeleteService(s.Namespace, s.Name) }),
		feed(shared.Discovery().V1().EndpointSlices().Informer(), zone.SetSlice, func(s *discoveryv1.EndpointSlice) { zone.DeleteSlice(s.Namespace, s.Name) }))
	if err != nil {
		return nil, err
	}
	names, err := dns.New(dns.Config{Listen: []netip.AddrPort{netip.AddrPortFrom(own, dnsPort)}, Domain: o.plane.Domain, Ranges: []netip.Prefix{pods, services},
		ResolvConf: o.node.ResolvConf, Log: log.With("part", "dns")}, zone)
	if err != nil {
		return nil, err
	}
	return []task{{"service proxy", p.Run}, {"cluster DNS", names.Run}}, nil
}

func ranges(o *options) (pods, services netip.Prefix, dns netip.Addr, err error) {
	if pods, err = netip.ParsePrefix(o.node.ClusterCIDR); err != nil {
		return pods, services, dns, fmt.Errorf("--cluster-cidr: %w", err)
	}
	if services, err = netip.ParsePrefix(o.plane.ServiceCIDR); err != nil {
		return pods, services, dns, fmt.Errorf("--service-cidr: %w", err)
	}
	if dns, err = netip.ParseAddr(o.plane.DNS); err != nil {
		err = fmt.Errorf("--cluster-dns: %w", err)
	}
	return pods, services, dns, err
}

// feed delivers an informer's objects, typed.
func feed[T any](informer cache.SharedIndexInformer, set, gone func(T)) error {
	deliver := func(obj any, f func(T)) {
		if tomb, ok := obj.(cache.DeletedFinalStateUnknown); ok {
			obj = tomb.Obj
		}
		if typed, ok := obj.(T); ok {
			f(typed)
		}
	}
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { deliver(obj, set) },
		UpdateFunc: func(_, obj any) { deliver(obj, set) },
		DeleteFunc: func(obj any) { deliver(obj, gone) },
	})
	return err
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
