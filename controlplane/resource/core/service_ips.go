package core

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/net"

	"keelson.dev/keelson/controlplane/resource/check"
)

var (
	clusterIPsPath     = field.NewPath("spec", "clusterIPs")
	ipFamiliesPath     = field.NewPath("spec", "ipFamilies")
	ipFamilyPolicyPath = field.NewPath("spec", "ipFamilyPolicy")
)

const fixedOnceSet = "may not change once set"

// validateClusterIPs checks clusterIP, clusterIPs, ipFamilies and ipFamilyPolicy against each other. It is called
// before allocation as well, when only what the client chose is set.
func validateClusterIPs(s, old *corev1.Service) field.ErrorList {
	if !needsClusterIP(s) {
		return nil // all four are refused elsewhere
	}
	ips := s.Spec.ClusterIPs
	var errs field.ErrorList
	switch {
	case s.Spec.ClusterIP == "" && len(ips) > 0:
		errs = append(errs, field.Invalid(clusterIPsPath, ips, "must be empty when `clusterIP` is not specified"))
	case s.Spec.ClusterIP == "":
	case len(ips) == 0:
		errs = append(errs, field.Required(clusterIPsPath, ""))
	case ips[0] != s.Spec.ClusterIP:
		errs = append(errs, field.Invalid(clusterIPsPath, ips, "first value must match `clusterIP`"))
	}
	for i, family := range s.Spec.IPFamilies {
		at := ipFamiliesPath.Index(i)
		errs = append(errs, check.OneOf(family, at, corev1.IPv4Protocol, corev1.IPv6Protocol)...)
		if slices.Contains(s.Spec.IPFamilies[:i], family) {
			errs = append(errs, field.Duplicate(at, family))
		}
	}
	if policy := s.Spec.IPFamilyPolicy; policy != nil {
		errs = append(errs, check.OneOf(*policy, ipFamilyPolicyPath, corev1.IPFamilyPolicyPreferDualStack,
			corev1.IPFamilyPolicyRequireDualStack, corev1.IPFamilyPolicySingleStack)...)
	}
	invalid := validateIPTexts(ips, old)
	errs = append(errs, invalid...)
	if len(ips) > 2 {
		errs = append(errs, field.Invalid(clusterIPsPath, ips, "may only hold up to 2 values"))
	}
	if len(invalid) > 0 {
		return errs // what follows would only repeat it
	}
	return append(errs, validateIPPairs(s)...)
}

func validateIPTexts(ips []string, old *corev1.Service) field.ErrorList {
	var existing []string
	if old != nil {
		existing = old.Spec.ClusterIPs
	}
	var errs field.ErrorList
	for i, ip := range ips {
		if i == 0 && ip == corev1.ClusterIPNone {
			if len(ips) > 1 {
				errs = append(errs, field.Invalid(clusterIPsPath, ips, "'None' must be the first and only value"))
			}
			continue
		}
		errs = append(errs, validation.IsValidIPForLegacyField(clusterIPsPath.Index(i), ip, true, existing)...)
	}
	return errs
}

// validateIPPairs: at most one address of each family, each in the place of its family.
func validateIPPairs(s *corev1.Service) field.ErrorList {
	ips := s.Spec.ClusterIPs
	var errs field.ErrorList
	if len(ips) > 1 {
		dual, err := net.IsDualStackIPStrings(ips)
		if err != nil {
			errs = append(errs, field.InternalError(clusterIPsPath, fmt.Errorf("failed to check for dual stack with error:%w", err)))
		}
		if !dual {
			errs = append(errs, field.Invalid(clusterIPsPath, ips, "may specify no more than one IP for each IP family"))
		}
	}
	if isHeadless(s) {
		return errs
	}
	for i, ip := range ips {
		if i >= len(s.Spec.IPFamilies) {
			break
		}
		family := s.Spec.IPFamilies[i]
		if (family == corev1.IPv4Protocol || family == corev1.IPv6Protocol) && family != familyOf(ip) {
			errs = append(errs, field.Invalid(clusterIPsPath.Index(i), ip, fmt.Sprintf("expected an %s value as indicated by `ipFamilies[%v]`", family, i)))
		}
	}
	return errs
}

