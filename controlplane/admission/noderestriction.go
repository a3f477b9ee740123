package admission

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	kubeletapis "k8s.io/kubelet/pkg/apis"
	"k8s.io/utils/ptr"
)

const nodeUserPrefix = "system:node:"

var (
	leases   = schema.GroupResource{Group: coordinationv1.GroupName, Resource: "leases"}
	csiNodes = schema.GroupResource{Group: storagev1.GroupName, Resource: "csinodes"}
	slicesDR = schema.GroupResource{Group: resourcev1.GroupName, Resource: "resourceslices"}

	podRequests = schema.GroupResource{Group: certificatesv1.GroupName, Resource: "podcertificaterequests"}
)

// nodeRestriction holds each node to what is its own, so that one stolen node does not become the cluster:
// authorization sees names, this sees contents.
type nodeRestriction struct {
	*cluster
	authz authorizer.Authorizer
}

func newNodeRestriction(c *cluster, authz authorizer.Authorizer) admission.Interface {
	r := nodeRestriction{c, authz}
	return admitter{admission.NewHandler(admission.Create, admission.Update, admission.Delete), func(ctx context.Context, a admission.Attributes) error {
		node, ok := nodeOf(a.GetUserInfo())
		if !ok {
			return nil
		}
		if node == "" {
			return admission.NewForbidden(a, fmt.Errorf("could not determine node from user %q", a.GetUserInfo().GetName()))
		}
		err := r.check(ctx, node, a)
		if err == nil || notFound(err) {
			return err
		}
		return admission.NewForbidden(a, err)
	}}
}

// nodeOf returns the name of the node that a kubelet's user is, and whether it is one at all.
func nodeOf(u user.Info) (string, bool) {
	if u == nil || !slices.Contains(u.GetGroups(), user.NodesGroup) {
		return "", false
	}
	name, _ := strings.CutPrefix(u.GetName(), nodeUserPrefix)
	if name == u.GetName() {
		return "", false
	}
	return name, true
}

func (r nodeRestriction) check(ctx context.Context, node string, a admission.Attributes) error {
	switch a.GetResource().GroupResource() {
	case pods:
		return r.checkPod(ctx, node, a)
	case nodes:
		return checkNode(node, a)
	case claims:
		if a.GetSubresource() != "status" {
			return errors.New("may only update PVC status")
		}
		return checkClaimStatus(node, a)
	case accounts:
		if a.GetOperation() == admission.Create && a.GetSubresource() == "token" {
			return r.checkToken(ctx, node, a)
		}
	case leases:
		if a.GetNamespace() != corev1.NamespaceNodeLease {
			return fmt.Errorf("can only access leases in the %q system namespace", corev1.NamespaceNodeLease)
		}
		return own(node, a, "can only access node lease with the same name as the requesting node")
	case csiNodes:
		return own(node, a, "can only access CSINode with the same name as the requesting node")
	case slicesDR:
		return checkSlice(node, a)
	case csrs:
		return checkRequest(node, a)
	case podRequests:
		return r.checkPodRequest(ctx, node, a)
	}
	return nil
}

// own checks that an object bears the node's name. A create by POST has the name in the object only.
func own(node string, a admission.Attributes, message string) error {
	name := a.GetName()
	if a.GetOperation() == admission.Create {
		m, err := meta.Accessor(a.GetObject())
		if err != nil {
			return err
		}
		name = m.GetName()
	}
	if name != node {
		return errors.New(message)
	}
	return nil
}

func checkSlice(node string, a admission.Attributes) error {
	obj, verb := a.GetObject(), "create"
	switch a.GetOperation() {
	case admission.Delete:
		obj, verb = a.GetOldObject(), "delete"
	case admission.Update:
		return nil
	}
	slice, ok := obj.(*resourcev1.ResourceSlice)
	if !ok {
		return fmt.Errorf("unexpected type %T", obj)
	}
	if ptr.Deref(slice.Spec.NodeName, "") != node {
		return fmt.Errorf("can only %s ResourceSlice with the same NodeName as the requesting node", verb)
	}
	return nil
}

func checkRequest(node string, a admission.Attributes) error {
	csr, ok := a.GetObject().(*certificatesv1.CertificateSigningRequest)
	if !ok || a.GetOperation() != admission.Create {
		return nil
	}
	if s := csr.Spec.SignerName; s != certificatesv1.KubeletServingSignerName && s != certificatesv1.KubeAPIServerClientKubeletSignerName {
		return nil
	}
	request, err := parseRequest(csr.Spec.Request)
	if err != nil {
		return fmt.Errorf("unable to parse csr: %w", err)
	}
	if request.Subject.CommonName != nodeUserPrefix+node {
		return fmt.Errorf("can only create a node CSR with CN=%s%s", nodeUserPrefix, node)
	}
	return nil
}

