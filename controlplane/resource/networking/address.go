package networking

import (
	"context"
	"net/netip"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/api/validation/path"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/cell"
	"keelson.dev/keelson/controlplane/resource/check"
)

func ipAddress() resource.Kind {
	type address = networkingv1.IPAddress
	return resource.Of(resource.Kind{
		Kind: "IPAddress", Plural: "ipaddresses", Singular: "ipaddress", ShortNames: []string{"ip"}, NoAge: true,
		ValidateName: canonicalAddress,
		New:          func() runtime.Object { return &address{} },
		NewList:      func() runtime.Object { return &networkingv1.IPAddressList{} },
		Columns: []resource.Column{
			cell.Name(),
			resource.Col("ParentRef", "string", networkingv1.IPAddressSpec{}.SwaggerDoc()["parentRef"], 0,
				func(a *address) any { return parentCell(a.Spec.ParentRef) }),
		},
	}, resource.Rules[*address]{
		Validate: func(_ context.Context, a *address) field.ErrorList {
			return validateParent(a.Spec.ParentRef, field.NewPath("spec", "parentRef"))
		},
		ValidateUpdate: func(_ context.Context, a, old *address) field.ErrorList {
			at := field.NewPath("spec", "parentRef")
			errs := validateParent(a.Spec.ParentRef, at)
			if !check.Same(a.Spec.ParentRef, old.Spec.ParentRef) {
				errs = append(errs, field.Invalid(at, nil, apivalidation.FieldImmutableErrorMsg))
			}
			return errs
		},
	})
}

// canonicalAddress: the object's name is the address, so that one address cannot be given out under two spellings.
func canonicalAddress(name string, _ bool) []string {
	var messages []string
	for _, e := range validation.IsValidIP(nil, name) {
		messages = append(messages, e.Detail)
	}
	if len(messages) > 0 {
		return messages
	}
	if a, err := netip.ParseAddr(name); err != nil || a.String() != name {
		return []string{"must be a valid IP address in canonical form"}
	}
	return nil
}

func validateParent(p *networkingv1.ParentReference, at *field.Path) field.ErrorList {
	if p == nil {
		return field.ErrorList{field.Required(at, "")}
	}
	var errs field.ErrorList
	if p.Group != "" {
		errs = append(errs, check.Strings(validation.IsDNS1123Subdomain(p.Group), at.Child("group"), p.Group)...)
	}
	for _, part := range []struct{ field, value string }{{"resource", p.Resource}, {"name", p.Name}} {
		if part.value == "" {
			errs = append(errs, field.Required(at.Child(part.field), ""))
		} else {
			errs = append(errs, check.Strings(path.IsValidPathSegmentName(part.value), at.Child(part.field), part.value)...)
		}
	}
	if p.Namespace != "" {
		errs = append(errs, check.Strings(path.IsValidPathSegmentName(p.Namespace), at.Child("namespace"), p.Namespace)...)
	}
	return errs
}

func parentCell(p *networkingv1.ParentReference) string {
	if p == nil {
		return "<none>"
	}
	gr := schema.GroupResource{Group: p.Group, Resource: p.Resource}
	text := strings.ToLower(gr.String())
	if p.Namespace != "" {
		text += "/" + p.Namespace
	}
	return text + "/" + p.Name
}

func serviceCIDR() resource.Kind {
	type cidr = networkingv1.ServiceCIDR
	return resource.Of(resource.Kind{
		Kind: "ServiceCIDR", Plural: "servicecidrs", HasStatus: true,
		New:     func() runtime.Object { return &cidr{} },
		NewList: func() runtime.Object { return &networkingv1.ServiceCIDRList{} },
		Columns: []resource.Column{
			resource.Col("CIDRs", "string", networkingv1.ServiceCIDRSpec{}.SwaggerDoc()["cidrs"], 0,
				func(c *cidr) any { return strings.Join(c.Spec.CIDRs, ",") }),
		},
	}, resource.Rules[*cidr]{
		Validate: func(_ context.Context, c *cidr) field.ErrorList {
			return validateCIDRs(&c.Spec, field.NewPath("spec", "cidrs"))
		},
		ValidateUpdate: func(_ context.Context, c, old *cidr) field.ErrorList {
			return validateCIDRChange(&c.Spec, &old.Spec, field.NewPath("spec", "cidrs"))
		},
		PrepareStatusUpdate: func(_ context.Context, c, old *cidr) { metav1.ResetObjectMetaForStatus(c, old) },
	})
}

// validateCIDRChange: nothing may change, but that a range of the other family joins a single one.
func validateCIDRChange(s, old *networkingv1.ServiceCIDRSpec, at *field.Path) field.ErrorList {
	const fixed = apivalidation.FieldImmutableErrorMsg
	joins := len(old.CIDRs) == 1 && len(s.CIDRs) == 2
	if len(s.CIDRs) != len(old.CIDRs) && !joins {
		return field.ErrorList{field.Invalid(at, s.CIDRs, fixed)}
	}
	var errs field.ErrorList
	for i, was := range old.CIDRs {
		if s.CIDRs[i] != was {
			errs = append(errs, field.Invalid(at.Index(i), s.CIDRs[i], fixed))
		}
	}
	if joins {
		errs = append(errs, validateCIDRs(s, at)...)
	}
	return errs
}

func validateCIDRs(s *networkingv1.ServiceCIDRSpec, at *field.Path) field.ErrorList {
	switch {
	case len(s.CIDRs) == 0:
		return field.ErrorList{field.Required(at, "at least one CIDR required")}
	case len(s.CIDRs) > 2:
		return field.ErrorList{field.Invalid(at, s, "may only hold up to 2 values")}
	}
	var errs field.ErrorList
	for i, c := range s.CIDRs {
		errs = append(errs, validation.IsValidCIDR(at.Index(i), c)...)
	}
	if len(s.CIDRs) == 2 {
		a, b := netutils.IPFamilyOfCIDRString(s.CIDRs[0]), netutils.IPFamilyOfCIDRString(s.CIDRs[1])
		if a == b && a != netutils.IPFamilyUnknown {
			errs = append(errs, field.Invalid(at, s.CIDRs, "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"))
		}
	}
	return errs
}
