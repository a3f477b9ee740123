package resourcek8s

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/operation"
	"k8s.io/apimachinery/pkg/api/validate"
	"k8s.io/apimachinery/pkg/api/validate/content"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource/check"
	"keelson.dev/keelson/controlplane/resource/podspec"
)

func most(n, limit int, path *field.Path) field.ErrorList {
	if n > limit {
		return field.ErrorList{field.TooMany(path, n, limit)}
	}
	return nil
}

// validateClass checks a class; old is nil at its creation.
func validateClass(s, old *resourcev1.DeviceClassSpec, path *field.Path) field.ErrorList {
	var known []string
	if old != nil {
		known = stored(old.Selectors)
	}
	errs := validateSelectors(s.Selectors, known, path.Child("selectors"))
	config := path.Child("config")
	errs = append(errs, most(len(s.Config), resourcev1.DeviceConfigMaxSize, config)...)
	for i, c := range s.Config {
		errs = append(errs, validateOpaque(c.Opaque, config.Index(i))...)
	}
	return append(errs, validate.ExtendedResourceName(context.Background(), operation.Operation{}, path.Child("extendedResourceName"), s.ExtendedResourceName, nil)...)
}

// validateSelectors checks a list, of which some expressions may be known from the stored object.
func validateSelectors(list []resourcev1.DeviceSelector, known []string, path *field.Path) field.ErrorList {
	errs := most(len(list), resourcev1.DeviceSelectorsMaxSize, path)
	for i, s := range list {
		at := path.Index(i).Child("cel")
		switch {
		case s.CEL == nil:
			errs = append(errs, field.Required(at, ""))
		case len(s.CEL.Expression) > resourcev1.CELSelectorExpressionMaxLength:
			errs = append(errs, field.TooLong(at.Child("expression"), "", resourcev1.CELSelectorExpressionMaxLength))
		default:
			errs = append(errs, validateExpression(s.CEL.Expression, slices.Contains(known, s.CEL.Expression), at.Child("expression"))...)
		}
	}
	return errs
}

func validateOpaque(o *resourcev1.OpaqueDeviceConfiguration, path *field.Path) field.ErrorList {
	at := path.Child("opaque")
	if o == nil {
		return field.ErrorList{field.Required(at, "")}
	}
	return append(validateDeclaredDriver(o.Driver, at.Child("driver")), validateRaw(o.Parameters, resourcev1.OpaqueParametersMaxLength, at.Child("parameters"))...)
}

func validateRaw(raw runtime.RawExtension, limit int, path *field.Path) field.ErrorList {
	switch v := any(nil); {
	case len(raw.Raw) == 0:
		return field.ErrorList{field.Required(path, "")}
	case len(raw.Raw) > limit:
		return field.ErrorList{field.TooLong(path, "", limit)}
	case json.Unmarshal(raw.Raw, &v) != nil:
		return field.ErrorList{field.Invalid(path, "<value omitted>", "error parsing data as JSON")}
	default:
		if _, ok := v.(map[string]any); !ok {
			return field.ErrorList{field.Invalid(path, "<value omitted>", "parameters must be a valid JSON object")}
		}
	}
	return nil
}

func validateDriver(name string, path *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	var errs field.ErrorList
	if len(name) > resourcev1.DriverNameMaxLength {
		errs = append(errs, field.TooLong(path, name, resourcev1.DriverNameMaxLength))
	}
	return append(errs, check.Strings(validation.IsDNS1123Subdomain(strings.ToLower(name)), path, name)...)
}

// validateDeclaredDriver is validateDriver in the words that upstream has where the rule stands with the type.
func validateDeclaredDriver(name string, path *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	var errs field.ErrorList
	if len(name) > resourcev1.DriverNameMaxLength {
		errs = append(errs, field.TooLongCharacters(path, name, resourcev1.DriverNameMaxLength))
	}
	return append(errs, check.Strings(content.IsDNS1123SubdomainCaseless(name), path, name)...)
}

func validateLabel(name string, path *field.Path) field.ErrorList {
	return check.Strings(validation.IsDNS1123Label(name), path, name)
}

