package networking

import (
	"context"
	"fmt"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/api/validation/path"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/cell"
	"keelson.dev/keelson/controlplane/resource/check"
)

// classAnnotation is the older way to name an ingress class.
const classAnnotation = "kubernetes.io/ingress.class"

func ingress() resource.Kind {
	return resource.Of(resource.Kind{
		Kind: "Ingress", Plural: "ingresses", ShortNames: []string{"ing"}, Namespaced: true, HasStatus: true, HasGeneration: true,
		New:     func() runtime.Object { return &networkingv1.Ingress{} },
		NewList: func() runtime.Object { return &networkingv1.IngressList{} },
		Columns: ingressColumns(),
	}, resource.Rules[*networkingv1.Ingress]{
		Validate: func(_ context.Context, i *networkingv1.Ingress) field.ErrorList {
			errs := validateIngress(&i.Spec, nil, field.NewPath("spec"))
			if a, ok := i.Annotations[classAnnotation]; ok && i.Spec.IngressClassName != nil && a != *i.Spec.IngressClassName {
				errs = append(errs, field.Invalid(field.NewPath("annotations").Child(classAnnotation), a, "must match `ingressClassName` when both are specified"))
			}
			return errs
		},
		ValidateUpdate: func(_ context.Context, i, old *networkingv1.Ingress) field.ErrorList {
			return validateIngress(&i.Spec, &old.Spec, field.NewPath("spec"))
		},
		ValidateStatusUpdate: func(_ context.Context, i, old *networkingv1.Ingress) field.ErrorList {
			return validateIngressStatus(&i.Status, &old.Status, field.NewPath("status", "loadBalancer", "ingress"))
		},
		Warnings: func(_ context.Context, i, old *networkingv1.Ingress) []string {
			if _, ok := i.Annotations[classAnnotation]; ok && old == nil && i.Spec.IngressClassName == nil {
				return []string{fmt.Sprintf("annotation %q is deprecated, please use 'spec.ingressClassName' instead", classAnnotation)}
			}
			return nil
		},
	})
}

func validateIngress(s, old *networkingv1.IngressSpec, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(s.Rules) == 0 && s.DefaultBackend == nil {
		errs = append(errs, field.Invalid(at, s.Rules, "either `defaultBackend` or `rules` must be specified"))
	}
	if s.DefaultBackend != nil {
		errs = append(errs, validateBackend(s.DefaultBackend, at.Child("defaultBackend"))...)
	}
	errs = append(errs, validateRules(s.Rules, at.Child("rules"))...)
	errs = append(errs, validateTLS(s.TLS, old, at.Child("tls"))...)
	if c := s.IngressClassName; c != nil {
		errs = append(errs, check.Strings(apivalidation.NameIsDNSSubdomain(*c, false), at.Child("ingressClassName"), *c)...)
	}
	return errs
}

func validateTLS(list []networkingv1.IngressTLS, old *networkingv1.IngressSpec, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	// A name that was accepted once does not keep its owner from other changes.
	lenient := old != nil && slices.ContainsFunc(old.TLS, func(o networkingv1.IngressTLS) bool {
		return o.SecretName != "" && len(apivalidation.NameIsDNSSubdomain(o.SecretName, false)) > 0
	})
	for i, t := range list {
		for j, host := range t.Hosts {
			errs = append(errs, check.Strings(hostMessages(host), at.Index(i).Child("hosts").Index(j), host)...)
		}
		if t.SecretName != "" && !lenient {
			errs = append(errs, check.Strings(apivalidation.NameIsDNSSubdomain(t.SecretName, false), at.Index(i).Child("secretName"), t.SecretName)...)
		}
	}
	return errs
}

func hostMessages(host string) []string {
	if strings.Contains(host, "*") {
		return validation.IsWildcardDNS1123Subdomain(host)
	}
	return validation.IsDNS1123Subdomain(host)
}

func validateRules(rules []networkingv1.IngressRule, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, r := range rules {
		if r.Host != "" {
			host := at.Index(i).Child("host")
			if netutils.ParseIPSloppy(r.Host) != nil {
				errs = append(errs, field.Invalid(host, r.Host, "must be a DNS name, not an IP address"))
			}
			errs = append(errs, check.Strings(hostMessages(r.Host), host, r.Host)...)
		}
		if r.HTTP == nil {
			continue
		}
		paths := at.Index(i).Child("http", "paths")
		if len(r.HTTP.Paths) == 0 {
			errs = append(errs, field.Required(paths, ""))
		}
		for j := range r.HTTP.Paths {
			errs = append(errs, validateHTTPPath(&r.HTTP.Paths[j], paths.Index(j))...)
		}
	}
	return errs
}

