package networking

import (
	"context"
	"net/netip"
	"reflect"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/check"
)

func networkPolicy() resource.Kind {
	type policy = networkingv1.NetworkPolicy
	return resource.Of(resource.Kind{
		Kind: "NetworkPolicy", Plural: "networkpolicies", ShortNames: []string{"netpol"}, Namespaced: true, HasGeneration: true,
		New:     func() runtime.Object { return &policy{} },
		NewList: func() runtime.Object { return &networkingv1.NetworkPolicyList{} },
		Columns: []resource.Column{
			resource.Col("Pod-Selector", "string", networkingv1.NetworkPolicySpec{}.SwaggerDoc()["podSelector"], 0,
				func(p *policy) any { return metav1.FormatLabelSelector(&p.Spec.PodSelector) }),
		},
	}, resource.Rules[*policy]{
		Default: defaultPolicy,
		// An empty list in the place of none counts as a change here.
		PrepareForUpdate: func(_ context.Context, p, old *policy) {
			if !reflect.DeepEqual(p.Spec, old.Spec) {
				p.Generation = old.Generation + 1
			}
		},
		Validate: func(_ context.Context, p *policy) field.ErrorList {
			return validatePolicy(&p.Spec, nil, field.NewPath("spec"))
		},
		ValidateUpdate: func(_ context.Context, p, old *policy) field.ErrorList {
			return validatePolicy(&p.Spec, &old.Spec, field.NewPath("spec"))
		},
		Warnings: func(_ context.Context, p, _ *policy) []string { return policyWarnings(&p.Spec, field.NewPath("spec")) },
	})
}

// policyWarnings names the ranges that are written in a way which other software may read differently.
func policyWarnings(s *networkingv1.NetworkPolicySpec, path *field.Path) []string {
	var list []string
	peers := func(peers []networkingv1.NetworkPolicyPeer, at *field.Path) {
		for i, p := range peers {
			if p.IPBlock == nil {
				continue
			}
			block := at.Index(i).Child("ipBlock")
			list = append(list, validation.GetWarningsForCIDR(block.Child("cidr"), p.IPBlock.CIDR)...)
			for j, e := range p.IPBlock.Except {
				list = append(list, validation.GetWarningsForCIDR(block.Child("except").Index(j), e)...)
			}
		}
	}
	for i, r := range s.Ingress {
		peers(r.From, path.Child("ingress").Index(i).Child("from"))
	}
	for i, r := range s.Egress {
		peers(r.To, path.Child("egress").Index(i).Child("to"))
	}
	return list
}

