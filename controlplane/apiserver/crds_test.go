package apiserver

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"keelson.dev/keelson/controlplane/apiserver/openapi"
)

var ships = schema.GroupVersionResource{Group: "keelson.test", Version: "v1", Resource: "ships"}

// define makes a custom resource "ships" and waits until it is served.
func define(t *testing.T, r *running, scope apiextensionsv1.ResourceScope) dynamic.NamespaceableResourceInterface {
	t.Helper()
	crds, err := clientset.NewForConfig(r.admin)
	if err != nil {
		t.Fatal(err)
	}
	spec := apiextensionsv1.JSONSchemaProps{Type: "object",
		Properties:   map[string]apiextensionsv1.JSONSchemaProps{"masts": {Type: "integer", Maximum: ptr(7.0)}},
		XValidations: apiextensionsv1.ValidationRules{{Rule: "self.masts > 0", Message: "a ship has masts"}}}
	_, err = crds.ApiextensionsV1().CustomResourceDefinitions().Create(t.Context(), &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: "ships.keelson.test"},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: ships.Group, Scope: scope, Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: "ships", Singular: "ship", Kind: "Ship", ListKind: "ShipList"},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{Name: "v1", Served: true, Storage: true,
				Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Type: "object",
					Properties: map[string]apiextensionsv1.JSONSchemaProps{"spec": spec}}}}},
		}}, createOptions)
	if err != nil {
		t.Fatal(err)
	}
	dyn, err := dynamic.NewForConfig(r.admin)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "ships are served", func() bool {
		_, err := dyn.Resource(ships).List(t.Context(), metav1.ListOptions{})
		return err == nil
	})
	return dyn.Resource(ships)
}

func ship(name string, masts int64) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{"apiVersion": "keelson.test/v1", "kind": "Ship",
		"metadata": map[string]any{"name": name}, "spec": map[string]any{"masts": masts}}}
}

func TestCustomResources(t *testing.T) {
	r := start(t, "")
	api := define(t, r, apiextensionsv1.NamespaceScoped).Namespace("default")
	must(t)(api.Create(t.Context(), ship("a", 3), createOptions))
	if _, err := api.Create(t.Context(), ship("none", 0), createOptions); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "a ship has masts") {
		t.Errorf("a rule's breach: %v", err)
	}
	if _, err := api.Create(t.Context(), ship("many", 8), createOptions); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "spec.masts") {
		t.Errorf("a schema's breach: %v", err)
	}
	groups, err := r.client.Discovery().ServerGroups()
	if err != nil || !hasGroup(groups, ships.Group) {
		t.Errorf("discovery: %v, %v", groups, err)
	}
	plain, err := r.client.Discovery().RESTClient().Get().AbsPath("/apis").SetHeader("Accept", "application/json").DoRaw(t.Context())
	var list metav1.APIGroupList
	if err != nil || json.Unmarshal(plain, &list) != nil || !hasGroup(&list, ships.Group) {
		t.Errorf("plain /apis has no %s: %v", ships.Group, err)
	}
	if list.APIVersion != "v1" || list.Kind != "APIGroupList" || strings.Contains(string(plain), "serverAddressByClientCIDRs") {
		t.Errorf("plain /apis is not as upstream's aggregator writes it: %.300s", plain)
	}
	b, err := r.client.Discovery().RESTClient().Get().AbsPath("/openapi/v3").DoRaw(t.Context())
	var index openapi.Index
	if err != nil || json.Unmarshal(b, &index) != nil || index.Paths["apis/keelson.test/v1"].URL == "" || index.Paths["api/v1"].URL == "" {
		t.Errorf("OpenAPI index: %v, %v", index, err)
	}
	swagger, err := r.client.Discovery().OpenAPISchema()
	if err != nil || !strings.Contains(swagger.String(), "keelson.test") || !strings.Contains(swagger.String(), "io.k8s.api.core.v1.Pod") {
		t.Errorf("OpenAPI v2 without ships or without pods: %v", err)
	}
}