func validateClaim(d *resourcev1.DeviceClaim, path *field.Path) field.ErrorList {
	requests := path.Child("requests")
	errs := most(len(d.Requests), resourcev1.DeviceRequestsMaxSize, requests)
	known := map[string]bool{} // "request" and "request/subrequest"
	for i := range d.Requests {
		r := &d.Requests[i]
		at := requests.Index(i)
		if known[r.Name] {
			errs = append(errs, field.Duplicate(at, *r))
		}
		known[r.Name] = true
		errs = append(errs, validateRequest(r, known, at)...)
	}
	constraints := path.Child("constraints")
	errs = append(errs, most(len(d.Constraints), resourcev1.DeviceConstraintsMaxSize, constraints)...)
	for i, c := range d.Constraints {
		errs = append(errs, validateConstraint(c, known, constraints.Index(i))...)
	}
	config := path.Child("config")
	errs = append(errs, most(len(d.Config), resourcev1.DeviceConfigMaxSize, config)...)
	for i, c := range d.Config {
		errs = append(errs, validateNames(c.Requests, known, config.Index(i).Child("requests"))...)
		errs = append(errs, validateOpaque(c.Opaque, config.Index(i))...)
	}
	return errs
}

// validateNames checks that a list names requests of the claim, each once.
func validateNames(list []string, known map[string]bool, path *field.Path) field.ErrorList {
	errs := most(len(list), resourcev1.DeviceRequestsMaxSize, path)
	for i, n := range list {
		errs = append(errs, validateRef(n, known, path.Index(i))...)
		if slices.Index(list, n) != i {
			errs = append(errs, field.Duplicate(path.Index(i), n))
		}
	}
	return errs
}

// validateRef checks the name of a request, or of a request and one of its subrequests.
func validateRef(name string, known map[string]bool, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if parts := strings.Split(name, "/"); len(parts) <= 2 {
		for _, p := range parts {
			errs = append(errs, validateLabel(p, path)...)
		}
	}
	if !known[name] {
		errs = append(errs, field.Invalid(path, name, "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"))
	}
	return errs
}

func validateConstraint(c resourcev1.DeviceConstraint, known map[string]bool, path *field.Path) field.ErrorList {
	errs := validateNames(c.Requests, known, path.Child("requests"))
	switch match, distinct := c.MatchAttribute, c.DistinctAttribute; {
	case match != nil && distinct != nil:
		errs = append(errs, field.Invalid(path, field.OmitValueType{}, "only one of matchAttribute and distinctAttribute may be set"))
	case match != nil:
		errs = append(errs, validateFullName(string(*match), path.Child("matchAttribute"))...)
	case distinct != nil:
		errs = append(errs, validateFullName(string(*distinct), path.Child("distinctAttribute"))...)
	default:
		errs = append(errs, field.Required(path, `exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set`)) // upstream's words
	}
	return errs
}

func validateRequest(r *resourcev1.DeviceRequest, known map[string]bool, path *field.Path) field.ErrorList {
	errs := validateLabel(r.Name, path.Child("name"))
	switch {
	case r.Exactly == nil && len(r.FirstAvailable) == 0:
		return append(errs, field.Required(path, "exactly one of `exactly` or `firstAvailable` is required"))
	case r.Exactly != nil && len(r.FirstAvailable) > 0:
		return append(errs, field.Invalid(path, nil, "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set"))
	case r.Exactly != nil:
		e := r.Exactly
		return append(errs, asked{e.DeviceClassName, e.Selectors, e.AllocationMode, e.Count, e.Tolerations}.validate(path.Child("exactly"))...)
	}
	at := path.Child("firstAvailable")
	errs = append(errs, most(len(r.FirstAvailable), resourcev1.FirstAvailableDeviceRequestMaxSize, at)...)
	for i := range r.FirstAvailable {
		s := &r.FirstAvailable[i]
		full := r.Name + "/" + s.Name
		if known[full] {
			errs = append(errs, field.Duplicate(at.Index(i), *s))
		}
		known[full] = true
		errs = append(errs, validateLabel(s.Name, at.Index(i).Child("name"))...)
		errs = append(errs, asked{s.DeviceClassName, s.Selectors, s.AllocationMode, s.Count, s.Tolerations}.validate(at.Index(i))...)
	}
	return errs
}

// asked is what requests and subrequests have in common.
type asked struct {
	class       string
	selectors   []resourcev1.DeviceSelector
	mode        resourcev1.DeviceAllocationMode
	count       int64
	tolerations []resourcev1.DeviceToleration
}