func defaultPolicy(p *networkingv1.NetworkPolicy) {
	if len(p.Spec.PolicyTypes) == 0 {
		p.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
		if len(p.Spec.Egress) > 0 {
			p.Spec.PolicyTypes = append(p.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
		}
	}
	for i := range p.Spec.Ingress {
		defaultPorts(p.Spec.Ingress[i].Ports)
	}
	for i := range p.Spec.Egress {
		defaultPorts(p.Spec.Egress[i].Ports)
	}
}

func defaultPorts(ports []networkingv1.NetworkPolicyPort) {
	for i := range ports {
		if ports[i].Protocol == nil {
			ports[i].Protocol = ptr.To(corev1.ProtocolTCP)
		}
	}
}

// leniency is what an update may keep of an old policy: label values that no rule would accept today,
// and CIDRs in sloppy notation.
type leniency struct {
	labels metavalidation.LabelSelectorValidationOptions
	cidrs  []string
}

func leniencyFor(old *networkingv1.NetworkPolicySpec) leniency {
	var l leniency
	if old == nil {
		return l
	}
	l.allow(&old.PodSelector)
	peers := func(list []networkingv1.NetworkPolicyPeer) {
		for _, p := range list {
			l.allow(p.PodSelector)
			l.allow(p.NamespaceSelector)
			if p.IPBlock != nil {
				l.cidrs = append(append(l.cidrs, p.IPBlock.CIDR), p.IPBlock.Except...)
			}
		}
	}
	for _, r := range old.Ingress {
		peers(r.From)
	}
	for _, r := range old.Egress {
		peers(r.To)
	}
	return l
}

func (l *leniency) allow(s *metav1.LabelSelector) {
	if s != nil && metavalidation.LabelSelectorHasInvalidLabelValue(s) {
		l.labels.AllowInvalidLabelValueInSelector = true
	}
}

func validatePolicy(s, old *networkingv1.NetworkPolicySpec, path *field.Path) field.ErrorList {
	l := leniencyFor(old)
	errs := metavalidation.ValidateLabelSelector(&s.PodSelector, l.labels, path.Child("podSelector"))
	for i, r := range s.Ingress {
		at := path.Child("ingress").Index(i)
		errs = append(errs, validatePolicyPorts(r.Ports, at.Child("ports"))...)
		errs = append(errs, l.validatePeers(r.From, at.Child("from"))...)
	}
	for i, r := range s.Egress {
		at := path.Child("egress").Index(i)
		errs = append(errs, validatePolicyPorts(r.Ports, at.Child("ports"))...)
		errs = append(errs, l.validatePeers(r.To, at.Child("to"))...)
	}
	if len(s.PolicyTypes) > 2 {
		return append(errs, field.Invalid(path.Child("policyTypes"), &s.PolicyTypes, "may not specify more than two policyTypes"))
	}
	for i, t := range s.PolicyTypes {
		errs = append(errs, check.OneOf(t, path.Child("policyTypes").Index(i), networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress)...)
	}
	return errs
}

func validatePolicyPorts(ports []networkingv1.NetworkPolicyPort, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := range ports {
		errs = append(errs, validatePolicyPort(&ports[i], path.Index(i))...)
	}
	return errs
}

func validatePolicyPort(p *networkingv1.NetworkPolicyPort, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if p.Protocol != nil {
		errs = append(errs, check.OneOf(*p.Protocol, path.Child("protocol"), corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP)...)
	}
	end := path.Child("endPort")
	switch {
	case p.Port == nil:
		if p.EndPort != nil {
			errs = append(errs, field.Invalid(end, *p.EndPort, "may not be specified when `port` is not specified"))
		}
	case p.Port.Type == intstr.Int:
		errs = append(errs, check.Strings(validation.IsValidPortNum(int(p.Port.IntVal)), path.Child("port"), p.Port.IntVal)...)
		if p.EndPort != nil {
			if *p.EndPort < p.Port.IntVal {
				errs = append(errs, field.Invalid(end, *p.EndPort, "must be greater than or equal to `port`"))
			}
			errs = append(errs, check.Strings(validation.IsValidPortNum(int(*p.EndPort)), end, *p.EndPort)...)
		}
	default:
		if p.EndPort != nil {
			errs = append(errs, field.Invalid(end, *p.EndPort, "may not be specified when `port` is non-numeric"))
		}
		errs = append(errs, check.Strings(validation.IsValidPortName(p.Port.StrVal), path.Child("port"), p.Port.StrVal)...)
	}
	return errs
}

func (l leniency) validatePeers(peers []networkingv1.NetworkPolicyPeer, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, p := range peers {
		at := path.Index(i)
		errs = append(errs, metavalidation.ValidateLabelSelector(p.PodSelector, l.labels, at.Child("podSelector"))...)
		errs = append(errs, metavalidation.ValidateLabelSelector(p.NamespaceSelector, l.labels, at.Child("namespaceSelector"))...)
		if p.IPBlock != nil {
			errs = append(errs, l.validateBlock(p.IPBlock, at.Child("ipBlock"))...)
		}
		switch selects := p.PodSelector != nil || p.NamespaceSelector != nil; {
		case !selects && p.IPBlock == nil:
			errs = append(errs, field.Required(at, "must specify a peer"))
		case selects && p.IPBlock != nil:
			errs = append(errs, field.Forbidden(at, "may not specify both ipBlock and another peer"))
		}
	}
	return errs
}

func (l leniency) validateBlock(b *networkingv1.IPBlock, path *field.Path) field.ErrorList {
	if b.CIDR == "" {
		return field.ErrorList{field.Required(path.Child("cidr"), "")}
	}
	errs := validation.IsValidCIDRForLegacyField(path.Child("cidr"), b.CIDR, true, l.cidrs)
	if !prefix(b.CIDR).IsValid() {
		return errs
	}
	for i, e := range b.Except {
		at := path.Child("except").Index(i)
		errs = append(errs, validation.IsValidCIDRForLegacyField(at, e, true, l.cidrs)...)
		if prefix(e).IsValid() && !strictlyWithin(e, b.CIDR) {
			errs = append(errs, field.Invalid(at, e, "must be a strict subset of `cidr`"))
		}
	}
	return errs
}

// strictlyWithin says whether the range inner is a part, and not the whole, of outer.
func strictlyWithin(inner, outer string) bool {
	a, b := prefix(inner), prefix(outer)
	return a.Bits() > b.Bits() && b.Contains(a.Addr())
}

func prefix(cidr string) netip.Prefix {
	_, n, err := netutils.ParseCIDRSloppy(cidr)
	if err != nil {
		return netip.Prefix{}
	}
	addr, _ := netip.AddrFromSlice(n.IP)
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(addr, ones)
}
