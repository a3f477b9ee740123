package resourcek8s

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/resource/check"
)

func coreName(n string) corev1.ResourceName { return corev1.ResourceName(n) }

// semver is a semantic version 2.0.0.
var semver = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$`)

func validateSlice(s *resourcev1.ResourceSliceSpec, path *field.Path) field.ErrorList {
	errs := validateDriver(s.Driver, path.Child("driver"))
	pool := path.Child("pool")
	errs = append(errs, validatePool(s.Pool.Name, pool.Child("name"))...)
	errs = append(errs, check.NonNegative(s.Pool.Generation, pool.Child("generation"))...)
	if s.Pool.ResourceSliceCount <= 0 {
		errs = append(errs, field.Invalid(pool.Child("resourceSliceCount"), s.Pool.ResourceSliceCount, "must be greater than zero"))
	}
	if s.NodeName != nil {
		errs = append(errs, check.Strings(apivalidation.NameIsDNSSubdomain(*s.NodeName, false), path.Child("nodeName"), *s.NodeName)...)
	}
	errs = append(errs, exactlyOne(path, "`nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection`", map[string]bool{
		"nodeName": s.NodeName != nil, "nodeSelector": s.NodeSelector != nil, "allNodes": ptr.Deref(s.AllNodes, false),
		"perDeviceNodeSelection": ptr.Deref(s.PerDeviceNodeSelection, false),
	})...)
	devices := path.Child("devices")
	limit := resourcev1.ResourceSliceMaxDevices
	if slices.ContainsFunc(s.Devices, func(d resourcev1.Device) bool { return len(d.Taints)+len(d.ConsumesCounters) > 0 }) {
		limit = resourcev1.ResourceSliceMaxDevicesWithAdvancedFeatures
	}
	errs = append(errs, most(len(s.Devices), limit, devices)...)
	seen := map[string]bool{}
	for i := range s.Devices {
		d := &s.Devices[i]
		if seen[d.Name] {
			errs = append(errs, field.Duplicate(devices.Index(i).Child("name"), d.Name))
		}
		seen[d.Name] = true
		errs = append(errs, validateDevice(d, ptr.Deref(s.PerDeviceNodeSelection, false), devices.Index(i))...)
	}
	return append(errs, validateCounters(s.SharedCounters, path.Child("sharedCounters"))...)
}

// exactlyOne checks that one of several fields is set. Names are for the message.
func exactlyOne(path *field.Path, names string, set map[string]bool) field.ErrorList {
	var found []string
	for _, name := range slices.Sorted(maps.Keys(set)) {
		if set[name] {
			found = append(found, "`"+name+"`")
		}
	}
	switch len(found) {
	case 0:
		return field.ErrorList{field.Required(path, "exactly one of "+names+" is required")}
	case 1:
		return nil
	}
	return field.ErrorList{field.Invalid(path, "{"+strings.Join(found, ", ")+"}", "exactly one of "+names+" is required, but multiple fields are set")}
}

func validateDevice(d *resourcev1.Device, perDevice bool, path *field.Path) field.ErrorList {
	errs := validateLabel(d.Name, path.Child("name"))
	if n := len(d.Attributes) + len(d.Capacity); n > resourcev1.ResourceSliceMaxAttributesAndCapacitiesPerDevice {
		errs = append(errs, field.TooMany(path, n, resourcev1.ResourceSliceMaxAttributesAndCapacitiesPerDevice))
	}
	for _, name := range slices.Sorted(maps.Keys(d.Attributes)) {
		at := path.Child("attributes").Key(string(name))
		errs = append(errs, validateName(string(name), at)...)
		errs = append(errs, validateAttribute(d.Attributes[name], at)...)
	}
	for _, name := range slices.Sorted(maps.Keys(d.Capacity)) {
		at := path.Child("capacity").Key(string(name))
		errs = append(errs, validateName(string(name), at)...)
		if v := d.Capacity[name].Value; v.Sign() < 0 {
			errs = append(errs, field.Invalid(at.Child("value"), v.String(), apivalidation.IsNegativeErrorMsg))
		}
	}
	taints := path.Child("taints")
	errs = append(errs, most(len(d.Taints), resourcev1.DeviceTaintsMaxLength, taints)...)
	for i, t := range d.Taints {
		errs = append(errs, validateTaint(t, taints.Index(i))...)
	}
	counters := path.Child("consumesCounters")
	errs = append(errs, most(len(d.ConsumesCounters), resourcev1.ResourceSliceMaxDeviceCounterConsumptionsPerDevice, counters)...)
	for i, c := range d.ConsumesCounters {
		errs = append(errs, validateLabel(c.CounterSet, counters.Index(i).Child("counterSet"))...)
		if len(c.Counters) == 0 {
			errs = append(errs, field.Required(counters.Index(i).Child("counters"), ""))
		}
	}
	own := map[string]bool{"nodeName": d.NodeName != nil, "nodeSelector": d.NodeSelector != nil, "allNodes": ptr.Deref(d.AllNodes, false)}
	if perDevice {
		return append(errs, exactlyOne(path, "`nodeName`, `nodeSelector`, `allNodes`", own)...)
	}
	for _, name := range slices.Sorted(maps.Keys(own)) {
		if own[name] {
			errs = append(errs, field.Invalid(path.Child(name), field.OmitValueType{}, name+" field may only be set if perDeviceNodeSelection is true"))
		}
	}
	return errs
}

// validateName checks an attribute's or capacity's name, whose domain may be left out.
func validateName(name string, path *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(path, "name required")}
	}
	if strings.Contains(name, "/") {
		return validateFullName(name, path)
	}
	return validateID(name, path)
}

func validateAttribute(a resourcev1.DeviceAttribute, path *field.Path) field.ErrorList {
	n := 0
	for _, set := range []bool{a.IntValue != nil, a.BoolValue != nil, a.StringValue != nil, a.VersionValue != nil,
		a.IntValues != nil, a.BoolValues != nil, a.StringValues != nil, a.VersionValues != nil} {
		if set {
			n++
		}
	}
	switch {
	case n == 0:
		return field.ErrorList{field.Required(path, "exactly one value must be specified")}
	case n > 1:
		return field.ErrorList{field.Invalid(path, a, "exactly one value must be specified")}
	}
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

func validateCounters(sets []resourcev1.CounterSet, path *field.Path) field.ErrorList {
	errs := most(len(sets), resourcev1.ResourceSliceMaxCounterSets, path)
	seen := map[string]bool{}
	for i, s := range sets {
		at := path.Index(i)
		errs = append(errs, validateLabel(s.Name, at.Child("name"))...)
		if seen[s.Name] {
			errs = append(errs, field.Duplicate(at.Child("name"), s.Name))
		}
		seen[s.Name] = true
		if len(s.Counters) == 0 {
			errs = append(errs, field.Required(at.Child("counters"), ""))
		}
		errs = append(errs, most(len(s.Counters), resourcev1.ResourceSliceMaxCountersPerCounterSet, at.Child("counters"))...)
		for _, name := range slices.Sorted(maps.Keys(s.Counters)) {
			errs = append(errs, validateLabel(name, at.Child("counters").Key(name))...)
			if v := s.Counters[name].Value; v.Sign() < 0 {
				errs = append(errs, field.Invalid(at.Child("counters").Key(name), v.String(), apivalidation.IsNegativeErrorMsg))
			}
		}
	}
	return errs
}
