package apiserver

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/kube-aggregator/pkg/apis/apiregistration/v1/helper"
	"k8s.io/kube-aggregator/pkg/client/clientset_generated/clientset"

	"keelson.dev/keelson/controlplane/apiserver/openapi"
	"keelson.dev/keelson/controlplane/auth"
)

var planets = schema.GroupVersionResource{Group: "space.test", Version: "v1", Resource: "planets"}

// extension is another server that serves a group: read-only planets, each owned by who asks.
type extension struct {
	*httptest.Server
	addr netip.AddrPort
	ca   []byte
}

func newExtension(t *testing.T, r *running) *extension {
	t.Helper()
	addr := defaultAddress(netip.IPv4Unspecified())
	if addr.IsLoopback() {
		t.Skip("this machine has no address but loopback, which no Service may have")
	}
	l, err := net.Listen("tcp", net.JoinHostPort(addr.String(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	e := &extension{addr: l.Addr().(*net.TCPAddr).AddrPort(), ca: r.PKI().CA.PEM}
	pair, err := r.PKI().CA.Issue(auth.Leaf{CommonName: "planets", DNSNames: []string{"planets.default.svc"}, Server: true})
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(r.PKI().FrontProxy.Cert)
	e.Server = httptest.NewUnstartedServer(http.HandlerFunc(e.serve))
	e.Listener.Close()
	e.Listener = l
	e.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, ClientCAs: roots, ClientAuth: tls.RequireAndVerifyClientCert}
	e.StartTLS()
	t.Cleanup(e.Close)
	return e
}

func (e *extension) serve(w http.ResponseWriter, req *http.Request) {
	planet := map[string]any{"apiVersion": "space.test/v1", "kind": "Planet", "metadata": map[string]any{"name": "earth", "namespace": "default",
		"labels": map[string]any{"asked-by": req.Header.Get("X-Remote-User"), "proxy": req.TLS.PeerCertificates[0].Subject.CommonName}}}
	answers := map[string]any{
		"/apis/space.test/v1": metav1.APIResourceList{GroupVersion: "space.test/v1", APIResources: []metav1.APIResource{
			{Name: "planets", SingularName: "planet", Namespaced: true, Kind: "Planet", Verbs: []string{"get", "list"}, ShortNames: []string{"pl"}}}},
		"/apis/space.test/v1/namespaces/default/planets":       map[string]any{"apiVersion": "space.test/v1", "kind": "PlanetList", "items": []any{planet}},
		"/apis/space.test/v1/namespaces/default/planets/earth": planet,
		"/openapi/v3": openapi.Index{Paths: map[string]openapi.Entry{
			"apis/space.test/v1": {URL: "/openapi/v3/apis/space.test/v1?hash=1"}, "api/v1": {URL: "/openapi/v3/api/v1?hash=mine"}}},
		"/openapi/v3/apis/space.test/v1": map[string]any{"openapi": "3.0.0", "info": map[string]any{"title": "space", "version": "1"}, "paths": map[string]any{}},
		"/openapi/v2": map[string]any{"swagger": "2.0", "info": map[string]any{"title": "space", "version": "1"}, "paths": map[string]any{
			"/apis/space.test/v1/planets": map[string]any{}, "/api/v1/pods": map[string]any{"get": map[string]any{"description": "not mine to say"}}}},
	}
	if strings.HasSuffix(req.URL.Path, "/planets/mars") {
		http.Redirect(w, req, "http://127.0.0.1:1/internal", http.StatusFound)
		return
	}
	answer, ok := answers[req.URL.Path]
	if !ok {
		http.NotFound(w, req)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer)
}

// publish puts a Service before the extension and an APIService before that.
func (e *extension) publish(t *testing.T, r *running) clientset.Interface {
	t.Helper()
	ctx := t.Context()
	port, name := int32(e.addr.Port()), "https"
	_, err := r.client.CoreV1().Services("default").Create(ctx, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "planets"},
		Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: name, Port: 443}}}}, createOptions)
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.client.DiscoveryV1().EndpointSlices("default").Create(ctx, &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: "planets", Labels: map[string]string{discoveryv1.LabelServiceName: "planets"}},
		AddressType: discoveryv1.AddressTypeIPv4, Endpoints: []discoveryv1.Endpoint{readyEndpoint(e.addr.Addr().String())},
		Ports: []discoveryv1.EndpointPort{{Name: &name, Port: &port, Protocol: ptr(corev1.ProtocolTCP)}}}, createOptions)
	if err != nil {
		t.Fatal(err)
	}
	client, err := clientset.NewForConfig(r.admin)
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.ApiregistrationV1().APIServices().Create(ctx, &apiregistrationv1.APIService{ObjectMeta: metav1.ObjectMeta{Name: "v1.space.test"},
		Spec: apiregistrationv1.APIServiceSpec{Group: "space.test", Version: "v1", GroupPriorityMinimum: 100, VersionPriority: 100, CABundle: e.ca,
			Service: &apiregistrationv1.ServiceReference{Namespace: "default", Name: "planets"}}}, createOptions)
	if err != nil {
		t.Fatal(err)
	}
	waitAvailable(t, client, apiregistrationv1.ConditionTrue)
	return client
}

