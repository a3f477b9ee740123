package admissionregistration

import (
	"context"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource"
)

// Group is admissionregistration.k8s.io without checks of parameters: for tests, and for a server that authorizes otherwise.
func Group() resource.Group { return GroupWith(Checks{}) }

// GroupWith is admissionregistration.k8s.io with checks of parameters.
func GroupWith(c Checks) resource.Group {
	return resource.Group{
		Name:        admissionv1.GroupName,
		Versions:    []string{"v1"},
		AddToScheme: []func(*runtime.Scheme) error{admissionv1.AddToScheme},
		Kinds: []resource.Kind{
			mutatingPolicy(c), mutatingBinding(c), mutatingWebhooks(), validatingPolicy(c), validatingBinding(c), validatingWebhooks(),
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
		Validate: func(_ context.Context, h *hooks) field.ErrorList {
			return append(validateMutating(h, nil), validateName(h.Name)...)
		},
		ValidateUpdate: func(_ context.Context, h, old *hooks) field.ErrorList {
			return validateMutating(h, old)
		},
		Warnings: func(_ context.Context, h, old *hooks) []string {
			w := nameWarnings(h.Name, old != nil)
			for i := range h.Webhooks {
				w = append(w, ruleWarnings(i, h.Webhooks[i].Rules)...)
			}
			return w
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
		Validate: func(_ context.Context, h *hooks) field.ErrorList {
			return append(validateValidating(h, nil), validateName(h.Name)...)
		},
		ValidateUpdate: func(_ context.Context, h, old *hooks) field.ErrorList {
			return validateValidating(h, old)
		},
		Warnings: func(_ context.Context, h, old *hooks) []string {
			w := nameWarnings(h.Name, old != nil)
			for i := range h.Webhooks {
				w = append(w, ruleWarnings(i, h.Webhooks[i].Rules)...)
			}
			return w
		},
	})
}

func validatingPolicy(c Checks) resource.Kind {
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
		Validate: func(ctx context.Context, p *policy) field.ErrorList {
			errs := append(validateValidatingPolicy(p.Name, &p.Spec, nil, field.NewPath("spec")), validateName(p.Name)...)
			return c.kind(ctx, errs, p.Spec.ParamKind, nil)
		},
		ValidateUpdate: func(ctx context.Context, p, old *policy) field.ErrorList {
			errs := validateValidatingPolicy(p.Name, &p.Spec, &old.Spec, field.NewPath("spec"))
			return c.kind(ctx, errs, p.Spec.ParamKind, old.Spec.ParamKind)
		},
		Warnings: func(_ context.Context, p, old *policy) []string { return nameWarnings(p.Name, old != nil) },
		PrepareStatusUpdate: func(_ context.Context, p, old *policy) {
			metav1.ResetObjectMetaForStatus(&p.ObjectMeta, &old.ObjectMeta)
		},
		ValidateStatusUpdate: func(_ context.Context, p, _ *policy) field.ErrorList {
			return validateStatus(&p.Status, field.NewPath("status"))
		},
	})
}

func mutatingPolicy(c Checks) resource.Kind {
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
		Validate: func(ctx context.Context, p *policy) field.ErrorList {
			errs := append(validateMutatingPolicy(&p.Spec, nil, field.NewPath("spec")), validateName(p.Name)...)
			return c.kind(ctx, errs, p.Spec.ParamKind, nil)
		},
		ValidateUpdate: func(ctx context.Context, p, old *policy) field.ErrorList {
			errs := validateMutatingPolicy(&p.Spec, &old.Spec, field.NewPath("spec"))
			return c.kind(ctx, errs, p.Spec.ParamKind, old.Spec.ParamKind)
		},
		Warnings: func(_ context.Context, p, old *policy) []string { return nameWarnings(p.Name, old != nil) },
	})
}

