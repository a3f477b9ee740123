package apiserver

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	genericapiserver "k8s.io/apiserver/pkg/server"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/controlplane/admission"
	"keelson.dev/keelson/controlplane/informer"
)

// admit builds what looks at each write between authorization and storage.
func (s *Server) admit(c *genericapiserver.Config) error {
	config := s.loopback.config(systemUser)
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	dyn, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	s.informers = s.newInformers(client, direct{corev1.Resource("namespaces"): &corev1.Namespace{}})
	s.share(c, client)
	c.AdmissionControl, err = admission.New(admission.Deps{
		Client: client, Informers: s.informers, Authorizer: s.authz.all, Stop: s.stopping,
		Dynamic: dyn, RESTMapper: &freshMapper{ResettableRESTMapper: restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client.Discovery())), now: time.Now},
		Features: utilfeature.DefaultFeatureGate, Version: c.EffectiveVersion,
		Services: s.kubelets, WebhookAuth: webhookAuth(config),
	})
	return err
}

// direct are the kinds whose informers read the watch cache itself instead of asking by HTTP: their objects are then
// in memory once. Their readers must not change them, which holds for every informer.
type direct map[schema.GroupResource]runtime.Object

func (s *Server) newInformers(client kubernetes.Interface, kinds direct) informers.SharedInformerFactory {
	f := informer.New(client, informer.Options{Transform: s.Shared()})
	for gr, example := range kinds {
		if s.stores[gr] == nil {
			continue
		}
		f.InformerFor(example, func(kubernetes.Interface, time.Duration) cache.SharedIndexInformer {
			return cache.NewSharedIndexInformer(s.source(gr), example, 0, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
		})
	}
	return f
}

// resolve says in which resource objects of a kind are served, by what discovery tells at this moment.
func (s *Server) resolve(kind schema.GroupVersionKind) (string, error) {
	client, err := discovery.NewDiscoveryClientForConfig(s.loopback.config(systemUser))
	if err != nil {
		return "", err
	}
	list, err := client.ServerResourcesForGroupVersion(kind.GroupVersion().String())
	if err != nil {
		return "", err
	}
	for _, r := range list.APIResources {
		if r.Kind == kind.Kind && !strings.Contains(r.Name, "/") && (r.Group == "" || r.Group == kind.Group) && (r.Version == "" || r.Version == kind.Version) {
			return r.Name, nil
		}
	}
	return "", &meta.NoKindMatchError{GroupKind: kind.GroupKind(), SearchedVersions: []string{kind.Version}}
}