func waitAvailable(t *testing.T, client clientset.Interface, want apiregistrationv1.ConditionStatus) {
	t.Helper()
	var last any
	defer func() {
		if t.Failed() {
			t.Logf("the condition was %+v", last)
		}
	}()
	eventually(t, "v1.space.test is available: "+string(want), func() bool {
		s, err := client.ApiregistrationV1().APIServices().Get(t.Context(), "v1.space.test", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		c := helper.GetAPIServiceConditionByType(s, apiregistrationv1.Available)
		last = c
		return c != nil && c.Status == want
	})
}

// TestAggregatedAPI: another server's group is like one of this server's, to every client that may use it.
func TestAggregatedAPI(t *testing.T) {
	r := start(t, "")
	e := newExtension(t, r)
	client := e.publish(t, r)

	finder := discovery.NewDiscoveryClientForConfigOrDie(r.admin)
	eventually(t, "planets are discovered", func() bool {
		_, lists, err := finder.ServerGroupsAndResources()
		return err == nil && slices.ContainsFunc(lists, func(l *metav1.APIResourceList) bool {
			return l.GroupVersion == "space.test/v1" && len(l.APIResources) == 1 && l.APIResources[0].Kind == "Planet"
		})
	})
	if g := raw(t, r, "/apis/space.test"); !strings.Contains(g, `"preferredVersion":{"groupVersion":"space.test/v1"`) {
		t.Errorf("/apis/space.test: %s", g)
	}
	if g := raw(t, r, "/apis"); strings.Count(g, `"space.test/v1"`) != 2 {
		t.Errorf("/apis does not name the group once: %s", g)
	}

	// Who asks is told to the other server, and who may not ask does not reach it.
	reader, err := dynamic.NewForConfig(r.with(t, "astronomer"))
	if err != nil {
		t.Fatal(err)
	}
	earth := reader.Resource(planets).Namespace("default")
	if _, err := earth.Get(t.Context(), "earth", metav1.GetOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("a user without a role: %v", err)
	}
	grant(t, r, "astronomer", rbacv1.PolicyRule{APIGroups: []string{"space.test"}, Resources: []string{"planets"}, Verbs: []string{"get", "list"}})
	eventually(t, "the astronomer may", func() bool { _, err := earth.Get(t.Context(), "earth", metav1.GetOptions{}); return err == nil })
	got, err := earth.List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if l := got.Items[0].GetLabels(); l["asked-by"] != "astronomer" || l["proxy"] != "front-proxy-client" {
		t.Errorf("the other server was told %v", l)
	}

	if doc := raw(t, r, "/openapi/v3"); !strings.Contains(doc, "/openapi/v3/apis/space.test/v1?hash=1") || strings.Contains(doc, "hash=mine") {
		t.Error("the index of OpenAPI documents does not have just the other server's own path")
	}
	if doc := raw(t, r, "/openapi/v3/apis/space.test/v1"); !strings.Contains(doc, `"space"`) {
		t.Errorf("the other server's document: %s", doc)
	}
	if doc := raw(t, r, "/openapi/v2"); !strings.Contains(doc, "/apis/space.test/v1/planets") || strings.Contains(doc, "not mine to say") {
		t.Error("the merged OpenAPI document does not have just the other server's own paths")
	}

	if err := client.ApiregistrationV1().APIServices().Delete(t.Context(), "v1.space.test", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "planets are gone", func() bool {
		_, err := earth.Get(t.Context(), "earth", metav1.GetOptions{})
		return apierrors.IsNotFound(err) && !strings.Contains(raw(t, r, "/apis"), "space.test")
	})
}

// TestHostile_AP18: an aggregated server that redirects sends nobody anywhere.
func TestHostile_AP18(t *testing.T) {
	r := start(t, "")
	newExtension(t, r).publish(t, r)
	dyn, err := dynamic.NewForConfig(r.admin)
	if err != nil {
		t.Fatal(err)
	}
	_, err = dyn.Resource(planets).Namespace("default").Get(t.Context(), "mars", metav1.GetOptions{})
	if err == nil || strings.Contains(err.Error(), "connection refused") {
		t.Fatalf("a redirect was followed or passed on: %v", err)
	}
	tr := &http.Transport{TLSClientConfig: clientTLS(t, r)}
	defer tr.CloseIdleConnections()
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, r.localURL()+"/apis/space.test/v1/namespaces/default/planets/mars", nil)
	res, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusBadGateway || res.Header.Get("Location") != "" {
		t.Errorf("the redirect came as %s with location %q", res.Status, res.Header.Get("Location"))
	}
}

