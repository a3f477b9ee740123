package core

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/net"

	"keelson.dev/keelson/controlplane/resource/check"
)

// validateService checks a Service; old, nil on create, holds values that may stay though newer rules refuse them.
func validateService(s, old *corev1.Service) field.ErrorList {
	spec := field.NewPath("spec")
	var errs field.ErrorList
	hints, hasHints := s.Annotations[corev1.DeprecatedAnnotationTopologyAwareHints]
	mode, hasMode := s.Annotations[corev1.AnnotationTopologyMode]
	if hasHints && hasMode && hints != mode {
		errs = append(errs, field.Invalid(field.NewPath("metadata", "annotations").Key(corev1.AnnotationTopologyMode), mode,
			fmt.Sprintf("must match annotations[%s] when both are specified", corev1.DeprecatedAnnotationTopologyAwareHints)))
	}
	errs = append(errs, validateServiceType(s, spec)...)
	errs = append(errs, validateServicePorts(s, spec.Child("ports"))...)
	if s.Spec.Selector != nil {
		errs = append(errs, metav1validation.ValidateLabels(s.Spec.Selector, spec.Child("selector"))...)
	}
	errs = append(errs, validateAffinity(&s.Spec, spec)...)
	errs = append(errs, validateClusterIPs(s, old)...)
	errs = append(errs, validateExternalIPs(s, old, spec.Child("externalIPs"))...)
	errs = append(errs, required(s.Spec.Type, spec.Child("type"), corev1.ServiceTypeClusterIP, corev1.ServiceTypeExternalName,
		corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeNodePort)...)
	errs = append(errs, validateNodePorts(s, spec.Child("ports"))...)
	errs = append(errs, validateSourceRanges(s, old)...)
	errs = append(errs, validateBalancer(s, nil)...)
	return append(errs, validateTraffic(s, spec)...)
}

// required checks that a value is set and one of those supported.
func required[S ~string](value S, path *field.Path, supported ...S) field.ErrorList {
	if value == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	return check.OneOf(value, path, supported...)
}

func validateServiceType(s *corev1.Service, spec *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(s.Spec.Ports) == 0 && !isHeadless(s) && s.Spec.Type != corev1.ServiceTypeExternalName {
		errs = append(errs, field.Required(spec.Child("ports"), ""))
	}
	switch s.Spec.Type {
	case corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeNodePort:
		if isHeadless(s) {
			errs = append(errs, field.Invalid(spec.Child("clusterIPs").Index(0), s.Spec.ClusterIPs[0],
				fmt.Sprintf("may not be set to 'None' for %s services", s.Spec.Type)))
		}
	case corev1.ServiceTypeExternalName:
		const unset = "may not be set for ExternalName services"
		if len(s.Spec.ClusterIPs) > 0 {
			errs = append(errs, field.Forbidden(spec.Child("clusterIPs"), unset))
		}
		if len(s.Spec.IPFamilies) > 0 {
			errs = append(errs, field.Forbidden(spec.Child("ipFamilies"), unset))
		}
		if s.Spec.IPFamilyPolicy != nil {
			errs = append(errs, field.Forbidden(spec.Child("ipFamilyPolicy"), unset))
		}
		// A trailing dot says that the name is fully qualified.
		name := strings.TrimSuffix(s.Spec.ExternalName, ".")
		if name == "" {
			errs = append(errs, field.Required(spec.Child("externalName"), ""))
		} else {
			errs = append(errs, check.Strings(validation.IsDNS1123Subdomain(name), spec.Child("externalName"), name)...)
		}
	}
	return errs
}

func validateServicePorts(s *corev1.Service, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	names := map[string]bool{}
	for i, p := range s.Spec.Ports {
		at := path.Index(i)
		if p.Name != "" {
			errs = append(errs, check.Strings(validation.IsDNS1123Label(p.Name), at.Child("name"), p.Name)...)
			if names[p.Name] {
				errs = append(errs, field.Duplicate(at.Child("name"), p.Name))
			}
			names[p.Name] = true
		} else if len(s.Spec.Ports) > 1 {
			errs = append(errs, field.Required(at.Child("name"), ""))
		}
		errs = append(errs, check.Strings(validation.IsValidPortNum(int(p.Port)), at.Child("port"), p.Port)...)
		errs = append(errs, required(p.Protocol, at.Child("protocol"), corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP)...)
		errs = append(errs, validateTargetPort(p.TargetPort, at.Child("targetPort"))...)
		if p.AppProtocol != nil {
			errs = append(errs, check.Strings(validation.IsQualifiedName(*p.AppProtocol), at.Child("appProtocol"), *p.AppProtocol)...)
		}
	}
	return errs
}

