package core

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/check"
	"keelson.dev/keelson/controlplane/resource/column"
	"keelson.dev/keelson/controlplane/resource/volumesource"
)

// Endpoints that the controller writes are not warned about: it copies what others are responsible for.
const (
	endpointsManagedBy  = "endpoints.kubernetes.io/managed-by"
	endpointsController = "endpoint-controller"
)

func endpointsKind() resource.Kind {
	return resource.Of(resource.Kind{
		Kind: "Endpoints", Plural: "endpoints", Singular: "endpoints", ShortNames: []string{"ep"}, Namespaced: true,
		New:                 func() runtime.Object { return &corev1.Endpoints{} },
		NewList:             func() runtime.Object { return &corev1.EndpointsList{} },
		AllowCreateOnUpdate: true,
		Columns: []resource.Column{
			resource.Col("Endpoints", "string", column.Doc(corev1.Endpoints{}, "subsets"), 0, func(e *corev1.Endpoints) any { return endpointTexts(e) }),
		},
	}, resource.Rules[*corev1.Endpoints]{
		Default: func(e *corev1.Endpoints) {
			for i := range e.Subsets {
				for j := range e.Subsets[i].Ports {
					if p := &e.Subsets[i].Ports[j]; p.Protocol == "" {
						p.Protocol = corev1.ProtocolTCP
					}
				}
			}
		},
		Validate: func(_ context.Context, e *corev1.Endpoints) field.ErrorList { return validateSubsets(e.Subsets) },
		ValidateUpdate: func(_ context.Context, e, old *corev1.Endpoints) field.ErrorList {
			// What is unchanged was accepted once.
			if errs := validateSubsets(e.Subsets); len(errs) > 0 && !equality.Semantic.DeepEqual(e.Subsets, old.Subsets) {
				return errs
			}
			return nil
		},
		Warnings: func(_ context.Context, e, _ *corev1.Endpoints) []string { return endpointsWarnings(e) },
	})
}

// endpointTexts prints the first three and how many more there are.
func endpointTexts(e *corev1.Endpoints) string {
	const most = 3
	if len(e.Subsets) == 0 {
		return "<none>"
	}
	var all []string
	for _, s := range e.Subsets {
		if len(s.Ports) == 0 { // a headless Service may have none
			for _, a := range s.Addresses {
				all = append(all, a.IP)
			}
		}
		for _, p := range s.Ports {
			for _, a := range s.Addresses {
				all = append(all, net.JoinHostPort(a.IP, strconv.Itoa(int(p.Port))))
			}
		}
	}
	if len(all) > most {
		return fmt.Sprintf("%s + %d more...", strings.Join(all[:most], ","), len(all)-most)
	}
	return strings.Join(all, ",")
}

func validateSubsets(subsets []corev1.EndpointSubset) field.ErrorList {
	var errs field.ErrorList
	for i, s := range subsets {
		path := field.NewPath("subsets").Index(i)
		if len(s.Addresses)+len(s.NotReadyAddresses) == 0 {
			errs = append(errs, field.Required(path, "must specify `addresses` or `notReadyAddresses`"))
		}
		for j := range s.Addresses {
			errs = append(errs, validateAddress(&s.Addresses[j], path.Child("addresses").Index(j))...)
		}
		for j := range s.NotReadyAddresses {
			errs = append(errs, validateAddress(&s.NotReadyAddresses[j], path.Child("notReadyAddresses").Index(j))...)
		}
		for j := range s.Ports {
			errs = append(errs, validateEndpointPort(&s.Ports[j], len(s.Ports) > 1, path.Child("ports").Index(j))...)
		}
	}
	return errs
}

func validateAddress(a *corev1.EndpointAddress, path *field.Path) field.ErrorList {
	errs := validation.IsValidIPForLegacyField(path.Child("ip"), a.IP, true, nil)
	if a.Hostname != "" {
		errs = append(errs, check.Strings(validation.IsDNS1123Label(a.Hostname), path.Child("hostname"), a.Hostname)...)
	}
	if a.NodeName != nil {
		errs = append(errs, volumesource.Name(*a.NodeName, path.Child("nodeName"))...)
	}
	return append(errs, validateEndpointIP(a.IP, path.Child("ip"))...)
}

func validateEndpointPort(p *corev1.EndpointPort, nameRequired bool, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if p.Name != "" {
		errs = append(errs, check.Strings(validation.IsDNS1123Label(p.Name), path.Child("name"), p.Name)...)
	} else if nameRequired {
		errs = append(errs, field.Required(path.Child("name"), ""))
	}
	errs = append(errs, check.Strings(validation.IsValidPortNum(int(p.Port)), path.Child("port"), p.Port)...)
	errs = append(errs, required(p.Protocol, path.Child("protocol"), check.Protocols...)...)
	if p.AppProtocol != nil {
		errs = append(errs, check.Strings(validation.IsQualifiedName(*p.AppProtocol), path.Child("appProtocol"), *p.AppProtocol)...)
	}
	return errs
}

func endpointsWarnings(e *corev1.Endpoints) []string {
	if e.Labels[endpointsManagedBy] == endpointsController {
		return nil
	}
	var warnings []string
	for i, s := range e.Subsets {
		path := field.NewPath("subsets").Index(i)
		for j, a := range s.Addresses {
			warnings = append(warnings, validation.GetWarningsForIP(path.Child("addresses").Index(j).Child("ip"), a.IP)...)
		}
		for j, a := range s.NotReadyAddresses {
			warnings = append(warnings, validation.GetWarningsForIP(path.Child("notReadyAddresses").Index(j).Child("ip"), a.IP)...)
		}
	}
	return warnings
}
