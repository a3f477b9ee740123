package core

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// normalizeClusterIPs makes clusterIP and clusterIPs agree: clients of old know only the first. Old is nil on create.
func normalizeClusterIPs(s, old *corev1.Service) {
	spec := &s.Spec
	if old == nil {
		if spec.ClusterIP != "" && len(spec.ClusterIPs) == 0 {
			spec.ClusterIPs = []string{spec.ClusterIP}
		}
		return
	}
	if len(old.Spec.ClusterIPs) > 0 && len(spec.ClusterIPs) == 0 && old.Spec.ClusterIP == spec.ClusterIP {
		spec.ClusterIPs = slices.Clone(old.Spec.ClusterIPs)
	}
	if old.Spec.ClusterIP == spec.ClusterIP || !sameClusterIPs(s, old) {
		return
	}
	// The client changed the one and sent the other back as it was.
	if spec.ClusterIP == "" {
		spec.ClusterIPs = nil
		return
	}
	spec.ClusterIPs = []string{spec.ClusterIP}
}

// keepAllocated fills in what was allocated for the client and what it did not send back, so that applying the same
// manifest twice works.
func keepAllocated(s, old *corev1.Service) {
	if needsClusterIP(old) && needsClusterIP(s) {
		if s.Spec.ClusterIP == "" {
			s.Spec.ClusterIP = old.Spec.ClusterIP
		}
		if len(s.Spec.ClusterIPs) == 0 {
			s.Spec.ClusterIPs = slices.Clone(old.Spec.ClusterIPs)
		}
	}
	if wantsNodePorts(old) && wantsNodePorts(s) {
		keepNodePorts(s, old)
	}
	if needsHealthCheck(old) && needsHealthCheck(s) && s.Spec.HealthCheckNodePort == 0 {
		s.Spec.HealthCheckNodePort = old.Spec.HealthCheckNodePort
	}
}

// keepNodePorts matches ports by name. A number that the client has put on another port is left where it is.
func keepNodePorts(s, old *corev1.Service) {
	moved := nodePorts(s)
	byName := map[string]int32{}
	for _, p := range old.Spec.Ports {
		byName[p.Name] = p.NodePort
	}
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		if p.NodePort == 0 && !slices.Contains(moved, byName[p.Name]) {
			p.NodePort = byName[p.Name]
		}
	}
}

// families says which address families the cluster's Services can have, the primary one first.
type families []corev1.IPFamily

func (f families) has(family corev1.IPFamily) bool { return slices.Contains(f, family) }

// choose sets ipFamilyPolicy and ipFamilies from what the client said and the cluster has, or says what contradicts.
// Old is nil on create.
func (f families) choose(s, old *corev1.Service) field.ErrorList {
	if !needsClusterIP(s) || keepsPreferDual(s, old) {
		return nil
	}
	if s.Spec.IPFamilyPolicy == nil {
		policy := defaultPolicy(s, old)
		s.Spec.IPFamilyPolicy = &policy
	}
	if errs := validateClusterIPs(s, old); len(errs) > 0 {
		return errs
	}
	errs := reducePair(s, old)
	errs = append(errs, singleOfTwo(s)...)
	errs = append(errs, f.infer(s)...)
	if len(errs) > 0 {
		return errs
	}
	if s.Spec.ClusterIP == corev1.ClusterIPNone && len(s.Spec.Selector) == 0 {
		// Whoever writes the endpoints decides their families; even ones the cluster does not have.
		f.complete(s, true)
		return nil
	}
	if familyPolicy(s) == corev1.IPFamilyPolicyRequireDualStack && len(f) < 2 {
		errs = append(errs, field.Invalid(ipFamilyPolicyPath, s.Spec.IPFamilyPolicy, "this cluster is not configured for dual-stack services"))
	}
	for i, family := range s.Spec.IPFamilies {
		if !f.has(family) {
			errs = append(errs, field.Invalid(ipFamiliesPath.Index(i), family, "not configured on this cluster"))
		}
	}
	if len(errs) == 0 {
		f.complete(s, len(f) == 2)
	}
	return errs
}

// defaultPolicy: an update that says nothing keeps the policy; a headless Service without selector is dual.
func defaultPolicy(s, old *corev1.Service) corev1.IPFamilyPolicy {
	switch {
	case old != nil && old.Spec.IPFamilyPolicy != nil:
		return *old.Spec.IPFamilyPolicy
	case s.Spec.ClusterIP == corev1.ClusterIPNone && len(s.Spec.Selector) == 0:
		return corev1.IPFamilyPolicyRequireDualStack
	}
	return corev1.IPFamilyPolicySingleStack
}

