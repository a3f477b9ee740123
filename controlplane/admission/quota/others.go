package quota

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	apiquota "k8s.io/apiserver/pkg/quota/v1"
	"k8s.io/apiserver/pkg/quota/v1/generic"
	"k8s.io/utils/ptr"
)

func itself(a admission.Attributes) bool {
	return a.GetSubresource() == "" && (a.GetOperation() == admission.Create || a.GetOperation() == admission.Update)
}

func services(list generic.ListFuncByNamespace) apiquota.Evaluator {
	resources := []corev1.ResourceName{
		counted("services"), corev1.ResourceServices, corev1.ResourceServicesNodePorts, corev1.ResourceServicesLoadBalancers,
	}
	return evaluator[*corev1.Service]{
		resource: schema.GroupResource{Resource: "services"}, handles: itself, list: list,
		matching: func(in []corev1.ResourceName) []corev1.ResourceName { return apiquota.Intersection(in, resources) },
		usage:    serviceUsage,
	}
}

func serviceUsage(s *corev1.Service) corev1.ResourceList {
	nodePorts, balancers := 0, 0
	switch s.Spec.Type {
	case corev1.ServiceTypeNodePort:
		nodePorts = len(s.Spec.Ports)
	case corev1.ServiceTypeLoadBalancer:
		balancers = 1
		for _, p := range s.Spec.Ports {
			if p.NodePort != 0 || ptr.Deref(s.Spec.AllocateLoadBalancerNodePorts, true) {
				nodePorts++
			}
		}
	}
	return corev1.ResourceList{
		counted("services"):                  number(1),
		corev1.ResourceServices:              number(1),
		corev1.ResourceServicesNodePorts:     number(nodePorts),
		corev1.ResourceServicesLoadBalancers: number(balancers),
	}
}

// classSuffix ends the names of resources that count for one storage class.
const classSuffix = ".storageclass.storage.k8s.io/"

func claims(list generic.ListFuncByNamespace) apiquota.Evaluator {
	resources := []corev1.ResourceName{counted("persistentvolumeclaims"), corev1.ResourcePersistentVolumeClaims, corev1.ResourceRequestsStorage}
	return evaluator[*corev1.PersistentVolumeClaim]{
		resource: schema.GroupResource{Resource: "persistentvolumeclaims"}, list: list,
		handles: func(a admission.Attributes) bool {
			// What was promised, and the attributes that are in force, are in the status.
			return itself(a) || a.GetSubresource() == "status" && a.GetOperation() == admission.Update
		},
		matching: func(in []corev1.ResourceName) []corev1.ResourceName {
			out := apiquota.Intersection(in, resources)
			for _, name := range in {
				if strings.HasSuffix(string(name), classSuffix+string(corev1.ResourceRequestsStorage)) ||
					strings.HasSuffix(string(name), classSuffix+string(corev1.ResourcePersistentVolumeClaims)) {
					out = append(out, name)
				}
			}
			return out
		},
		scope: func(s corev1.ScopedResourceSelectorRequirement, c *corev1.PersistentVolumeClaim) (bool, error) {
			if s.ScopeName != corev1.ResourceQuotaScopeVolumeAttributesClass {
				return false, nil
			}
			for _, class := range attributeClasses(c) {
				if ok, err := selects(s, class); ok || err != nil {
					return ok, err
				}
			}
			return false, nil
		},
		usage: claimUsage,
	}
}

func claimUsage(c *corev1.PersistentVolumeClaim) corev1.ResourceList {
	out := corev1.ResourceList{counted("persistentvolumeclaims"): number(1), corev1.ResourcePersistentVolumeClaims: number(1)}
	class := corev1.ResourceName(storageClass(c))
	if class != "" {
		out[class+classSuffix+corev1.ResourcePersistentVolumeClaims] = number(1)
	}
	if size, ok := requested(c); ok {
		out[corev1.ResourceRequestsStorage] = size
		if class != "" {
			out[class+classSuffix+corev1.ResourceRequestsStorage] = size
		}
	}
	return out
}

// attributeClasses are all that a claim has, has had till now or is on its way to; one of no name if there is none.
func attributeClasses(c *corev1.PersistentVolumeClaim) []string {
	out := []string{ptr.Deref(c.Spec.VolumeAttributesClassName, ""), ptr.Deref(c.Status.CurrentVolumeAttributesClassName, "")}
	if m := c.Status.ModifyVolumeStatus; m != nil {
		out = append(out, m.TargetVolumeAttributesClassName)
	}
	out = slices.DeleteFunc(out, func(s string) bool { return s == "" })
	if len(out) == 0 {
		return []string{""}
	}
	return out
}

// requested, in whole bytes, is the larger of what is asked for and what was promised before a failed expansion was taken back.
func requested(c *corev1.PersistentVolumeClaim) (apiresource.Quantity, bool) {
	size, ok := c.Spec.Resources.Requests[corev1.ResourceStorage]
	if a, allocated := c.Status.AllocatedResources[corev1.ResourceStorage]; allocated && ok && a.Cmp(size) > 0 {
		size = a
	}
	size = size.DeepCopy()
	size.RoundUp(0)
	return size, ok
}

func storageClass(c *corev1.PersistentVolumeClaim) string {
	if name, ok := c.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		return name
	}
	return ptr.Deref(c.Spec.StorageClassName, "")
}
