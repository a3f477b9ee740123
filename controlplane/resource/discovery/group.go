package discovery

import (
	"context"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/cell"
	"keelson.dev/keelson/controlplane/resource/check"
)

// Group is discovery.k8s.io.
func Group() resource.Group {
	return resource.Group{
		Name:        discoveryv1.GroupName,
		Versions:    []string{"v1"},
		AddToScheme: []func(*runtime.Scheme) error{discoveryv1.AddToScheme},
		Kinds:       []resource.Kind{endpointSlice()},
	}
}

func endpointSlice() resource.Kind {
	doc := discoveryv1.EndpointSlice{}.SwaggerDoc()
	return resource.Of(resource.Kind{
		Kind: "EndpointSlice", Plural: "endpointslices", Namespaced: true, HasGeneration: true,
		New:     func() runtime.Object { return &discoveryv1.EndpointSlice{} },
		NewList: func() runtime.Object { return &discoveryv1.EndpointSliceList{} },
		Columns: []resource.Column{
			resource.Col("AddressType", "string", doc["addressType"], 0,
				func(s *discoveryv1.EndpointSlice) any { return string(s.AddressType) }),
			resource.Col("Ports", "string", doc["ports"], 0, ports),
			resource.Col("Endpoints", "string", doc["endpoints"], 0, addresses),
		},
	}, resource.Rules[*discoveryv1.EndpointSlice]{
		Default: setDefaults,
		// Topology belongs to an older version of the API: what is there is kept, nothing new is taken.
		PrepareForCreate: func(_ context.Context, s *discoveryv1.EndpointSlice) { dropTopology(s, nil) },
		PrepareForUpdate: func(_ context.Context, s, old *discoveryv1.EndpointSlice) { dropTopology(s, old) },
		Validate: func(_ context.Context, s *discoveryv1.EndpointSlice) field.ErrorList {
			return validate(s, nil)
		},
		Warnings: func(_ context.Context, s, _ *discoveryv1.EndpointSlice) []string { return warnings(s) },
		ValidateUpdate: func(_ context.Context, s, old *discoveryv1.EndpointSlice) field.ErrorList {
			return append(validate(s, old), check.Immutable(s.AddressType, old.AddressType, field.NewPath("addressType"))...)
		},
	})
}

func warnings(s *discoveryv1.EndpointSlice) []string {
	if s.AddressType == discoveryv1.AddressTypeFQDN {
		return []string{"spec.addressType: FQDN endpoints are deprecated"}
	}
	var list []string
	for i, e := range s.Endpoints {
		for j, a := range e.Addresses {
			list = append(list, validation.GetWarningsForIP(field.NewPath("endpoints").Index(i).Child("addresses").Index(j), a)...)
		}
	}
	return list
}

func setDefaults(s *discoveryv1.EndpointSlice) {
	for i := range s.Ports {
		p := &s.Ports[i]
		if p.Name == nil {
			p.Name = ptr.To("")
		}
		if p.Protocol == nil {
			p.Protocol = ptr.To(corev1.ProtocolTCP)
		}
	}
}

func dropTopology(s, old *discoveryv1.EndpointSlice) {
	kept := func(topology map[string]string) bool {
		if old == nil {
			return false
		}
		for _, e := range old.Endpoints {
			if len(e.DeprecatedTopology) > 0 && check.Same(e.DeprecatedTopology, topology) {
				return true
			}
		}
		return false
	}
	for i := range s.Endpoints {
		if e := &s.Endpoints[i]; e.DeprecatedTopology != nil && !kept(e.DeprecatedTopology) {
			e.DeprecatedTopology = nil
		}
	}
}

func ports(s *discoveryv1.EndpointSlice) any {
	var list []string
	for _, p := range s.Ports {
		switch {
		case p.Port != nil:
			list = append(list, strconv.Itoa(int(*p.Port)))
		case p.Name != nil:
			list = append(list, *p.Name)
		default:
			list = append(list, "*")
		}
	}
	return cell.List(list)
}

func addresses(s *discoveryv1.EndpointSlice) any {
	var list []string
	for _, e := range s.Endpoints {
		list = append(list, e.Addresses...)
	}
	return cell.List(list)
}