func validateTargetPort(p intstr.IntOrString, path *field.Path) field.ErrorList {
	switch p.Type {
	case intstr.Int:
		return check.Strings(validation.IsValidPortNum(p.IntValue()), path, p.IntValue())
	case intstr.String:
		return check.Strings(validation.IsValidPortName(p.StrVal), path, p.StrVal)
	}
	return field.ErrorList{field.InternalError(path, fmt.Errorf("unknown type: %v", p.Type))}
}

// validateNodePorts checks the numbers across the ports of one Service; whether another has them is known on allocation.
func validateNodePorts(s *corev1.Service, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	type key struct {
		protocol corev1.Protocol
		port     int32
	}
	nodeSeen, seen := map[key]bool{}, map[key]bool{}
	for i, p := range s.Spec.Ports {
		if p.NodePort == 0 {
			continue
		}
		at, k := path.Index(i).Child("nodePort"), key{p.Protocol, p.NodePort}
		if s.Spec.Type == corev1.ServiceTypeClusterIP {
			errs = append(errs, field.Forbidden(at, "may not be used when `type` is 'ClusterIP'"))
		}
		if nodeSeen[k] {
			errs = append(errs, field.Duplicate(at, p.NodePort))
		}
		nodeSeen[k] = true
	}
	for i, p := range s.Spec.Ports {
		k := key{p.Protocol, p.Port}
		if seen[k] {
			errs = append(errs, field.Duplicate(path.Index(i), corev1.ServicePort{Protocol: p.Protocol, Port: p.Port}))
		}
		seen[k] = true
	}
	return errs
}

func validateAffinity(spec *corev1.ServiceSpec, path *field.Path) field.ErrorList {
	errs := required(spec.SessionAffinity, path.Child("sessionAffinity"), corev1.ServiceAffinityClientIP, corev1.ServiceAffinityNone)
	config, at := spec.SessionAffinityConfig, path.Child("sessionAffinityConfig")
	switch spec.SessionAffinity {
	case corev1.ServiceAffinityNone:
		if config != nil {
			errs = append(errs, field.Forbidden(at, "must not be set when session affinity is None"))
		}
	case corev1.ServiceAffinityClientIP:
		const when = "when session affinity type is ClientIP"
		timeout := at.Child("clientIP", "timeoutSeconds")
		switch {
		case config == nil:
			errs = append(errs, field.Required(at, when))
		case config.ClientIP == nil:
			errs = append(errs, field.Required(at.Child("clientIP"), when))
		case config.ClientIP.TimeoutSeconds == nil:
			errs = append(errs, field.Required(timeout, when))
		default:
			const most = 24 * 60 * 60
			if t := *config.ClientIP.TimeoutSeconds; t <= 0 || t > most {
				errs = append(errs, field.Invalid(timeout, t, fmt.Sprintf("must be greater than 0 and less than %d", most)))
			}
		}
	}
	return errs
}

func validateExternalIPs(s, old *corev1.Service, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	var existing []string
	if old != nil {
		existing = old.Spec.ExternalIPs
	}
	for i, ip := range s.Spec.ExternalIPs {
		invalid := validation.IsValidIPForLegacyField(path.Index(i), ip, true, existing)
		if len(invalid) == 0 {
			invalid = validateEndpointIP(ip, path.Index(i))
		}
		errs = append(errs, invalid...)
	}
	return errs
}

func validateSourceRanges(s, old *corev1.Service) field.ErrorList {
	const onlyBalancer = "may only be used when `type` is 'LoadBalancer'"
	var errs field.ErrorList
	isBalancer := s.Spec.Type == corev1.ServiceTypeLoadBalancer
	if len(s.Spec.LoadBalancerSourceRanges) > 0 {
		path := field.NewPath("spec", "LoadBalancerSourceRanges") // upstream's capital
		if !isBalancer {
			errs = append(errs, field.Forbidden(path, onlyBalancer))
		}
		var existing []string
		if old != nil {
			for _, cidr := range old.Spec.LoadBalancerSourceRanges {
				existing = append(existing, strings.TrimSpace(cidr))
			}
		}
		for i, cidr := range s.Spec.LoadBalancerSourceRanges {
			errs = append(errs, validation.IsValidCIDRForLegacyField(path.Index(i), strings.TrimSpace(cidr), true, existing)...)
		}
		return errs
	}
	text, set := s.Annotations[corev1.AnnotationLoadBalancerSourceRangesKey]
	if !set {
		return nil
	}
	path := field.NewPath("metadata", "annotations").Key(corev1.AnnotationLoadBalancerSourceRangesKey)
	if !isBalancer {
		errs = append(errs, field.Forbidden(path, onlyBalancer))
	}
	if old != nil && old.Annotations[corev1.AnnotationLoadBalancerSourceRangesKey] == text || strings.TrimSpace(text) == "" {
		return errs
	}
	for cidr := range strings.SplitSeq(text, ",") {
		errs = append(errs, validation.IsValidCIDRForLegacyField(path, strings.TrimSpace(cidr), true, nil)...)
	}
	return errs
}

