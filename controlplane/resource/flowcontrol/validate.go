package flowcontrol

import (
	"fmt"
	"slices"
	"strings"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"
	"k8s.io/apiserver/pkg/util/shufflesharding"

	"keelson.dev/keelson/controlplane/resource/check"
)

const (
	maxPrecedence = 10000
	maxQueues     = 10 * 1000 * 1000
	maxHashBits   = shufflesharding.MaxHashBits
)

// verbs are those of requests to resources and beyond.
var verbs = []string{"create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"}

func validateConditionTypes(types []string) field.ErrorList {
	var errs field.ErrorList
	seen := map[string]bool{}
	for i, t := range types {
		at := field.NewPath("status", "conditions").Index(i).Child("type")
		if t == "" {
			errs = append(errs, field.Required(at, ""))
		}
		if seen[t] {
			errs = append(errs, field.Duplicate(at, t))
		}
		seen[t] = true
	}
	return errs
}

func validateSchema(s *flowcontrolv1.FlowSchema) field.ErrorList {
	path, spec := field.NewPath("spec"), &s.Spec
	var errs field.ErrorList
	for _, m := range bootstrap.MandatoryFlowSchemas {
		if m.Name == s.Name && !check.Same(m.Spec, s.Spec) {
			errs = append(errs, field.Invalid(path, s.Spec, fmt.Sprintf("spec of '%s' must equal the fixed value", s.Name)))
		}
	}
	at, p := path.Child("matchingPrecedence"), spec.MatchingPrecedence
	if p <= 0 {
		errs = append(errs, field.Invalid(at, p, "must be a positive value"))
	}
	if p > maxPrecedence {
		errs = append(errs, field.Invalid(at, p, fmt.Sprintf("must not be greater than %v", maxPrecedence)))
	}
	if p == 1 && s.Name != flowcontrolv1.FlowSchemaNameExempt {
		errs = append(errs, field.Invalid(at, p, "only the schema named 'exempt' may have matchingPrecedence 1"))
	}
	if d := spec.DistinguisherMethod; d != nil {
		if known := []flowcontrolv1.FlowDistinguisherMethodType{
			flowcontrolv1.FlowDistinguisherMethodByNamespaceType, flowcontrolv1.FlowDistinguisherMethodByUserType}; !slices.Contains(known, d.Type) {
			errs = append(errs, field.NotSupported(path.Child("distinguisherMethod", "type"), d, known))
		}
	}
	level := path.Child("priorityLevelConfiguration", "name")
	if name := spec.PriorityLevelConfiguration.Name; name == "" {
		errs = append(errs, field.Required(level, "must reference a priority level"))
	} else {
		errs = append(errs, check.Strings(apivalidation.NameIsDNSSubdomain(name, false), level, name)...)
	}
	for i := range spec.Rules {
		errs = append(errs, validateRule(&spec.Rules[i], path.Child("rules").Index(i))...)
	}
	return errs
}

func validateRule(r *flowcontrolv1.PolicyRulesWithSubjects, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(r.Subjects) == 0 {
		errs = append(errs, field.Required(path.Child("subjects"), "subjects must contain at least one value"))
	}
	for i := range r.Subjects {
		errs = append(errs, validateSubject(&r.Subjects[i], path.Child("subjects").Index(i))...)
	}
	if len(r.ResourceRules)+len(r.NonResourceRules) == 0 {
		errs = append(errs, field.Required(path, "at least one of resourceRules and nonResourceRules has to be non-empty"))
	}
	for i := range r.ResourceRules {
		errs = append(errs, validateResourceRule(&r.ResourceRules[i], path.Child("resourceRules").Index(i))...)
	}
	for i := range r.NonResourceRules {
		errs = append(errs, validateNonResourceRule(&r.NonResourceRules[i], path.Child("nonResourceRules").Index(i))...)
	}
	return errs
}

