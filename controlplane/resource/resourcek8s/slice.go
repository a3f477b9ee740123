package resourcek8s

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/validate"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/resource/check"
	"keelson.dev/keelson/controlplane/resource/podspec"
	"keelson.dev/keelson/controlplane/resource/volumesource"
)

// semver is a semantic version 2.0.0.
var semver = regexp.MustCompile(strings.NewReplacer(
	"N", `(0|[1-9]\d*)`, "P", `(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)`, "B", `[0-9a-zA-Z-]+`,
).Replace(`^N\.N\.N(-P(\.P)*)?(\+B(\.B)*)?$`))

// validateSlice checks a slice; was are the devices that it had, none at its creation.
func validateSlice(s *resourcev1.ResourceSliceSpec, was []resourcev1.Device, path *field.Path) field.ErrorList {
	errs := volumesource.CSIDriver(s.Driver, path.Child("driver"))
	pool := path.Child("pool")
	errs = append(errs, validatePool(s.Pool.Name, pool.Child("name"))...)
	if s.Pool.Generation < 0 {
		errs = append(errs, field.Invalid(pool.Child("generation"), s.Pool.Generation, "must be greater than or equal to zero"))
	}
	if s.Pool.ResourceSliceCount <= 0 {
		errs = append(errs, field.Invalid(pool.Child("resourceSliceCount"), s.Pool.ResourceSliceCount, "must be greater than zero"))
	}
	errs = append(errs, validatePlace(s, path)...)
	if s.SharedCounters != nil && s.Devices != nil {
		errs = append(errs, field.Invalid(path, "", "only one of `sharedCounters` or `devices` is allowed"))
	}
	devices := path.Child("devices")
	limit := resourcev1.ResourceSliceMaxDevices
	if slices.ContainsFunc(s.Devices, isAdvanced) {
		limit = resourcev1.ResourceSliceMaxDevicesWithAdvancedFeatures
	}
	seen := map[string]bool{}
	errs = append(errs, list(s.Devices, limit, devices, func(d *resourcev1.Device, at *field.Path) field.ErrorList {
		var old *resourcev1.Device
		if i := slices.IndexFunc(was, func(o resourcev1.Device) bool { return o.Name == d.Name }); i >= 0 {
			old = &was[i]
		}
		errs := validateDevice(d, old, ptr.Deref(s.PerDeviceNodeSelection, false), at)
		if seen[d.Name] {
			errs = append(errs, field.Duplicate(at, d.Name))
		}
		seen[d.Name] = true
		return errs
	})...)
	return append(errs, set(s.SharedCounters, resourcev1.ResourceSliceMaxCounterSets, path.Child("sharedCounters"),
		func(a, b *resourcev1.CounterSet) bool { return a.Name == b.Name },
		func(c *resourcev1.CounterSet, at *field.Path) field.ErrorList {
			errs := required(&c.Name, at.Child("name"), validate.ShortName)
			return append(errs, validateCounters(c.Counters, resourcev1.ResourceSliceMaxCountersPerCounterSet, at.Child("counters"))...)
		})...)
}

// isAdvanced: a device of which a slice holds fewer.
func isAdvanced(d resourcev1.Device) bool {
	return hasLists(d) || len(d.Taints)+len(d.ConsumesCounters) > 0
}

func hasLists(d resourcev1.Device) bool {
	for _, a := range d.Attributes {
		if a.BoolValues != nil || a.IntValues != nil || a.StringValues != nil || a.VersionValues != nil {
			return true
		}
	}
	return false
}

func hasCompatibility(d resourcev1.Device) bool {
	return slices.ContainsFunc(d.ConsumesCounters, func(c resourcev1.DeviceCounterConsumption) bool { return len(c.CompatibilityGroups) > 0 })
}

