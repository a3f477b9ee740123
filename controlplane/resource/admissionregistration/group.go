package admissionregistration

import (
	"context"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource"
)

// Group is admissionregistration.k8s.io.
func Group() resource.Group {
	return resource.Group{
		Name:        admissionv1.GroupName,
		Versions:    []string{"v1"},
		AddToScheme: []func(*runtime.Scheme) error{admissionv1.AddToScheme},
		Kinds: []resource.Kind{
			mutatingPolicy(), mutatingBinding(), mutatingWebhooks(), validatingPolicy(), validatingBinding(), validatingWebhooks(),
		},
	}
}

// extension is what the group's kinds have in common.
func extension(kind, plural string) resource.Kind {
	return resource.Kind{
		Kind: kind, Plural: plural, Categories: []string{"api-extensions"}, HasGeneration: true, ForbidUnconditionalUpdate: true,
	}
}

func count[T runtime.Object](name, description string, n func(T) int) resource.Column {
	return resource.Col(name, "integer", description, 0, func(o T) any { return int64(n(o)) })
}

func mutatingWebhooks() resource.Kind {
	type hooks = admissionv1.MutatingWebhookConfiguration
	k := extension("MutatingWebhookConfiguration", "mutatingwebhookconfigurations")
	k.New = func() runtime.Object { return &hooks{} }
	k.NewList = func() runtime.Object { return &admissionv1.MutatingWebhookConfigurationList{} }
	k.Columns = []resource.Column{count("Webhooks", "Webhooks indicates the number of webhooks registered in this configuration",
		func(h *hooks) int { return len(h.Webhooks) })}
	return resource.Of(k, resource.Rules[*hooks]{
		Default: func(h *hooks) {
			for i := range h.Webhooks {
				w := &h.Webhooks[i]
				defaultHook(ofMutating(w))
				set(&w.ReinvocationPolicy, admissionv1.NeverReinvocationPolicy)
			}
		},
		Validate: func(_ context.Context, h *hooks) field.ErrorList { return validateMutating(h, nil) },
		ValidateUpdate: func(_ context.Context, h, old *hooks) field.ErrorList {
			return validateMutating(h, old)
		},
	})
}

func validatingWebhooks() resource.Kind {
	type hooks = admissionv1.ValidatingWebhookConfiguration
	k := extension("ValidatingWebhookConfiguration", "validatingwebhookconfigurations")
	k.New = func() runtime.Object { return &hooks{} }
	k.NewList = func() runtime.Object { return &admissionv1.ValidatingWebhookConfigurationList{} }
	k.Columns = []resource.Column{count("Webhooks", "Webhooks indicates the number of webhooks registered in this configuration",
		func(h *hooks) int { return len(h.Webhooks) })}
	return resource.Of(k, resource.Rules[*hooks]{
		Default: func(h *hooks) {
			for i := range h.Webhooks {
				defaultHook(ofValidating(&h.Webhooks[i]))
			}
		},
		Validate: func(_ context.Context, h *hooks) field.ErrorList { return validateValidating(h, nil) },
		ValidateUpdate: func(_ context.Context, h, old *hooks) field.ErrorList {
			return validateValidating(h, old)
		},
	})
}

func validatingPolicy() resource.Kind {
	type policy = admissionv1.ValidatingAdmissionPolicy
	k := extension("ValidatingAdmissionPolicy", "validatingadmissionpolicies")
	k.HasStatus = true
	k.New = func() runtime.Object { return &policy{} }
	k.NewList = func() runtime.Object { return &admissionv1.ValidatingAdmissionPolicyList{} }
	k.Columns = []resource.Column{
		count("Validations", "Validations indicates the number of validation rules defined in this configuration",
			func(p *policy) int { return len(p.Spec.Validations) }),
		resource.Col("ParamKind", "string", "ParamKind specifies the kind of resources used to parameterize this policy", 0,
			func(p *policy) any { return paramKindCell(p.Spec.ParamKind) }),
	}
	return resource.Of(k, resource.Rules[*policy]{
		Default: func(p *policy) {
			set(&p.Spec.FailurePolicy, admissionv1.Fail)
			defaultMatch(p.Spec.MatchConstraints)
		},
		Validate: func(_ context.Context, p *policy) field.ErrorList {
			return validateValidatingPolicy(&p.Spec, nil, field.NewPath("spec"))
		},
		ValidateUpdate: func(_ context.Context, p, old *policy) field.ErrorList {
			return validateValidatingPolicy(&p.Spec, &old.Spec, field.NewPath("spec"))
		},
		ValidateStatusUpdate: func(_ context.Context, p, _ *policy) field.ErrorList {
			return metavalidation.ValidateConditions(p.Status.Conditions, field.NewPath("status", "conditions"))
		},
	})
}