func validateSubject(s *flowcontrolv1.Subject, path *field.Path) field.ErrorList {
	switch s.Kind {
	case flowcontrolv1.SubjectKindServiceAccount, flowcontrolv1.SubjectKindUser, flowcontrolv1.SubjectKindGroup:
	default:
		return field.ErrorList{field.NotSupported(path.Child("kind"), s.Kind, []flowcontrolv1.SubjectKind{
			flowcontrolv1.SubjectKindGroup, flowcontrolv1.SubjectKindServiceAccount, flowcontrolv1.SubjectKindUser})}
	}
	var errs field.ErrorList
	for _, part := range []struct {
		kind flowcontrolv1.SubjectKind
		name string
		set  bool
	}{
		{flowcontrolv1.SubjectKindServiceAccount, "serviceAccount", s.ServiceAccount != nil},
		{flowcontrolv1.SubjectKindUser, "user", s.User != nil},
		{flowcontrolv1.SubjectKindGroup, "group", s.Group != nil},
	} {
		switch mine := part.kind == s.Kind; {
		case mine && !part.set:
			errs = append(errs, field.Required(path.Child(part.name), fmt.Sprintf("%s is required when subject kind is '%s'", part.name, s.Kind)))
		case !mine && part.set:
			errs = append(errs, field.Forbidden(path.Child(part.name), fmt.Sprintf("%s is forbidden when subject kind is not '%s'", part.name, part.kind)))
		}
	}
	switch {
	case s.Kind == flowcontrolv1.SubjectKindUser && s.User != nil:
		errs = append(errs, required(s.User.Name, path.Child("user", "name"))...)
	case s.Kind == flowcontrolv1.SubjectKindGroup && s.Group != nil:
		errs = append(errs, required(s.Group.Name, path.Child("group", "name"))...)
	case s.Kind == flowcontrolv1.SubjectKindServiceAccount && s.ServiceAccount != nil:
		errs = append(errs, validateAccount(s.ServiceAccount, path.Child("serviceAccount"))...)
	}
	return errs
}

func required(v string, path *field.Path) field.ErrorList {
	if v == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	return nil
}

func validateAccount(s *flowcontrolv1.ServiceAccountSubject, path *field.Path) field.ErrorList {
	errs := required(s.Name, path.Child("name"))
	if s.Name != "" && s.Name != flowcontrolv1.NameAll {
		errs = append(errs, check.Strings(apivalidation.ValidateServiceAccountName(s.Name, false), path.Child("name"), s.Name)...)
	}
	if s.Namespace == "" {
		return append(errs, field.Required(path.Child("namespace"), "must specify namespace for service account"))
	}
	return append(errs, check.Strings(apivalidation.ValidateNamespaceName(s.Namespace, false), path.Child("namespace"), s.Namespace)...)
}

// validateStars checks a list in which "*" stands for everything and hence stands alone.
func validateStars(list []string, path *field.Path, empty, others string) field.ErrorList {
	var errs field.ErrorList
	if len(list) == 0 {
		errs = append(errs, field.Required(path, empty))
	} else if len(list) > 1 && slices.Contains(list, "*") {
		errs = append(errs, field.Invalid(path, list, "if '*' is present, must not specify other "+others))
	}
	return errs
}

func validateVerbs(list []string, path *field.Path) field.ErrorList {
	errs := validateStars(list, path, "verbs must contain at least one value", "verbs")
	if len(list) == 0 || slices.Contains(list, "*") {
		return errs
	}
	for _, v := range list {
		if !slices.Contains(verbs, v) {
			return append(errs, field.NotSupported(path, list, verbs))
		}
	}
	return errs
}