// validatePlace checks where a slice's devices are: in one way.
func validatePlace(s *resourcev1.ResourceSliceSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if n := s.NodeName; n != nil {
		if *n == "" {
			errs = append(errs, field.Invalid(path.Child("nodeName"), *n, "must be either unset or set to a non-empty string"))
		} else {
			errs = append(errs, check.Strings(apivalidation.NameIsDNSSubdomain(*n, false), path.Child("nodeName"), *n)...)
		}
	}
	if n := s.NodeSelector; n != nil {
		at := path.Child("nodeSelector")
		errs = append(errs, podspec.ValidateNodeSelector(n, at)...)
		if len(n.NodeSelectorTerms) != 1 {
			errs = append(errs, field.Invalid(at.Child("nodeSelectorTerms"), n.NodeSelectorTerms, "must have exactly one node selector term"))
		}
	}
	errs = append(errs, setOrTrue(s.AllNodes, path.Child("allNodes"))...)
	errs = append(errs, setOrTrue(s.PerDeviceNodeSelection, path.Child("perDeviceNodeSelection"))...)
	const one = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"
	return append(errs, exactlyOne(path, one, one+", but multiple fields are set", []way{
		{"nodeName", ptr.Deref(s.NodeName, "") != ""}, {"nodeSelector", s.NodeSelector != nil}, {"allNodes", ptr.Deref(s.AllNodes, false)},
		{"perDeviceNodeSelection", ptr.Deref(s.PerDeviceNodeSelection, false)},
	})...)
}

func setOrTrue(v *bool, path *field.Path) field.ErrorList {
	if v == nil || *v {
		return nil
	}
	return field.ErrorList{field.Invalid(path, false, "must be either unset or set to true")}
}

// way is one of several fields of which one is set.
type way struct {
	name string
	set  bool
}

func exactlyOne(path *field.Path, none, many string, ways []way) field.ErrorList {
	var found []string
	for _, w := range ways {
		if w.set {
			found = append(found, "`"+w.name+"`")
		}
	}
	switch len(found) {
	case 0:
		return field.ErrorList{field.Required(path, none)}
	case 1:
		return nil
	}
	return field.ErrorList{field.Invalid(path, "{"+strings.Join(found, ", ")+"}", many)}
}

func validateDevice(d, old *resourcev1.Device, perDevice bool, path *field.Path) field.ErrorList {
	errs := validateLabel(d.Name, path.Child("name"))
	if n := len(d.Attributes) + len(d.Capacity); n > resourcev1.ResourceSliceMaxAttributesAndCapacitiesPerDevice {
		errs = append(errs, field.Invalid(path, n, fmt.Sprintf("the total number of attributes and capacities must not exceed %d", resourcev1.ResourceSliceMaxAttributesAndCapacitiesPerDevice)))
	}
	if n := len(d.Attributes); n > resourcev1.ResourceSliceMaxAttributeValuesPerDevice {
		errs = append(errs, field.Invalid(path, n, fmt.Sprintf("the total number of attribute values must not exceed %d", resourcev1.ResourceSliceMaxAttributeValuesPerDevice)))
	}
	for _, name := range slices.Sorted(maps.Keys(d.Attributes)) {
		at := path.Child("attributes").Key(string(name))
		errs = append(errs, validateName(string(name), path.Child("attributes"))...)
		errs = append(errs, validateAttribute(d.Attributes[name], at)...)
	}
	if old == nil || !check.Same(d.Capacity, old.Capacity) { // what is stored may go by a policy that the device no longer has
		errs = append(errs, validateCapacity(d.Capacity, ptr.Deref(d.AllowMultipleAllocations, false), path.Child("capacity"))...)
	}
	errs = append(errs, list(d.Taints, resourcev1.DeviceTaintsMaxLength, path.Child("taints"), validateTaint)...)
	errs = append(errs, set(d.ConsumesCounters, resourcev1.ResourceSliceMaxDeviceCounterConsumptionsPerDevice, path.Child("consumesCounters"),
		func(a, b *resourcev1.DeviceCounterConsumption) bool { return a.CounterSet == b.CounterSet },
		func(c *resourcev1.DeviceCounterConsumption, at *field.Path) field.ErrorList {
			errs := required(&c.CounterSet, at.Child("counterSet"), validate.ShortName)
			return append(errs, validateCounters(c.Counters, resourcev1.ResourceSliceMaxCountersPerDeviceCounterConsumption, at.Child("counters"))...)
		})...)
	errs = append(errs, validateBinding(d.BindingConditions, d.BindingFailureConditions, path)...)
	return append(errs, validateDevicePlace(d, perDevice, path)...)
}

