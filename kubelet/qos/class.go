package qos

import (
	corev1 "k8s.io/api/core/v1"
	helpers "k8s.io/component-helpers/resource"
)

// Class is a pod's quality of service class: as the API server wrote it, or computed by the same rule where the
// status has none (static pods).
func Class(pod *corev1.Pod) corev1.PodQOSClass {
	if pod.Status.QOSClass != "" {
		return pod.Status.QOSClass
	}
	if helpers.IsPodLevelResourcesSet(pod) {
		return classOf([]corev1.ResourceRequirements{*pod.Spec.Resources})
	}
	var all []corev1.ResourceRequirements
	for _, c := range pod.Spec.InitContainers {
		all = append(all, c.Resources)
	}
	for _, c := range pod.Spec.Containers {
		all = append(all, c.Resources)
	}
	return classOf(all)
}

// classOf: nothing asked for is BestEffort; cpu and memory limited everywhere with equal requests is Guaranteed.
func classOf(all []corev1.ResourceRequirements) corev1.PodQOSClass {
	asked, guaranteed := false, true
	for _, r := range all {
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			req, lim := r.Requests[name], r.Limits[name]
			asked = asked || !req.IsZero() || !lim.IsZero()
			if lim.IsZero() || !req.IsZero() && req.Cmp(lim) != 0 {
				guaranteed = false
			}
		}
	}
	switch {
	case !asked:
		return corev1.PodQOSBestEffort
	case guaranteed:
		return corev1.PodQOSGuaranteed
	}
	return corev1.PodQOSBurstable
}

// criticalPriority and above are pods that the node must not lose (system-cluster-critical).
const criticalPriority = 2_000_000_000

// Critical tells whether a pod may push others out and is evicted last.
func Critical(pod *corev1.Pod) bool {
	p := pod.Spec.Priority
	return p != nil && *p >= criticalPriority
}

// OOMScoreAdj is how the kernel's OOM killer ranks a container: BestEffort first, Guaranteed and critical last,
// Burstable by how little of the node's memory (bytes) it asked for.
func OOMScoreAdj(pod *corev1.Pod, c *corev1.Container, nodeMemory int64) int64 {
	if Critical(pod) {
		return -997
	}
	switch Class(pod) {
	case corev1.PodQOSGuaranteed:
		return -997
	case corev1.PodQOSBestEffort:
		return 1000
	}
	request := c.Resources.Requests.Memory().Value()
	if helpers.IsPodLevelRequestsSet(pod) && request == 0 {
		request = pod.Spec.Resources.Requests.Memory().Value() / int64(max(len(pod.Spec.Containers), 1))
	}
	if nodeMemory <= 0 {
		return 999
	}
	return min(max(1000-1000*request/nodeMemory, 3), 999)
}