// A body that custom resources cannot be written in is answered; the library panics over it.
func TestCustomResourceInProtobuf(t *testing.T) {
	r := start(t, "")
	api := define(t, r, apiextensionsv1.NamespaceScoped).Namespace("default")
	must(t)(api.Create(t.Context(), ship("a", 3), createOptions))
	to := r.client.Discovery().RESTClient()
	const all, one = "/apis/keelson.test/v1/namespaces/default/ships", "/apis/keelson.test/v1/namespaces/default/ships/a"
	for name, req := range map[string]*rest.Request{"create": to.Post().AbsPath(all), "update": to.Put().AbsPath(one)} {
		err := req.SetHeader("Content-Type", runtime.ContentTypeProtobuf).Body([]byte("k8s\x00odd")).Do(t.Context()).Error()
		if !apierrors.IsUnsupportedMediaType(err) || !strings.Contains(err.Error(), "application/json, application/yaml") {
			t.Errorf("%s: %v; want that the media type is not supported", name, err)
		}
	}
	options, err := metav1.NewDeleteOptions(0).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	body, err := (&runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: "v1", Kind: "DeleteOptions"}, Raw: options}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	err = to.Delete().AbsPath(one).SetHeader("Content-Type", runtime.ContentTypeProtobuf).Body(append([]byte("k8s\x00"), body...)).Do(t.Context()).Error()
	if err != nil {
		t.Errorf("deletion with options in protobuf: %v", err)
	}
}

func hasGroup(l *metav1.APIGroupList, name string) bool {
	for _, g := range l.Groups {
		if g.Name == name {
			return true
		}
	}
	return false
}

// A cluster-scoped resource is not reached through a namespace.
func TestHostile_AP10(t *testing.T) {
	r := start(t, "")
	api := define(t, r, apiextensionsv1.ClusterScoped)
	must(t)(api.Create(t.Context(), ship("a", 3), createOptions))
	if _, err := api.Namespace("default").Get(t.Context(), "a", getOptions); !apierrors.IsNotFound(err) {
		t.Errorf("through a namespace: %v; want not found", err)
	}
	if code := get(t, r.admin, "/api/v1/namespaces/default/nodes"); code != 404 {
		t.Errorf("nodes through a namespace: %d; want 404", code)
	}
}

// Every route of the server is in a document: whoever adds a kind must run openapi/generate.sh.
func TestOpenAPIIsWhole(t *testing.T) {
	r := start(t, "")
	b, err := r.client.Discovery().RESTClient().Get().AbsPath("/openapi/v3").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var index openapi.Index
	if err := json.Unmarshal(b, &index); err != nil {
		t.Fatal(err)
	}
	for _, ws := range r.generic.Handler.GoRestfulContainer.RegisteredWebServices() {
		path := strings.TrimPrefix(ws.RootPath(), "/")
		entry, ok := index.Paths[path]
		if !ok {
			t.Errorf("no document of %s: run openapi/generate.sh", path)
			continue
		}
		doc, err := r.client.Discovery().RESTClient().Get().RequestURI(entry.URL).DoRaw(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, route := range ws.Routes() {
			if plain := strings.NewReplacer(":*}", "}").Replace(route.Path); !strings.Contains(string(doc), `"`+strings.TrimSuffix(plain, "/")) {
				t.Errorf("document of %s has no %s: run openapi/generate.sh", path, plain)
				break
			}
		}
	}
}

// Until the definitions are known, what they define is unavailable: who hears that it is not found takes it for deleted.
func TestCustomResourcesBeforeReady(t *testing.T) {
	r := start(t, "")
	must(t)(define(t, r, apiextensionsv1.NamespaceScoped).Namespace("default").Create(t.Context(), ship("a", 3), createOptions))
	r.stop()
	s, err := New(testConfig(r.dir), Deps{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	status := func(s *Server, path string) int {
		t.Helper()
		client, err := rest.HTTPClientFor(s.ClientConfig(systemUser))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Get(s.ClientConfig(systemUser).Host + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	for _, path := range []string{"/apis/keelson.test/v1/namespaces/default/ships/a", "/apis/keelson.test/v1/ships", "/apis/keelson.test/v1", "/apis/keelson.test"} {
		if got := status(s, path); got != http.StatusServiceUnavailable {
			t.Errorf("%s before the server is ready: %d", path, got)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again := start(t, r.dir)
	if got := status(again.Server, "/apis/keelson.test/v1/namespaces/default/ships/a"); got != http.StatusOK {
		t.Errorf("of a server that is ready: %d", got)
	}
	if got := status(again.Server, "/apis/keelson.test/v1/namespaces/default/boats/a"); got != http.StatusNotFound {
		t.Errorf("what nobody defines: %d", got)
	}
}
