package resourcek8s

import (
	"context"
	"slices"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/validate"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/controlplane/resource/check"
	"keelson.dev/keelson/controlplane/resource/podspec"
	"keelson.dev/keelson/controlplane/resource/volumesource"
)

// deviceID tells of a device, or of a share of one. Messages show it with these names.
type deviceID struct{ Driver, Pool, Device, ShareID string }

func idOf(d *resourcev1.AllocatedDeviceStatus) deviceID {
	return deviceID{d.Driver, d.Pool, d.Device, ptr.Deref(d.ShareID, "")}
}

func allocated(s *resourcev1.ResourceClaimStatus) map[deviceID]bool {
	out := map[deviceID]bool{}
	for _, r := range resultsOf(s) {
		out[deviceID{r.Driver, r.Pool, r.Device, string(ptr.Deref(r.ShareID, ""))}] = true
	}
	return out
}

func resultsOf(s *resourcev1.ResourceClaimStatus) []resourcev1.DeviceRequestAllocationResult {
	if s.Allocation == nil {
		return nil
	}
	return s.Allocation.Devices.Results
}

// dropSkipped drops operations that are not for nodes to do, which are off by default, unless there were some.
func dropSkipped(s, old *resourcev1.ResourceClaimStatus) {
	if slices.ContainsFunc(resultsOf(old), func(r resourcev1.DeviceRequestAllocationResult) bool { return len(r.SkipNodeOperations) > 0 }) {
		return
	}
	results := resultsOf(s)
	for i := range results {
		results[i].SkipNodeOperations = nil
	}
}

// dropGivenBack: what drivers say of a device goes with its allocation.
func dropGivenBack(c, old *resourcev1.ResourceClaim) {
	has, had := allocated(&c.Status), allocated(&old.Status)
	c.Status.Devices = slices.DeleteFunc(c.Status.Devices, func(d resourcev1.AllocatedDeviceStatus) bool {
		return had[idOf(&d)] && !has[idOf(&d)]
	})
	if len(c.Status.Devices) == 0 {
		c.Status.Devices = nil
	}
}

// validateClaimStatus: what was allocated stays as it is until it is given back, and only what is allocated can be in use.
func validateClaimStatus(_ context.Context, c, old *resourcev1.ResourceClaim) field.ErrorList {
	path, s, was := field.NewPath("status"), &c.Status, &old.Status
	reserved := path.Child("reservedFor")
	errs := set(s.ReservedFor, resourcev1.ResourceClaimReservedForMaxSize, reserved,
		func(a, b *resourcev1.ResourceClaimConsumerReference) bool { return a.UID == b.UID }, validateConsumer)
	given := allocated(s)
	errs = append(errs, set(s.Devices, len(s.Devices), path.Child("devices"),
		func(a, b *resourcev1.AllocatedDeviceStatus) bool { return idOf(a) == idOf(b) },
		func(d *resourcev1.AllocatedDeviceStatus, at *field.Path) field.ErrorList {
			return validateDeviceStatus(d, given, at)
		})...)
	if len(s.ReservedFor) > 0 {
		if s.Allocation == nil {
			errs = append(errs, field.Forbidden(reserved, "may not be specified when `allocated` is not set"))
		} else if c.DeletionTimestamp != nil && added(s.ReservedFor, was.ReservedFor) {
			errs = append(errs, field.Forbidden(reserved, "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set"))
		}
	}
	at := path.Child("allocation")
	switch {
	case s.Allocation == nil:
	case was.Allocation == nil:
		errs = append(errs, validateAllocation(s.Allocation, requestNames(&c.Spec.Devices), at)...)
	case !check.Same(s.Allocation, was.Allocation):
		errs = append(errs, field.Invalid(at, nil, "field cannot be modified once set"))
	}
	return errs
}

func validateConsumer(r *resourcev1.ResourceClaimConsumerReference, path *field.Path) field.ErrorList {
	errs := required(&r.Resource, path.Child("resource"))
	errs = append(errs, required(&r.Name, path.Child("name"))...)
	return append(errs, required(&r.UID, path.Child("uid"))...)
}

func added(now, was []resourcev1.ResourceClaimConsumerReference) bool {
	return slices.ContainsFunc(now, func(r resourcev1.ResourceClaimConsumerReference) bool { return !slices.Contains(was, r) })
}

func validateAllocation(a *resourcev1.AllocationResult, known map[string]bool, path *field.Path) field.ErrorList {
	errs := list(a.Devices.Results, resourcev1.AllocationResultsMaxSize, path.Child("devices", "results"),
		func(r *resourcev1.DeviceRequestAllocationResult, at *field.Path) field.ErrorList {
			return validateResult(r, known, at)
		})
	if a.NodeSelector != nil {
		errs = append(errs, podspec.ValidateNodeSelector(a.NodeSelector, path.Child("nodeSelector"))...)
	}
	return append(errs, list(a.Devices.Config, 2*resourcev1.DeviceConfigMaxSize, path.Child("devices", "config"),
		func(c *resourcev1.DeviceAllocationConfiguration, at *field.Path) field.ErrorList {
			source := at.Child("source")
			errs := required(&c.Source, source)
			if c.Source != "" {
				errs = check.OneOf(c.Source, source, resourcev1.AllocationConfigSourceClaim, resourcev1.AllocationConfigSourceClass)
			}
			errs = append(errs, validateNames(c.Requests, known, at.Child("requests"))...)
			return append(errs, validateOpaque(c.Opaque, false, at.Child("opaque"))...)
		})...)
}

