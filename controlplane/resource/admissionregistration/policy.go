package admissionregistration

import (
	"fmt"
	"strings"

	celgo "github.com/google/cel-go/cel"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/validation/path"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/mutating/patch"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/resource/check"
)

const (
	maxAuditAnnotations = 20
	maxAuditExpression  = 5 << 10 // bytes
)

// common is what both kinds of policy have.
type common struct {
	failurePolicy *admissionv1.FailurePolicyType
	paramKind     *admissionv1.ParamKind
	match         *admissionv1.MatchResources
	conditions    []admissionv1.MatchCondition
	variables     []admissionv1.Variable
}

func (p common) options() variables {
	return variables{HasParams: p.paramKind != nil, HasAuthorizer: true}
}

// validate checks the common part and returns the compiler that knows the policy's variables.
func (p common) validate(known map[string]bool, at *field.Path) (*plugincel.CompositedCompiler, field.ErrorList) {
	var errs field.ErrorList
	if p.failurePolicy == nil {
		errs = append(errs, field.Required(at.Child("failurePolicy"), ""))
	} else {
		errs = append(errs, check.OneOf(*p.failurePolicy, at.Child("failurePolicy"), admissionv1.Fail, admissionv1.Ignore)...)
	}
	if p.paramKind != nil {
		errs = append(errs, validateParamKind(p.paramKind, at.Child("paramKind"))...)
	}
	if p.match == nil {
		errs = append(errs, field.Required(at.Child("matchConstraints"), ""))
	} else {
		errs = append(errs, validateMatch(p.match, at.Child("matchConstraints"))...)
		if len(p.match.ResourceRules) == 0 {
			errs = append(errs, field.Required(at.Child("matchConstraints", "resourceRules"), ""))
		}
	}
	errs = append(errs, validateConditions(p.conditions, p.options(), known, at.Child("matchConditions"))...)
	c, err := composed()
	if err != nil {
		return nil, append(errs, field.InternalError(at, err))
	}
	for i, v := range p.variables {
		errs = append(errs, p.validateVariable(c, v, known, at.Child("variables").Index(i))...)
	}
	return c, errs
}

func (p common) validateVariable(c *plugincel.CompositedCompiler, v admissionv1.Variable, known map[string]bool, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if strings.TrimSpace(v.Name) == "" {
		errs = append(errs, field.Required(at.Child("name"), "name is not specified"))
	} else if !identifier(v.Name) {
		errs = append(errs, field.Invalid(at.Child("name"), v.Name, "must be a valid CEL identifier"))
	}
	if strings.TrimSpace(v.Expression) == "" {
		return append(errs, field.Required(at.Child("expression"), "expression is not specified"))
	}
	mode := environment.NewExpressions
	if known[v.Expression] {
		mode = environment.StoredExpressions
	}
	r := c.CompileAndStoreVariable(&validating.Variable{Name: v.Name, Expression: v.Expression}, p.options(), mode)
	return append(errs, failure(r.Error, v.Expression, at.Child("expression"))...)
}

// reserved are the words that CEL's grammar takes for itself.
var reserved = sets.New("true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import", "let",
	"loop", "package", "namespace", "return", "var", "void", "while")

func identifier(name string) bool {
	return len(validation.IsCIdentifier(name)) == 0 && !reserved.Has(name)
}

func validateParamKind(k *admissionv1.ParamKind, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if k.APIVersion == "" {
		errs = append(errs, field.Required(at.Child("apiVersion"), ""))
	} else if gv, err := schema.ParseGroupVersion(k.APIVersion); err != nil {
		errs = append(errs, field.Invalid(at.Child("apiVersion"), k.APIVersion, err.Error()))
	} else {
		// A group that is not a valid name parses all the same.
		if gv.Group != "" {
			errs = append(errs, joined(validation.IsDNS1123Subdomain(gv.Group), at.Child("apiVersion"), gv.Group, "")...)
		}
		if gv.Version == "" {
			errs = append(errs, field.Invalid(at.Child("apiVersion"), k.APIVersion, "version must be specified"))
		} else {
			errs = append(errs, joined(validation.IsDNS1035Label(gv.Version), at.Child("apiVersion"), gv.Version, "")...)
		}
	}
	if k.Kind == "" {
		return append(errs, field.Required(at.Child("kind"), ""))
	}
	return append(errs, joined(validation.IsDNS1035Label(strings.ToLower(k.Kind)), at.Child("kind"), k.Kind, "may have mixed case, but should otherwise match: ")...)
}

