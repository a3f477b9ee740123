package auth

import (
	"context"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/component-base/metrics/testutil"
	"k8s.io/utils/ptr"
)

// nodeWorld is a Node authorizer that knows one pod on node a, with its volume, and what else node a has.
func nodeWorld(t *testing.T) *Node {
	t.Helper()
	n, err := NewNode()
	if err != nil {
		t.Fatal(err)
	}
	meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: "ns", Name: name} }
	pod := &corev1.Pod{ObjectMeta: meta("p"), Spec: corev1.PodSpec{NodeName: "a", ServiceAccountName: "sa",
		Volumes: []corev1.Volume{
			{Name: "s", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "secret"}}},
			{Name: "c", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "claim"}}},
			{Name: "i", VolumeSource: corev1.VolumeSource{ISCSI: &corev1.ISCSIVolumeSource{SecretRef: &corev1.LocalObjectReference{Name: "chap"}}}},
		}}}
	pod.Status.ExtendedResourceClaimStatus = &corev1.PodExtendedResourceClaimStatus{ResourceClaimName: "extended"}
	static := &corev1.Pod{ObjectMeta: meta("static"), Spec: corev1.PodSpec{NodeName: "a", ServiceAccountName: "stolen"}}
	static.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
	volume := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv"}}
	volume.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "ns", Name: "claim"}
	volume.Spec.CephFS = &corev1.CephFSPersistentVolumeSource{SecretRef: &corev1.SecretReference{Name: "ceph"}}
	csi := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv2"}}
	csi.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "ns", Name: "claim"}
	csi.Spec.CSI = &corev1.CSIPersistentVolumeSource{NodeStageSecretRef: &corev1.SecretReference{Namespace: "csi", Name: "stage"},
		ControllerPublishSecretRef: &corev1.SecretReference{Namespace: "csi", Name: "publish"}}
	request := func(name, node string) *certificatesv1.PodCertificateRequest {
		r := &certificatesv1.PodCertificateRequest{ObjectMeta: meta(name)}
		r.Spec.NodeName = "a"
		if node != "" {
			r.Spec.NodeName = "b"
		}
		return r
	}
	for _, err := range []error{
		n.graph.pods.Add(pod), n.graph.pods.Add(static), n.graph.volumes.Add(volume), n.graph.volumes.Add(csi),
		n.graph.requests.Add(request("mine", "")), n.graph.requests.Add(request("theirs", "b")),
		n.graph.slices.Add(&resourcev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: "slice"}, Spec: resourcev1.ResourceSliceSpec{NodeName: ptr.To("a")}}),
		n.graph.slices.Add(&resourcev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: "all"}, Spec: resourcev1.ResourceSliceSpec{AllNodes: ptr.To(true)}}),
		n.graph.attachments.Add(&storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{Name: "att"}, Spec: storagev1.VolumeAttachmentSpec{NodeName: "a"}}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return n
}

