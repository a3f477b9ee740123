package aggregator

import (
	"net/http"
	"net/url"
	"reflect"

	"k8s.io/apimachinery/pkg/runtime"
	utilproxy "k8s.io/apimachinery/pkg/util/proxy"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"
	utilflowcontrol "k8s.io/apiserver/pkg/util/flowcontrol"
	"k8s.io/apiserver/pkg/util/proxy"
	"k8s.io/client-go/transport"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/kube-aggregator/pkg/apis/apiregistration/v1/helper"
	"k8s.io/kube-aggregator/pkg/controllers/status/remote"
	"k8s.io/streaming/pkg/httpstream"
)

// target is another server that serves a group version.
type target struct {
	spec      apiregistrationv1.APIServiceSpec
	available bool
	resolver  ServiceResolver
	transport http.RoundTripper
	err       error // why transport could not be made
}

func (a *Aggregator) newTarget(s *apiregistrationv1.APIService) *target {
	t := &target{spec: *s.Spec.DeepCopy(), resolver: a.cfg.Resolver}
	t.transport, t.err = transport.New(remote.BuildTransportConfig(nil, a.cfg.Cert, a.cfg.Key, s))
	return t.with(s)
}

// is tells whether s is the server that t talks to.
func (t *target) is(s *apiregistrationv1.APIService) bool { return reflect.DeepEqual(t.spec, s.Spec) }

// with returns t as available as s says.
func (t *target) with(s *apiregistrationv1.APIService) *target {
	n := *t
	n.available = helper.IsAPIServiceConditionTrue(s, apiregistrationv1.Available)
	return &n
}

// asked is t for who looks whether it answers by asking it.
func (t *target) asked() *target {
	n := *t
	n.available = true
	return &n
}

// ServeHTTP passes a request on in its user's name.
func (t *target) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if !t.available {
		http.Error(w, "service unavailable", http.StatusServiceUnavailable)
		return
	}
	if t.err != nil {
		http.Error(w, t.err.Error(), http.StatusInternalServerError)
		return
	}
	u, ok := apirequest.UserFrom(req.Context())
	if !ok {
		http.Error(w, "missing user", http.StatusInternalServerError)
		return
	}
	at, err := t.resolver.ResolveEndpoint(t.spec.Service.Namespace, t.spec.Service.Name, *t.spec.Service.Port)
	if err != nil {
		http.Error(w, "service unavailable", http.StatusServiceUnavailable)
		return
	}
	location := &url.URL{Scheme: "https", Host: at.Host, Path: req.URL.Path, RawQuery: req.URL.Query().Encode()}
	out, cancel := proxy.NewRequestForProxy(location, req)
	defer cancel()
	// An upgrade dials by itself and bypasses the round tripper that would set the headers.
	upgrade := httpstream.IsUpgradeRequest(req)
	if upgrade {
		transport.SetAuthProxyHeaders(out, u.GetName(), u.GetUID(), u.GetGroups(), u.GetExtra())
	}
	via := transport.NewAuthProxyRoundTripper(u.GetName(), u.GetUID(), u.GetGroups(), u.GetExtra(), t.transport)
	h := utilproxy.NewUpgradeAwareHandler(location, via, true, upgrade, responder{w})
	// The server behind may be anybody's: it must not send clients, with their credentials, elsewhere.
	h.RejectForwardingRedirects = true
	utilflowcontrol.RequestDelegated(req.Context())
	h.ServeHTTP(w, out)
}

// responder tells the client what went wrong on the way.
type responder struct{ w http.ResponseWriter }

func (r responder) Object(code int, obj runtime.Object) {
	responsewriters.WriteRawJSON(code, obj, r.w)
}

func (r responder) Error(_ http.ResponseWriter, _ *http.Request, err error) {
	http.Error(r.w, err.Error(), http.StatusServiceUnavailable)
}
