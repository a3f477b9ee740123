package apiserver

import (
	"context"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	crds "k8s.io/apiextensions-apiserver/pkg/apiserver"
	generatedopenapi "k8s.io/apiextensions-apiserver/pkg/generated/openapi"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/apiserver/pkg/endpoints/filters"
	"k8s.io/apiserver/pkg/endpoints/handlers/negotiation"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	openapinamer "k8s.io/apiserver/pkg/endpoints/openapi"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/util/notfoundhandler"
	"k8s.io/apiserver/pkg/util/openapi"
	"k8s.io/apiserver/pkg/util/proxy"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/controlplane/store"
)

// crdServer serves CustomResourceDefinitions and what they define. It is next in the chain of delegation: a request
// that no built-in kind answers comes to it.
func (s *Server) crdServer(main *genericapiserver.Config) (*crds.CustomResourceDefinitions, error) {
	c := *main // its own copy: what is set below is not for the built-in kinds
	c.PostStartHooks = map[string]genericapiserver.PostStartHookConfigEntry{}
	// The hook would end the process if the server is stopped while it waits; boot waits in its place.
	c.DisabledPostStartHooks = sets.NewString("crd-informer-synced")
	c.MergedResourceConfig = crds.DefaultAPIResourceConfigSource()
	c.Serializer = crds.Codecs
	c.RESTOptionsGetter = s.store.RESTOptions(definitionLayout)
	// Requests come through the main server's chain; nothing passes this one's.
	c.BuildHandlerChainFunc = func(api http.Handler, _ *genericapiserver.Config) http.Handler { return api }
	c.SkipOpenAPIInstallation = false
	definitions := openapi.GetOpenAPIDefinitionsWithoutDisabledFeatures(generatedopenapi.GetOpenAPIDefinitions)
	names := openapinamer.NewDefinitionNamer(crds.Scheme, scheme.Scheme)
	c.OpenAPIConfig = genericapiserver.DefaultOpenAPIConfig(definitions, names)
	c.OpenAPIV3Config = genericapiserver.DefaultOpenAPIV3Config(definitions, names)
	present(c.OpenAPIConfig, c.OpenAPIV3Config)
	config := crds.Config{
		GenericConfig: &genericapiserver.RecommendedConfig{Config: c},
		ExtraConfig: crds.ExtraConfig{
			CRDRESTOptionsGetter: recorded{s.store.RESTOptions(customLayout), &s.counts.defined},
			// With several servers a definition is announced only when the others have had time to see it.
			MasterCount:         s.store.Members(),
			ServiceResolver:     s.kubelets,
			AuthResolverWrapper: webhookAuth(main.LoopbackClientConfig),
		},
	}
	last := notfoundhandler.New(main.Serializer, filters.NoMuxAndDiscoveryIncompleteKey)
	return config.Complete().New(genericapiserver.NewEmptyDelegateWithCustomHandler(last))
}

// withoutProtobuf answers those who write custom resources in protobuf, which have no types in it. The library panics over their
// bodies, and the connection ends without an answer (as upstream's does).
func (s *Server) withoutProtobuf(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		info, ok := apirequest.RequestInfoFrom(r.Context())
		if !ok || info.Verb != "create" && info.Verb != "update" || info.Subresource == "scale" || !isProtobuf(r) || !s.defined(info) {
			next.ServeHTTP(w, r)
			return
		}
		err := negotiation.NewUnsupportedMediaTypeError([]string{runtime.ContentTypeJSON, runtime.ContentTypeYAML})
		responsewriters.ErrorNegotiated(err, crds.Codecs, schema.GroupVersion{Group: info.APIGroup, Version: info.APIVersion}, w, r)
	})
}

func isProtobuf(r *http.Request) bool {
	mediaType, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return mediaType == runtime.ContentTypeProtobuf
}

// defined tells whether a request is about a custom resource.
func (s *Server) defined(info *apirequest.RequestInfo) bool {
	_, err := s.custom.Apiextensions().V1().CustomResourceDefinitions().Lister().Get(info.Resource + "." + info.APIGroup)
	return err == nil
}

// definitionLayout: definitions are kept as JSON, as upstream keeps them.
func definitionLayout(gr schema.GroupResource, _ runtime.Object) (store.Resource, error) {
	return store.Resource{
		Codec:     &sameSpec{Codec: crds.Codecs.LegacyCodec(apiextensionsv1.SchemeGroupVersion)},
		Versioner: apiextensionsv1.SchemeGroupVersion,
		Prefix:    apiextensions.GroupName + "/" + gr.Resource,
	}, nil
}

