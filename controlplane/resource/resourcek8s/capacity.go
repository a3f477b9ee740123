package resourcek8s

import (
	"math"
	"strconv"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const maxValidValues = 10

// validatePolicy checks which shares of a capacity can be asked for (KEP-5075).
func validatePolicy(capacity resource.Quantity, p *resourcev1.CapacityRequestPolicy, path *field.Path) field.ErrorList {
	switch values := len(p.ValidValues) > 0; {
	case values && p.ValidRange != nil:
		return field.ErrorList{field.Forbidden(path, `exactly one policy can be specified, cannot specify "validValues" and "validRange" at the same time`)}
	case values && p.Default == nil:
		return field.ErrorList{field.Required(path.Child("default"), "required when validValues is defined")}
	case values:
		return validateValues(*p.Default, capacity, p.ValidValues, path.Child("validValues"))
	case p.ValidRange != nil && p.Default == nil:
		return field.ErrorList{field.Required(path.Child("default"), "required when validRange is defined")}
	case p.ValidRange != nil:
		return validateRange(*p.Default, capacity, p.ValidRange, path.Child("validRange"))
	}
	return nil
}

func validateValues(standard, capacity resource.Quantity, values []resource.Quantity, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := range values[1:] {
		if values[i].Cmp(values[i+1]) > 0 {
			errs = append(errs, field.Invalid(path.Index(i+1), values[i+1].String(), "values must be sorted in ascending order"))
		}
	}
	found, seen := false, map[string]bool{}
	if len(values) > maxValidValues {
		errs = append(errs, field.TooMany(path, len(values), maxValidValues))
		values = nil
	}
	for i, v := range values {
		if v.Cmp(capacity) > 0 {
			errs = append(errs, field.Invalid(path.Index(i), v.String(), "option is larger than capacity value: "+capacity.String()))
		}
		found = found || v.Cmp(standard) == 0
		key := strconv.FormatInt(v.Value(), 10)
		if seen[key] {
			errs = append(errs, field.Duplicate(path.Index(i), key))
		}
		seen[key] = true
	}
	if !found {
		errs = append(errs, field.Invalid(path, standard.String(), "default value is not valid according to the requestPolicy"))
	}
	return errs
}

func validateRange(standard, capacity resource.Quantity, r *resourcev1.CapacityRequestPolicyRange, path *field.Path) field.ErrorList {
	if r.Min == nil {
		return field.ErrorList{field.Required(path.Child("min"), "required when validRange is defined")}
	}
	var errs field.ErrorList
	bad := func(name string, v resource.Quantity, detail string) {
		errs = append(errs, field.Invalid(path.Child(name), v.String(), detail))
	}
	if r.Min.Cmp(capacity) > 0 {
		bad("min", *r.Min, "min is larger than capacity value: "+capacity.String())
	}
	if standard.Cmp(*r.Min) < 0 {
		bad("default", standard, "default is less than min: "+r.Min.String())
	}
	if r.Max != nil {
		if r.Min.Cmp(*r.Max) > 0 {
			bad("max", *r.Min, "min is larger than max: "+r.Max.String())
		}
		if r.Max.Cmp(capacity) > 0 {
			bad("max", *r.Max, "max is larger than capacity value: "+capacity.String())
		}
		if standard.Cmp(*r.Max) > 0 {
			bad("default", standard, "default is more than max: "+r.Max.String())
		}
	}
	return append(errs, validateSteps(standard, capacity, r, path)...)
}

// validateSteps checks that what a range speaks of lies on its steps, counted in wholes: fractions are off by default. What
// cannot be counted so is refused before it overflows.
func validateSteps(standard, capacity resource.Quantity, r *resourcev1.CapacityRequestPolicyRange, path *field.Path) field.ErrorList {
	step := path.Child("step")
	switch {
	case r.Step == nil:
		return nil
	case r.Step.Sign() <= 0:
		return field.ErrorList{field.Invalid(step, r.Step.String(), "must be greater than zero")}
	}
	var errs field.ErrorList
	once := r.Min.DeepCopy()
	if once.Add(*r.Step); once.Cmp(capacity) > 0 {
		errs = append(errs, field.Invalid(step, r.Step.String(), "one step "+once.String()+" is larger than capacity value: "+capacity.String()))
	}
	countable := true
	for _, p := range []struct {
		name string
		q    *resource.Quantity
	}{{"default", &standard}, {"min", r.Min}, {"max", r.Max}, {"step", r.Step}} {
		switch {
		case p.q == nil:
		case p.q.Sign() < 0:
			errs, countable = append(errs, field.Invalid(path.Child(p.name), p.q.String(), apivalidation.IsNegativeErrorMsg)), false
		case p.q.CmpInt64(math.MaxInt64) > 0:
			errs, countable = append(errs, field.Invalid(path.Child(p.name), p.q.String(), "must not be larger than 9223372036854775807")), false
		}
	}
	for _, v := range []*resource.Quantity{&standard, r.Max} {
		if countable && v != nil && (v.Value()-r.Min.Value())%r.Step.Value() != 0 {
			errs = append(errs, field.Invalid(step, v.String(), "value is not a multiple of a given step ("+r.Step.String()+") from ("+r.Min.String()+")"))
		}
	}
	return errs
}
