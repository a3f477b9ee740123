package networking

import (
	"context"

	networkingv1 "k8s.io/api/networking/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/resource"
	"keelson.dev/keelson/controlplane/resource/cell"
	"keelson.dev/keelson/controlplane/resource/check"
)

const maxControllerLength = 250

func ingressClass() resource.Kind {
	type class = networkingv1.IngressClass
	return resource.Of(resource.Kind{
		Kind: "IngressClass", Plural: "ingressclasses", HasGeneration: true, NoAge: true,
		New:     func() runtime.Object { return &class{} },
		NewList: func() runtime.Object { return &networkingv1.IngressClassList{} },
		Columns: []resource.Column{
			cell.DefaultName(func(c *class) bool { return c.Annotations[networkingv1.AnnotationIsDefaultIngressClass] == "true" }),
			resource.Col("Controller", "string", "Controller that is responsible for handling this class", 0,
				func(c *class) any { return c.Spec.Controller }),
			resource.Col("Parameters", "string", "A reference to a resource with additional parameters", 0, func(c *class) any {
				p := c.Spec.Parameters
				switch {
				case p == nil:
					return "<none>"
				case p.APIGroup != nil:
					return p.Kind + "." + *p.APIGroup + "/" + p.Name
				}
				return p.Kind + "/" + p.Name
			}),
			cell.Age(),
		},
	}, resource.Rules[*class]{
		Default: func(c *class) {
			if p := c.Spec.Parameters; p != nil && p.Scope == nil {
				p.Scope = ptr.To(networkingv1.IngressClassParametersReferenceScopeCluster)
			}
		},
		Validate: func(_ context.Context, c *class) field.ErrorList {
			return validateClass(&c.Spec, field.NewPath("spec"))
		},
		ValidateUpdate: func(_ context.Context, c, old *class) field.ErrorList {
			path := field.NewPath("spec")
			return append(validateClass(&c.Spec, path), check.Immutable(c.Spec.Controller, old.Spec.Controller, path.Child("controller"))...)
		},
	})
}

func validateClass(s *networkingv1.IngressClassSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(s.Controller) > maxControllerLength {
		errs = append(errs, field.TooLong(path.Child("controller"), s.Controller, maxControllerLength))
	}
	errs = append(errs, validation.IsDomainPrefixedPath(path.Child("controller"), s.Controller)...)
	if s.Parameters != nil {
		errs = append(errs, validateParameters(s.Parameters, path.Child("parameters"))...)
	}
	return errs
}

func validateParameters(p *networkingv1.IngressClassParametersReference, path *field.Path) field.ErrorList {
	errs := validateTyped(p.APIGroup, p.Kind, p.Name, path)
	if p.Scope == nil {
		return append(errs, field.Required(path.Child("scope"), ""))
	}
	namespace := path.Child("namespace")
	switch *p.Scope {
	case networkingv1.IngressClassParametersReferenceScopeNamespace:
		if p.Namespace == nil {
			errs = append(errs, field.Required(namespace, "`parameters.scope` is set to 'Namespace'"))
		} else {
			errs = append(errs, check.Strings(apivalidation.ValidateNamespaceName(*p.Namespace, false), namespace, *p.Namespace)...)
		}
	case networkingv1.IngressClassParametersReferenceScopeCluster:
		if p.Namespace != nil {
			errs = append(errs, field.Forbidden(namespace, "`parameters.scope` is set to 'Cluster'"))
		}
	default:
		errs = append(errs, field.NotSupported(path.Child("scope"), *p.Scope,
			[]string{networkingv1.IngressClassParametersReferenceScopeCluster, networkingv1.IngressClassParametersReferenceScopeNamespace}))
	}
	return errs
}
