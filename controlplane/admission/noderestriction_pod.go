package admission

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/component-helpers/storage/ephemeral"
	"k8s.io/utils/ptr"
)

// cached reads are answered by the watch cache: a node can only ask about pods that it has seen there.
var cached = metav1.GetOptions{ResourceVersion: "0"}

func (r nodeRestriction) checkPod(ctx context.Context, node string, a admission.Attributes) error {
	switch a.GetSubresource() {
	case "":
		switch a.GetOperation() {
		case admission.Create:
			return r.checkMirror(ctx, node, a)
		case admission.Delete:
			return r.checkBound(ctx, node, a.GetNamespace(), a.GetName(), fmt.Sprintf("node %q can only delete pods with spec.nodeName set to itself", node))
		}
		return fmt.Errorf("unexpected operation %q, node %q can only create and delete mirror pods", a.GetOperation(), node)
	case "status":
		return checkPodStatus(node, a)
	case "eviction":
		return r.checkEviction(ctx, node, a)
	}
	return fmt.Errorf("unexpected pod subresource %q, only 'status' and 'eviction' are allowed", a.GetSubresource())
}

func (r nodeRestriction) checkBound(ctx context.Context, node, namespace, name, message string) error {
	pod, err := r.client.CoreV1().Pods(namespace).Get(ctx, name, cached)
	if err != nil {
		return err
	}
	if pod.Spec.NodeName != node {
		return errors.New(message)
	}
	return nil
}

func (r nodeRestriction) checkEviction(ctx context.Context, node string, a admission.Attributes) error {
	if a.GetOperation() != admission.Create {
		return fmt.Errorf("unexpected operation %s", a.GetOperation())
	}
	name := a.GetName()
	if name == "" {
		e, ok := a.GetObject().(*policyv1.Eviction)
		if !ok {
			return fmt.Errorf("unexpected type %T", a.GetObject())
		}
		name = e.Name
	}
	if name == "" {
		return errors.New("could not determine pod from request data")
	}
	return r.checkBound(ctx, node, a.GetNamespace(), name, fmt.Sprintf("node %s can only evict pods with spec.nodeName set to itself", node))
}

func checkPodStatus(node string, a admission.Attributes) error {
	if a.GetOperation() != admission.Update {
		return fmt.Errorf("unexpected operation %q", a.GetOperation())
	}
	old, ok := a.GetOldObject().(*corev1.Pod)
	if !ok {
		return fmt.Errorf("unexpected type %T", a.GetOldObject())
	}
	pod, ok := a.GetObject().(*corev1.Pod)
	if !ok {
		return fmt.Errorf("unexpected type %T", a.GetObject())
	}
	switch {
	case old.Spec.NodeName != node:
		return fmt.Errorf("node %q can only update pod status for pods with spec.nodeName set to itself", node)
	case !maps.Equal(old.Labels, pod.Labels):
		return fmt.Errorf("node %q cannot update labels through pod status", node)
	case !equality.Semantic.DeepEqual(old.Status.ResourceClaimStatuses, pod.Status.ResourceClaimStatuses):
		return fmt.Errorf("node %q cannot update resource claim statues", node)
	case !equality.Semantic.DeepEqual(old.Status.ExtendedResourceClaimStatus, pod.Status.ExtendedResourceClaimStatus):
		return fmt.Errorf("node %q cannot update extended resource claim status", node)
	case !equality.Semantic.DeepEqual(old.Status.NodeAllocatableResourceClaimStatuses, pod.Status.NodeAllocatableResourceClaimStatuses):
		return fmt.Errorf("node %q cannot update node allocatable resource claim statuses", node)
	}
	return nil
}

