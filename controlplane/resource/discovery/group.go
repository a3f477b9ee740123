package discovery

import (
	"context"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
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
		Kind: "EndpointSlice", Plural: "endpointslices", Namespaced: true,
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
		PrepareForCreate: func(_ context.Context, s *discoveryv1.EndpointSlice) {
			s.Generation = 1
			dropTopology(s, &discoveryv1.EndpointSlice{})
		},
		PrepareForUpdate: func(_ context.Context, s, old *discoveryv1.EndpointSlice) {
			if changed(s, old) {
				s.Generation = old.Generation + 1
			}
			if !check.Same(s.Endpoints, old.Endpoints) {
				dropTopology(s, old)
			}
		},
		Validate: func(_ context.Context, s *discoveryv1.EndpointSlice) field.ErrorList {
			return validate(s, nil)
		},
		Warnings: func(_ context.Context, s, old *discoveryv1.EndpointSlice) []string { return warnings(s, old == nil) },
		ValidateUpdate: func(_ context.Context, s, old *discoveryv1.EndpointSlice) field.ErrorList {
			errs := validate(s, old)
			if s.AddressType != old.AddressType {
				errs = append(errs, field.Invalid(field.NewPath("addressType"), nil, apivalidation.FieldImmutableErrorMsg))
			}
			return errs
		},
	})
}

// changed counts labels, by which a slice belongs to its Service, but no other metadata.
func changed(s, old *discoveryv1.EndpointSlice) bool {
	return !check.Same(s.Labels, old.Labels) || s.AddressType != old.AddressType || !check.Same(s.Ports, old.Ports) ||
		!check.Same(s.Endpoints, old.Endpoints)
}

// Slices that a controller of the system writes are not warned about: they copy what others are responsible for.
var controllers = []string{"endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io"}

func warnings(s *discoveryv1.EndpointSlice, isNew bool) []string {
	var list []string
	if isNew && s.AddressType == discoveryv1.AddressTypeFQDN {
		list = append(list, "spec.addressType: FQDN endpoints are deprecated")
	}
	if s.AddressType == discoveryv1.AddressTypeFQDN || slices.Contains(controllers, s.Labels[discoveryv1.LabelManagedBy]) {
		return list
	}
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

// dropTopology: topology belongs to an older version of the API, and nothing is written to it any more. Where it named a
// node that the old slice has in the same way, the node's own field takes it over.
func dropTopology(s, old *discoveryv1.EndpointSlice) {
	known := map[string]bool{}
	for _, e := range old.Endpoints {
		known[e.DeprecatedTopology[corev1.LabelHostname]] = true
	}
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		node, ok := e.DeprecatedTopology[corev1.LabelHostname]
		if e.NodeName == nil && ok && known[node] && len(apivalidation.NameIsDNSSubdomain(node, false)) == 0 {
			e.NodeName = &node
		}
		e.DeprecatedTopology = nil
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
