package core

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/column"
)

// serviceKind does not set HasStatus: a status update that removes the last finalizer deletes the Service, and must
// then release its addresses and ports, which only a view made after installService's hooks does.
func serviceKind() resource.Kind {
	return resource.Of(resource.Kind{
		Kind: "Service", Plural: "services", ShortNames: []string{"svc"}, Categories: []string{"all"}, Namespaced: true,
		New:                 func() runtime.Object { return &corev1.Service{} },
		NewList:             func() runtime.Object { return &corev1.ServiceList{} },
		ValidateName:        apivalidation.NameIsDNSLabel,
		AllowCreateOnUpdate: true,
		Columns:             serviceColumns(),
		Install:             installService,
	}, resource.Rules[*corev1.Service]{
		Default:          defaultService,
		PrepareForCreate: func(_ context.Context, s *corev1.Service) { s.Status = corev1.ServiceStatus{} },
		PrepareForUpdate: func(_ context.Context, s, old *corev1.Service) {
			s.Status = old.Status
			dropByType(s, old)
		},
		Validate: func(_ context.Context, s *corev1.Service) field.ErrorList { return validateService(s, nil) },
		ValidateUpdate: func(_ context.Context, s, old *corev1.Service) field.ErrorList {
			return validateServiceUpdate(s, old)
		},
		Warnings: func(_ context.Context, s, _ *corev1.Service) []string { return serviceWarnings(s) },
		Fields: func(s *corev1.Service) fields.Set {
			return fields.Set{"spec.clusterIP": s.Spec.ClusterIP, "spec.type": string(s.Spec.Type)}
		},
	})
}

func defaultService(s *corev1.Service) {
	spec := &s.Spec
	if spec.SessionAffinity == "" {
		spec.SessionAffinity = corev1.ServiceAffinityNone
	}
	defaultAffinity(spec)
	if spec.Type == "" {
		spec.Type = corev1.ServiceTypeClusterIP
	}
	for i := range spec.Ports {
		p := &spec.Ports[i]
		if p.Protocol == "" {
			p.Protocol = corev1.ProtocolTCP
		}
		if p.TargetPort == intstr.FromInt32(0) || p.TargetPort == intstr.FromString("") {
			p.TargetPort = intstr.FromInt32(p.Port)
		}
	}
	if reachableFromOutside(s) && spec.ExternalTrafficPolicy == "" {
		spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster
	}
	defaultInternalTraffic(s)
	if spec.Type != corev1.ServiceTypeLoadBalancer {
		return
	}
	if spec.AllocateLoadBalancerNodePorts == nil {
		yes := true
		spec.AllocateLoadBalancerNodePorts = &yes
	}
	for i := range s.Status.LoadBalancer.Ingress {
		if ingress := &s.Status.LoadBalancer.Ingress[i]; ingress.IP != "" && ingress.IPMode == nil {
			mode := corev1.LoadBalancerIPModeVIP
			ingress.IPMode = &mode
		}
	}
}

// defaultInternalTraffic also drops a policy that has no meaning for the type; one that is none is left to validation.
func defaultInternalTraffic(s *corev1.Service) {
	switch policy := s.Spec.InternalTrafficPolicy; {
	case policy == nil && hasClusterIPType(s):
		s.Spec.InternalTrafficPolicy = new(corev1.ServiceInternalTrafficPolicyCluster)
	case policy != nil && !needsClusterIP(s) && slices.Contains(internalTrafficPolicies, *policy):
		s.Spec.InternalTrafficPolicy = nil
	}
}

func defaultAffinity(spec *corev1.ServiceSpec) {
	switch spec.SessionAffinity {
	case corev1.ServiceAffinityNone:
		spec.SessionAffinityConfig = nil
	case corev1.ServiceAffinityClientIP:
		c := spec.SessionAffinityConfig
		if c == nil || c.ClientIP == nil || c.ClientIP.TimeoutSeconds == nil {
			timeout := corev1.DefaultClientIPServiceAffinitySeconds
			spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &timeout}}
		}
	}
}