// checkMirror lets a node show the pods that it runs by itself, and nothing that would give them access to the API's objects.
func (r nodeRestriction) checkMirror(ctx context.Context, node string, a admission.Attributes) error {
	pod, ok := a.GetObject().(*corev1.Pod)
	if !ok {
		return fmt.Errorf("unexpected type %T", a.GetObject())
	}
	if !isMirror(pod) {
		return fmt.Errorf("pod does not have %q annotation, node %q can only create mirror pods", corev1.MirrorPodAnnotationKey, node)
	}
	if pod.Spec.NodeName != node {
		return fmt.Errorf("node %q can only create pods with spec.nodeName set to itself", node)
	}
	if err := r.checkOwner(ctx, node, pod.OwnerReferences); err != nil {
		return err
	}
	refers := func(what string) error {
		return fmt.Errorf("node %q can not create pods that reference %s", node, what)
	}
	if pod.Spec.ServiceAccountName != "" {
		return refers("a service account")
	}
	for range secretsOf(pod) {
		return refers("secrets")
	}
	if refersToConfigMap(pod) {
		return refers("configmaps")
	}
	if len(pod.Spec.ResourceClaims) > 0 {
		return refers("resourceclaims")
	}
	for _, v := range pod.Spec.Volumes {
		if v.PersistentVolumeClaim != nil || v.Ephemeral != nil {
			return refers("persistentvolumeclaims")
		}
		if v.Projected == nil {
			continue
		}
		for _, s := range v.Projected.Sources {
			switch {
			case s.ClusterTrustBundle != nil:
				return refers("clustertrustbundles")
			case s.PodCertificate != nil:
				return refers("podcertificates")
			}
		}
	}
	return nil
}

func (r nodeRestriction) checkOwner(ctx context.Context, node string, owners []metav1.OwnerReference) error {
	if len(owners) > 1 {
		return fmt.Errorf("node %q can only create pods with a single owner reference set to itself", node)
	}
	if len(owners) == 0 || owners[0].APIVersion != "v1" || owners[0].Kind != "Node" || owners[0].Name != node {
		return fmt.Errorf("node %q can only create pods with an owner reference set to itself", node)
	}
	owner := owners[0]
	if !ptr.Deref(owner.Controller, false) {
		return fmt.Errorf("node %q can only create pods with a controller owner reference set to itself", node)
	}
	if ptr.Deref(owner.BlockOwnerDeletion, false) {
		return fmt.Errorf("node %q must not set blockOwnerDeletion on an owner reference", node)
	}
	n, err := r.client.CoreV1().Nodes().Get(ctx, node, cached)
	if notFound(err) {
		return err
	}
	if err != nil {
		return fmt.Errorf("error looking up node %s to verify uid: %w", node, err)
	}
	if owner.UID != n.UID {
		return fmt.Errorf("node %s UID mismatch: expected %s got %s", node, owner.UID, n.UID)
	}
	return nil
}

// checkToken lets a node have tokens of the accounts of its pods only, each bound to its pod and for an audience that the
// pod asks for.
func (r nodeRestriction) checkToken(ctx context.Context, node string, a admission.Attributes) error {
	request, ok := a.GetObject().(*authenticationv1.TokenRequest)
	if !ok {
		return fmt.Errorf("unexpected type %T", a.GetObject())
	}
	ref := request.Spec.BoundObjectRef
	if ref == nil || ref.APIVersion != "v1" || ref.Kind != "Pod" || ref.Name == "" {
		return errors.New("node requested token not bound to a pod")
	}
	if ref.UID == "" {
		return errors.New("node requested token with a pod binding without a uid")
	}
	pod, err := r.client.CoreV1().Pods(a.GetNamespace()).Get(ctx, ref.Name, cached)
	if err != nil {
		return err
	}
	if ref.UID != pod.UID {
		return fmt.Errorf("the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", ref.UID)
	}
	if pod.Spec.NodeName != node {
		return errors.New("node requested token bound to a pod scheduled on a different node")
	}
	audience := ""
	switch len(request.Spec.Audiences) {
	case 0:
	case 1:
		audience = request.Spec.Audiences[0]
	default:
		return errors.New("node may only request 0 or 1 audiences")
	}
	if r.wantsAudience(ctx, pod, audience) || r.mayRequest(ctx, a, audience) {
		return nil
	}
	return fmt.Errorf("audience %q not found in pod spec volume", audience)
}