// joined makes one error of all that is wrong with one value.
func joined(messages []string, at *field.Path, value, intro string) field.ErrorList {
	if len(messages) == 0 {
		return nil
	}
	return field.ErrorList{field.Invalid(at, value, intro+strings.Join(messages, ","))}
}

func validateValidatingPolicy(name string, s, old *admissionv1.ValidatingAdmissionPolicySpec, at *field.Path) field.ErrorList {
	known := map[string]bool{}
	if old != nil {
		known = validatingExpressions(old)
	}
	p := common{s.FailurePolicy, s.ParamKind, s.MatchConstraints, s.MatchConditions, s.Variables}
	c, errs := p.validate(known, at)
	if c == nil {
		return errs
	}
	if len(s.Validations)+len(s.AuditAnnotations) == 0 {
		const message = "validations or auditAnnotations must contain at least one item"
		return append(errs, field.Required(at.Child("validations"), message), field.Required(at.Child("auditAnnotations"), message))
	}
	for i := range s.Validations {
		errs = append(errs, p.validateValidation(c, &s.Validations[i], known, at.Child("validations").Index(i))...)
	}
	annotations := at.Child("auditAnnotations")
	if n := len(s.AuditAnnotations); n > maxAuditAnnotations {
		errs = append(errs, field.Invalid(annotations, s.AuditAnnotations, fmt.Sprintf("must not have more than %d auditAnnotations", maxAuditAnnotations)))
	}
	seen := map[string]bool{}
	for i, a := range s.AuditAnnotations {
		errs = append(errs, p.validateAnnotation(c, name, a, known, annotations.Index(i))...)
		if seen[a.Key] {
			errs = append(errs, field.Duplicate(annotations.Index(i).Child("key"), a.Key))
		}
		seen[a.Key] = true
	}
	return errs
}

func validatingExpressions(s *admissionv1.ValidatingAdmissionPolicySpec) map[string]bool {
	known := map[string]bool{}
	for _, v := range s.Validations {
		known[v.Expression], known[v.MessageExpression] = true, true
	}
	for _, a := range s.AuditAnnotations {
		known[a.ValueExpression] = true
	}
	for _, c := range s.MatchConditions {
		known[c.Expression] = true
	}
	for _, v := range s.Variables {
		known[v.Expression] = true
	}
	return known
}

func (p common) validateValidation(c *plugincel.CompositedCompiler, v *admissionv1.Validation, known map[string]bool, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	text, message := strings.TrimSpace(v.Expression), strings.TrimSpace(v.Message)
	if text == "" {
		errs = append(errs, field.Required(at.Child("expression"), "expression is not specified"))
	} else {
		errs = append(errs, compiled(c, expression{text, []*celgo.Type{celgo.BoolType}}, p.options(), known, at.Child("expression"))...)
	}
	if v.MessageExpression != "" && strings.TrimSpace(v.MessageExpression) == "" {
		errs = append(errs, field.Invalid(at.Child("messageExpression"), v.MessageExpression, "must be non-empty if specified"))
	} else if v.MessageExpression != "" {
		o := p.options()
		o.HasAuthorizer = false
		errs = append(errs, compiled(c, expression{v.MessageExpression, []*celgo.Type{celgo.StringType}}, o, known, at.Child("messageExpression"))...)
	}
	switch {
	case v.Message != "" && message == "":
		errs = append(errs, field.Invalid(at.Child("message"), v.Message, "must be non-empty if specified"))
	case strings.ContainsAny(message, "\n\r"):
		errs = append(errs, field.Invalid(at.Child("message"), v.Message, "must not contain line breaks"))
	}
	// An expression of several lines needs no message, and Unauthorized is no reason, whatever the fields' documentation says: upstream's
	// server does not look at the one and refuses the other.
	if v.Reason != nil {
		errs = append(errs, check.OneOf(*v.Reason, at.Child("reason"), metav1.StatusReasonForbidden, metav1.StatusReasonInvalid,
			metav1.StatusReasonRequestEntityTooLarge)...)
	}
	return errs
}