// keepsPreferDual: a PreferDualStack Service neither gains nor loses an address because the cluster has changed, but
// only because its own fields have.
func keepsPreferDual(s, old *corev1.Service) bool {
	return old != nil && s.Spec.Type == old.Spec.Type && hasClusterIPType(s) &&
		familyPolicy(s) == corev1.IPFamilyPolicyPreferDualStack &&
		(old.Spec.IPFamilyPolicy == nil || familyPolicy(old) == corev1.IPFamilyPolicyPreferDualStack) &&
		sameClusterIPs(s, old) && slices.Equal(s.Spec.IPFamilies, old.Spec.IPFamilies)
}

// reducePair drops the secondary of an update that asks for SingleStack, and refuses to drop it otherwise.
func reducePair(s, old *corev1.Service) field.ErrorList {
	if old == nil {
		return nil
	}
	ips, fams := s.Spec.ClusterIPs, s.Spec.IPFamilies
	if familyPolicy(s) == corev1.IPFamilyPolicySingleStack {
		if sameClusterIPs(s, old) && len(ips) > 1 {
			s.Spec.ClusterIPs = ips[:1]
		}
		if slices.Equal(fams, old.Spec.IPFamilies) && len(fams) > 1 {
			s.Spec.IPFamilies = fams[:1]
		}
		return nil
	}
	var errs field.ErrorList
	if len(ips) > 0 && len(ips) < len(old.Spec.ClusterIPs) {
		errs = append(errs, field.Invalid(ipFamilyPolicyPath, s.Spec.IPFamilyPolicy, "must be 'SingleStack' to release the secondary cluster IP"))
	}
	if len(fams) > 0 && len(fams) < len(old.Spec.IPFamilies) {
		errs = append(errs, field.Invalid(ipFamilyPolicyPath, s.Spec.IPFamilyPolicy, "must be 'SingleStack' to release the secondary IP family"))
	}
	return errs
}

func singleOfTwo(s *corev1.Service) field.ErrorList {
	if familyPolicy(s) != corev1.IPFamilyPolicySingleStack {
		return nil
	}
	var errs field.ErrorList
	const must = "must be 'RequireDualStack' or 'PreferDualStack' when multiple "
	if len(s.Spec.ClusterIPs) == 2 {
		errs = append(errs, field.Invalid(ipFamilyPolicyPath, s.Spec.IPFamilyPolicy, must+"cluster IPs are specified"))
	}
	if len(s.Spec.IPFamilies) == 2 {
		errs = append(errs, field.Invalid(ipFamilyPolicyPath, s.Spec.IPFamilyPolicy, must+"IP families are specified"))
	}
	return errs
}

// infer appends the families of the addresses that the client chose.
func (f families) infer(s *corev1.Service) field.ErrorList {
	var errs field.ErrorList
	for i, ip := range s.Spec.ClusterIPs {
		if ip == corev1.ClusterIPNone {
			break
		}
		if i < len(s.Spec.IPFamilies) {
			continue
		}
		family := familyOf(ip)
		if !f.has(family) {
			errs = append(errs, field.Invalid(clusterIPsPath.Index(i), s.Spec.ClusterIPs, fmt.Sprintf("%s is not configured on this cluster", family)))
			continue
		}
		s.Spec.IPFamilies = append(s.Spec.IPFamilies, family)
	}
	return errs
}

// complete adds the cluster's primary family if none is set, and the other one where two are wanted and possible.
func (f families) complete(s *corev1.Service, twoPossible bool) {
	if len(s.Spec.IPFamilies) == 0 {
		s.Spec.IPFamilies = []corev1.IPFamily{f[0]}
	}
	if len(s.Spec.IPFamilies) == 1 && twoPossible && familyPolicy(s) != corev1.IPFamilyPolicySingleStack {
		s.Spec.IPFamilies = append(s.Spec.IPFamilies, otherFamily(s.Spec.IPFamilies[0]))
	}
}

func otherFamily(f corev1.IPFamily) corev1.IPFamily {
	if f == corev1.IPv4Protocol {
		return corev1.IPv6Protocol
	}
	return corev1.IPv4Protocol
}
