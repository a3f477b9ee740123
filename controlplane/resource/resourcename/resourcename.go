package resourcename

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
)

// RoundUp rounds every quantity up to milli units, the finest that the API keeps.
func RoundUp(list corev1.ResourceList) {
	for name, quantity := range list {
		quantity.RoundUp(resource.Milli)
		list[name] = quantity
	}
}

// IsNative tells whether the name is unprefixed or in a kubernetes.io namespace.
func IsNative(name corev1.ResourceName) bool {
	return !strings.Contains(string(name), "/") || strings.Contains(string(name), corev1.ResourceDefaultNamespacePrefix)
}

// IsExtended tells whether the name is a device-like resource outside the native namespace whose
// quota name ("requests." + name) is a qualified name as well.
func IsExtended(name corev1.ResourceName) bool {
	if IsNative(name) || strings.HasPrefix(string(name), corev1.DefaultResourceRequestsPrefix) {
		return false
	}
	return len(validation.IsQualifiedName(corev1.DefaultResourceRequestsPrefix+string(name))) == 0
}

// IsHugePage tells whether the name is hugepages-<size>, whatever the size.
func IsHugePage(name corev1.ResourceName) bool {
	return strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix)
}

// IsHugePageMultiple tells whether quantity is a whole number of the pages that the name speaks of.
func IsHugePageMultiple(name corev1.ResourceName, quantity resource.Quantity) bool {
	page, err := resource.ParseQuantity(strings.TrimPrefix(string(name), corev1.ResourceHugePagesPrefix))
	if !IsHugePage(name) || err != nil || page.Sign() <= 0 || page.MilliValue()%1000 != 0 {
		return false
	}
	return page.Value() != 0 && quantity.Value()%page.Value() == 0
}

// IsOvercommitAllowed tells whether limits may exceed requests: native resources but huge pages.
func IsOvercommitAllowed(name corev1.ResourceName) bool {
	return IsNative(name) && !IsHugePage(name)
}

// IsContainer tells whether a container may request the native resource.
func IsContainer(name corev1.ResourceName) bool {
	switch name {
	case corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage:
		return true
	}
	return IsHugePage(name)
}

var counts = sets.New(corev1.ResourcePods, corev1.ResourceQuotas, corev1.ResourceServices,
	corev1.ResourceReplicationControllers, corev1.ResourceSecrets, corev1.ResourceConfigMaps,
	corev1.ResourcePersistentVolumeClaims, corev1.ResourceServicesNodePorts, corev1.ResourceServicesLoadBalancers)

var computes = sets.New(corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage,
	corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory, corev1.ResourceRequestsEphemeralStorage,
	corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory, corev1.ResourceLimitsEphemeralStorage)

// IsQuota tells whether a ResourceQuota can track the native resource.
func IsQuota(name corev1.ResourceName) bool {
	return counts.Has(name) || computes.Has(name) || name == corev1.ResourceRequestsStorage || isQuotaHugePage(name)
}

// IsStandard tells whether the unprefixed name is known to the system at all.
func IsStandard(name corev1.ResourceName) bool {
	return IsQuota(name) || name == corev1.ResourceStorage
}

func isQuotaHugePage(name corev1.ResourceName) bool {
	return IsHugePage(name) || strings.HasPrefix(string(name), corev1.ResourceRequestsHugePagesPrefix)
}

// IsInteger tells whether the resource is counted in whole units.
func IsInteger(name corev1.ResourceName) bool {
	return counts.Has(name) || IsExtended(name)
}

// HugePageError explains a quantity that is no multiple of its page size.
func HugePageError(name corev1.ResourceName, quantity resource.Quantity) string {
	return fmt.Sprintf("%s is not positive integer multiple of %s", quantity.String(), name)
}