func validateHTTPPath(p *networkingv1.HTTPIngressPath, at *field.Path) field.ErrorList {
	if p.PathType == nil {
		return field.ErrorList{field.Required(at.Child("pathType"), "pathType must be specified")}
	}
	var errs field.ErrorList
	invalid := func(message string) {
		errs = append(errs, field.Invalid(at.Child("path"), p.Path, message))
	}
	switch *p.PathType {
	case networkingv1.PathTypeExact, networkingv1.PathTypePrefix:
		if !strings.HasPrefix(p.Path, "/") {
			invalid("must be an absolute path")
		}
		for _, s := range []string{"//", "/./", "/../", "%2f", "%2F"} {
			if strings.Contains(p.Path, s) {
				invalid("must not contain '" + s + "'")
			}
		}
		for _, s := range []string{"/..", "/."} {
			if strings.HasSuffix(p.Path, s) {
				invalid("cannot end with '" + s + "'")
			}
		}
	case networkingv1.PathTypeImplementationSpecific:
		if p.Path != "" && !strings.HasPrefix(p.Path, "/") {
			invalid("must be an absolute path")
		}
	default:
		errs = append(errs, field.NotSupported(at.Child("pathType"), *p.PathType,
			[]networkingv1.PathType{networkingv1.PathTypeExact, networkingv1.PathTypeImplementationSpecific, networkingv1.PathTypePrefix}))
	}
	return append(errs, validateBackend(&p.Backend, at.Child("backend"))...)
}

func validateBackend(b *networkingv1.IngressBackend, at *field.Path) field.ErrorList {
	switch {
	case b.Resource != nil && b.Service != nil:
		return field.ErrorList{field.Invalid(at, "", "cannot set both resource and service backends")}
	case b.Resource != nil:
		return validateTyped(b.Resource.APIGroup, b.Resource.Kind, b.Resource.Name, at.Child("resource"))
	case b.Service == nil:
		return field.ErrorList{field.Invalid(at, "", "resource or service backend is required")}
	}
	var errs field.ErrorList
	s, service := b.Service, at.Child("service")
	if s.Name == "" {
		errs = append(errs, field.Required(service.Child("name"), ""))
	} else {
		errs = append(errs, check.Strings(apivalidation.NameIsDNSLabel(s.Name, false), service.Child("name"), s.Name)...)
	}
	switch name, number := s.Port.Name != "", s.Port.Number != 0; {
	case name && number:
		errs = append(errs, field.Invalid(at, "", "cannot set both port name & port number"))
	case name:
		errs = append(errs, check.Strings(validation.IsValidPortName(s.Port.Name), service.Child("port", "name"), s.Port.Name)...)
	case number:
		errs = append(errs, check.Strings(validation.IsValidPortNum(int(s.Port.Number)), service.Child("port", "number"), s.Port.Number)...)
	default:
		errs = append(errs, field.Required(at, "port name or number is required"))
	}
	return errs
}

// validateTyped checks a reference to an object of any kind.
func validateTyped(group *string, kind, name string, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if group != nil {
		errs = append(errs, check.Strings(validation.IsDNS1123Subdomain(*group), at.Child("apiGroup"), *group)...)
	}
	for _, part := range []struct{ field, value string }{{"kind", kind}, {"name", name}} {
		if part.value == "" {
			errs = append(errs, field.Required(at.Child(part.field), ""))
		} else {
			errs = append(errs, check.Strings(path.IsValidPathSegmentName(part.value), at.Child(part.field), part.value)...)
		}
	}
	return errs
}

func validateIngressStatus(s, old *networkingv1.IngressStatus, at *field.Path) field.ErrorList {
	var known []string
	for _, i := range old.LoadBalancer.Ingress {
		known = append(known, i.IP)
	}
	var errs field.ErrorList
	for i, in := range s.LoadBalancer.Ingress {
		if in.IP != "" {
			errs = append(errs, validation.IsValidIPForLegacyField(at.Index(i).Child("ip"), in.IP, true, known)...)
		}
		if in.Hostname != "" {
			host := at.Index(i).Child("hostname")
			errs = append(errs, check.Strings(validation.IsDNS1123Subdomain(in.Hostname), host, in.Hostname)...)
			if netutils.ParseIPSloppy(in.Hostname) != nil {
				errs = append(errs, field.Invalid(host, in.Hostname, "must be a DNS name, not an IP address"))
			}
		}
	}
	return errs
}

func ingressColumns() []resource.Column {
	col := func(name, description string, value func(*networkingv1.Ingress) string) resource.Column {
		return resource.Col(name, "string", description, 0, func(i *networkingv1.Ingress) any { return value(i) })
	}
	return []resource.Column{
		col("Class", "The name of the IngressClass resource that should be used for additional configuration",
			func(i *networkingv1.Ingress) string { return cell.Or(i.Spec.IngressClassName, "<none>") }),
		col("Hosts", "Hosts that incoming requests are matched against before the ingress rule", hosts),
		col("Address", "Address is a list containing ingress points for the load-balancer", ingressAddresses),
		col("Ports", "Ports of TLS configurations that open", func(i *networkingv1.Ingress) string {
			if len(i.Spec.TLS) > 0 {
				return "80, 443"
			}
			return "80"
		}),
	}
}

func hosts(i *networkingv1.Ingress) string {
	const most = 3
	var list []string
	for _, r := range i.Spec.Rules {
		if len(list) == most {
			return fmt.Sprintf("%s + %d more...", strings.Join(list, ","), len(i.Spec.Rules)-most)
		}
		if r.Host != "" {
			list = append(list, r.Host)
		}
	}
	if len(list) == 0 {
		return "*"
	}
	return strings.Join(list, ",")
}

func ingressAddresses(i *networkingv1.Ingress) string {
	var list []string
	for _, in := range i.Status.LoadBalancer.Ingress {
		if in.IP != "" {
			list = append(list, in.IP)
		} else if in.Hostname != "" {
			list = append(list, in.Hostname)
		}
	}
	slices.Sort(list)
	return strings.Join(slices.Compact(list), ",")
}
