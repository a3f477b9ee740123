package admissionregistration

import (
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/resource/check"
)

// reviews are the versions of AdmissionReview that the server sends.
var reviews = []string{"v1", "v1beta1"}

func validateMutating(c, old *admissionv1.MutatingWebhookConfiguration) field.ErrorList {
	hooks := make([]hook, len(c.Webhooks))
	for i := range c.Webhooks {
		hooks[i] = ofMutating(&c.Webhooks[i])
	}
	var was []hook
	if old != nil {
		for i := range old.Webhooks {
			was = append(was, ofMutating(&old.Webhooks[i]))
		}
	}
	errs := validateHooks(hooks, was)
	for i := range c.Webhooks {
		if p := c.Webhooks[i].ReinvocationPolicy; p != nil {
			errs = append(errs, check.OneOf(*p, field.NewPath("webhooks").Index(i).Child("reinvocationPolicy"),
				admissionv1.IfNeededReinvocationPolicy, admissionv1.NeverReinvocationPolicy)...)
		}
	}
	return errs
}

func validateValidating(c, old *admissionv1.ValidatingWebhookConfiguration) field.ErrorList {
	hooks := make([]hook, len(c.Webhooks))
	for i := range c.Webhooks {
		hooks[i] = ofValidating(&c.Webhooks[i])
	}
	var was []hook
	if old != nil {
		for i := range old.Webhooks {
			was = append(was, ofValidating(&old.Webhooks[i]))
		}
	}
	return validateHooks(hooks, was)
}

func validateHooks(hooks, old []hook) field.ErrorList {
	var errs field.ErrorList
	seen := map[string]bool{}
	unchanged := map[string]bool{}
	for _, h := range old {
		for _, c := range h.conditions {
			unchanged[c.Expression] = true
		}
	}
	for i, h := range hooks {
		at := field.NewPath("webhooks").Index(i)
		errs = append(errs, validateHook(h, at)...)
		errs = append(errs, validateConditions(h.conditions, conditionVariables, unchanged, at.Child("matchConditions"))...)
		errs = append(errs, validateReviews(h.versions, at.Child("admissionReviewVersions"))...)
		if *h.name != "" && seen[*h.name] {
			errs = append(errs, field.Duplicate(at.Child("name"), *h.name))
		}
		seen[*h.name] = true
	}
	return errs
}

func validateHook(h hook, at *field.Path) field.ErrorList {
	errs := validation.IsFullyQualifiedName(at.Child("name"), *h.name)
	for i := range h.rules {
		errs = append(errs, validateRule(&h.rules[i], at.Child("rules").Index(i))...)
	}
	if p := *h.failurePolicy; p != nil {
		errs = append(errs, check.OneOf(*p, at.Child("failurePolicy"), admissionv1.Fail, admissionv1.Ignore)...)
	}
	if p := *h.matchPolicy; p != nil {
		errs = append(errs, check.OneOf(*p, at.Child("matchPolicy"), admissionv1.Equivalent, admissionv1.Exact)...)
	}
	if h.sideEffects == nil {
		errs = append(errs, field.Required(at.Child("sideEffects"), "must specify one of None, NoneOnDryRun"))
	} else {
		errs = append(errs, check.OneOf(*h.sideEffects, at.Child("sideEffects"), admissionv1.SideEffectClassNone, admissionv1.SideEffectClassNoneOnDryRun)...)
	}
	if t := *h.timeout; t != nil && (*t < 1 || *t > 30) {
		errs = append(errs, field.Invalid(at.Child("timeoutSeconds"), *t, "the timeout value must be between 1 and 30 seconds"))
	}
	errs = append(errs, check.Selector(*h.namespaceSelector, at.Child("namespaceSelector"))...)
	errs = append(errs, check.Selector(*h.objectSelector, at.Child("objectSelector"))...)
	client := at.Child("clientConfig")
	switch c := h.client; {
	case (c.URL == nil) == (c.Service == nil):
		errs = append(errs, field.Required(client, "exactly one of url or service is required"))
	case c.URL != nil:
		errs = append(errs, webhook.ValidateWebhookURL(client.Child("url"), *c.URL, true)...)
	default:
		s := c.Service
		errs = append(errs, webhook.ValidateWebhookService(client.Child("service"), s.Namespace, s.Name, s.Path, ptr.Deref(s.Port, 443))...)
	}
	return errs
}

func validateReviews(versions []string, at *field.Path) field.ErrorList {
	if len(versions) == 0 {
		return field.ErrorList{field.Required(at, "must specify one of "+strings.Join(reviews, ", "))}
	}
	var errs field.ErrorList
	seen, known := map[string]bool{}, false
	for i, v := range versions {
		if seen[v] {
			errs = append(errs, field.Invalid(at.Index(i), v, "duplicate version"))
			continue
		}
		seen[v] = true
		errs = append(errs, check.Strings(validation.IsDNS1035Label(v), at.Index(i), v)...)
		known = known || v == reviews[0] || v == reviews[1]
	}
	if !known {
		errs = append(errs, field.Invalid(at, versions, "must include at least one of "+strings.Join(reviews, ", ")))
	}
	return errs
}