func (a asked) validate(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if a.class == "" {
		errs = append(errs, field.Required(path.Child("deviceClassName"), ""))
	} else {
		errs = append(errs, check.Strings(apivalidation.NameIsDNSSubdomain(a.class, false), path.Child("deviceClassName"), a.class)...)
	}
	errs = append(errs, validateSelectors(a.selectors, nil, path.Child("selectors"))...)
	switch a.mode {
	case resourcev1.DeviceAllocationModeAll:
		if a.count != 0 {
			errs = append(errs, field.Invalid(path.Child("count"), a.count, "must not be specified when allocationMode is 'All'"))
		}
	case resourcev1.DeviceAllocationModeExactCount:
		if a.count <= 0 {
			errs = append(errs, field.Invalid(path.Child("count"), a.count, "must be greater than zero"))
		}
	default:
		errs = append(errs, field.NotSupported(path.Child("allocationMode"), a.mode,
			[]resourcev1.DeviceAllocationMode{resourcev1.DeviceAllocationModeAll, resourcev1.DeviceAllocationModeExactCount}))
	}
	tolerations := path.Child("tolerations")
	errs = append(errs, most(len(a.tolerations), resourcev1.DeviceTolerationsMaxLength, tolerations)...)
	for i, t := range a.tolerations {
		errs = append(errs, validateToleration(t, tolerations.Index(i))...)
	}
	return errs
}

func validateToleration(t resourcev1.DeviceToleration, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if t.Key != "" {
		errs = append(errs, metavalidation.ValidateLabelName(t.Key, path.Child("key"))...)
	}
	switch t.Operator {
	case resourcev1.DeviceTolerationOpExists:
		if t.Value != "" {
			errs = append(errs, field.Invalid(path.Child("value"), t.Value, "must be empty for operator `Exists`"))
		}
	case resourcev1.DeviceTolerationOpEqual:
		errs = append(errs, check.Strings(validation.IsValidLabelValue(t.Value), path.Child("value"), t.Value)...)
	default:
		errs = append(errs, field.NotSupported(path.Child("operator"), t.Operator,
			[]resourcev1.DeviceTolerationOperator{resourcev1.DeviceTolerationOpEqual, resourcev1.DeviceTolerationOpExists}))
	}
	if t.Effect != "" {
		errs = append(errs, check.OneOf(t.Effect, path.Child("effect"),
			resourcev1.DeviceTaintEffectNoExecute, resourcev1.DeviceTaintEffectNoSchedule, resourcev1.DeviceTaintEffectNone)...)
	}
	return errs
}

// validateClaimStatus: what was allocated stays as it is until it is given back, and only what is allocated can be in use.
func validateClaimStatus(_ context.Context, c, old *resourcev1.ResourceClaim) field.ErrorList {
	path, s, was := field.NewPath("status"), &c.Status, &old.Status
	reserved := path.Child("reservedFor")
	errs := most(len(s.ReservedFor), resourcev1.ResourceClaimReservedForMaxSize, reserved)
	seen := map[types.UID]bool{}
	for i, r := range s.ReservedFor {
		at := reserved.Index(i)
		for _, f := range []struct{ name, value string }{{"resource", r.Resource}, {"name", r.Name}, {"uid", string(r.UID)}} {
			if f.value == "" {
				errs = append(errs, field.Required(at.Child(f.name), ""))
			}
		}
		if seen[r.UID] {
			errs = append(errs, field.Duplicate(at, string(r.UID)))
		}
		seen[r.UID] = true
	}
	errs = append(errs, validateDevices(s, path.Child("devices"))...)
	if len(s.ReservedFor) > 0 {
		if s.Allocation == nil {
			errs = append(errs, field.Forbidden(reserved, "may not be specified when `allocated` is not set"))
		} else if c.DeletionTimestamp != nil && added(s.ReservedFor, was.ReservedFor) {
			errs = append(errs, field.Forbidden(reserved, "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set"))
		}
	}
	if s.Allocation != nil && was.Allocation != nil {
		return append(errs, check.Immutable(s.Allocation, was.Allocation, path.Child("allocation"))...)
	}
	if s.Allocation != nil {
		errs = append(errs, validateAllocation(s.Allocation, &c.Spec.Devices, path.Child("allocation"))...)
	}
	return errs
}

func added(now, was []resourcev1.ResourceClaimConsumerReference) bool {
	return slices.ContainsFunc(now, func(r resourcev1.ResourceClaimConsumerReference) bool { return !slices.Contains(was, r) })
}

