package apiserver

import (
	"fmt"
	"path"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	genericapi "k8s.io/apiserver/pkg/endpoints"
	"k8s.io/apiserver/pkg/endpoints/discovery"
	"k8s.io/apiserver/pkg/endpoints/discovery/aggregated"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	genericapiserver "k8s.io/apiserver/pkg/server"

	"keelson.dev/keelson/controlplane/resource"
)

// installer puts groups on a generic server. The library's own InstallAPIGroups would build OpenAPI models of all
// types first, which costs more than the rest of the start; here the models come later (typeConverter).
type installer struct {
	server    *genericapiserver.GenericAPIServer
	codecs    codecs
	config    *genericapiserver.Config
	converter managedfields.TypeConverter
}

// versions are a group's endpoints: by version, by path.
type versions map[string]map[string]rest.Storage

// storages builds every kind of a group. stores receives each stored kind's store.
func (b builder) storages(g resource.Group, stores map[schema.GroupResource]*genericregistry.Store) (versions, error) {
	out := versions{}
	for i := range g.Kinds {
		k := &g.Kinds[i]
		if k.Plural == "" {
			continue // a type that is only a subresource's
		}
		endpoints, st, err := b.build(g, k)
		if err != nil {
			return nil, fmt.Errorf("%s in group %q: %w", k.Plural, g.Name, err)
		}
		if st != nil {
			stores[st.DefaultQualifiedResource] = st
		}
		for _, v := range versionsOf(g, *k) {
			if out[v] == nil {
				out[v] = map[string]rest.Storage{}
			}
			for p, s := range endpoints {
				out[v][p] = s
			}
		}
	}
	return out, nil
}

func (in installer) install(g resource.Group, vs versions) error {
	if len(vs) == 0 {
		return nil // only types
	}
	root := genericapiserver.APIGroupPrefix
	discoverable := in.server.AggregatedDiscoveryGroupManager
	if g.Name == "" {
		root = genericapiserver.DefaultLegacyAPIPrefix
		discoverable = in.server.AggregatedLegacyDiscoveryGroupManager
	}
	served := map[string][]string{}
	for _, v := range g.Versions {
		for p := range vs[v] {
			served[p] = append(served[p], schema.GroupVersion{Group: g.Name, Version: v}.String())
		}
	}
	group := metav1.APIGroup{Name: g.Name}
	for _, v := range g.Versions {
		gv := schema.GroupVersion{Group: g.Name, Version: v}
		resources, _, err := in.version(root, gv, vs[v], served).InstallREST(in.server.Handler.GoRestfulContainer)
		if err != nil {
			return fmt.Errorf("install %s: %w", gv, err)
		}
		discoverable.AddGroupVersion(g.Name, apidiscoveryv2.APIVersionDiscovery{
			Freshness: apidiscoveryv2.DiscoveryFreshnessCurrent, Version: v, Resources: resources,
		})
		group.Versions = append(group.Versions, metav1.GroupVersionForDiscovery{GroupVersion: gv.String(), Version: v})
		for _, s := range vs[v] {
			in.server.RegisterDestroyFunc(s.Destroy)
		}
	}
	if g.Name == "" {
		in.installLegacyRoot()
		return nil
	}
	group.PreferredVersion = group.Versions[0]
	in.server.DiscoveryGroupManager.AddGroup(group)
	in.server.Handler.GoRestfulContainer.Add(discovery.NewAPIGroupHandler(in.codecs.factory, group).WebService())
	return nil
}

func (in installer) installLegacyRoot() {
	root := discovery.NewLegacyRootAPIHandler(in.config.DiscoveryAddresses, in.codecs.factory, genericapiserver.DefaultLegacyAPIPrefix)
	both := aggregated.WrapAggregatedDiscoveryToHandler(root, in.server.AggregatedLegacyDiscoveryGroupManager, in.server.AggregatedLegacyDiscoveryGroupManager)
	in.server.Handler.GoRestfulContainer.Add(both.GenerateWebService(genericapiserver.DefaultLegacyAPIPrefix, metav1.APIVersions{}))
}

func (in installer) version(root string, gv schema.GroupVersion, storage map[string]rest.Storage, served map[string][]string) *genericapi.APIGroupVersion {
	return &genericapi.APIGroupVersion{
		Storage:                     storage,
		Root:                        path.Clean(root),
		GroupVersion:                gv,
		AllServedVersionsByResource: served,
		OptionsExternalVersion:      &schema.GroupVersion{Version: "v1"},
		Serializer:                  in.codecs.factory,
		ParameterCodec:              in.codecs.params,
		Typer:                       in.codecs.scheme,
		Creater:                     in.codecs.scheme,
		Convertor:                   in.codecs.scheme,
		ConvertabilityChecker:       in.codecs.scheme,
		Defaulter:                   in.codecs.scheme,
		Namer:                       runtime.Namer(meta.NewAccessor()),
		UnsafeConvertor:             runtime.UnsafeObjectConvertor(in.codecs.scheme),
		TypeConverter:               in.converter,
		EquivalentResourceRegistry:  in.server.EquivalentResourceRegistry,
		Authorizer:                  in.server.Authorizer,
		Admit:                       in.config.AdmissionControl,
		MinRequestTimeout:           minWatch,
		MaxRequestBodyBytes:         in.config.MaxRequestBodyBytes,
	}
}
