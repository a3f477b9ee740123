package resourcek8s

import (
	"slices"
	"strings"

	resourcev1 "k8s.io/api/resource/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// deviceName names an allocated device as messages do.
func deviceName(driver, pool, device, share string) string {
	return strings.TrimSuffix(strings.Join([]string{driver, pool, device, share}, "/"), "/")
}

func nameOf(d *resourcev1.AllocatedDeviceStatus) string {
	return deviceName(d.Driver, d.Pool, d.Device, ptr.Deref(d.ShareID, ""))
}

func allocated(s *resourcev1.ResourceClaimStatus) map[string]bool {
	out := map[string]bool{}
	if s.Allocation != nil {
		for _, r := range s.Allocation.Devices.Results {
			out[deviceName(r.Driver, r.Pool, r.Device, string(ptr.Deref(r.ShareID, "")))] = true
		}
	}
	return out
}

// dropGivenBack: what drivers say of a device goes with its allocation.
func dropGivenBack(c, old *resourcev1.ResourceClaim) {
	has, had := allocated(&c.Status), allocated(&old.Status)
	c.Status.Devices = slices.DeleteFunc(c.Status.Devices, func(d resourcev1.AllocatedDeviceStatus) bool {
		return had[nameOf(&d)] && !has[nameOf(&d)]
	})
	if len(c.Status.Devices) == 0 {
		c.Status.Devices = nil
	}
}

func validateDevices(s *resourcev1.ResourceClaimStatus, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	given, seen := allocated(s), map[string]bool{}
	for i := range s.Devices {
		d, at := &s.Devices[i], path.Index(i)
		errs = append(errs, validateDriver(d.Driver, at.Child("driver"))...)
		errs = append(errs, validatePool(d.Pool, at.Child("pool"))...)
		errs = append(errs, validateLabel(d.Device, at.Child("device"))...)
		if d.ShareID != nil {
			errs = append(errs, validateShare(*d.ShareID, at.Child("shareID"))...)
		}
		name := nameOf(d)
		if !given[name] {
			errs = append(errs, field.Invalid(at, name, "must be an allocated device in the claim"))
		}
		if seen[name] {
			errs = append(errs, field.Duplicate(at, name))
		}
		seen[name] = true
		errs = append(errs, most(len(d.Conditions), resourcev1.AllocatedDeviceStatusMaxConditions, at.Child("conditions"))...)
		errs = append(errs, metavalidation.ValidateConditions(d.Conditions, at.Child("conditions"))...)
		if d.Data != nil && len(d.Data.Raw) > 0 {
			errs = append(errs, validateRaw(*d.Data, resourcev1.AllocatedDeviceStatusDataMaxLength, at.Child("data"))...)
		}
		errs = append(errs, validateNetworkData(d.NetworkData, at.Child("networkData"))...)
	}
	return errs
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
	ips := path.Child("ips")
	errs = append(errs, most(len(n.IPs), resourcev1.NetworkDeviceDataMaxIPs, ips)...)
	for i, ip := range n.IPs {
		errs = append(errs, validation.IsValidInterfaceAddress(ips.Index(i), ip)...)
		if slices.Contains(n.IPs[:i], ip) {
			errs = append(errs, field.Duplicate(ips.Index(i), ip))
		}
	}
	return errs
}

// validateShare: a share of a device is named by a UUID.
func validateShare(id string, path *field.Path) field.ErrorList {
	if len(id) == 36 && !strings.ContainsFunc(id, func(r rune) bool { return !strings.ContainsRune("0123456789abcdef-", r) }) &&
		id[8] == '-' && id[13] == '-' && id[18] == '-' && id[23] == '-' && strings.Count(id, "-") == 4 {
		return nil
	}
	return field.ErrorList{field.Invalid(path, id, "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters")}
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
		errs = append(errs, most(len(l.list), l.most, at)...)
		for i, c := range l.list {
			errs = append(errs, metavalidation.ValidateLabelName(c, at.Index(i))...)
			if slices.Contains(l.list[:i], c) {
				errs = append(errs, field.Duplicate(at.Index(i), c))
			}
		}
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
