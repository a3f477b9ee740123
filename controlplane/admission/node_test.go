package admission

import (
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/utils/ptr"
)

var n1 = &user.DefaultInfo{Name: "system:node:n1", Groups: []string{user.NodesGroup, user.AllAuthenticated}}

// announce tells of a watch, and leaves the watch to the next reactor.
func announce(watched chan struct{}) clienttesting.WatchReactionFunc {
	return func(clienttesting.Action) (bool, watch.Interface, error) {
		select {
		case <-watched:
		default:
			close(watched)
		}
		return false, nil, nil
	}
}

func mirror() *corev1.Pod {
	p := newPod()
	p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
	p.Spec.NodeName = "n1"
	p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: "n1", UID: "u1", Controller: ptr.To(true)}}
	return p
}

func TestNodeAndItsPods(t *testing.T) {
	bound := func(name, node string) *corev1.Pod {
		p := newPod()
		p.Name, p.Spec.NodeName, p.UID, p.Spec.ServiceAccountName = name, node, types.UID(name), "default"
		p.Spec.Volumes = []corev1.Volume{{Name: "c", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
			Sources: []corev1.VolumeProjection{{PodCertificate: &corev1.PodCertificateProjection{SignerName: "example.com/signer"}}}}}}}
		return p
	}
	c, _ := chain(t, nil, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: "u1"}}, bound("mine", "n1"), bound("theirs", "n2"))
	create := func(edit func(*corev1.Pod)) write {
		p := mirror()
		edit(p)
		return write{resource: "pods", obj: p, as: n1}
	}
	status := func(old *corev1.Pod, edit func(*corev1.Pod)) write {
		p := old.DeepCopy()
		edit(p)
		return write{op: admission.Update, resource: "pods", sub: "status", obj: p, old: old, as: n1}
	}
	token := func(edit func(*authenticationv1.TokenRequest)) write {
		r := &authenticationv1.TokenRequest{ObjectMeta: metav1.ObjectMeta{Name: "default", Namespace: "ns"}}
		r.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: "mine", UID: "mine"}
		edit(r)
		return write{resource: "serviceaccounts", sub: "token", obj: r, as: n1}
	}
	certificate := func(edit func(*certificatesv1.PodCertificateRequestSpec)) write {
		r := &certificatesv1.PodCertificateRequest{ObjectMeta: metav1.ObjectMeta{Name: "r", Namespace: "ns"}, Spec: certificatesv1.PodCertificateRequestSpec{
			PodName: "mine", PodUID: "mine", NodeName: "n1", NodeUID: "u1", ServiceAccountName: "default", SignerName: "example.com/signer"}}
		edit(&r.Spec)
		return write{resource: "certificates.k8s.io/podcertificaterequests", obj: r, as: n1}
	}
	for name, tc := range map[string]struct {
		w    write
		want string
	}{
		"certificate":                {certificate(func(*certificatesv1.PodCertificateRequestSpec) {}), ""},
		"certificate, other node":    {certificate(func(s *certificatesv1.PodCertificateRequestSpec) { s.NodeName = "n2" }), "which is not the requesting node"},
		"certificate, foreign pod":   {certificate(func(s *certificatesv1.PodCertificateRequestSpec) { s.PodName, s.PodUID = "theirs", "theirs" }), "is not running on node"},
		"certificate, other account": {certificate(func(s *certificatesv1.PodCertificateRequestSpec) { s.ServiceAccountName = "admin" }), "differs from running pod"},
		"certificate, other signer":  {certificate(func(s *certificatesv1.PodCertificateRequestSpec) { s.SignerName = "example.com/other" }), "has no volume with a certificate"},
		"mirror pod":                 {create(func(*corev1.Pod) {}), ""},
		"other pod":                  {create(func(p *corev1.Pod) { p.Annotations = nil }), "can only create mirror pods"},
		"on another node":            {create(func(p *corev1.Pod) { p.Spec.NodeName = "n2" }), "with spec.nodeName set to itself"},
		"without owner":              {create(func(p *corev1.Pod) { p.OwnerReferences = nil }), "with an owner reference set to itself"},
		"wrong owner uid":            {create(func(p *corev1.Pod) { p.OwnerReferences[0].UID = "u2" }), "node n1 UID mismatch: expected u2 got u1"},
		"with config map": {create(func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{}}}}
		}), "reference configmaps"},
		"with secret in env": {create(func(p *corev1.Pod) {
			p.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{}}}
		}), "reference secrets"},
		"delete own":        {write{op: admission.Delete, resource: "pods", old: bound("mine", "n1"), as: n1}, ""},
		"delete foreign":    {write{op: admission.Delete, resource: "pods", old: bound("theirs", "n2"), as: n1}, "can only delete pods with spec.nodeName set to itself"},
		"status of own":     {status(bound("mine", "n1"), func(p *corev1.Pod) { p.Status.Phase = corev1.PodRunning }), ""},
		"status of foreign": {status(bound("theirs", "n2"), func(*corev1.Pod) {}), "can only update pod status for pods with spec.nodeName set to itself"},
		"label by status":   {status(bound("mine", "n1"), func(p *corev1.Pod) { p.Labels = map[string]string{"a": "b"} }), "cannot update labels through pod status"},
		"claim by status":   {status(bound("mine", "n1"), func(p *corev1.Pod) { p.Status.ResourceClaimStatuses = []corev1.PodResourceClaimStatus{{Name: "x"}} }), "cannot update resource claim statues"},
		"extended claim by status": {status(bound("mine", "n1"), func(p *corev1.Pod) {
			p.Status.ExtendedResourceClaimStatus = &corev1.PodExtendedResourceClaimStatus{ResourceClaimName: "others"}
		}), "cannot update extended resource claim status"},
		"unbound token": {token(func(r *authenticationv1.TokenRequest) { r.Spec.BoundObjectRef = nil }), "not bound to a pod"},
		"foreign token": {token(func(r *authenticationv1.TokenRequest) {
			r.Spec.BoundObjectRef.Name, r.Spec.BoundObjectRef.UID = "theirs", "theirs"
		}), "bound to a pod scheduled on a different node"},
		"stale token":      {token(func(r *authenticationv1.TokenRequest) { r.Spec.BoundObjectRef.UID = "old" }), "does not match the UID in record"},
		"foreign audience": {token(func(r *authenticationv1.TokenRequest) { r.Spec.Audiences = []string{"vault"} }), `audience "vault" not found in pod spec volume`},
	} {
		t.Run(name, func(t *testing.T) { refused(t, admit(t, c, tc.w), tc.want) })
	}
}

