package core

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/resource"

	"keelson.dev/keelson/controlplane/resource/podspec"
	"keelson.dev/keelson/controlplane/resource/resourcename"
)

// defaultPod sets what is defaulted on pods only, then what they share with templates.
// The order matters: requests copied from limits are rounded with the rest.
func defaultPod(p *corev1.Pod) {
	spec := &p.Spec
	if grace := spec.TerminationGracePeriodSeconds; grace != nil && *grace < 0 {
		*grace = 1
	}
	for i := range spec.Containers {
		requestsFromLimits(&spec.Containers[i].Resources)
	}
	for i := range spec.InitContainers {
		requestsFromLimits(&spec.InitContainers[i].Resources)
	}
	if spec.EnableServiceLinks == nil {
		links := corev1.DefaultEnableServiceLinks
		spec.EnableServiceLinks = &links
	}
	if spec.HostNetwork {
		hostPorts(spec.Containers)
		hostPorts(spec.InitContainers)
	}
	podspec.Default(spec)
	defaultPodStatus(&p.Status)
}

func requestsFromLimits(r *corev1.ResourceRequirements) {
	if r.Limits == nil {
		return
	}
	if r.Requests == nil {
		r.Requests = corev1.ResourceList{}
	}
	for name, limit := range r.Limits {
		if _, set := r.Requests[name]; !set {
			r.Requests[name] = limit.DeepCopy()
		}
	}
}

// hostPorts: in the host's network a container's port is the host's.
func hostPorts(containers []corev1.Container) {
	for i := range containers {
		for j := range containers[i].Ports {
			if port := &containers[i].Ports[j]; port.HostPort == 0 {
				port.HostPort = port.ContainerPort
			}
		}
	}
}

// defaultPodStatus keeps podIP and podIPs[0] equal; podIP wins, as older kubelets know only it.
func defaultPodStatus(s *corev1.PodStatus) {
	switch {
	case s.PodIP == "" && len(s.PodIPs) > 0:
		s.PodIP = s.PodIPs[0].IP
	case s.PodIP != "" && (len(s.PodIPs) == 0 || s.PodIPs[0].IP != s.PodIP):
		s.PodIPs = []corev1.PodIP{{IP: s.PodIP}}
	}
	for _, list := range [][]corev1.ContainerStatus{s.InitContainerStatuses, s.ContainerStatuses, s.EphemeralContainerStatuses} {
		for i := range list {
			resourcename.RoundUp(list[i].AllocatedResources)
			roundRequirements(list[i].Resources)
		}
	}
	resourcename.RoundUp(s.AllocatedResources)
	roundRequirements(s.Resources)
}

func roundRequirements(r *corev1.ResourceRequirements) {
	if r != nil {
		resourcename.RoundUp(r.Limits)
		resourcename.RoundUp(r.Requests)
	}
}

// defaultPodResources completes pod-level resources once the containers are final (after admission), in this order:
// hugepage limits from the containers, then requests from the containers or the pod's limits, then limits from the
// containers if every one of them has one (KEP-2837).
func defaultPodResources(p *corev1.Pod) {
	r := p.Spec.Resources
	if r == nil || len(r.Requests) == 0 && len(r.Limits) == 0 {
		return
	}
	containers := &corev1.Pod{Spec: corev1.PodSpec{Containers: p.Spec.Containers, InitContainers: p.Spec.InitContainers}}
	requests := resource.AggregateContainerRequests(containers, resource.PodResourcesOptions{})
	limits := resource.AggregateContainerLimits(containers, resource.PodResourcesOptions{})
	for name, limit := range limits {
		if _, asked := r.Requests[name]; !asked && resource.IsSupportedPodLevelResource(name) && resourcename.IsHugePage(name) {
			setMissing(&r.Limits, name, limit)
		}
	}
	for name, request := range requests {
		if resource.IsSupportedPodLevelResource(name) && resourcename.IsOvercommitAllowed(name) {
			setMissing(&r.Requests, name, request)
		}
	}
	for name, limit := range r.Limits {
		if resource.IsSupportedPodLevelResource(name) {
			setMissing(&r.Requests, name, limit)
		}
	}
	for name, request := range r.Requests {
		limit, ok := limits[name]
		if !ok || !resource.IsSupportedPodLevelResource(name) || !allLimited(p, name) {
			continue
		}
		if request.Cmp(limit) > 0 {
			limit = request
		}
		setMissing(&r.Limits, name, limit)
	}
}

func setMissing(list *corev1.ResourceList, name corev1.ResourceName, value resourceQuantity) {
	if _, set := (*list)[name]; set {
		return
	}
	if *list == nil {
		*list = corev1.ResourceList{}
	}
	(*list)[name] = value.DeepCopy()
}

func allLimited(p *corev1.Pod, name corev1.ResourceName) bool {
	for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for _, c := range list {
			if _, ok := c.Resources.Limits[name]; !ok {
				return false
			}
		}
	}
	return len(p.Spec.EphemeralContainers) == 0
}