func validateResourceRule(r *flowcontrolv1.ResourcePolicyRule, path *field.Path) field.ErrorList {
	errs := validateVerbs(r.Verbs, path.Child("verbs"))
	errs = append(errs, validateStars(r.APIGroups, path.Child("apiGroups"), "resource rules must supply at least one api group", "api groups")...)
	errs = append(errs, validateStars(r.Resources, path.Child("resources"), "resource rules must supply at least one resource", "resources")...)
	namespaces := path.Child("namespaces")
	if len(r.Namespaces) == 0 && r.ClusterScope {
		return errs
	}
	errs = append(errs, validateStars(r.Namespaces, namespaces, "resource rules that are not cluster scoped must supply at least one namespace", "namespaces")...)
	for i, n := range r.Namespaces {
		if n == "*" {
			continue
		}
		for _, m := range apivalidation.ValidateNamespaceName(n, false) {
			errs = append(errs, field.Invalid(namespaces.Index(i), n, "each member of this list must be '*' or a DNS-1123 label; "+m))
		}
	}
	return errs
}

func validateNonResourceRule(r *flowcontrolv1.NonResourcePolicyRule, path *field.Path) field.ErrorList {
	errs := validateVerbs(r.Verbs, path.Child("verbs"))
	urls := path.Child("nonResourceURLs")
	errs = append(errs, validateStars(r.NonResourceURLs, urls, "nonResourceURLs must contain at least one value", "non-resource URLs")...)
	if slices.Contains(r.NonResourceURLs, "*") {
		return errs
	}
	for i, u := range r.NonResourceURLs {
		if m := urlMessage(u); m != "" {
			errs = append(errs, field.Invalid(urls.Index(i), u, m))
		}
	}
	return errs
}

func urlMessage(u string) string {
	switch stars := strings.Count(u, "*"); {
	case u == "":
		return "must not be empty"
	case u == "/":
		return ""
	case u[0] != '/':
		return "must start with slash"
	case strings.Contains(u, " "):
		return "must not contain white-space"
	case strings.Contains(u, "//"):
		return "must not contain double slash"
	case stars > 1 || stars == 1 && !strings.HasSuffix(u, "/*"):
		return "wildcard can only do suffix matching"
	}
	return ""
}

// zeroShares is how v1beta3 says what v1 has a field for.
const zeroShares = "flowcontrol.k8s.io/v1beta3-preserve-zero-concurrency-shares"

func validateLevel(l *flowcontrolv1.PriorityLevelConfiguration) field.ErrorList {
	path, spec := field.NewPath("spec"), &l.Spec
	var errs field.ErrorList
	if _, ok := l.Annotations[zeroShares]; ok {
		errs = append(errs, field.Forbidden(field.NewPath("metadata", "annotations"), "annotation '"+zeroShares+"' is forbidden"))
	}
	if exempt := spec.Type == flowcontrolv1.PriorityLevelEnablementExempt; exempt != (l.Name == flowcontrolv1.PriorityLevelConfigurationNameExempt) {
		errs = append(errs, field.Invalid(path.Child("type"), spec.Type, "must be 'Exempt' if and only if `name` is 'exempt'"))
	}
	errs = append(errs, validateMode(spec.Type, path.Child("type"), flowcontrolv1.PriorityLevelEnablementExempt, flowcontrolv1.PriorityLevelEnablementLimited)...)
	limited := spec.Type == flowcontrolv1.PriorityLevelEnablementLimited
	errs = append(errs, validatePart(limited, spec.Limited != nil, path.Child("limited"))...)
	if limited && spec.Limited != nil {
		errs = append(errs, validateLimited(spec.Limited, path.Child("limited"))...)
	}
	switch {
	case spec.Exempt == nil:
	case spec.Type == flowcontrolv1.PriorityLevelEnablementExempt:
		errs = append(errs, validateShares(spec.Exempt.NominalConcurrencyShares, spec.Exempt.LendablePercent, path.Child("exempt"))...)
	default:
		errs = append(errs, field.Forbidden(path.Child("exempt"), ""))
	}
	return append(errs, validateMandatory(l, path)...)
}

