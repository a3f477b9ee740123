package apiserver

import (
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	crdinformers "k8s.io/apiextensions-apiserver/pkg/client/informers/externalversions"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/discovery/aggregated"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/metrics/pkg/apis/metrics"

	"keelson.dev/keelson/controlplane/apiserver/aggregator"
	"keelson.dev/keelson/controlplane/auth"
	"keelson.dev/keelson/controlplane/resource"
)

// aggregation is what the server has to let definitions and other servers add to its API.
type aggregation struct {
	// custom feeds the server of custom resources; announced tells when the groups it defines are known.
	custom     crdinformers.SharedInformerFactory
	announced  cache.ResourceEventHandlerRegistration
	aggregator *aggregator.Aggregator
	builtin    map[string]bool // groups
	announcing sync.Mutex      // one announcement at a time
	counts     counts
}

// aggregate makes the aggregator and tells it what is served here.
func (s *Server) aggregate(c *genericapiserver.Config, groups []resource.Group) error {
	pair, err := s.pki.FrontProxy.Issue(auth.Leaf{CommonName: auth.FrontProxyName, Client: true})
	if err != nil {
		return fmt.Errorf("front proxy's certificate: %w", err)
	}
	config := s.loopback.config(systemUser)
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	s.aggregator, err = aggregator.New(aggregator.Config{
		Client: config, Cert: pair.Cert, Key: pair.Key, Resolver: s.kubelets, Announce: s.announce, Log: s.log,
		Discovery: c.AggregatedDiscoveryGroupManager.WithSource(aggregated.AggregatorSource),
		Informers: func() informers.SharedInformerFactory {
			return s.newInformers(client, direct{corev1.Resource("services"): &corev1.Service{}, discoveryv1.Resource("endpointslices"): &discoveryv1.EndpointSlice{}})
		},
	})
	if err != nil {
		return err
	}
	s.builtin = map[string]bool{apiextensions.GroupName: true}
	s.aggregator.RegisterBuiltin(schema.GroupVersion{Group: apiextensions.GroupName, Version: "v1"})
	for _, g := range groups {
		s.builtin[g.Name] = true
		if g.Name == apiregistrationv1.GroupName {
			continue // its own group is nobody's to serve, and upstream lists none for it
		}
		for _, v := range g.Versions {
			gv := schema.GroupVersion{Group: g.Name, Version: v}
			if g.Name == metrics.GroupName {
				s.aggregator.RegisterReplaceable(gv) // upstream has none: whoever wants another's installs it
				continue
			}
			s.aggregator.RegisterBuiltin(gv)
		}
	}
	return nil
}