func TestNodeAuthorizer(t *testing.T) {
	n := nodeWorld(t)
	related := "no relationship found between node 'a' and this object"
	for _, c := range []struct {
		verb, group, resource, sub, namespace, name, selector, denied string
	}{
		{verb: "get", resource: "secrets", namespace: "ns", name: "secret"},
		{verb: "watch", resource: "secrets", namespace: "ns", name: "secret"},
		{verb: "get", resource: "secrets", namespace: "ns", name: "chap"},
		{verb: "get", resource: "secrets", namespace: "ns", name: "ceph"},
		{verb: "get", resource: "secrets", namespace: "csi", name: "stage"},
		{verb: "get", resource: "secrets", namespace: "csi", name: "publish", denied: related},
		{verb: "get", resource: "secrets", namespace: "other", name: "secret", denied: related},
		{verb: "list", resource: "secrets", namespace: "ns", denied: "No Object name found"},
		{verb: "list", resource: "secrets", denied: "can only read namespaced object of this type"},
		{verb: "update", resource: "secrets", namespace: "ns", name: "secret", denied: "can only read resources of this type"},
		{verb: "get", resource: "configmaps", sub: "x", namespace: "ns", name: "c", denied: "cannot read subresource"},
		{verb: "get", resource: "persistentvolumeclaims", namespace: "ns", name: "claim"},
		{verb: "list", resource: "persistentvolumeclaims", namespace: "ns", denied: "can only get individual resources of this type"},
		{verb: "patch", resource: "persistentvolumeclaims", sub: "status", namespace: "ns", name: "claim"},
		{verb: "get", resource: "persistentvolumeclaims", sub: "status", namespace: "ns", name: "claim", denied: "can only get/update/patch this type"},
		{verb: "get", resource: "persistentvolumeclaims", sub: "x", namespace: "ns", name: "claim", denied: "cannot get subresource"},
		{verb: "get", resource: "persistentvolumes", name: "pv"},
		{verb: "get", resource: "persistentvolumes", name: "pv3", denied: related},
		{verb: "get", group: "storage.k8s.io", resource: "volumeattachments", name: "att"},
		{verb: "get", group: "resource.k8s.io", resource: "resourceclaims", namespace: "ns", name: "extended"},
		{verb: "get", resource: "serviceaccounts", namespace: "ns", name: "sa"},
		{verb: "get", resource: "serviceaccounts", namespace: "ns", name: "stolen", denied: related},
		{verb: "create", resource: "serviceaccounts", sub: "token", namespace: "ns", name: "sa"},
		{verb: "create", resource: "serviceaccounts", sub: "token", namespace: "ns", name: "stolen", denied: related},
		{verb: "create", resource: "serviceaccounts", namespace: "ns", name: "sa", denied: "can only create token subresource of serviceaccount"},
		{verb: "create", resource: "serviceaccounts", namespace: "ns", denied: "can only create tokens for individual service accounts"},
		{verb: "create", group: "coordination.k8s.io", resource: "leases", namespace: "kube-node-lease"},
		{verb: "update", group: "coordination.k8s.io", resource: "leases", namespace: "kube-node-lease", name: "a"},
		{verb: "update", group: "coordination.k8s.io", resource: "leases", namespace: "kube-node-lease", name: "b", denied: "can only access node lease with the same name as the requesting node"},
		{verb: "get", group: "coordination.k8s.io", resource: "leases", namespace: "ns", name: "a", denied: `can only access leases in the "kube-node-lease" system namespace`},
		{verb: "list", group: "coordination.k8s.io", resource: "leases", namespace: "kube-node-lease", denied: "can only get, create, update, patch, or delete a node lease"},
		{verb: "patch", group: "storage.k8s.io", resource: "csinodes", name: "a"},
		{verb: "patch", group: "storage.k8s.io", resource: "csinodes", name: "b", denied: "can only access CSINode with the same name as the requesting node"},
		{verb: "list", group: "storage.k8s.io", resource: "csinodes", denied: "can only get, create, update, patch, or delete a CSINode"},
		{verb: "patch", group: "storage.k8s.io", resource: "csinodes", sub: "status", name: "a", denied: "cannot authorize CSINode subresources"},
		{verb: "create", group: "resource.k8s.io", resource: "resourceslices"},
		{verb: "get", group: "resource.k8s.io", resource: "resourceslices", name: "slice"},
		{verb: "delete", group: "resource.k8s.io", resource: "resourceslices", name: "slice"},
		{verb: "update", group: "resource.k8s.io", resource: "resourceslices", name: "all", denied: related},
		{verb: "deletecollection", group: "resource.k8s.io", resource: "resourceslices", selector: "spec.nodeName=a"},
		{verb: "list", group: "resource.k8s.io", resource: "resourceslices", selector: "spec.nodeName=b", denied: "can only list/watch/deletecollection resourceslices with nodeName field selector"},
		{verb: "create", group: "certificates.k8s.io", resource: "podcertificaterequests", namespace: "ns"},
		{verb: "get", group: "certificates.k8s.io", resource: "podcertificaterequests", namespace: "ns", name: "mine"},
		{verb: "get", group: "certificates.k8s.io", resource: "podcertificaterequests", namespace: "ns", name: "theirs", denied: related},
		{verb: "list", group: "certificates.k8s.io", resource: "podcertificaterequests", selector: "spec.nodeName=a"},
		{verb: "list", group: "certificates.k8s.io", resource: "podcertificaterequests", denied: "can only list/watch podcertificaterequests with nodeName field selector"},
		{verb: "delete", group: "certificates.k8s.io", resource: "podcertificaterequests", namespace: "ns", name: "mine", denied: "nodes may not delete podcertificaterequests"},
		{verb: "update", group: "certificates.k8s.io", resource: "podcertificaterequests", sub: "status", namespace: "ns", name: "mine", denied: "nodes may not access the status subresource of PodCertificateRequests"},
		{verb: "get", resource: "nodes", name: "a"},
		{verb: "get", resource: "nodes", name: "b", denied: "node 'a' cannot read 'b', only its own Node object"},
		{verb: "list", resource: "nodes", denied: "node 'a' cannot read all nodes, only its own Node object"},
		{verb: "get", resource: "pods", namespace: "ns", name: "p"},
		{verb: "get", resource: "pods", namespace: "ns", name: "q", denied: related},
		{verb: "watch", resource: "pods", namespace: "ns", name: "p"},
		{verb: "list", resource: "pods", selector: "spec.nodeName=a"},
		{verb: "list", resource: "pods", denied: "can only list/watch pods with spec.nodeName field selector"},
		{verb: "patch", resource: "pods", sub: "status", namespace: "ns", name: "p"},
		{verb: "create", resource: "pods", sub: "eviction", namespace: "ns", name: "p"},
		{verb: "list", resource: "services"},
	} {
		a := authorizer.AttributesRecord{User: NodeUser("a"), Verb: c.verb, APIGroup: c.group, Resource: c.resource, Subresource: c.sub,
			Namespace: c.namespace, Name: c.name, ResourceRequest: true}
		if c.selector != "" {
			s, err := fields.ParseSelector(c.selector)
			if err != nil {
				t.Fatal(err)
			}
			a.FieldSelectorRequirements = s.Requirements()
		}
		d, reason, err := n.Authorize(context.Background(), a)
		if allowed := d == authorizer.DecisionAllow; err != nil || allowed != (c.denied == "") || reason != c.denied {
			t.Errorf("%s %s/%s/%s %s/%s (%s): allowed %v, %q, %v; want %q", c.verb, c.group, c.resource, c.sub, c.namespace, c.name, c.selector, allowed, reason, err, c.denied)
		}
	}
	// What upstream refuses without a word.
	for _, a := range []authorizer.AttributesRecord{
		{Verb: "delete", Resource: "nodes", Name: "a"}, {Verb: "get", Resource: "nodes", Subresource: "status", Name: "a"},
		{Verb: "get", Resource: "pods", Subresource: "status", Namespace: "ns", Name: "p"}, {Verb: "create", Resource: "secrets2"},
	} {
		a.User, a.ResourceRequest = NodeUser("a"), true
		if d, reason, err := n.Authorize(context.Background(), a); d != authorizer.DecisionNoOpinion || reason != "" || err != nil {
			t.Errorf("%s %s/%s: %v, %q, %v", a.Verb, a.Resource, a.Subresource, d, reason, err)
		}
	}
	if err := n.graph.requests.Delete(&certificatesv1.PodCertificateRequest{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "mine"}}); err != nil {
		t.Fatal(err)
	}
	if n.graph.reaches("a", ref{"podcertificaterequests", "ns", "mine"}) {
		t.Error("a request that is gone is still the node's")
	}
}

