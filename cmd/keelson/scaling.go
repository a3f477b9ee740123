package main

import (
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/scale"
	metricsv1beta1 "k8s.io/metrics/pkg/client/clientset/versioned/typed/metrics/v1beta1"
	custommetrics "k8s.io/metrics/pkg/client/custom_metrics"
	externalmetrics "k8s.io/metrics/pkg/client/external_metrics"

	"keelson.dev/keelson/controlplane/controller"
	"keelson.dev/keelson/controlplane/controller/disruption"
	"keelson.dev/keelson/controlplane/controller/podautoscaler"
)

// scales reads and writes the scale of any kind, as a service account in kube-system.
type scales struct {
	scale.ScalesGetter
	config *rest.Config
	cached discovery.CachedDiscoveryInterface
	mapper meta.ResettableRESTMapper
}

func (p *plane) scales(account string) (s scales, err error) {
	s.config = p.as(serviceaccount.MakeUsername("kube-system", account), serviceaccount.MakeGroupNames("kube-system")...)
	finder, err := discovery.NewDiscoveryClientForConfig(s.config)
	if err != nil {
		return s, err
	}
	s.cached = memory.NewMemCacheClient(finder)
	s.mapper = restmapper.NewDeferredDiscoveryRESTMapper(s.cached)
	s.ScalesGetter, err = scale.NewForConfig(s.config, s.mapper, dynamic.LegacyAPIPathResolverFunc, scale.NewDiscoveryScaleKindResolver(s.cached))
	return s, err
}

// disruption also reads the scale of what is not built in.
func (p *plane) disruption(d controller.Deps) (*controller.Loop, error) {
	s, err := p.scales("disruption-controller")
	if err != nil {
		return nil, err
	}
	return disruption.New(disruption.Deps{Deps: d, Scales: s, Mapper: s.mapper})
}

// autoscaler also writes scales, and reads metrics.
func (p *plane) autoscaler(d controller.Deps) (*controller.Loop, error) {
	s, err := p.scales("horizontal-pod-autoscaler")
	if err != nil {
		return nil, err
	}
	resources, err := metricsv1beta1.NewForConfig(s.config)
	if err != nil {
		return nil, err
	}
	external, err := externalmetrics.NewForConfig(s.config)
	if err != nil {
		return nil, err
	}
	custom := custommetrics.NewForConfig(s.config, s.mapper, custommetrics.NewAvailableAPIsGetter(s.cached))
	return podautoscaler.New(podautoscaler.Deps{Deps: d, Scales: s, Mapper: s.mapper,
		Metrics: podautoscaler.Metrics{Resources: resources, Custom: custom, External: external}})
}