func validateAllocation(a *resourcev1.AllocationResult, d *resourcev1.DeviceClaim, path *field.Path) field.ErrorList {
	known := map[string]bool{}
	for _, r := range d.Requests {
		known[r.Name] = true
		for _, s := range r.FirstAvailable {
			known[r.Name+"/"+s.Name] = true
		}
	}
	results := path.Child("devices", "results")
	errs := most(len(a.Devices.Results), resourcev1.AllocationResultsMaxSize, results)
	for i, r := range a.Devices.Results {
		at := results.Index(i)
		errs = append(errs, validateRef(r.Request, known, at.Child("request"))...)
		errs = append(errs, validateDeclaredDriver(r.Driver, at.Child("driver"))...)
		errs = append(errs, validatePool(r.Pool, at.Child("pool"))...)
		errs = append(errs, validateLabel(r.Device, at.Child("device"))...)
		errs = append(errs, validateBinding(r.BindingConditions, r.BindingFailureConditions, at)...)
		if r.ShareID != nil {
			errs = append(errs, validateShare(string(*r.ShareID), at.Child("shareID"))...)
		}
	}
	if a.NodeSelector != nil {
		errs = append(errs, podspec.ValidateNodeSelector(a.NodeSelector, path.Child("nodeSelector"))...)
	}
	config := path.Child("devices", "config")
	errs = append(errs, most(len(a.Devices.Config), 2*resourcev1.DeviceConfigMaxSize, config)...)
	for i, c := range a.Devices.Config {
		if at := config.Index(i).Child("source"); c.Source == "" {
			errs = append(errs, field.Required(at, ""))
		} else {
			errs = append(errs, check.OneOf(c.Source, at, resourcev1.AllocationConfigSourceClaim, resourcev1.AllocationConfigSourceClass)...)
		}
		errs = append(errs, validateNames(c.Requests, known, config.Index(i).Child("requests"))...)
		errs = append(errs, validateOpaque(c.Opaque, config.Index(i))...)
	}
	return errs
}

func validateTaintRule(s *resourcev1.DeviceTaintRuleSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if d := s.DeviceSelector; d != nil {
		at := path.Child("deviceSelector")
		if d.Driver != nil {
			errs = append(errs, validateDriver(*d.Driver, at.Child("driver"))...)
		}
		if d.Pool != nil {
			errs = append(errs, validatePool(*d.Pool, at.Child("pool"))...)
		}
		if d.Device != nil {
			errs = append(errs, validateLabel(*d.Device, at.Child("device"))...)
		}
	}
	return append(errs, validateTaint(s.Taint, path.Child("taint"))...)
}

func validateTaint(t resourcev1.DeviceTaint, path *field.Path) field.ErrorList {
	errs := metavalidation.ValidateLabelName(t.Key, path.Child("key"))
	if t.Value != "" {
		errs = append(errs, check.Strings(validation.IsValidLabelValue(t.Value), path.Child("value"), t.Value)...)
	}
	if t.Effect == "" {
		return append(errs, field.Required(path.Child("effect"), ""))
	}
	return append(errs, check.OneOf(t.Effect, path.Child("effect"),
		resourcev1.DeviceTaintEffectNoExecute, resourcev1.DeviceTaintEffectNoSchedule, resourcev1.DeviceTaintEffectNone)...)
}

// validatePool checks a pool's name: DNS subdomains with slashes between them.
func validatePool(name string, path *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	var errs field.ErrorList
	if len(name) > resourcev1.PoolNameMaxLength {
		errs = append(errs, field.TooLong(path, name, resourcev1.PoolNameMaxLength))
	}
	for part := range strings.SplitSeq(name, "/") {
		errs = append(errs, check.Strings(validation.IsDNS1123Subdomain(part), path, part)...)
	}
	return errs
}

// validateFullName checks an attribute's name with its domain.
func validateFullName(name string, path *field.Path) field.ErrorList {
	errs := validateName(name, path)
	if !strings.Contains(name, "/") {
		errs = append(errs, field.Invalid(path, name, "a fully qualified name must be a domain and a name separated by a slash"))
	}
	return errs
}

func validateDomain(domain string, path *field.Path) field.ErrorList {
	if domain == "" {
		return field.ErrorList{field.Invalid(path, "", "the domain must not be empty")}
	}
	return validateDriver(domain, path)
}

func validateID(id string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(id) > resourcev1.DeviceMaxIDLength {
		errs = append(errs, field.TooLong(path, id, resourcev1.DeviceMaxIDLength))
	}
	return append(errs, check.Strings(content.IsCIdentifier(id), path, id)...)
}
