package apiserver

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	utilproxy "k8s.io/apimachinery/pkg/util/proxy"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/util/proxy"
)

// proxied serves pods/proxy, services/proxy and nodes/proxy: any HTTP request, passed on to an address that the named
// object has.
type proxied struct {
	options func() runtime.Object
	// locate finds where "name", "name:port" or "scheme:name:port" is, and how to get there.
	locate func(ctx context.Context, id string) (*url.URL, http.RoundTripper, error)
}

var _ rest.Connecter = proxied{}

// New is the options: the kind in the API description; as Pod it would look like a PATCH of pods without its parameters.
func (p proxied) New() runtime.Object { return p.options() }
func (proxied) Destroy()              {}
func (proxied) ConnectMethods() []string {
	return []string{"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"}
}

func (p proxied) NewConnectOptions() (runtime.Object, bool, string) { return p.options(), true, "path" }

func (p proxied) Connect(ctx context.Context, id string, options runtime.Object, r rest.Responder) (http.Handler, error) {
	location, transport, err := p.locate(ctx, id)
	if err != nil {
		return nil, err
	}
	location.Path = utilnet.JoinPreservingTrailingSlash(location.Path, pathOf(options))
	h := utilproxy.NewUpgradeAwareHandler(location, transport, true, false, utilproxy.NewErrorResponder(r))
	return h, nil
}

func pathOf(options runtime.Object) string {
	switch o := options.(type) {
	case *corev1.PodProxyOptions:
		return o.Path
	case *corev1.NodeProxyOptions:
		return o.Path
	case *corev1.ServiceProxyOptions:
		return o.Path
	}
	return ""
}

func (k *kubelets) podProxy() proxied {
	return proxied{
		options: func() runtime.Object { return &corev1.PodProxyOptions{} },
		locate: func(ctx context.Context, id string) (*url.URL, http.RoundTripper, error) {
			scheme, name, port, ok := utilnet.SplitSchemeNamePort(id)
			if !ok {
				return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("invalid pod request %q", id))
			}
			pod, err := k.objects.Pod(ctx, apirequest.NamespaceValue(ctx), name, false)
			if err != nil {
				return nil, nil, err
			}
			if err := notAllowed(pod.Status.PodIP); err != nil {
				return nil, nil, err
			}
			if port == "" {
				port = firstPort(pod)
			}
			return remote(scheme, pod.Status.PodIP, port), k.pod, nil
		},
	}
}

func firstPort(pod *corev1.Pod) string {
	for _, c := range pod.Spec.Containers {
		if len(c.Ports) > 0 {
			return strconv.Itoa(int(c.Ports[0].ContainerPort))
		}
	}
	return ""
}

func remote(scheme, host, port string) *url.URL {
	if scheme == "" {
		scheme = "http"
	}
	if port != "" {
		host = net.JoinHostPort(host, port)
	} else if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return &url.URL{Scheme: scheme, Host: host}
}

// nodeProxy: the kubelet's own port by its own certificate; any other port of the node as an ordinary address.
func (k *kubelets) nodeProxy() proxied {
	return proxied{
		options: func() runtime.Object { return &corev1.NodeProxyOptions{} },
		locate: func(ctx context.Context, id string) (*url.URL, http.RoundTripper, error) {
			scheme, name, port, ok := utilnet.SplitSchemeNamePort(id)
			if !ok {
				return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("invalid node request %q", id))
			}
			at, err := k.at(ctx, name)
			if err != nil {
				return nil, nil, err
			}
			if port == "" || port == at.Port() {
				return at, k.kubelet, nil
			}
			if err := reachable(ctx, at.Hostname()); err != nil {
				return nil, nil, err
			}
			return remote(scheme, at.Hostname(), port), k.pod, nil
		},
	}
}

// reachable: all addresses of a node's name are allowed.
func reachable(ctx context.Context, host string) error {
	addresses, err := net.DefaultResolver.LookupHost(ctx, host)
	switch {
	case err != nil:
		return apierrors.NewBadRequest(err.Error())
	case len(addresses) == 0:
		return apierrors.NewBadRequest("no addresses for hostname")
	}
	for _, a := range addresses {
		if err := notAllowed(a); err != nil {
			return err
		}
	}
	return nil
}

func (k *kubelets) serviceProxy() proxied {
	return proxied{
		options: func() runtime.Object { return &corev1.ServiceProxyOptions{} },
		locate: func(ctx context.Context, id string) (*url.URL, http.RoundTripper, error) {
			scheme, name, port, ok := utilnet.SplitSchemeNamePort(id)
			if !ok {
				return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("invalid service request %q", id))
			}
			portName, err := k.portName(ctx, name, port)
			if err != nil {
				return nil, nil, err
			}
			endpoints, err := k.slicesOf(ctx, name)
			if err != nil {
				return nil, nil, err
			}
			host, err := proxy.RandomEndpoint(name, endpoints, portName, "", func(e *discoveryv1.Endpoint) bool { return k.isPod(ctx, e) })
			if err != nil {
				return nil, nil, err
			}
			if scheme == "" {
				scheme = "http"
			}
			return &url.URL{Scheme: scheme, Host: host}, k.pod, nil
		},
	}
}

// portName: a Service's port may be meant by its number.
func (k *kubelets) portName(ctx context.Context, service, want string) (string, error) {
	number, err := strconv.ParseInt(want, 10, 32)
	if err != nil {
		return want, nil
	}
	svc, err := read[*corev1.Service](ctx, k.objects, "services", apirequest.NamespaceValue(ctx), service, false)
	if err != nil {
		return "", err
	}
	return servicePort(svc, int32(number))
}

// servicePort names the port with a number.
func servicePort(svc *corev1.Service, number int32) (string, error) {
	for _, p := range svc.Spec.Ports {
		if p.Port == number {
			return p.Name, nil
		}
	}
	return "", apierrors.NewServiceUnavailable(fmt.Sprintf("no service port %d found for service %q", number, svc.Name))
}

// isPod tells whether an endpoint is what it says it is, a pod of the request's namespace: who may write EndpointSlices must not
// reach any address from here.
func (k *kubelets) isPod(ctx context.Context, e *discoveryv1.Endpoint) bool {
	namespace := apirequest.NamespaceValue(ctx)
	if e.TargetRef == nil || e.TargetRef.Namespace != namespace || len(e.Addresses) == 0 {
		return false
	}
	pod, err := k.objects.Pod(ctx, namespace, e.TargetRef.Name, false)
	return err == nil && slices.ContainsFunc(pod.Status.PodIPs, func(ip corev1.PodIP) bool { return ip.IP == e.Addresses[0] })
}

// notAllowed refuses addresses that are no business of this machine's clients: loopback, link-local, multicast.
func notAllowed(ip string) error {
	if a, err := netip.ParseAddr(ip); err != nil || !net.IP(a.AsSlice()).IsGlobalUnicast() {
		return apierrors.NewBadRequest("address not allowed")
	}
	return nil
}

func (k *kubelets) slicesOf(ctx context.Context, service string) ([]*discoveryv1.EndpointSlice, error) {
	st := k.objects.stores[discoveryv1.Resource("endpointslices")]
	list, err := st.List(apirequest.WithNamespace(ctx, apirequest.NamespaceValue(ctx)), &internalversion.ListOptions{
		ResourceVersion: "0", LabelSelector: labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: service})})
	if err != nil {
		return nil, err
	}
	var out []*discoveryv1.EndpointSlice
	items := list.(*discoveryv1.EndpointSliceList).Items
	for i := range items {
		out = append(out, &items[i])
	}
	return out, nil
}
