package admissionregistration

import (
	"fmt"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/client-go/util/jsonpath"
)

// Excluded are the reviews that neither webhooks nor policies see: what intercepts them can shut everybody out, its author too.
func Excluded() []schema.GroupResource {
	return []schema.GroupResource{
		{Group: "authentication.k8s.io", Resource: "selfsubjectreviews"},
		{Group: "authentication.k8s.io", Resource: "tokenreviews"},
		{Group: "authorization.k8s.io", Resource: "localsubjectaccessreviews"},
		{Group: "authorization.k8s.io", Resource: "selfsubjectaccessreviews"},
		{Group: "authorization.k8s.io", Resource: "selfsubjectrulesreviews"},
		{Group: "authorization.k8s.io", Resource: "subjectaccessreviews"},
	}
}

// ruleWarnings tells of a webhook's rules that name what is excluded. One with an asterisk may mean something else.
func ruleWarnings(hook int, rules []admissionv1.RuleWithOperations) []string {
	var out []string
	excluded := Excluded()
	for i, r := range rules {
		if slices.Contains(r.APIGroups, "*") || slices.Contains(r.Resources, "*") {
			continue
		}
		seen := map[schema.GroupResource]bool{}
		for _, g := range r.APIGroups {
			for _, name := range r.Resources {
				gr := schema.GroupResource{Group: g, Resource: name}
				if seen[gr] || !slices.Contains(excluded, gr) {
					continue
				}
				seen[gr] = true
				out = append(out, fmt.Sprintf("%s: %s is excluded from admission webhooks; this rule will have no effect",
					field.NewPath("webhooks").Index(hook).Child("rules").Index(i), gr))
			}
		}
	}
	return out
}

// staticSuffix ends the names that a server gives to configuration from its own files.
const staticSuffix = ".static.k8s.io"

const staticName = "names ending with \"" + staticSuffix + "\" are reserved for static manifest-based configurations and cannot be managed via the API"

func validateName(name string) field.ErrorList {
	if !strings.HasSuffix(name, staticSuffix) {
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath("metadata", "name"), name, staticName)}
}

// nameWarnings: an object that has such a name already may be changed.
func nameWarnings(name string, update bool) []string {
	if !update || !strings.HasSuffix(name, staticSuffix) {
		return nil
	}
	return []string{"metadata.name: " + staticName}
}

// validateTypes checks what the type checker wrote into a policy's status.
func validateTypes(t *admissionv1.TypeChecking, at *field.Path) field.ErrorList {
	if t == nil {
		return nil
	}
	var errs field.ErrorList
	for i, w := range t.ExpressionWarnings {
		p := at.Child("expressionWarnings").Index(i)
		if w.Warning == "" {
			errs = append(errs, field.Required(p.Child("warning"), ""))
		}
		ref := strings.TrimSpace(w.FieldRef)
		if ref == "" {
			errs = append(errs, field.Required(p.Child("fieldRef"), ""))
		} else if err := jsonpath.New("spec").Parse("{" + ref + "}"); err != nil {
			errs = append(errs, field.Invalid(p.Child("fieldRef"), ref, fmt.Sprintf("invalid JSONPath: %v", err)))
		}
	}
	return errs
}