func validateCapacity(capacity map[resourcev1.QualifiedName]resourcev1.DeviceCapacity, shared bool, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, name := range slices.Sorted(maps.Keys(capacity)) {
		errs = append(errs, validateName(string(name), path)...)
		switch c, policy := capacity[name], path.Key(string(name)).Child("requestPolicy"); {
		case c.RequestPolicy == nil:
		case shared:
			errs = append(errs, validatePolicy(c.Value, c.RequestPolicy, policy)...)
		default:
			errs = append(errs, field.Forbidden(policy, "allowMultipleAllocations must be true"))
		}
	}
	return errs
}

// validateDevicePlace checks where a device is, if its slice leaves that to it.
func validateDevicePlace(d *resourcev1.Device, perDevice bool, path *field.Path) field.ErrorList {
	if !perDevice {
		if d.NodeName == nil && d.NodeSelector == nil && d.AllNodes == nil {
			return nil
		}
		return field.ErrorList{field.Invalid(path, nil, "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec")}
	}
	var errs field.ErrorList
	if n := d.NodeName; n != nil {
		if *n == "" {
			errs = append(errs, field.Invalid(path.Child("nodeName"), *n, "must not be empty"))
		} else {
			errs = append(errs, check.Strings(apivalidation.NameIsDNSSubdomain(*n, false), path.Child("nodeName"), *n)...)
		}
	}
	if d.NodeSelector != nil {
		errs = append(errs, podspec.ValidateNodeSelector(d.NodeSelector, path.Child("nodeSelector"))...)
	}
	errs = append(errs, setOrTrue(d.AllNodes, path.Child("allNodes"))...)
	const one = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec"
	return append(errs, exactlyOne(path, one, one, []way{
		{"nodeName", ptr.Deref(d.NodeName, "") != ""}, {"nodeSelector", d.NodeSelector != nil}, {"allNodes", ptr.Deref(d.AllNodes, false)},
	})...)
}

// attributeKinds are what an attribute's value can be.
const attributeKinds = "`int`, `bool`, `string`, `version`, `ints`, `bools`, `strings`, `versions`"

func validateAttribute(a resourcev1.DeviceAttribute, path *field.Path) field.ErrorList {
	var found []string
	for _, w := range []way{{"int", a.IntValue != nil}, {"bool", a.BoolValue != nil}, {"string", a.StringValue != nil}, {"version", a.VersionValue != nil},
		{"ints", a.IntValues != nil}, {"bools", a.BoolValues != nil}, {"strings", a.StringValues != nil}, {"versions", a.VersionValues != nil}} {
		if w.set {
			found = append(found, w.name)
		}
	}
	switch len(found) {
	case 0:
		return field.ErrorList{field.Invalid(path, "", "must specify one of: "+attributeKinds)}
	case 1:
		return validateText(a, path)
	}
	return append(validateText(a, path), field.Invalid(path, "{"+strings.Join(found, ", ")+"}", "must specify exactly one of: "+attributeKinds))
}

// validateText checks an attribute's strings and versions.
func validateText(a resourcev1.DeviceAttribute, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	text := func(v string, version bool, at *field.Path) {
		if len(v) > resourcev1.DeviceAttributeMaxValueLength {
			errs = append(errs, field.TooLong(at, v, resourcev1.DeviceAttributeMaxValueLength))
		}
		if version && !semver.MatchString(v) {
			errs = append(errs, field.Invalid(at, v, "must be a string compatible with semver.org spec 2.0.0"))
		}
	}
	if a.StringValue != nil {
		text(*a.StringValue, false, path.Child("string"))
	}
	if a.VersionValue != nil {
		text(*a.VersionValue, true, path.Child("version"))
	}
	for i, v := range a.StringValues {
		text(v, false, path.Child("strings").Index(i))
	}
	for i, v := range a.VersionValues {
		text(v, true, path.Child("versions").Index(i))
	}
	return errs
}

func validateCounters(counters map[string]resourcev1.Counter, limit int, path *field.Path) field.ErrorList {
	if len(counters) == 0 {
		return field.ErrorList{field.Required(path, "")}
	}
	errs := most(len(counters), limit, path)
	for _, name := range slices.Sorted(maps.Keys(counters)) {
		errs = append(errs, declared(&name, path, validate.ShortName)...)
	}
	return errs
}