// validateBalancer checks what only load balancers have; old is given for an update.
func validateBalancer(s, old *corev1.Service) field.ErrorList {
	const onlyBalancer = "may only be used when `type` is 'LoadBalancer'"
	var errs field.ErrorList
	spec := field.NewPath("spec")
	isBalancer := s.Spec.Type == corev1.ServiceTypeLoadBalancer
	class := s.Spec.LoadBalancerClass
	if old != nil && isBalancer && old.Spec.Type == corev1.ServiceTypeLoadBalancer && !sameBalancerClass(s, old) {
		errs = append(errs, field.Invalid(spec.Child("loadBalancerClass"), class, "may not change once set"))
	}
	if old == nil {
		switch allocate := s.Spec.AllocateLoadBalancerNodePorts; {
		case allocate != nil && !isBalancer:
			errs = append(errs, field.Forbidden(spec.Child("allocateLoadBalancerNodePorts"), onlyBalancer))
		case allocate == nil && isBalancer:
			errs = append(errs, field.Required(field.NewPath("allocateLoadBalancerNodePorts"), ""))
		}
	}
	switch {
	case class == nil:
	case isBalancer:
		errs = append(errs, check.Strings(validation.IsQualifiedName(*class), spec.Child("loadBalancerClass"), *class)...)
	default:
		errs = append(errs, field.Forbidden(spec.Child("loadBalancerClass"), onlyBalancer))
	}
	return errs
}

var internalTrafficPolicies = []corev1.ServiceInternalTrafficPolicy{
	corev1.ServiceInternalTrafficPolicyCluster, corev1.ServiceInternalTrafficPolicyLocal,
}

func validateTraffic(s *corev1.Service, spec *field.Path) field.ErrorList {
	var errs field.ErrorList
	outside, at := s.Spec.ExternalTrafficPolicy, spec.Child("externalTrafficPolicy")
	if reachableFromOutside(s) {
		errs = append(errs, required(outside, at, corev1.ServiceExternalTrafficPolicyCluster, corev1.ServiceExternalTrafficPolicyLocal)...)
	} else if outside != "" {
		errs = append(errs, field.Invalid(at, outside, "may only be set for externally-accessible services"))
	}
	health, at := s.Spec.HealthCheckNodePort, spec.Child("healthCheckNodePort")
	switch {
	case !needsHealthCheck(s) && health != 0:
		errs = append(errs, field.Invalid(at, health, "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"))
	case needsHealthCheck(s) && health == 0:
		errs = append(errs, field.Required(at, ""))
	case needsHealthCheck(s):
		errs = append(errs, check.Strings(validation.IsValidPortNum(int(health)), at, health)...)
	}
	if inside := s.Spec.InternalTrafficPolicy; inside != nil {
		errs = append(errs, check.OneOf(*inside, spec.Child("internalTrafficPolicy"), internalTrafficPolicies...)...)
	} else if hasClusterIPType(s) {
		errs = append(errs, field.Required(spec.Child("internalTrafficPolicy"), ""))
	}
	known := []string{corev1.ServiceTrafficDistributionPreferClose, corev1.ServiceTrafficDistributionPreferSameZone, corev1.ServiceTrafficDistributionPreferSameNode}
	if d := s.Spec.TrafficDistribution; d != nil && !slices.Contains(known, *d) {
		errs = append(errs, field.NotSupported(spec.Child("trafficDistribution"), *d, known))
	}
	return errs
}

