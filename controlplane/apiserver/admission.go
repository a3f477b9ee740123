package apiserver

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/namespace/lifecycle"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// admit builds what looks at each write between authorization and storage.
func (s *Server) admit(c *genericapiserver.Config) error {
	client, err := kubernetes.NewForConfig(s.loopback.config(systemUser))
	if err != nil {
		return err
	}
	s.informers = s.newInformers(client)
	life, err := lifecycle.NewLifecycle(sets.New(metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic))
	if err != nil {
		return fmt.Errorf("admission of namespaces: %w", err)
	}
	life.SetExternalKubeClientSet(client)
	life.SetExternalKubeInformerFactory(s.informers)
	if err := life.ValidateInitialization(); err != nil {
		return fmt.Errorf("admission of namespaces: %w", err)
	}
	c.AdmissionControl = admission.NewChainHandler(life)
	return nil
}

// direct are the kinds whose informers read the watch cache itself instead of asking by HTTP: their objects are then
// in memory once. Their readers must not change them, which holds for every informer.
var direct = map[schema.GroupResource]runtime.Object{
	corev1.Resource("namespaces"): &corev1.Namespace{},
}

func (s *Server) newInformers(client kubernetes.Interface) informers.SharedInformerFactory {
	f := informers.NewSharedInformerFactory(client, 0)
	for gr, example := range direct {
		if s.stores[gr] == nil {
			continue
		}
		f.InformerFor(example, func(kubernetes.Interface, time.Duration) cache.SharedIndexInformer {
			return cache.NewSharedIndexInformer(s.source(gr), example, 0, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
		})
	}
	return f
}
