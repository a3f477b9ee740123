package statefulset

import (
	"maps"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var (
	kind    = appsv1.SchemeGroupVersion.WithKind("StatefulSet")
	podKind = corev1.SchemeGroupVersion.WithKind("Pod")
)

func podName(set *appsv1.StatefulSet, n int) string { return set.Name + "-" + strconv.Itoa(n) }

// ordinal reads a pod's number from its name; false if the name is not one of the set's.
func ordinal(set *appsv1.StatefulSet, name string) (int, bool) {
	digits, ok := strings.CutPrefix(name, set.Name+"-")
	n, err := strconv.Atoi(digits)
	if !ok || err != nil || n < 0 || strconv.Itoa(n) != digits {
		return 0, false
	}
	return n, true
}

// makePod builds the pod with an ordinal from a revision's template.
func makePod(set *appsv1.StatefulSet, template *corev1.PodTemplateSpec, hash string, n int) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: set.Namespace, Name: podName(set, n), Annotations: template.Annotations, Finalizers: template.Finalizers,
			Labels:          maps.Clone(template.Labels),
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(set, kind)}},
		Spec: *template.Spec.DeepCopy(),
	}
	if pod.Labels == nil {
		pod.Labels = map[string]string{}
	}
	pod.Labels[appsv1.StatefulSetPodNameLabel] = pod.Name
	pod.Labels[appsv1.PodIndexLabel] = strconv.Itoa(n)
	pod.Labels[appsv1.StatefulSetRevisionLabel] = set.Name + "-" + hash // the name of the ControllerRevision
	pod.Spec.Hostname, pod.Spec.Subdomain = pod.Name, set.Spec.ServiceName
	mountClaims(set, pod, n)
	return pod
}

// mountClaims puts the claims in place of template volumes of the same name.
func mountClaims(set *appsv1.StatefulSet, pod *corev1.Pod, n int) {
	var volumes []corev1.Volume
	claimed := map[string]bool{}
	for i := range set.Spec.VolumeClaimTemplates {
		name := set.Spec.VolumeClaimTemplates[i].Name
		claimed[name] = true
		volumes = append(volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claimName(set, i, n)}}})
	}
	for _, v := range pod.Spec.Volumes {
		if !claimed[v.Name] {
			volumes = append(volumes, v)
		}
	}
	pod.Spec.Volumes = volumes
}

func claimName(set *appsv1.StatefulSet, template, n int) string {
	return set.Spec.VolumeClaimTemplates[template].Name + "-" + podName(set, n)
}

// claims builds the claims of an ordinal. They outlive the pod and, unless the retention policy says otherwise, the set.
func claims(set *appsv1.StatefulSet, n int) []*corev1.PersistentVolumeClaim {
	var out []*corev1.PersistentVolumeClaim
	for i := range set.Spec.VolumeClaimTemplates {
		c := set.Spec.VolumeClaimTemplates[i].DeepCopy()
		c.Name, c.Namespace = claimName(set, i, n), set.Namespace
		labels := maps.Clone(set.Spec.Selector.MatchLabels)
		if labels == nil {
			labels = map[string]string{}
		}
		maps.Copy(labels, c.Labels)
		c.Labels = labels
		c.OwnerReferences = claimOwners(set, c, nil, n)
		out = append(out, c)
	}
	return out
}

// claimOwners are the owners of a claim of the ordinal n, by which it goes, as the retention policy says: with the set
// (whenDeleted: Delete), with the pod once the set is scaled down below it (whenScaled: Delete), or with neither. Owners that
// others have set stay; a claim that another controls is left to it. pod is the ordinal's; nil: there is none yet.
func claimOwners(set *appsv1.StatefulSet, claim *corev1.PersistentVolumeClaim, pod *corev1.Pod, n int) []metav1.OwnerReference {
	var whenDeleted, whenScaled bool
	if p := set.Spec.PersistentVolumeClaimRetentionPolicy; p != nil {
		whenDeleted = p.WhenDeleted == appsv1.DeletePersistentVolumeClaimRetentionPolicyType
		whenScaled = p.WhenScaled == appsv1.DeletePersistentVolumeClaimRetentionPolicyType
	}
	var out []metav1.OwnerReference
	for _, o := range claim.OwnerReferences {
		switch {
		case o.Kind == kind.Kind && o.Name == set.Name, o.Kind == podKind.Kind && o.Name == podName(set, n): // ours, to be said anew
		case o.Controller != nil && *o.Controller:
			return claim.OwnerReferences
		default:
			out = append(out, o)
		}
	}
	beyond := n < start(set) || n >= start(set)+int(*set.Spec.Replicas)
	switch {
	case whenScaled && beyond && pod != nil:
		out = append(out, *metav1.NewControllerRef(pod, podKind))
	case whenDeleted && !(whenScaled && beyond):
		out = append(out, *metav1.NewControllerRef(set, kind))
	}
	return out
}