// TestHostile_AP29: one dead APIService costs its own group only.
func TestHostile_AP29(t *testing.T) {
	r := start(t, "")
	e := newExtension(t, r)
	client := e.publish(t, r)
	e.Close()
	// Not to wait for the next look: a change makes it look at once.
	eventually(t, "the APIService is found dead", func() bool {
		s, err := client.ApiregistrationV1().APIServices().Get(t.Context(), "v1.space.test", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		s.Spec.VersionPriority = 100 + s.Spec.VersionPriority%2 + 1
		if _, err := client.ApiregistrationV1().APIServices().Update(t.Context(), s, metav1.UpdateOptions{}); err != nil && !apierrors.IsConflict(err) {
			t.Fatal(err)
		}
		return helper.GetAPIServiceConditionByType(s, apiregistrationv1.Available).Status == apiregistrationv1.ConditionFalse
	})
	_, lists, err := discovery.NewDiscoveryClientForConfigOrDie(r.admin).ServerGroupsAndResources()
	if err != nil && !discovery.IsGroupDiscoveryFailedError(err) {
		t.Fatalf("discovery fails altogether: %v", err)
	}
	if len(lists) < 20 {
		t.Errorf("discovery finds %d group versions", len(lists))
	}
	if doc := raw(t, r, "/openapi/v2"); !strings.Contains(doc, "/api/v1/namespaces") {
		t.Error("the OpenAPI document is not served")
	}
	dyn, err := dynamic.NewForConfig(r.admin)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dyn.Resource(planets).Namespace("default").Get(t.Context(), "earth", metav1.GetOptions{}); !apierrors.IsServiceUnavailable(err) {
		t.Errorf("the dead group answers %v", err)
	}
}

// TestLocalAPIServices: what this server serves has APIServices by itself.
func TestLocalAPIServices(t *testing.T) {
	r := start(t, "")
	client, err := clientset.NewForConfig(r.admin)
	if err != nil {
		t.Fatal(err)
	}
	has := func(name string) bool {
		s, err := client.ApiregistrationV1().APIServices().Get(t.Context(), name, metav1.GetOptions{})
		return err == nil && s.Spec.Service == nil && helper.IsAPIServiceConditionTrue(s, apiregistrationv1.Available)
	}
	for _, name := range []string{"v1.", "v1.apps", "v2.autoscaling", "v1.apiextensions.k8s.io"} {
		eventually(t, name, func() bool { return has(name) })
	}
	define(t, r, apiextensionsv1.NamespaceScoped)
	eventually(t, "the APIService of ships", func() bool { return has("v1.keelson.test") })
	if err := client.ApiregistrationV1().APIServices().Delete(t.Context(), "v1.keelson.test", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it comes back", func() bool { return has("v1.keelson.test") })
}

// TestDiscoveryOfGroups: both forms of the list of groups have them all in one order, upstream's, and a definition's comes after all that
// are built in, wherever it is in the alphabet: by this order a client takes one of several kinds of one name.
func TestDiscoveryOfGroups(t *testing.T) {
	r := start(t, "")
	define(t, r, apiextensionsv1.NamespaceScoped)
	listed := func(accept string) (names []string) {
		var of struct {
			Groups []struct{ Name string }
			Items  []struct{ Metadata metav1.ObjectMeta }
		}
		b, err := r.client.Discovery().RESTClient().Get().AbsPath("/apis").SetHeader("Accept", accept).DoRaw(t.Context())
		if err != nil || json.Unmarshal(b, &of) != nil {
			t.Fatal(err, string(b))
		}
		for _, g := range of.Groups {
			names = append(names, g.Name)
		}
		for _, g := range of.Items {
			names = append(names, g.Metadata.Name)
		}
		return names
	}
	const aggregatedForm = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
	eventually(t, "ships are in both forms", func() bool {
		return slices.Contains(listed("application/json"), ships.Group) && slices.Contains(listed(aggregatedForm), ships.Group)
	})
	plain, ordered := listed("application/json"), listed(aggregatedForm)
	if last := len(ordered) - 1; ordered[0] != apiregistrationv1.GroupName || ordered[1] != "apps" || ordered[last] != ships.Group {
		t.Errorf("the groups are in this order: %v", ordered)
	}
	if !slices.Equal(plain, ordered) {
		t.Errorf("one form lists %v, the other %v", plain, ordered)
	}
}

func raw(t *testing.T, r *running, path string) string {
	t.Helper()
	b, err := r.client.Discovery().RESTClient().Get().AbsPath(path).SetHeader("Accept", "application/json").DoRaw(t.Context())
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return string(b)
}

// grant gives a user a role in every namespace.
func grant(t *testing.T, r *running, name string, rules ...rbacv1.PolicyRule) {
	t.Helper()
	if _, err := r.client.RbacV1().ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules}, createOptions); err != nil {
		t.Fatal(err)
	}
	_, err := r.client.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: name}}}, createOptions)
	if err != nil {
		t.Fatal(err)
	}
}

func clientTLS(t *testing.T, r *running) *tls.Config {
	t.Helper()
	cert, err := tls.X509KeyPair(r.admin.CertData, r.admin.KeyData)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(r.PKI().CA.Cert)
	return &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: roots}
}
