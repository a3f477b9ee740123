//go:build openapigen

package apiserver

import (
	"encoding/json"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"

	restful "github.com/emicklei/go-restful/v3"
	"k8s.io/apimachinery/pkg/runtime"
	namer "k8s.io/apiserver/pkg/endpoints/openapi"
	genericapiserver "k8s.io/apiserver/pkg/server"
	builder2 "k8s.io/kube-openapi/pkg/builder"
	"k8s.io/kube-openapi/pkg/builder3"
	"k8s.io/kube-openapi/pkg/common/restfuladapter"
	"k8s.io/kube-openapi/pkg/handler"
	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"keelson.dev/keelson/controlplane/apiserver/openapi"
	generated "keelson.dev/keelson/controlplane/apiserver/openapi/definitions"
)

// TestWriteOpenAPI is not a test but the last step of openapi/generate.sh.
func TestWriteOpenAPI(t *testing.T) {
	s, err := New(Config{DataDir: t.TempDir(), BindAddress: netip.MustParseAddr("127.0.0.1"), Port: -1}, Deps{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	names := namer.NewDefinitionNamer(s.codecs.scheme)
	c3 := genericapiserver.DefaultOpenAPIV3Config(generated.GetOpenAPIDefinitions, names)
	c2 := genericapiserver.DefaultOpenAPIConfig(generated.GetOpenAPIDefinitions, names)
	present(c2, c3)

	services := s.generic.Handler.GoRestfulContainer.RegisteredWebServices()
	v3 := map[string][]byte{}
	for _, ws := range services {
		path := strings.TrimPrefix(ws.RootPath(), "/")
		doc, err := builder3.BuildOpenAPISpecFromRoutes(restfuladapter.AdaptWebServices([]*restful.WebService{ws}), c3)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		narrow(doc, path)
		if v3[path], err = json.Marshal(doc); err != nil {
			t.Fatal(err)
		}
	}
	swagger, err := builder2.BuildOpenAPISpecFromRoutes(restfuladapter.AdaptWebServices(services), c2)
	if err != nil {
		t.Fatal(err)
	}
	swagger.Definitions = handler.PruneDefaults(swagger.Definitions)
	for _, s := range swagger.Definitions {
		keep(s.Extensions, func(_, version string) bool { return version != runtime.APIVersionInternal })
	}
	v2, err := json.Marshal(swagger)
	if err != nil {
		t.Fatal(err)
	}
	if err := openapi.Write("openapi/spec", v3, v2); err != nil {
		t.Fatal(err)
	}
}

// narrow leaves of the group versions of types that every group has (DeleteOptions, WatchEvent) the document's own and v1.
func narrow(doc *spec3.OpenAPI, path string) {
	if doc.Components == nil {
		return
	}
	for _, s := range doc.Components.Schemas {
		gvks, _ := s.Extensions[kinds].([]any)
		everywhere := len(gvks) >= 10
		keep(s.Extensions, func(group, version string) bool {
			own := strings.TrimSuffix("apis/"+group+"/"+version, "/") == path
			return version != runtime.APIVersionInternal && (!everywhere || own || group == "" && version == "v1")
		})
	}
}

const kinds = "x-kubernetes-group-version-kind"

// keep leaves of a type's group versions those that want wants. The internal version is a registration of ours: no client knows it.
func keep(of spec.Extensions, want func(group, version string) bool) {
	gvks, ok := of[kinds].([]any)
	if !ok {
		return
	}
	of[kinds] = slices.DeleteFunc(slices.Clone(gvks), func(g any) bool {
		m, _ := g.(map[string]any)
		return !want(m["group"].(string), m["version"].(string))
	})
}
