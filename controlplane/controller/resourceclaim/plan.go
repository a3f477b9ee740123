package resourceclaim

import (
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// entryAnnotation on a claim names the entry of its pod's spec.resourceClaims that it was made for.
const entryAnnotation = "resource.kubernetes.io/pod-claim-name"

// most is how many may use a claim at once.
const most = resourcev1.ResourceClaimReservedForMaxSize

// world is what the plan of a pod reads.
type world struct {
	claim    func(name string) *resourcev1.ResourceClaim // nil: there is none
	template func(name string) *resourcev1.ResourceClaimTemplate
	owned    []*resourcev1.ResourceClaim // claims that the pod controls
}

// podPlan is what a pod's claims need. Claims are made first, their names recorded second, so that a name that is recorded is of a
// claim that is or was there.
type podPlan struct {
	create  []*resourcev1.ResourceClaim
	record  map[string]string           // claims that were made and are not in the status, by entry
	reserve []*resourcev1.ResourceClaim // allocated ones that a pod with a node, which no scheduler has seen, has not reserved
	errs    []error
}

// decidePod plans the next step of a pod that is to run.
func decidePod(pod *corev1.Pod, w world) podPlan {
	p := podPlan{record: map[string]string{}}
	for i := range pod.Spec.ResourceClaims {
		entry := &pod.Spec.ResourceClaims[i]
		if err := p.entry(pod, entry, w); err != nil {
			p.errs = append(p.errs, fmt.Errorf("PodResourceClaim %s: %w", entry.Name, err))
		}
	}
	return p
}

func (p *podPlan) entry(pod *corev1.Pod, entry *corev1.PodResourceClaim, w world) error {
	name, recorded := claimName(pod, entry)
	if recorded && name == "" {
		return nil // decided before: it needs none
	}
	if claim := w.claim(name); name != "" && claim != nil && (entry.ResourceClaimTemplateName == nil || metav1.IsControlledBy(claim, pod)) {
		if pod.Spec.NodeName != "" && claim.Status.Allocation != nil && !reserved(claim, pod.UID) && len(claim.Status.ReservedFor) < most {
			p.reserve = append(p.reserve, claim)
		}
		return nil
	}
	if entry.ResourceClaimTemplateName == nil {
		return nil // the user's to make
	}
	// One that was made before a crash, or is not in the status yet.
	for _, claim := range w.owned {
		if claim.Annotations[entryAnnotation] == entry.Name {
			p.record[entry.Name] = claim.Name
			return nil
		}
	}
	t := w.template(*entry.ResourceClaimTemplateName)
	if t == nil {
		return fmt.Errorf("resource claim template %q: not found", *entry.ResourceClaimTemplateName)
	}
	p.create = append(p.create, makeClaim(pod, entry.Name, t))
	return nil
}

// claimName is the claim of an entry: the user's, or the one in the status; recorded: the status has the entry.
func claimName(pod *corev1.Pod, entry *corev1.PodResourceClaim) (name string, recorded bool) {
	if entry.ResourceClaimName != nil {
		return *entry.ResourceClaimName, false
	}
	for _, s := range pod.Status.ResourceClaimStatuses {
		if s.Name == entry.Name {
			if s.ResourceClaimName == nil {
				return "", true
			}
			return *s.ResourceClaimName, true
		}
	}
	return "", false
}

// makeClaim gives the claim a name of the pod's and the entry's, each cut in proportion if they are long.
func makeClaim(pod *corev1.Pod, entry string, t *resourcev1.ResourceClaimTemplate) *resourcev1.ResourceClaim {
	const longest = 57 // 63, less a hyphen and five random characters
	base := pod.Name + "-" + entry + "-"
	if n := len(base); n > longest {
		base = pod.Name[:len(pod.Name)*longest/n] + "-" + entry[:len(entry)*longest/n]
	}
	annotations := maps.Clone(t.Spec.Annotations)
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[entryAnnotation] = entry
	return &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, GenerateName: base, Labels: t.Spec.Labels, Annotations: annotations,
		OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(pod, corev1.SchemeGroupVersion.WithKind("Pod"))}}, Spec: *t.Spec.Spec.DeepCopy()}
}

func reserved(c *resourcev1.ResourceClaim, uid types.UID) bool {
	return slices.ContainsFunc(c.Status.ReservedFor, func(r resourcev1.ResourceClaimConsumerReference) bool { return r.UID == uid })
}

// done: none of its containers runs, and none will.
func done(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed || pod.DeletionTimestamp != nil && pod.Spec.NodeName == ""
}

// claimPlan is what a claim needs, in this order.
type claimPlan struct {
	status *resourcev1.ResourceClaimStatus // nil: as it is
	free   bool                            // take the finalizer away that keeps what is allocated
	remove bool                            // nobody will use what was made for a pod
}

// decideClaim plans the next step of a claim. holds tells of a user whether it still keeps its reservation; owner is the pod of the
// name that controls the claim, nil if there is none or it is not known.
func decideClaim(c *resourcev1.ResourceClaim, holds func(resourcev1.ResourceClaimConsumerReference) bool, owner *corev1.Pod) claimPlan {
	var p claimPlan
	left := slices.DeleteFunc(slices.Clone(c.Status.ReservedFor), func(r resourcev1.ResourceClaimConsumerReference) bool { return !holds(r) })
	kept := slices.Contains(c.Finalizers, resourcev1.Finalizer)
	// The last user's end gives the devices back. One that is allocated and was never used stays so: who allocates reserves later.
	lastLeft := len(left) < len(c.Status.ReservedFor) && len(left) == 0
	p.free = kept && (lastLeft || c.DeletionTimestamp != nil && len(left) == 0)
	if len(left) < len(c.Status.ReservedFor) || p.free && c.Status.Allocation != nil {
		p.status = c.Status.DeepCopy()
		if p.status.ReservedFor = left; p.free {
			p.status.Allocation = nil
		}
	}
	by := metav1.GetControllerOf(c)
	p.remove = len(left) == 0 && c.DeletionTimestamp == nil && owner != nil && by != nil && by.Kind == "Pod" && by.APIVersion == "v1" && (owner.UID != by.UID || done(owner))
	return p
}
