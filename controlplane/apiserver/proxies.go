package apiserver

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
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
			if pod.Status.PodIP == "" {
				return nil, nil, apierrors.NewBadRequest("address not allowed")
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
			return remote(scheme, at.Hostname(), port), k.pod, nil
		},
	}
}

func (k *kubelets) serviceProxy() proxied {
	return proxied{
		options: func() runtime.Object { return &corev1.ServiceProxyOptions{} },
		locate: func(ctx context.Context, id string) (*url.URL, http.RoundTripper, error) {
			scheme, name, port, ok := utilnet.SplitSchemeNamePort(id)
			if !ok {
				return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("invalid service request %q", id))
			}
			svc, err := read[*corev1.Service](ctx, k.objects, "services", apirequest.NamespaceValue(ctx), name, false)
			if err != nil {
				return nil, nil, err
			}
			portName, err := servicePort(svc, port)
			if err != nil {
				return nil, nil, err
			}
			slices, err := k.slicesOf(ctx, svc)
			if err != nil {
				return nil, nil, err
			}
			host, err := proxy.RandomEndpoint(name, slices, portName, "", nil)
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

// servicePort names the port that is meant by a name, a number, or nothing if there is only one.
func servicePort(svc *corev1.Service, want string) (string, error) {
	if want == "" && len(svc.Spec.Ports) == 1 {
		return svc.Spec.Ports[0].Name, nil
	}
	for _, p := range svc.Spec.Ports {
		if p.Name == want || strconv.Itoa(int(p.Port)) == want {
			return p.Name, nil
		}
	}
	return "", apierrors.NewServiceUnavailable(fmt.Sprintf("no service port %q found for service %q", want, svc.Name))
}

func (k *kubelets) slicesOf(ctx context.Context, svc *corev1.Service) ([]*discoveryv1.EndpointSlice, error) {
	st := k.objects.stores[discoveryv1.Resource("endpointslices")]
	list, err := st.List(apirequest.WithNamespace(ctx, svc.Namespace), &internalversion.ListOptions{
		ResourceVersion: "0", LabelSelector: labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: svc.Name})})
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
