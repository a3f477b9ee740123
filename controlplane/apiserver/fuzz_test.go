package apiserver

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/rest"
)

// mediaTypes are what bodies are said to be in.
var mediaTypes = []string{"application/json", "application/yaml", runtime.ContentTypeProtobuf, runtime.ContentTypeCBOR, "text/plain", "",
	string(types.JSONPatchType), string(types.MergePatchType), string(types.StrategicMergePatchType), string(types.ApplyYAMLPatchType), string(types.ApplyCBORPatchType)}

var fuzzMethods = []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodHead, http.MethodOptions}

// fuzzed sends requests through the handlers as an administrator's, without a socket.
type fuzzed struct{ rt http.RoundTripper }

func newFuzzed(f *testing.F) fuzzed {
	f.Helper()
	r := start(f, "")
	if _, err := r.client.CoreV1().ConfigMaps("default").Create(f.Context(), configMap("c"), createOptions); err != nil {
		f.Fatal(err)
	}
	if _, err := r.client.CoreV1().Pods("default").Create(f.Context(), pod("p"), createOptions); err != nil {
		f.Fatal(err)
	}
	rt, err := rest.TransportFor(r.ClientConfig(&user.DefaultInfo{Name: "fuzz", Groups: []string{user.SystemPrivilegedGroup, user.AllAuthenticated}}))
	if err != nil {
		f.Fatal(err)
	}
	return fuzzed{rt}
}

