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
			errs = append(errs, field.Required(at, "must not be empty"))
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
		errs = append(errs, check.OneOf(d.Type, path.Child("distinguisherMethod"),
			flowcontrolv1.FlowDistinguisherMethodByNamespaceType, flowcontrolv1.FlowDistinguisherMethodByUserType)...)
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
	if len(errs) > 0 {
		return errs
	}
	switch s.Kind {
	case flowcontrolv1.SubjectKindUser:
		return required(s.User.Name, path.Child("user", "name"))
	case flowcontrolv1.SubjectKindGroup:
		return required(s.Group.Name, path.Child("group", "name"))
	}
	return validateAccount(s.ServiceAccount, path.Child("serviceAccount"))
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

func validateLevel(l *flowcontrolv1.PriorityLevelConfiguration) field.ErrorList {
	path, spec := field.NewPath("spec"), &l.Spec
	var errs field.ErrorList
	for _, m := range bootstrap.MandatoryPriorityLevelConfigurations {
		if m.Name != l.Name {
			continue
		}
		fixed := m.DeepCopy()
		defaultLevel(fixed)
		if fixed.Spec.Exempt != nil && spec.Exempt != nil {
			// The shares of the exempt level are the administrator's.
			fixed.Spec.Exempt = spec.Exempt
		}
		if !check.Same(fixed.Spec, l.Spec) {
			errs = append(errs, field.Invalid(path, l.Spec, fmt.Sprintf("spec of '%s' except the 'spec.exempt' field must equal the fixed value", l.Name)))
		}
	}
	exempt := spec.Type == flowcontrolv1.PriorityLevelEnablementExempt
	if exempt != (l.Name == flowcontrolv1.PriorityLevelConfigurationNameExempt) {
		errs = append(errs, field.Invalid(path.Child("type"), spec.Type, "type must be 'Exempt' if and only if `name` is 'exempt'"))
	}
	switch spec.Type {
	case flowcontrolv1.PriorityLevelEnablementExempt:
		if spec.Limited != nil {
			errs = append(errs, field.Forbidden(path.Child("limited"), "must be nil if the type is not Limited"))
		}
		if e := spec.Exempt; e != nil {
			errs = append(errs, validateShares(e.NominalConcurrencyShares, e.LendablePercent, path.Child("exempt"))...)
		}
	case flowcontrolv1.PriorityLevelEnablementLimited:
		if spec.Exempt != nil {
			errs = append(errs, field.Forbidden(path.Child("exempt"), "must be nil if the type is Limited"))
		}
		if spec.Limited == nil {
			errs = append(errs, field.Required(path.Child("limited"), "must not be empty when type is Limited"))
		} else {
			errs = append(errs, validateLimited(spec.Limited, path.Child("limited"))...)
		}
	default:
		errs = append(errs, field.NotSupported(path.Child("type"), spec.Type, []flowcontrolv1.PriorityLevelEnablement{
			flowcontrolv1.PriorityLevelEnablementExempt, flowcontrolv1.PriorityLevelEnablementLimited}))
	}
	return errs
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
	switch r.Type {
	case flowcontrolv1.LimitResponseTypeReject:
		if r.Queuing != nil {
			errs = append(errs, field.Forbidden(at.Child("queuing"), "must be nil if limited.limitResponse.type is not Limited"))
		}
	case flowcontrolv1.LimitResponseTypeQueue:
		if r.Queuing == nil {
			return append(errs, field.Required(at.Child("queuing"), "must not be empty if limited.limitResponse.type is Limited"))
		}
		errs = append(errs, validateQueuing(r.Queuing, at.Child("queuing"))...)
	default:
		errs = append(errs, field.NotSupported(at.Child("type"), r.Type,
			[]flowcontrolv1.LimitResponseType{flowcontrolv1.LimitResponseTypeQueue, flowcontrolv1.LimitResponseTypeReject}))
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
		return append(errs, field.Invalid(path.Child("queues"), q.Queues, "must be positive"))
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