// checkPodRequest lets a node ask for certificates of its own pods only.
func (r nodeRestriction) checkPodRequest(ctx context.Context, node string, a admission.Attributes) error {
	request, ok := a.GetObject().(*certificatesv1.PodCertificateRequest)
	if !ok || a.GetOperation() != admission.Create {
		return nil
	}
	s := &request.Spec
	if string(s.NodeName) != node {
		return fmt.Errorf("PodCertificateRequest.Spec.NodeName=%q, which is not the requesting node %q", s.NodeName, node)
	}
	n, err := r.client.CoreV1().Nodes().Get(ctx, node, cached)
	if err != nil {
		return err
	}
	pod, err := r.client.CoreV1().Pods(a.GetNamespace()).Get(ctx, s.PodName, cached)
	if err != nil {
		return err
	}
	switch {
	case n.UID != s.NodeUID:
		return fmt.Errorf("PodCertificateRequest for pod %q contains nodeUID (%q) which differs from the UID of node %q", s.PodName, s.NodeUID, node)
	case pod.UID != s.PodUID:
		return fmt.Errorf("PodCertificateRequest for pod %q contains podUID (%q) which differs from the running pod", s.PodName, s.PodUID)
	case pod.Spec.NodeName != node:
		return fmt.Errorf("pod %q is not running on node %q", s.PodName, node)
	case isMirror(pod):
		return fmt.Errorf("pod %q is a mirror pod: it has no service account to certify", s.PodName)
	case pod.Spec.ServiceAccountName != s.ServiceAccountName:
		return fmt.Errorf("PodCertificateRequest for pod %q contains serviceAccountName (%q) that differs from running pod (%q)", s.PodName, s.ServiceAccountName, pod.Spec.ServiceAccountName)
	case !mountsSigner(pod, s.SignerName):
		return fmt.Errorf("pod %q has no volume with a certificate of signer %q", s.PodName, s.SignerName)
	}
	account, err := r.accounts.Get(ctx, a.GetNamespace(), s.ServiceAccountName)
	if err != nil {
		return err
	}
	if account.UID != s.ServiceAccountUID {
		return fmt.Errorf("PodCertificateRequest for pod %q contains serviceAccountUID (%q) that differs from the service account's", s.PodName, s.ServiceAccountUID)
	}
	return nil
}

func mountsSigner(pod *corev1.Pod, signer string) bool {
	return slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool {
		return v.Projected != nil && slices.ContainsFunc(v.Projected.Sources, func(p corev1.VolumeProjection) bool {
			return p.PodCertificate != nil && p.PodCertificate.SignerName == signer
		})
	})
}

// mayRequest: an administrator can allow nodes an audience that no pod names.
func (r nodeRestriction) mayRequest(ctx context.Context, a admission.Attributes, audience string) bool {
	decision, _, err := r.authz.Authorize(ctx, authorizer.AttributesRecord{
		User: a.GetUserInfo(), Verb: "request-serviceaccounts-token-audience", Resource: audience, APIVersion: "*",
		Namespace: a.GetNamespace(), Name: a.GetName(), ResourceRequest: true,
	})
	return err == nil && decision == authorizer.DecisionAllow
}

// wantsAudience says whether a volume of the pod asks for tokens of the audience, itself or through its CSI driver.
func (r nodeRestriction) wantsAudience(ctx context.Context, pod *corev1.Pod, audience string) bool {
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.Projected != nil {
			for _, s := range v.Projected.Sources {
				if s.ServiceAccountToken != nil && s.ServiceAccountToken.Audience == audience {
					return true
				}
			}
		}
		driver := r.driverOf(ctx, pod, v)
		if driver == "" {
			continue
		}
		if d, err := r.client.StorageV1().CSIDrivers().Get(ctx, driver, cached); err == nil {
			for _, t := range d.Spec.TokenRequests {
				if t.Audience == audience {
					return true
				}
			}
		}
	}
	return false
}

// driverOf is the CSI driver of a volume, "" if it has none or its claim cannot be followed.
func (r nodeRestriction) driverOf(ctx context.Context, pod *corev1.Pod, v *corev1.Volume) string {
	name := ""
	switch {
	case v.CSI != nil:
		return v.CSI.Driver
	case v.Ephemeral != nil && v.Ephemeral.VolumeClaimTemplate != nil:
		name = ephemeral.VolumeClaimName(pod, v)
	case v.PersistentVolumeClaim != nil:
		name = v.PersistentVolumeClaim.ClaimName
	default:
		return ""
	}
	claim, err := r.client.CoreV1().PersistentVolumeClaims(pod.Namespace).Get(ctx, name, cached)
	if err != nil || claim.Spec.VolumeName == "" {
		return ""
	}
	volume, err := r.client.CoreV1().PersistentVolumes().Get(ctx, claim.Spec.VolumeName, cached)
	if err != nil || volume.Spec.CSI == nil {
		return ""
	}
	return volume.Spec.CSI.Driver
}