// A review of a node's own rights says that it does not have all of them.
func TestNodeRules(t *testing.T) {
	for _, c := range []struct {
		user       user.Info
		incomplete bool
	}{{NodeUser("a"), true}, {&user.DefaultInfo{Name: "system:node:a"}, false}, {&user.DefaultInfo{Name: "b"}, false}} {
		_, _, incomplete, err := NewRBAC().Resolver().RulesFor(t.Context(), c.user, "ns")
		if incomplete != c.incomplete || (err != nil) != c.incomplete {
			t.Errorf("%s: incomplete %v, %v", c.user.GetName(), incomplete, err)
		}
	}
}

// TestGraphMetrics: what is done to the graph is counted.
func TestGraphMetrics(t *testing.T) {
	n := nodeWorld(t)
	count := func(action string) uint64 {
		got, err := testutil.GetHistogramMetricCount(graphDurations.WithLabelValues(action))
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	added, deleted := count("AddPod"), count("DeletePod")
	if added == 0 || count("AddPV") == 0 || count("AddVolumeAttachment") == 0 || count("AddPodCertificateRequest") == 0 || count("AddResourceSlice") == 0 {
		t.Error("not every kind's additions are counted")
	}
	if err := n.graph.pods.Delete(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p"}}); err != nil {
		t.Fatal(err)
	}
	if got := count("DeletePod"); got != deleted+1 || count("AddPod") != added {
		t.Errorf("%d deletions, %d additions after one deletion; before %d, %d", got, count("AddPod"), deleted, added)
	}
}