// validateMandatory holds the levels that the server needs to what they are, but the shares of the exempt one, which are
// the administrator's.
func validateMandatory(l *flowcontrolv1.PriorityLevelConfiguration, path *field.Path) field.ErrorList {
	for _, m := range bootstrap.MandatoryPriorityLevelConfigurations {
		if m.Name != l.Name {
			continue
		}
		fixed, but := m.DeepCopy(), ""
		defaultLevel(fixed)
		if l.Name == flowcontrolv1.PriorityLevelConfigurationNameExempt {
			fixed.Spec.Exempt, but = l.Spec.Exempt, " except the 'spec.exempt' field"
		}
		if !check.Same(fixed.Spec, l.Spec) {
			return field.ErrorList{field.Invalid(path, l.Spec, fmt.Sprintf("spec of '%s'%s must equal the fixed value", l.Name, but))}
		}
	}
	return nil
}

// validateMode checks the field that says which of the parts beside it counts.
func validateMode[S ~string](mode S, path *field.Path, known ...S) field.ErrorList {
	if mode == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	return check.OneOf(mode, path, known...)
}

// validatePart checks that a part is there in its own mode alone.
func validatePart(mine, set bool, path *field.Path) field.ErrorList {
	switch {
	case mine && !set:
		return field.ErrorList{field.Required(path, "")}
	case set && !mine:
		return field.ErrorList{field.Forbidden(path, "")}
	}
	return nil
}

func validateShares(shares, lendable *int32, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if shares != nil && *shares < 0 {
		errs = append(errs, field.Invalid(path.Child("nominalConcurrencyShares"), *shares, "must be a non-negative integer"))
	}
	if lendable != nil && (*lendable < 0 || *lendable > 100) {
		errs = append(errs, field.Invalid(path.Child("lendablePercent"), *lendable, "must be between 0 and 100, inclusive"))
	}
	return errs
}

func validateLimited(l *flowcontrolv1.LimitedPriorityLevelConfiguration, path *field.Path) field.ErrorList {
	errs := validateShares(l.NominalConcurrencyShares, l.LendablePercent, path)
	if b := l.BorrowingLimitPercent; b != nil && *b < 0 {
		errs = append(errs, field.Invalid(path.Child("borrowingLimitPercent"), *b, "if specified, must be a non-negative integer"))
	}
	r, at := &l.LimitResponse, path.Child("limitResponse")
	errs = append(errs, validateMode(r.Type, at.Child("type"), flowcontrolv1.LimitResponseTypeQueue, flowcontrolv1.LimitResponseTypeReject)...)
	queue := r.Type == flowcontrolv1.LimitResponseTypeQueue
	errs = append(errs, validatePart(queue, r.Queuing != nil, at.Child("queuing"))...)
	if queue && r.Queuing != nil {
		errs = append(errs, validateQueuing(r.Queuing, at.Child("queuing"))...)
	}
	return errs
}

func validateQueuing(q *flowcontrolv1.QueuingConfiguration, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if q.QueueLengthLimit <= 0 {
		errs = append(errs, field.Invalid(path.Child("queueLengthLimit"), q.QueueLengthLimit, "must be positive"))
	}
	hand := path.Child("handSize")
	switch {
	case q.Queues <= 0:
		errs = append(errs, field.Invalid(path.Child("queues"), q.Queues, "must be positive"))
	case q.Queues > maxQueues:
		errs = append(errs, field.Invalid(path.Child("queues"), q.Queues, fmt.Sprintf("must not be greater than %d", maxQueues)))
	}
	switch {
	case q.HandSize <= 0:
		errs = append(errs, field.Invalid(hand, q.HandSize, "must be positive"))
	case q.HandSize > q.Queues:
		errs = append(errs, field.Invalid(hand, q.HandSize, fmt.Sprintf("should not be greater than queues (%d)", q.Queues)))
	default:
		if bits := shufflesharding.RequiredEntropyBits(int(q.Queues), int(q.HandSize)); bits > maxHashBits {
			errs = append(errs, field.Invalid(hand, q.HandSize, fmt.Sprintf("required entropy bits of deckSize %d and handSize %d should not be greater than %d", q.Queues, q.HandSize, maxHashBits)))
		}
	}
	return errs
}