// customLayout: custom resources are JSON without a Go type.
func customLayout(gr schema.GroupResource, _ runtime.Object) (store.Resource, error) {
	return store.Resource{Codec: unstructured.UnstructuredJSONScheme, Prefix: gr.Group + "/" + gr.Resource}, nil
}

// announceCustomGroups keeps /apis and the APIServices in step with the definitions. The library does so for the
// aggregated form only; in the other it leaves this to the aggregation layer.
func (s *Server) announceCustomGroups(custom *crds.CustomResourceDefinitions) error {
	s.custom = custom.Informers
	change := func(obj any) {
		if d, ok := obj.(cache.DeletedFinalStateUnknown); ok {
			obj = d.Obj
		}
		if crd, ok := obj.(*apiextensionsv1.CustomResourceDefinition); ok {
			s.announce(crd.Spec.Group)
		}
	}
	var err error
	s.announced, err = custom.Informers.Apiextensions().V1().CustomResourceDefinitions().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: change, UpdateFunc: func(_, obj any) { change(obj) }, DeleteFunc: change,
	})
	if err != nil {
		return fmt.Errorf("watch definitions: %w", err)
	}
	return nil
}

// announce brings what is said of a group that is not built in to what definitions and other servers make of it.
func (s *Server) announce(group string) {
	all, err := s.custom.Apiextensions().V1().CustomResourceDefinitions().Lister().List(labels.Everything())
	if err != nil || s.builtin[group] {
		return
	}
	var defined []string
	for _, v := range groupOf(group, all).Versions {
		defined = append(defined, v.Version)
	}
	s.aggregator.RegisterCustom(group, defined)
	s.announcing.Lock()
	defer s.announcing.Unlock()
	if g := groupOf(group, all, s.aggregator.Versions(group)...); len(g.Versions) > 0 {
		s.generic.DiscoveryGroupManager.AddGroup(g)
	} else {
		s.generic.DiscoveryGroupManager.RemoveGroup(group)
	}
}

// groupOf describes a group by its established definitions and further versions, in the order of preference (v1 before
// v1beta1).
func groupOf(name string, all []*apiextensionsv1.CustomResourceDefinition, versions ...string) metav1.APIGroup {
	for _, crd := range all {
		if crd.Spec.Group != name || !established(crd) {
			continue
		}
		for _, v := range crd.Spec.Versions {
			if v.Served && !slices.Contains(versions, v.Name) {
				versions = append(versions, v.Name)
			}
		}
	}
	slices.SortFunc(versions, func(a, b string) int { return -version.CompareKubeAwareVersionStrings(a, b) })
	return describe(name, versions...)
}

// describe is what discovery says of a group, the preferred version first.
func describe(name string, versions ...string) metav1.APIGroup {
	g := metav1.APIGroup{Name: name}
	for _, v := range versions {
		g.Versions = append(g.Versions, metav1.GroupVersionForDiscovery{GroupVersion: name + "/" + v, Version: v})
	}
	if len(g.Versions) > 0 {
		g.PreferredVersion = g.Versions[0]
	}
	return g
}

func established(crd *apiextensionsv1.CustomResourceDefinition) bool {
	return slices.ContainsFunc(crd.Status.Conditions, func(c apiextensionsv1.CustomResourceDefinitionCondition) bool {
		return c.Type == apiextensionsv1.Established && c.Status == apiextensionsv1.ConditionTrue
	})
}

// ResolveEndpoint implements webhook.ServiceResolver: it finds a ready pod behind a Service, so that webhooks work
// where this machine has no Service proxy.
func (k *kubelets) ResolveEndpoint(namespace, name string, port int32) (*url.URL, error) {
	ctx := apirequest.WithNamespace(context.Background(), namespace)
	svc, err := read[*corev1.Service](ctx, k.objects, "services", namespace, name, false)
	if err != nil {
		return nil, err
	}
	portName, err := servicePort(svc, port)
	if err != nil {
		return nil, err
	}
	if svc.Spec.Type == corev1.ServiceTypeExternalName {
		return &url.URL{Scheme: "https", Host: fmt.Sprintf("%s:%d", strings.TrimSuffix(svc.Spec.ExternalName, "."), port)}, nil
	}
	slices, err := k.slicesOf(ctx, name)
	if err != nil {
		return nil, err
	}
	host, err := proxy.RandomEndpoint(name, slices, portName, "", nil)
	if err != nil {
		return nil, err
	}
	return &url.URL{Scheme: "https", Host: host}, nil
}