func serviceWarnings(s *corev1.Service) []string {
	var w []string
	spec := field.NewPath("spec")
	if _, ok := s.Annotations[corev1.DeprecatedAnnotationTopologyAwareHints]; ok {
		w = append(w, fmt.Sprintf("annotation %s is deprecated, please use %s instead",
			corev1.DeprecatedAnnotationTopologyAwareHints, corev1.AnnotationTopologyMode))
	}
	if s.Spec.ClusterIP != "" && s.Spec.ClusterIP != corev1.ClusterIPNone {
		for i, ip := range s.Spec.ClusterIPs {
			w = append(w, validation.GetWarningsForIP(spec.Child("clusterIPs").Index(i), ip)...)
		}
	}
	headless := s.Spec.Type == corev1.ServiceTypeClusterIP && s.Spec.ClusterIP == corev1.ClusterIPNone
	external := s.Spec.Type == corev1.ServiceTypeExternalName
	say := func(when bool, text string) {
		if when {
			w = append(w, text)
		}
	}
	say(headless && s.Spec.LoadBalancerIP != "", "spec.loadBalancerIP is ignored for headless services")
	say(headless && len(s.Spec.ExternalIPs) > 0, "spec.externalIPs is ignored for headless services")
	say(headless && s.Spec.SessionAffinity != corev1.ServiceAffinityNone, "spec.SessionAffinity is ignored for headless services")
	for i, ip := range s.Spec.ExternalIPs {
		w = append(w, validation.GetWarningsForIP(spec.Child("externalIPs").Index(i), ip)...)
	}
	say(len(s.Spec.ExternalIPs) > 0 && !headless && !external, "spec.externalIPs is deprecated and may no longer be implemented in some clusters")
	if s.Spec.LoadBalancerIP != "" {
		w = append(w, validation.GetWarningsForIP(spec.Child("loadBalancerIP"), s.Spec.LoadBalancerIP)...)
	}
	for i, cidr := range s.Spec.LoadBalancerSourceRanges {
		w = append(w, validation.GetWarningsForCIDR(spec.Child("loadBalancerSourceRanges").Index(i), cidr)...)
	}
	say(external && len(s.Spec.ExternalIPs) > 0, `spec.externalIPs is ignored when spec.type is "ExternalName"`)
	say(!external && s.Spec.ExternalName != "", `spec.externalName is ignored when spec.type is not "ExternalName"`)
	if d := s.Spec.TrafficDistribution; d != nil && *d == corev1.ServiceTrafficDistributionPreferClose {
		w = append(w, fmt.Sprintf("spec.trafficDistribution: %q is deprecated; use %q",
			corev1.ServiceTrafficDistributionPreferClose, corev1.ServiceTrafficDistributionPreferSameZone))
	}
	return w
}

// validateBalancerStatus checks what a load balancer reports.
func validateBalancerStatus(s, old *corev1.Service) field.ErrorList {
	path := field.NewPath("status", "loadBalancer", "ingress")
	list := s.Status.LoadBalancer.Ingress
	if s.Spec.Type != corev1.ServiceTypeLoadBalancer && len(list) > 0 {
		return field.ErrorList{field.Forbidden(path, "may only be used when `spec.type` is 'LoadBalancer'")}
	}
	var existing []string
	for _, ingress := range old.Status.LoadBalancer.Ingress {
		if ingress.IP != "" {
			existing = append(existing, ingress.IP)
		}
	}
	var errs field.ErrorList
	for i, ingress := range list {
		at := path.Index(i)
		if ingress.IP != "" {
			errs = append(errs, validation.IsValidIPForLegacyField(at.Child("ip"), ingress.IP, true, existing)...)
		}
		switch mode := ingress.IPMode; {
		case mode == nil && ingress.IP != "":
			errs = append(errs, field.Required(at.Child("ipMode"), "must be specified when `ip` is set"))
		case mode == nil:
		case ingress.IP == "":
			errs = append(errs, field.Forbidden(at.Child("ipMode"), "may not be specified when `ip` is not set"))
		default:
			errs = append(errs, check.OneOf(*mode, at.Child("ipMode"), corev1.LoadBalancerIPModeProxy, corev1.LoadBalancerIPModeVIP)...)
		}
		if ingress.Hostname == "" {
			continue
		}
		errs = append(errs, check.Strings(validation.IsDNS1123Subdomain(ingress.Hostname), at.Child("hostname"), ingress.Hostname)...)
		if net.ParseIPSloppy(ingress.Hostname) != nil {
			errs = append(errs, field.Invalid(at.Child("hostname"), ingress.Hostname, "must be a DNS name, not an IP address"))
		}
	}
	return errs
}
