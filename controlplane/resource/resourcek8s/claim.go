package resourcek8s

import (
	"strings"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/validate"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource/check"
)

func validateClaim(d *resourcev1.DeviceClaim, path *field.Path) field.ErrorList {
	known := requestNames(d)
	errs := set(d.Requests, resourcev1.DeviceRequestsMaxSize, path.Child("requests"),
		func(a, b *resourcev1.DeviceRequest) bool { return a.Name == b.Name }, validateRequest)
	errs = append(errs, list(d.Constraints, resourcev1.DeviceConstraintsMaxSize, path.Child("constraints"),
		func(c *resourcev1.DeviceConstraint, at *field.Path) field.ErrorList {
			return validateConstraint(c, known, at)
		})...)
	return append(errs, list(d.Config, resourcev1.DeviceConfigMaxSize, path.Child("config"),
		func(c *resourcev1.DeviceClaimConfiguration, at *field.Path) field.ErrorList {
			return append(validateNames(c.Requests, known, at.Child("requests")), validateOpaque(c.Opaque, false, at.Child("opaque"))...)
		})...)
}

// requestNames are the names by which the requests of a claim are known: "request" and "request/subrequest". A name that
// has a slash of its own leads nowhere.
func requestNames(d *resourcev1.DeviceClaim) map[string]bool {
	known := map[string]bool{}
	add := func(name string, slashes int) { known[name] = known[name] || strings.Count(name, "/") == slashes }
	for _, r := range d.Requests {
		add(r.Name, 0)
		for _, s := range r.FirstAvailable {
			add(r.Name+"/"+s.Name, 1)
		}
	}
	return known
}

// validateNames checks that a list names requests of the claim, each once.
func validateNames(names []string, known map[string]bool, path *field.Path) field.ErrorList {
	return set(names, resourcev1.DeviceRequestsMaxSize, path, validate.DirectEqual,
		func(name *string, at *field.Path) field.ErrorList { return validateRef(*name, known, at) })
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

func validateConstraint(c *resourcev1.DeviceConstraint, known map[string]bool, path *field.Path) field.ErrorList {
	errs := validateNames(c.Requests, known, path.Child("requests"))
	if c.MatchAttribute == nil && c.DistinctAttribute == nil {
		errs = append(errs, field.Required(path, `exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set`)) // upstream's words
	}
	errs = append(errs, declared(c.MatchAttribute, path.Child("matchAttribute"), validate.ResourceFullyQualifiedName)...)
	return append(errs, declared(c.DistinctAttribute, path.Child("distinctAttribute"), validate.ResourceFullyQualifiedName)...)
}

// validateRequest checks a request. Of one that asks in two ways only the declared rules are asked.
func validateRequest(r *resourcev1.DeviceRequest, path *field.Path) field.ErrorList {
	errs := validateLabel(r.Name, path.Child("name"))
	exactly, first, subs := path.Child("exactly"), path.Child("firstAvailable"), r.FirstAvailable
	if r.Exactly != nil {
		errs = append(errs, askedExactly(r.Exactly).declared(exactly)...)
	}
	errs = append(errs, set(subs, resourcev1.FirstAvailableDeviceRequestMaxSize, first,
		func(a, b *resourcev1.DeviceSubRequest) bool { return a.Name == b.Name },
		func(s *resourcev1.DeviceSubRequest, at *field.Path) field.ErrorList {
			return append(required(&s.DeviceClassName, at.Child("deviceClassName"), validate.LongName), askedFirst(s).declared(at)...)
		})...)
	switch {
	case r.Exactly == nil && len(subs) == 0:
		return append(errs, field.Required(path, "exactly one of `exactly` or `firstAvailable` is required"))
	case r.Exactly != nil && len(subs) > 0:
		return append(errs, field.Invalid(path, nil, "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set"))
	case r.Exactly != nil:
		if class, at := r.Exactly.DeviceClassName, exactly.Child("deviceClassName"); class == "" {
			errs = append(errs, field.Required(at, ""))
		} else {
			errs = append(errs, check.Strings(apivalidation.NameIsDNSSubdomain(class, false), at, class)...)
		}
		return append(errs, askedExactly(r.Exactly).validate(exactly)...)
	}
	return append(errs, list(subs, resourcev1.FirstAvailableDeviceRequestMaxSize, first, func(s *resourcev1.DeviceSubRequest, at *field.Path) field.ErrorList {
		return append(validateLabel(s.Name, at.Child("name")), askedFirst(s).validate(at)...)
	})...)
}

// asked is what requests and subrequests have in common.
type asked struct {
	selectors   []resourcev1.DeviceSelector
	mode        resourcev1.DeviceAllocationMode
	count       int64
	tolerations []resourcev1.DeviceToleration
}

func askedExactly(r *resourcev1.ExactDeviceRequest) asked {
	return asked{r.Selectors, r.AllocationMode, r.Count, r.Tolerations}
}

func askedFirst(r *resourcev1.DeviceSubRequest) asked {
	return asked{r.Selectors, r.AllocationMode, r.Count, r.Tolerations}
}

// declared are the rules that upstream declares with the types.
func (a asked) declared(path *field.Path) field.ErrorList {
	errs := most(len(a.selectors), resourcev1.DeviceSelectorsMaxSize, path.Child("selectors"))
	errs = append(errs, check.OneOf(a.mode, path.Child("allocationMode"), resourcev1.DeviceAllocationModeAll, resourcev1.DeviceAllocationModeExactCount)...)
	for i, t := range a.tolerations {
		errs = append(errs, declaredToleration(t, path.Child("tolerations").Index(i))...)
	}
	return errs
}

// validate are the other rules.
func (a asked) validate(path *field.Path) field.ErrorList {
	errs := validateSelectors(a.selectors, false, path.Child("selectors"))
	switch {
	case a.mode == resourcev1.DeviceAllocationModeAll && a.count != 0:
		errs = append(errs, field.Invalid(path.Child("count"), a.count, "must not be specified when allocationMode is 'All'"))
	case a.mode == resourcev1.DeviceAllocationModeExactCount && a.count <= 0:
		errs = append(errs, field.Invalid(path.Child("count"), a.count, "must be greater than zero"))
	}
	for i, t := range a.tolerations {
		errs = append(errs, validateToleration(t, path.Child("tolerations").Index(i))...)
	}
	return errs
}

func declaredToleration(t resourcev1.DeviceToleration, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if t.Key != "" {
		errs = append(errs, declared(&t.Key, path.Child("key"), validate.LabelKey)...)
	}
	errs = append(errs, check.OneOf(t.Operator, path.Child("operator"), resourcev1.DeviceTolerationOpEqual, resourcev1.DeviceTolerationOpExists)...)
	if t.Effect != "" {
		errs = append(errs, validateEffect(t.Effect, path.Child("effect"))...)
	}
	return errs
}

func validateToleration(t resourcev1.DeviceToleration, path *field.Path) field.ErrorList {
	switch value := path.Child("value"); {
	case t.Operator == resourcev1.DeviceTolerationOpExists && t.Value != "":
		return field.ErrorList{field.Invalid(value, t.Value, "must be empty for operator `Exists`")}
	case t.Operator == resourcev1.DeviceTolerationOpEqual:
		return check.Strings(validation.IsValidLabelValue(t.Value), value, t.Value)
	}
	return nil
}
