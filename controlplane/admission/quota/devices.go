package quota

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiquota "k8s.io/apiserver/pkg/quota/v1"
	"k8s.io/apiserver/pkg/quota/v1/generic"
	"k8s.io/utils/ptr"
)

var resourceClaims = schema.GroupResource{Group: resourcev1.GroupName, Resource: "resourceclaims"}

// devices measures claims of devices: by class, and under the extended resources that stand for the class.
func devices(list generic.ListFuncByNamespace, classes Classes) apiquota.Evaluator {
	return evaluator[*resourcev1.ResourceClaim]{
		resource: resourceClaims, handles: itself, list: list,
		matching: func(in []corev1.ResourceName) []corev1.ResourceName {
			return slices.DeleteFunc(slices.Clone(in), func(name corev1.ResourceName) bool { return !countsDevices(name, classes) })
		},
		usage: func(c *resourcev1.ResourceClaim) corev1.ResourceList { return deviceUsage(c, classes) },
	}
}

func countsDevices(name corev1.ResourceName, classes Classes) bool {
	if name == generic.ObjectCountQuotaResourceNameFor(resourceClaims) || strings.HasSuffix(string(name), corev1.ResourceClaimsPerClass) {
		return true
	}
	extended, requested := strings.CutPrefix(string(name), corev1.DefaultResourceRequestsPrefix)
	return requested && strings.Contains(extended, "/") && slices.ContainsFunc(classes(), func(c *resourcev1.DeviceClass) bool {
		return extended == resourcev1.ResourceDeviceClassPrefix+c.Name || extended == ptr.Deref(c.Spec.ExtendedResourceName, "")
	})
}

func deviceUsage(claim *resourcev1.ResourceClaim, classes Classes) corev1.ResourceList {
	byClass := map[string]int64{}
	for _, r := range claim.Spec.Devices.Requests {
		most := map[string]int64{} // of alternatives the dearest counts, for each class
		for _, s := range r.FirstAvailable {
			most[s.DeviceClassName] = max(most[s.DeviceClassName], deviceCount(s.AllocationMode, s.Count))
		}
		if e := r.Exactly; e != nil && len(r.FirstAvailable) == 0 {
			most[e.DeviceClassName] = deviceCount(e.AllocationMode, e.Count)
		}
		for class, n := range most {
			byClass[class] += n
		}
	}
	out := corev1.ResourceList{generic.ObjectCountQuotaResourceNameFor(resourceClaims): number(1)}
	for class, n := range byClass {
		q := *apiresource.NewQuantity(n, apiresource.DecimalSI)
		out[corev1.ResourceName(class+corev1.ResourceClaimsPerClass)] = q
		if n == 0 {
			continue
		}
		out[corev1.ResourceName(corev1.ResourceImplicitExtendedClaimsPerClass+class)] = q
		at := slices.IndexFunc(classes(), func(c *resourcev1.DeviceClass) bool {
			return c.Name == class && ptr.Deref(c.Spec.ExtendedResourceName, "") != ""
		})
		if at >= 0 {
			out[corev1.ResourceName(corev1.DefaultResourceRequestsPrefix+*classes()[at].Spec.ExtendedResourceName)] = q
		}
	}
	return out
}

// deviceCount is how many devices a request may take; nobody knows how many All will be.
func deviceCount(mode resourcev1.DeviceAllocationMode, n int64) int64 {
	switch mode {
	case resourcev1.DeviceAllocationModeExactCount:
		return n
	case resourcev1.DeviceAllocationModeAll:
		return resourcev1.AllocationResultsMaxSize
	}
	return 0
}