func TestNodeAndItself(t *testing.T) {
	c, _ := chain(t, nil)
	node := func(name string, labels map[string]string, taints ...corev1.Taint) *corev1.Node {
		return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}, Spec: corev1.NodeSpec{Taints: taints}}
	}
	lease := func(ns, name string) *coordinationv1.Lease {
		return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}
	}
	for name, tc := range map[string]struct {
		w    write
		want string
	}{
		"registers":         {write{resource: "nodes", obj: node("n1", map[string]string{"kubernetes.io/hostname": "n1", "mine": "x"}), as: n1}, ""},
		"registers another": {write{resource: "nodes", obj: node("n2", nil), as: n1}, `node "n1" is not allowed to modify node "n2"`},
		"takes a role":      {write{resource: "nodes", obj: node("n1", map[string]string{"node-role.kubernetes.io/control-plane": ""}), as: n1}, `node "n1" is not allowed to set the following labels: node-role.kubernetes.io/control-plane`},
		"relabels":          {write{op: admission.Update, resource: "nodes", obj: node("n1", map[string]string{"node-restriction.kubernetes.io/a": "1"}), old: node("n1", nil), as: n1}, "is not allowed to modify labels: node-restriction.kubernetes.io/a"},
		"untaints":          {write{op: admission.Update, resource: "nodes", obj: node("n1", nil), old: node("n1", nil, corev1.Taint{Key: "k"}), as: n1}, `node "n1" is not allowed to modify taints`},
		"other namespace":   {write{resource: "coordination.k8s.io/leases", obj: lease("ns", "n1"), as: n1}, `can only access leases in the "kube-node-lease" system namespace`},
		"other's lease":     {write{op: admission.Update, resource: "coordination.k8s.io/leases", obj: lease("kube-node-lease", "n2"), as: n1}, "can only access node lease with the same name"},
		"a claim":           {write{op: admission.Update, resource: "persistentvolumeclaims", obj: &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns"}}, as: n1}, "may only update PVC status"},
		"nameless node":     {write{resource: "nodes", obj: node("n1", nil), as: &user.DefaultInfo{Name: "system:node:", Groups: []string{user.NodesGroup}}}, "could not determine node from user"},
		"an admin":          {write{resource: "nodes", obj: node("n2", map[string]string{"node-role.kubernetes.io/control-plane": ""})}, ""},
	} {
		t.Run(name, func(t *testing.T) { refused(t, admit(t, c, tc.w), tc.want) })
	}
	n := node("n1", nil)
	if err := admit(t, c, write{resource: "nodes", obj: n, as: n1}); err != nil || len(n.Spec.Taints) != 1 || n.Spec.Taints[0].Key != corev1.TaintNodeNotReady {
		t.Errorf("a new node's taints %v, %v", n.Spec.Taints, err)
	}
}

func TestCertificates(t *testing.T) {
	csr := func(signer, org string) *certificatesv1.CertificateSigningRequest {
		return &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: "r"},
			Spec: certificatesv1.CertificateSigningRequestSpec{SignerName: signer, Request: request(t, "system:node:n1", org)}}
	}
	approval := func(as user.Info) write {
		r := csr("example.com/s", "")
		return write{op: admission.Update, resource: "certificates.k8s.io/certificatesigningrequests", sub: "approval", obj: r, old: r, as: as}
	}
	c, _ := chain(t, signers{"approve example.com/*"})
	refused(t, admit(t, c, approval(nil)), "")
	c, _ = chain(t, nil)
	refused(t, admit(t, c, approval(nil)), `user not permitted to approve requests with signerName "example.com/s"`)
	signed := csr("example.com/s", "")
	signed.Status.Certificate = []byte("x")
	refused(t, admit(t, c, write{op: admission.Update, resource: "certificates.k8s.io/certificatesigningrequests", sub: "status", obj: signed, old: csr("example.com/s", "")}),
		`user not permitted to sign requests with signerName "example.com/s"`)
	refused(t, admit(t, c, write{resource: "certificates.k8s.io/certificatesigningrequests", obj: csr(certificatesv1.KubeAPIServerClientSignerName, "system:masters")}),
		"use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed")
	n2 := &user.DefaultInfo{Name: "system:node:n2", Groups: []string{user.NodesGroup}}
	refused(t, admit(t, c, write{resource: "certificates.k8s.io/certificatesigningrequests", obj: csr(certificatesv1.KubeletServingSignerName, "system:nodes"), as: n2}),
		"can only create a node CSR with CN=system:node:n2")
}