func validatingBinding(c Checks) resource.Kind {
	type binding = admissionv1.ValidatingAdmissionPolicyBinding
	k := extension("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings")
	k.New = func() runtime.Object { return &binding{} }
	k.NewList = func() runtime.Object { return &admissionv1.ValidatingAdmissionPolicyBindingList{} }
	k.Columns = bindingColumns(func(b *binding) (string, *admissionv1.ParamRef) { return b.Spec.PolicyName, b.Spec.ParamRef })
	kinds := &kindOf{
		plural: "validatingadmissionpolicies",
		of: func(o runtime.Object) *admissionv1.ParamKind {
			return o.(*admissionv1.ValidatingAdmissionPolicy).Spec.ParamKind
		},
	}
	k.Install = kinds.install
	at := field.NewPath("spec")
	return resource.Of(k, resource.Rules[*binding]{
		Default: func(b *binding) { defaultMatch(b.Spec.MatchResources) },
		Validate: func(ctx context.Context, b *binding) field.ErrorList {
			errs := append(validateValidatingBinding(&b.Spec, at), validateName(b.Name)...)
			return c.ref(ctx, errs, kinds, bound{b.Spec.PolicyName, b.Spec.ParamRef}, bound{})
		},
		ValidateUpdate: func(ctx context.Context, b, old *binding) field.ErrorList {
			return c.ref(ctx, validateValidatingBinding(&b.Spec, at), kinds,
				bound{b.Spec.PolicyName, b.Spec.ParamRef}, bound{old.Spec.PolicyName, old.Spec.ParamRef})
		},
		Warnings: func(_ context.Context, b, old *binding) []string { return nameWarnings(b.Name, old != nil) },
	})
}

func mutatingBinding(c Checks) resource.Kind {
	type binding = admissionv1.MutatingAdmissionPolicyBinding
	k := extension("MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings")
	k.New = func() runtime.Object { return &binding{} }
	k.NewList = func() runtime.Object { return &admissionv1.MutatingAdmissionPolicyBindingList{} }
	k.Columns = bindingColumns(func(b *binding) (string, *admissionv1.ParamRef) { return b.Spec.PolicyName, b.Spec.ParamRef })
	kinds := &kindOf{
		plural: "mutatingadmissionpolicies",
		of: func(o runtime.Object) *admissionv1.ParamKind {
			return o.(*admissionv1.MutatingAdmissionPolicy).Spec.ParamKind
		},
	}
	k.Install = kinds.install
	at := field.NewPath("spec")
	valid := func(b *binding) field.ErrorList {
		return append(validateBinding(b.Spec.PolicyName, b.Spec.ParamRef, b.Spec.MatchResources, at),
			validateMutable(b.Spec.MatchResources, at.Child("matchResources"))...)
	}
	return resource.Of(k, resource.Rules[*binding]{
		Default: func(b *binding) { defaultMatch(b.Spec.MatchResources) },
		Validate: func(ctx context.Context, b *binding) field.ErrorList {
			return c.ref(ctx, append(valid(b), validateName(b.Name)...), kinds, bound{b.Spec.PolicyName, b.Spec.ParamRef}, bound{})
		},
		ValidateUpdate: func(ctx context.Context, b, old *binding) field.ErrorList {
			return c.ref(ctx, valid(b), kinds, bound{b.Spec.PolicyName, b.Spec.ParamRef}, bound{old.Spec.PolicyName, old.Spec.ParamRef})
		},
		Warnings: func(_ context.Context, b, old *binding) []string { return nameWarnings(b.Name, old != nil) },
	})
}

func bindingColumns[T runtime.Object](of func(T) (string, *admissionv1.ParamRef)) []resource.Column {
	return []resource.Column{
		resource.Col("PolicyName", "string", "PolicyName indicates the policy definition which the policy binding binded to", 0,
			func(o T) any { name, _ := of(o); return name }),
		resource.Col("ParamRef", "string", "ParamRef indicates the param resource which sets the configuration param", 0, func(o T) any {
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