// dropByType clears what the new type has no use for, if the user did not set it in the same breath. Allocated values
// among them are released when the update has succeeded.
func dropByType(s, old *corev1.Service) {
	if needsClusterIP(old) && !needsClusterIP(s) {
		if sameClusterIPs(s, old) && s.Spec.ClusterIP == old.Spec.ClusterIP {
			s.Spec.ClusterIP, s.Spec.ClusterIPs = "", nil
		}
		if slices.Equal(s.Spec.IPFamilies, old.Spec.IPFamilies) {
			s.Spec.IPFamilies = nil
		}
		if familyPolicy(s) == familyPolicy(old) {
			s.Spec.IPFamilyPolicy = nil
		}
	}
	if hasNodePortType(old) && !hasNodePortType(s) && sets.New(nodePorts(old)...).IsSuperset(sets.New(nodePorts(s)...)) {
		for i := range s.Spec.Ports {
			s.Spec.Ports[i].NodePort = 0
		}
	}
	if needsHealthCheck(old) && !needsHealthCheck(s) && s.Spec.HealthCheckNodePort == old.Spec.HealthCheckNodePort {
		s.Spec.HealthCheckNodePort = 0
	}
	wasBalancer, isBalancer := old.Spec.Type == corev1.ServiceTypeLoadBalancer, s.Spec.Type == corev1.ServiceTypeLoadBalancer
	if wasBalancer && !isBalancer {
		if a, b := s.Spec.AllocateLoadBalancerNodePorts, old.Spec.AllocateLoadBalancerNodePorts; a != nil && b != nil && *a == *b {
			s.Spec.AllocateLoadBalancerNodePorts = nil
		}
		if sameBalancerClass(s, old) {
			s.Spec.LoadBalancerClass = nil
		}
	}
	if reachableFromOutside(old) && !reachableFromOutside(s) && s.Spec.ExternalTrafficPolicy == old.Spec.ExternalTrafficPolicy {
		s.Spec.ExternalTrafficPolicy = ""
	}
	if !isBalancer {
		s.Status.LoadBalancer = corev1.LoadBalancerStatus{}
	}
}

func serviceColumns() []resource.Column {
	col := func(name, doc string, priority int32, value func(*corev1.Service) string) resource.Column {
		return resource.Col(name, "string", column.Doc(corev1.ServiceSpec{}, doc), priority, func(s *corev1.Service) any { return value(s) })
	}
	return []resource.Column{
		col("Type", "type", 0, func(s *corev1.Service) string { return string(s.Spec.Type) }),
		col("Cluster-IP", "clusterIP", 0, func(s *corev1.Service) string {
			if len(s.Spec.ClusterIPs) == 0 {
				return "<none>"
			}
			return s.Spec.ClusterIPs[0]
		}),
		col("External-IP", "externalIPs", 0, externalIP),
		col("Port(s)", "ports", 0, servicePorts),
		col("Selector", "selector", 1, func(s *corev1.Service) string { return labels.FormatLabels(s.Spec.Selector) }),
	}
}

func externalIP(s *corev1.Service) string {
	ips := s.Spec.ExternalIPs
	switch s.Spec.Type {
	case corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort:
		return column.Or(strings.Join(ips, ","), "<none>")
	case corev1.ServiceTypeLoadBalancer:
		balanced := sets.New[string]()
		for _, ingress := range s.Status.LoadBalancer.Ingress {
			if address := column.Or(ingress.IP, ingress.Hostname); address != "" {
				balanced.Insert(address)
			}
		}
		return column.Or(strings.Join(append(sets.List(balanced), ips...), ","), "<pending>")
	case corev1.ServiceTypeExternalName:
		return s.Spec.ExternalName
	}
	return "<unknown>"
}

func servicePorts(s *corev1.Service) string {
	ports := make([]string, len(s.Spec.Ports))
	for i, p := range s.Spec.Ports {
		ports[i] = fmt.Sprintf("%d/%s", p.Port, p.Protocol)
		if p.NodePort > 0 {
			ports[i] = fmt.Sprintf("%d:%d/%s", p.Port, p.NodePort, p.Protocol)
		}
	}
	return column.Or(strings.Join(ports, ","), "<none>")
}