// validateAnnotation: the audit log's key is the policy's name, a slash and the annotation's key.
func (p common) validateAnnotation(c *plugincel.CompositedCompiler, policy string, a admissionv1.AuditAnnotation, known map[string]bool, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if policy == "" {
		errs = append(errs, field.Invalid(at.Child("key"), a.Key, "requires metadata.name be non-empty"))
	} else {
		key := policy + "/" + a.Key
		errs = append(errs, check.Strings(validation.IsQualifiedName(key), at.Child("key"), key)...)
	}
	text := strings.TrimSpace(a.ValueExpression)
	if text == "" {
		return append(errs, field.Required(at.Child("valueExpression"), "valueExpression is not specified"))
	}
	if len(text) > maxAuditExpression {
		return append(errs, field.Required(at.Child("valueExpression"), fmt.Sprintf("must not exceed %d bytes in length", maxAuditExpression)))
	}
	return append(errs, compiled(c, expression{text, []*celgo.Type{celgo.StringType, celgo.NullType}}, p.options(), known, at.Child("valueExpression"))...)
}

func validateStatus(s *admissionv1.ValidatingAdmissionPolicyStatus, at *field.Path) field.ErrorList {
	return append(validateTypes(s.TypeChecking, at.Child("typeChecking")), metavalidation.ValidateConditions(s.Conditions, at.Child("conditions"))...)
}

func validateMutatingPolicy(s, old *admissionv1.MutatingAdmissionPolicySpec, at *field.Path) field.ErrorList {
	known := map[string]bool{}
	if old != nil {
		known = mutatingExpressions(old)
	}
	p := common{s.FailurePolicy, s.ParamKind, s.MatchConstraints, s.MatchConditions, s.Variables}
	c, errs := p.validate(known, at)
	if c == nil {
		return errs
	}
	errs = append(errs, validateMutable(s.MatchConstraints, at.Child("matchConstraints"))...)
	if len(s.Mutations) == 0 {
		errs = append(errs, field.Required(at.Child("mutations"), "mutations must contain at least one item"))
	}
	for i := range s.Mutations {
		errs = append(errs, p.validateMutation(c, &s.Mutations[i], known, at.Child("mutations").Index(i))...)
	}
	if s.ReinvocationPolicy == "" {
		return append(errs, field.Required(at.Child("reinvocationPolicy"), ""))
	}
	return append(errs, check.OneOf(s.ReinvocationPolicy, at.Child("reinvocationPolicy"),
		admissionv1.IfNeededReinvocationPolicy, admissionv1.NeverReinvocationPolicy)...)
}

func mutatingExpressions(s *admissionv1.MutatingAdmissionPolicySpec) map[string]bool {
	known := map[string]bool{}
	for _, m := range s.Mutations {
		if m.ApplyConfiguration != nil {
			known[m.ApplyConfiguration.Expression] = true
		}
		if m.JSONPatch != nil {
			known[m.JSONPatch.Expression] = true
		}
	}
	for _, c := range s.MatchConditions {
		known[c.Expression] = true
	}
	for _, v := range s.Variables {
		known[v.Expression] = true
	}
	return known
}

// validateMutable refuses rules for what cannot be changed: an object that goes.
func validateMutable(m *admissionv1.MatchResources, at *field.Path) field.ErrorList {
	if m == nil {
		return nil
	}
	var errs field.ErrorList
	for _, r := range m.ResourceRules {
		for _, o := range r.Operations {
			errs = append(errs, check.OneOf(o, at.Child("resourceRules", "operations"),
				admissionv1.OperationAll, admissionv1.Connect, admissionv1.Create, admissionv1.Update)...)
		}
	}
	return errs
}