func familyOf(ip string) corev1.IPFamily {
	if net.IsIPv6String(ip) {
		return corev1.IPv6Protocol
	}
	return corev1.IPv4Protocol
}

// validateServiceUpdate: a second address or family may come and go, the first may not change.
func validateServiceUpdate(s, old *corev1.Service) field.ErrorList {
	errs := validateIPChange(s, old)
	errs = append(errs, validateFamilyChange(s, old)...)
	errs = append(errs, validateBalancer(s, old)...)
	if needsHealthCheck(old) && needsHealthCheck(s) && s.Spec.HealthCheckNodePort != old.Spec.HealthCheckNodePort {
		errs = append(errs, field.Forbidden(field.NewPath("spec", "healthCheckNodePort"), "field is immutable"))
	}
	return append(errs, validateService(s, old)...)
}

func validateIPChange(s, old *corev1.Service) field.ErrorList {
	if !needsClusterIP(s) || !needsClusterIP(old) || isHeadless(s) && isHeadless(old) {
		return nil
	}
	ips, was := s.Spec.ClusterIPs, old.Spec.ClusterIPs
	var errs field.ErrorList
	if len(ips) == len(was) {
		for i := range was {
			if was[i] != ips[i] {
				errs = append(errs, field.Invalid(clusterIPsPath.Index(i), ips, fixedOnceSet))
			}
		}
		return errs
	}
	if len(ips) < len(was) && len(ips) == 0 {
		errs = append(errs, field.Invalid(clusterIPsPath.Index(0), ips, "primary clusterIP can not be unset"))
	}
	if len(ips) > 0 && len(was) > 0 && ips[0] != was[0] {
		errs = append(errs, field.Invalid(clusterIPsPath.Index(0), ips, fixedOnceSet))
	}
	if len(ips) < len(was) && len(ips) == 1 && familyPolicy(s) != corev1.IPFamilyPolicySingleStack {
		errs = append(errs, field.Invalid(ipFamilyPolicyPath, s.Spec.IPFamilyPolicy, "must be set to 'SingleStack' when releasing the secondary clusterIP"))
	}
	return errs
}

func validateFamilyChange(s, old *corev1.Service) field.ErrorList {
	if !needsClusterIP(s) || !needsClusterIP(old) || isHeadless(s) || isHeadless(old) {
		return nil // headless Services may change families
	}
	families, was := s.Spec.IPFamilies, old.Spec.IPFamilies
	first := ipFamiliesPath.Index(0)
	var errs field.ErrorList
	if len(families) == len(was) {
		for i := range was {
			if was[i] != families[i] {
				errs = append(errs, field.Invalid(first, families, fixedOnceSet))
			}
		}
		return errs
	}
	if len(families) < len(was) && len(s.Spec.ClusterIPs) == 0 {
		errs = append(errs, field.Invalid(first, families, "primary ipFamily can not be unset"))
	}
	if len(families) > 0 && len(was) > 0 && families[0] != was[0] {
		errs = append(errs, field.Invalid(first, s.Spec.ClusterIPs, fixedOnceSet))
	}
	if len(families) < len(was) && len(families) == 1 && familyPolicy(s) != corev1.IPFamilyPolicySingleStack {
		errs = append(errs, field.Invalid(ipFamilyPolicyPath, s.Spec.IPFamilyPolicy, "must be set to 'SingleStack' when releasing the secondary ipFamily"))
	}
	return errs
}

// validateEndpointIP refuses addresses that no endpoint can have. The caller has checked that it is one.
func validateEndpointIP(text string, path *field.Path) field.ErrorList {
	ip := net.ParseIPSloppy(text)
	if ip == nil {
		return field.ErrorList{field.Invalid(path, text, "must be a valid IP address")}
	}
	var errs field.ErrorList
	refuse := func(when bool, why string) {
		if when {
			errs = append(errs, field.Invalid(path, text, why))
		}
	}
	refuse(ip.IsUnspecified(), fmt.Sprintf("may not be unspecified (%v)", text))
	refuse(ip.IsLoopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)")
	refuse(ip.IsLinkLocalUnicast(), "may not be in the link-local range (169.254.0.0/16, fe80::/10)")
	refuse(ip.IsLinkLocalMulticast(), "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")
	return errs
}