func validateResult(r *resourcev1.DeviceRequestAllocationResult, known map[string]bool, path *field.Path) field.ErrorList {
	errs := validateRef(r.Request, known, path.Child("request"))
	errs = append(errs, validateDeclaredDriver(r.Driver, path.Child("driver"))...)
	errs = append(errs, required(&r.Pool, path.Child("pool"), validate.ResourcePoolName)...)
	errs = append(errs, validateLabel(r.Device, path.Child("device"))...)
	errs = append(errs, validateBinding(r.BindingConditions, r.BindingFailureConditions, path)...)
	for i, t := range r.Tolerations {
		at := path.Child("tolerations").Index(i)
		errs = append(errs, append(declaredToleration(t, at), validateToleration(t, at)...)...)
	}
	return append(errs, declared(r.ShareID, path.Child("shareID"), validate.UUID)...)
}

func validateDeviceStatus(d *resourcev1.AllocatedDeviceStatus, given map[deviceID]bool, path *field.Path) field.ErrorList {
	errs := volumesource.CSIDriver(d.Driver, path.Child("driver"))
	errs = append(errs, validatePool(d.Pool, path.Child("pool"))...)
	errs = append(errs, validateLabel(d.Device, path.Child("device"))...)
	errs = append(errs, declared(d.ShareID, path.Child("shareID"), validate.UUID)...)
	if id := idOf(d); !given[id] {
		errs = append(errs, field.Invalid(path, id, "must be an allocated device in the claim"))
	}
	errs = append(errs, most(len(d.Conditions), resourcev1.AllocatedDeviceStatusMaxConditions, path.Child("conditions"))...)
	errs = append(errs, metavalidation.ValidateConditions(d.Conditions, path.Child("conditions"))...)
	if d.Data != nil && len(d.Data.Raw) > 0 {
		errs = append(errs, validateRaw(*d.Data, resourcev1.AllocatedDeviceStatusDataMaxLength, path.Child("data"))...)
	}
	return append(errs, validateNetworkData(d.NetworkData, path.Child("networkData"))...)
}

func validateNetworkData(n *resourcev1.NetworkDeviceData, path *field.Path) field.ErrorList {
	if n == nil {
		return nil
	}
	var errs field.ErrorList
	if len(n.InterfaceName) > resourcev1.NetworkDeviceDataInterfaceNameMaxLength {
		errs = append(errs, field.TooLong(path.Child("interfaceName"), "", resourcev1.NetworkDeviceDataInterfaceNameMaxLength))
	}
	if len(n.HardwareAddress) > resourcev1.NetworkDeviceDataHardwareAddressMaxLength {
		errs = append(errs, field.TooLong(path.Child("hardwareAddress"), "", resourcev1.NetworkDeviceDataHardwareAddressMaxLength))
	}
	return append(errs, set(n.IPs, resourcev1.NetworkDeviceDataMaxIPs, path.Child("ips"), validate.DirectEqual,
		func(ip *string, at *field.Path) field.ErrorList { return validation.IsValidInterfaceAddress(at, *ip) })...)
}

// validateBinding: conditions that binding waits for, and those that end the wait, come together and are not the same.
func validateBinding(ok, failed []string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, l := range []struct {
		name string
		list []string
		most int
	}{{"bindingConditions", ok, resourcev1.BindingConditionsMaxSize}, {"bindingFailureConditions", failed, resourcev1.BindingFailureConditionsMaxSize}} {
		at := path.Child(l.name)
		errs = append(errs, list(l.list, l.most, at, func(c *string, at *field.Path) field.ErrorList { return metavalidation.ValidateLabelName(*c, at) })...)
		errs = append(errs, unique(l.list, at, validate.DirectEqual)...)
	}
	for i, c := range failed {
		if slices.Contains(ok, c) {
			errs = append(errs, field.Invalid(path.Child("bindingFailureConditions").Index(i), c, "bindingFailureConditions must not overlap with bindingConditions"))
		}
	}
	switch {
	case len(ok) == 0 && len(failed) > 0:
		errs = append(errs, field.Invalid(path.Child("bindingConditions"), ok, "bindingConditions are required to use bindingFailureConditions"))
	case len(failed) == 0 && len(ok) > 0:
		errs = append(errs, field.Invalid(path.Child("bindingFailureConditions"), failed, "bindingFailureConditions are required to use bindingConditions"))
	}
	return errs
}