func checkNode(node string, a admission.Attributes) error {
	if a.GetName() != node {
		return fmt.Errorf("node %q is not allowed to modify node %q", node, a.GetName())
	}
	if a.GetOperation() == admission.Delete {
		return nil
	}
	obj, ok := a.GetObject().(*corev1.Node)
	if !ok {
		return fmt.Errorf("unexpected type %T", a.GetObject())
	}
	if a.GetOperation() == admission.Create {
		if obj.Spec.ConfigSource != nil {
			return fmt.Errorf("node %q is not allowed to create pods with a non-nil configSource", node)
		}
		if l := reservedLabels(obj.Labels, nil); len(l) > 0 {
			return fmt.Errorf("node %q is not allowed to set the following labels: %s", node, strings.Join(l, ", "))
		}
		return nil
	}
	old, ok := a.GetOldObject().(*corev1.Node)
	if !ok {
		return fmt.Errorf("unexpected type %T", a.GetOldObject())
	}
	if obj.Spec.ConfigSource != nil && !equality.Semantic.DeepEqual(obj.Spec.ConfigSource, old.Spec.ConfigSource) {
		return fmt.Errorf("node %q is not allowed to update configSource to a new non-nil configSource", node)
	}
	// Taints and labels steer pods: a node that could change them would draw foreign pods, with their secrets, to itself.
	if !equality.Semantic.DeepEqual(obj.Spec.Taints, old.Spec.Taints) {
		return fmt.Errorf("node %q is not allowed to modify taints", node)
	}
	// An owner that is gone would have the Node deleted, and made anew with the labels and taints of the node's choice (CVE-2025-5187).
	if !equality.Semantic.DeepEqual(obj.OwnerReferences, old.OwnerReferences) {
		return fmt.Errorf("node %q is not allowed to modify ownerReferences", node)
	}
	if l := reservedLabels(obj.Labels, old.Labels); len(l) > 0 {
		return fmt.Errorf("is not allowed to modify labels: %s", strings.Join(l, ", "))
	}
	return nil
}

// reservedLabels returns the changed labels that a node may not change, sorted.
func reservedLabels(labels, old map[string]string) []string {
	var reserved []string
	changed := func(a, b map[string]string) {
		for k, v := range a {
			if w, ok := b[k]; (!ok || v != w) && isReserved(k) {
				reserved = append(reserved, k)
			}
		}
	}
	changed(labels, old)
	changed(old, labels)
	slices.Sort(reserved)
	return slices.Compact(reserved)
}

func isReserved(label string) bool {
	domain, _, ok := strings.Cut(label, "/")
	if !ok {
		return false
	}
	within := func(parent string) bool { return domain == parent || strings.HasSuffix(domain, "."+parent) }
	if within(corev1.LabelNamespaceNodeRestriction) {
		return true
	}
	return (within("kubernetes.io") || within("k8s.io")) && !kubeletapis.IsKubeletLabel(label)
}

func checkClaimStatus(node string, a admission.Attributes) error {
	if a.GetOperation() != admission.Update {
		return fmt.Errorf("unexpected operation %q", a.GetOperation())
	}
	claim, ok := a.GetObject().(*corev1.PersistentVolumeClaim)
	if !ok {
		return fmt.Errorf("unexpected type %T", a.GetObject())
	}
	old, ok := a.GetOldObject().(*corev1.PersistentVolumeClaim)
	if !ok {
		return fmt.Errorf("unexpected type %T", a.GetOldObject())
	}
	if !equality.Semantic.DeepEqual(withoutSize(claim), withoutSize(old)) {
		return fmt.Errorf("node %q is not allowed to update fields other than status.quantity and status.conditions", node)
	}
	return nil
}

// withoutSize is a claim less what a node may write of it.
func withoutSize(c *corev1.PersistentVolumeClaim) *corev1.PersistentVolumeClaim {
	c = c.DeepCopy()
	c.ResourceVersion, c.ManagedFields = "", nil
	c.Status.Capacity, c.Status.Conditions = nil, nil
	c.Status.AllocatedResources, c.Status.AllocatedResourceStatuses = nil, nil
	return c
}
