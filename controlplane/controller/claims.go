package controller

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// ClaimNames lists the claims that a pod uses, those of its ephemeral volumes included.
func ClaimNames(pod *corev1.Pod) []string {
	var out []string
	for _, v := range pod.Spec.Volumes {
		switch {
		case v.PersistentVolumeClaim != nil:
			out = append(out, v.PersistentVolumeClaim.ClaimName)
		case v.Ephemeral != nil:
			out = append(out, pod.Name+"-"+v.Name)
		}
	}
	return out
}

// UsesClaim tells whether a pod keeps a claim in use: it has a node and has not ended, its object gone or its phase final.
func UsesClaim(pod *corev1.Pod, claim *corev1.PersistentVolumeClaim) bool {
	if pod.Namespace != claim.Namespace || pod.Spec.NodeName == "" {
		return false
	}
	ended := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
	return !ended && slices.Contains(ClaimNames(pod), claim.Name)
}