// send fails the test unless the answer is one that a client can do something with. What panics is answered with 500.
func (z fuzzed) send(t *testing.T, method, path, query, mediaType, accept string, body []byte) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	u := &url.URL{Scheme: "http", Host: "in-process", Path: path, RawQuery: query}
	req, err := http.NewRequestWithContext(ctx, method, "http://in-process/", bytes.NewReader(body))
	if err != nil {
		t.Skip(err)
	}
	req.URL = u
	req.Header.Set("Content-Type", mediaType)
	req.Header.Set("Accept", accept)
	resp, err := z.rt.RoundTrip(req)
	if errors.Is(err, context.DeadlineExceeded) && method == http.MethodGet {
		return // a watch that nothing happens in
	}
	if err != nil {
		t.Fatalf("%s %s?%s: %v", method, path, query, err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
	switch resp.StatusCode {
	case http.StatusServiceUnavailable, http.StatusGatewayTimeout, http.StatusNotImplemented: // a node, a pod, an API that is not there
	default:
		// The library answers some malformed strategic patches so, upstream's too.
		if mediaType == string(types.StrategicMergePatchType) && strings.Contains(string(text), "Status") {
			return
		}
		if resp.StatusCode >= 500 {
			t.Errorf("%s %s?%s (%s): %d %s", method, path, query, mediaType, resp.StatusCode, text)
		}
	}
}

// FuzzRequest: whatever is asked for is answered, and the server has no part in what went wrong. Deletion of everything, and watches
// without an end, are left out, so that there stays something to ask for.
func FuzzRequest(f *testing.F) {
	z := newFuzzed(f)
	const maps = "/api/v1/namespaces/default/configmaps"
	object := []byte(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"data":{"a":"b"}}`)
	for i, c := range []struct{ path, query, accept string }{
		{maps, "limit=1&continue=x&resourceVersion=0", "application/json;as=Table;g=meta.k8s.io;v=v1"},
		{maps + "/c", "fieldManager=x&force=true&fieldValidation=Strict", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"},
		{"/api/v1/pods", "fieldSelector=spec.nodeName%3Dx&labelSelector=a+in+(b,c),!d", runtime.ContentTypeProtobuf},
		{"/api/v1/namespaces/default/pods/p/log", "tailLines=-1&sinceTime=x", "*/*"},
		{"/api/v1/namespaces/default/pods/p/exec", "command=x&stdin=1", ""},
		{"/api/v1/namespaces/default/pods/p/eviction", "dryRun=All", "application/yaml"},
		{"/api/v1/namespaces/default/pods/p/binding", "dryRun=x", ""},
		{"/api/v1/nodes/n/proxy/x", "path=..", ""},
		{"/apis/apps/v1/namespaces/default/deployments/d/scale", "", ""},
		{"/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", "", ""},
		{"/apis/apiextensions.k8s.io/v1/customresourcedefinitions", "dryRun=All", ""},
		{"/apis", "", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"},
		{"/openapi/v3/apis/apps/v1", "hash=x", "application/com.github.proto-openapi.spec.v3@v1.0+protobuf"},
		{"/api/v1/watch/namespaces/default/pods/p", "timeoutSeconds=1", ""},
		{"/readyz/etcd", "verbose&exclude=x", ""},
	} {
		for m := range fuzzMethods {
			f.Add(uint8(m), c.path, c.query, uint8(i), c.accept, object)
		}
	}
	f.Fuzz(func(t *testing.T, method uint8, path, query string, mediaType uint8, accept string, body []byte) {
		m := fuzzMethods[int(method)%len(fuzzMethods)]
		if q, err := url.ParseQuery(query); m == http.MethodDelete || err == nil && (q.Has("watch") || q.Has("follow")) || strings.Contains(path, "/watch") {
			query += "&dryRun=All&timeoutSeconds=1"
		}
		if !strings.HasPrefix(path, "/") {
			path = "/" + path
		}
		z.send(t, m, path, query, mediaTypes[int(mediaType)%len(mediaTypes)], accept, body)
	})
}

// FuzzBody: bodies of every kind of encoding and patch, to kinds that validate much and to a definition.
func FuzzBody(f *testing.F) {
	z := newFuzzed(f)
	targets := []struct{ list, name string }{
		{"/api/v1/namespaces/default/configmaps", "c"}, {"/api/v1/namespaces/default/pods", "p"}, {"/api/v1/namespaces/default/services", "kubernetes"},
		{"/apis/apps/v1/namespaces/default/deployments", "d"}, {"/apis/batch/v1/namespaces/default/cronjobs", "j"}, {"/apis/rbac.authorization.k8s.io/v1/clusterroles", "admin"},
		{"/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas", "exempt"}, {"/apis/resource.k8s.io/v1/namespaces/default/resourceclaims", "r"},
		{"/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies", "v"}, {"/apis/apiextensions.k8s.io/v1/customresourcedefinitions", "x.y.z"},
		{"/apis/certificates.k8s.io/v1/certificatesigningrequests", "q"}, {"/apis/networking.k8s.io/v1/namespaces/default/ingresses", "i"},
	}
	for i, text := range []string{
		`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"data":{"a":"b"}}`,
		`[{"op":"add","path":"/metadata/labels","value":{"a":"b"}},{"op":"test","path":"/x","value":null},{"op":"move","from":"/data","path":"/data/x"}]`,
		`{"metadata":{"labels":{"a":null},"$patch":"replace"},"spec":{"containers":[{"name":"c","$patch":"delete"}],"$setElementOrder/containers":[{"name":"c"}]}}`,
		"apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: &a x, args: [*a]}]}\n",
		`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d"},"spec":{"selector":{"matchExpressions":[{"key":"a","operator":"In"}]},"template":{}}}`,
		`{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"x.y.z"},"spec":{"group":"y.z","scope":"Cluster","names":{"plural":"x","kind":"X"},"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","x-kubernetes-validations":[{"rule":"self.a"}]}}}]}}`,
		"k8s\x00\n\x0f\n\x02v1\x12\tConfigMap\x12\x05\n\x03\n\x01x", "\xd9\xd9\xf7\xa1dkindiConfigMap", "null", "[]", "{}", "0",
	} {
		for m := range mediaTypes {
			f.Add(uint8(i), i%2 == 0, uint8(m), []byte(text))
		}
	}
	f.Fuzz(func(t *testing.T, target uint8, patch bool, mediaType uint8, body []byte) {
		at := targets[int(target)%len(targets)]
		kind := mediaTypes[int(mediaType)%len(mediaTypes)]
		const query = "dryRun=All&fieldManager=fuzz&force=true"
		switch {
		case !patch:
			z.send(t, http.MethodPost, at.list, "dryRun=All&fieldManager=fuzz", kind, "", body)
		case strings.Contains(kind, "apply-patch"):
			z.send(t, http.MethodPatch, at.list+"/"+at.name, query, kind, "", body)
		default:
			z.send(t, http.MethodPatch, at.list+"/"+at.name, "dryRun=All&fieldManager=fuzz", kind, "", body)
			z.send(t, http.MethodPut, at.list+"/"+at.name, "dryRun=All&fieldManager=fuzz", kind, "", body)
		}
	})
}