func mutatingPolicy() resource.Kind {
	type policy = admissionv1.MutatingAdmissionPolicy
	k := extension("MutatingAdmissionPolicy", "mutatingadmissionpolicies")
	k.New = func() runtime.Object { return &policy{} }
	k.NewList = func() runtime.Object { return &admissionv1.MutatingAdmissionPolicyList{} }
	k.Columns = []resource.Column{
		count("Mutations", "Mutation indicates the number of mutations rules defined in this configuration",
			func(p *policy) int { return len(p.Spec.Mutations) }),
		resource.Col("ParamKind", "string", "ParamKind specifies the kind of resources used to parameterize this policy", 0,
			func(p *policy) any { return paramKindCell(p.Spec.ParamKind) }),
	}
	return resource.Of(k, resource.Rules[*policy]{
		Default: func(p *policy) {
			set(&p.Spec.FailurePolicy, admissionv1.Fail)
			defaultMatch(p.Spec.MatchConstraints)
		},
		Validate: func(_ context.Context, p *policy) field.ErrorList {
			return validateMutatingPolicy(&p.Spec, nil, field.NewPath("spec"))
		},
		ValidateUpdate: func(_ context.Context, p, old *policy) field.ErrorList {
			return validateMutatingPolicy(&p.Spec, &old.Spec, field.NewPath("spec"))
		},
	})
}

func validatingBinding() resource.Kind {
	type binding = admissionv1.ValidatingAdmissionPolicyBinding
	k := extension("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings")
	k.New = func() runtime.Object { return &binding{} }
	k.NewList = func() runtime.Object { return &admissionv1.ValidatingAdmissionPolicyBindingList{} }
	k.Columns = bindingColumns(func(b *binding) (string, *admissionv1.ParamRef) { return b.Spec.PolicyName, b.Spec.ParamRef })
	return resource.Of(k, resource.Rules[*binding]{
		Default: func(b *binding) { defaultMatch(b.Spec.MatchResources) },
		Validate: func(_ context.Context, b *binding) field.ErrorList {
			return validateValidatingBinding(&b.Spec, field.NewPath("spec"))
		},
	})
}

func mutatingBinding() resource.Kind {
	type binding = admissionv1.MutatingAdmissionPolicyBinding
	k := extension("MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings")
	k.New = func() runtime.Object { return &binding{} }
	k.NewList = func() runtime.Object { return &admissionv1.MutatingAdmissionPolicyBindingList{} }
	k.Columns = bindingColumns(func(b *binding) (string, *admissionv1.ParamRef) { return b.Spec.PolicyName, b.Spec.ParamRef })
	return resource.Of(k, resource.Rules[*binding]{
		Default: func(b *binding) { defaultMatch(b.Spec.MatchResources) },
		Validate: func(_ context.Context, b *binding) field.ErrorList {
			path := field.NewPath("spec")
			return validateBinding(b.Spec.PolicyName, b.Spec.ParamRef, b.Spec.MatchResources, path)
		},
	})
}

func bindingColumns[T runtime.Object](of func(T) (string, *admissionv1.ParamRef)) []resource.Column {
	return []resource.Column{
		resource.Col("PolicyName", "string", "PolicyName indicates the policy definition which the policy binding binded to", 0,
			func(o T) any { name, _ := of(o); return name }),
		resource.Col("ParamRef", "string", "ParamRef indicates the param resource which sets the configration param", 0, func(o T) any {
			_, p := of(o)
			switch {
			case p == nil:
				return "<unset>"
			case p.Name != "" && p.Namespace != "":
				return p.Namespace + "/" + p.Name
			case p.Name != "":
				return "*/" + p.Name
			case p.Selector != nil:
				return p.Selector.String()
			}
			return "<unset>"
		}),
	}
}

func paramKindCell(k *admissionv1.ParamKind) string {
	if k == nil {
		return "<unset>"
	}
	return k.APIVersion + "/" + k.Kind
}