func (p common) validateMutation(c *plugincel.CompositedCompiler, m *admissionv1.Mutation, known map[string]bool, at *field.Path) field.ErrorList {
	o := p.options()
	o.HasPatchTypes = true
	var text string
	var types []*celgo.Type
	var part *field.Path
	var errs field.ErrorList // what belongs to the other type of patch
	switch m.PatchType {
	case admissionv1.PatchTypeApplyConfiguration:
		part = at.Child("applyConfiguration")
		if m.JSONPatch != nil {
			errs = append(errs, field.Invalid(at.Child("jsonPatch"), "{jsonPatch}", "must not be specified when patchType is ApplyConfiguration"))
		}
		if m.ApplyConfiguration == nil {
			return append(errs, field.Required(part, "must be specified when patchType is ApplyConfiguration"))
		}
		text, types = m.ApplyConfiguration.Expression, (&patch.ApplyConfigurationCondition{}).ReturnTypes()
	case admissionv1.PatchTypeJSONPatch:
		part = at.Child("jsonPatch")
		if m.ApplyConfiguration != nil {
			errs = append(errs, field.Invalid(at.Child("applyConfiguration"), "{applyConfiguration}", "must not be specified when patchType is JSONPatch"))
		}
		if m.JSONPatch == nil {
			return append(errs, field.Required(part, "must be specified when patchType is JSONPatch"))
		}
		text, types = m.JSONPatch.Expression, (&patch.JSONPatchCondition{}).ReturnTypes()
	case "":
		return field.ErrorList{field.Required(at.Child("patchType"), "")}
	default:
		return field.ErrorList{field.NotSupported(at.Child("patchType"), m.PatchType,
			[]admissionv1.PatchType{admissionv1.PatchTypeApplyConfiguration, admissionv1.PatchTypeJSONPatch})}
	}
	if text = strings.TrimSpace(text); text == "" {
		return append(errs, field.Required(part.Child("expression"), ""))
	}
	return append(errs, compiled(c, expression{text, types}, o, known, part.Child("expression"))...)
}

func validateBinding(policy string, param *admissionv1.ParamRef, match *admissionv1.MatchResources, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if policy == "" {
		errs = append(errs, field.Required(at.Child("policyName"), ""))
	} else {
		errs = append(errs, check.Strings(validation.IsDNS1123Subdomain(policy), at.Child("policyName"), policy)...)
	}
	if param != nil {
		errs = append(errs, validateParamRef(param, at.Child("paramRef"))...)
	}
	return append(errs, validateMatch(match, at.Child("matchResources"))...)
}

func validateParamRef(p *admissionv1.ParamRef, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if p.Name != "" {
		errs = append(errs, check.Strings(path.IsValidPathSegmentName(p.Name), at.Child("name"), p.Name)...)
		if p.Selector != nil {
			errs = append(errs, field.Forbidden(at.Child("name"), "name and selector are mutually exclusive"))
		}
	}
	if p.Selector != nil {
		errs = append(errs, check.Selector(p.Selector, at.Child("selector"))...)
		if p.Name != "" {
			errs = append(errs, field.Forbidden(at.Child("selector"), "name and selector are mutually exclusive"))
		}
	} else if p.Name == "" {
		errs = append(errs, field.Required(at, "one of name or selector must be specified"))
	}
	if ptr.Deref(p.ParameterNotFoundAction, "") == "" {
		return append(errs, field.Required(at.Child("parameterNotFoundAction"), ""))
	}
	return append(errs, check.OneOf(*p.ParameterNotFoundAction, at.Child("parameterNotFoundAction"), admissionv1.DenyAction, admissionv1.AllowAction)...)
}

func validateValidatingBinding(s *admissionv1.ValidatingAdmissionPolicyBindingSpec, at *field.Path) field.ErrorList {
	errs := validateBinding(s.PolicyName, s.ParamRef, s.MatchResources, at)
	actions := at.Child("validationActions")
	seen := map[admissionv1.ValidationAction]bool{}
	for i, a := range s.ValidationActions {
		errs = append(errs, check.OneOf(a, actions.Index(i), admissionv1.Audit, admissionv1.Deny, admissionv1.Warn)...)
		if seen[a] {
			errs = append(errs, field.Duplicate(actions.Index(i), a))
		}
		seen[a] = true
	}
	if seen[admissionv1.Deny] && seen[admissionv1.Warn] {
		errs = append(errs, field.Invalid(actions, s.ValidationActions, "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)"))
	}
	if len(s.ValidationActions) == 0 {
		errs = append(errs, field.Required(actions, ""))
	}
	return errs
}
