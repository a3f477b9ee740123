package apiserver

import (
	"crypto/ed25519"
	"crypto/x509"
	"net/http"
	"strings"
	"testing"

	registration "k8s.io/api/admissionregistration/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// TestHostile_AP15: a schema or a rule that would cost too much is refused, and what is large but lawful stays quick.
func TestHostile_AP15(t *testing.T) {
	r := start(t, "")
	api := clientset.NewForConfigOrDie(r.admin).ApiextensionsV1().CustomResourceDefinitions()
	list := apiextensionsv1.JSONSchemaProps{Type: "array", Items: &apiextensionsv1.JSONSchemaPropsOrArray{Schema: &apiextensionsv1.JSONSchemaProps{Type: "string"}}}
	ref := "#"
	deep := apiextensionsv1.JSONSchemaProps{Type: "string"}
	for range 3000 {
		deep = apiextensionsv1.JSONSchemaProps{Type: "object", Properties: map[string]apiextensionsv1.JSONSchemaProps{"a": deep}}
	}
	for name, c := range map[string]struct {
		change func(s *apiextensionsv1.JSONSchemaProps)
		want   string
	}{
		"nested loops": {func(s *apiextensionsv1.JSONSchemaProps) {
			s.Properties["l"] = list
			s.XValidations = apiextensionsv1.ValidationRules{{Rule: "self.l.all(a, self.l.all(b, self.l.all(c, a + b != c)))"}}
		}, "exceeds budget"},
		"matching": {func(s *apiextensionsv1.JSONSchemaProps) {
			s.Properties["l"] = list
			s.XValidations = apiextensionsv1.ValidationRules{{Rule: "self.l.all(a, a.matches('(a+)+(b+)+(c+)+$'))"}}
		}, "exceeds budget"},
		"recursion": {func(s *apiextensionsv1.JSONSchemaProps) {
			s.Properties["l"] = apiextensionsv1.JSONSchemaProps{Ref: &ref}
		}, "ref: Forbidden"},
		"10 MB": {func(s *apiextensionsv1.JSONSchemaProps) { s.Description = strings.Repeat("x", 10<<20) }, "too large"},
		"depth": {func(s *apiextensionsv1.JSONSchemaProps) { s.Properties["l"] = deep }, ""},
	} {
		crd := vesselDefinition(t)
		crd.Name, crd.Spec.Group = "vessels.bomb.test", "bomb.test"
		crd.Spec.Versions[0].SelectableFields = nil // the library panics on them (and answers so) where a schema is not structural
		s := crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"]
		c.change(&s)
		crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"] = s
		_, err := api.Create(t.Context(), crd, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %.400v; want %q", name, err, c.want)
		}
	}
	if code := get(t, r.admin, "/readyz"); code != http.StatusOK {
		t.Errorf("ready afterwards: %d", code)
	}
}

// TestHostile_AP22: a tenant draws nobody's traffic by external addresses.
func TestHostile_AP22(t *testing.T) {
	r := start(t, "")
	_, err := r.client.RbacV1().RoleBindings("default").Create(t.Context(), &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "tenant"},
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "admin"}, Subjects: []rbacv1.Subject{{Kind: "User", APIGroup: rbacv1.GroupName, Name: "tenant"}}}, createOptions)
	if err != nil {
		t.Fatal(err)
	}
	tenant := r.as(t, r.with(t, "tenant")).CoreV1().Services("default")
	svc := func(name string, ips ...string) *corev1.Service {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}, ExternalIPs: ips}}
	}
	eventually(t, "the tenant may make Services", func() bool {
		_, err = tenant.Create(t.Context(), svc("own"), createOptions)
		return err == nil
	})
	if _, err := tenant.Create(t.Context(), svc("taken", "8.8.8.8"), createOptions); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "externalIPs") {
		t.Errorf("create: %v", err)
	}
	if _, err := tenant.Patch(t.Context(), "own", types.MergePatchType, []byte(`{"spec":{"externalIPs":["8.8.8.8"]}}`), metav1.PatchOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("patch: %v", err)
	}
	if _, err := tenant.UpdateStatus(t.Context(), svc("own"), updateOptions); !apierrors.IsForbidden(err) {
		t.Errorf("status: %v", err)
	}
	must(t)(r.client.CoreV1().Services("default").Create(t.Context(), svc("given", "203.0.113.9"), createOptions))
	must(t)(tenant.Patch(t.Context(), "given", types.MergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}}}`), metav1.PatchOptions{}))
}

// TestHostile_AP23: a policy that compares a Node with what it was cannot be led past, whatever writes the Node.
func TestHostile_AP23(t *testing.T) {
	r := start(t, "")
	api := r.client.AdmissionregistrationV1()
	rule := registration.NamedRuleWithOperations{RuleWithOperations: registration.RuleWithOperations{Operations: []registration.OperationType{registration.Update},
		Rule: registration.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"nodes", "nodes/status"}}}}
	must(t)(api.ValidatingAdmissionPolicies().Create(t.Context(), &registration.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: "zones"}, Spec: registration.ValidatingAdmissionPolicySpec{
		MatchConstraints: &registration.MatchResources{ResourceRules: []registration.NamedRuleWithOperations{rule}},
		Validations:      []registration.Validation{{Expression: "object.metadata.labels['zone'] == oldObject.metadata.labels['zone']", Message: "a node stays in its zone"}}}}, createOptions))
	must(t)(api.ValidatingAdmissionPolicyBindings().Create(t.Context(), &registration.ValidatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: "zones"},
		Spec: registration.ValidatingAdmissionPolicyBindingSpec{PolicyName: "zones", ValidationActions: []registration.ValidationAction{registration.Deny}}}, createOptions))
	nodes := r.client.CoreV1().Nodes()
	node, err := nodes.Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{"zone": "a"}}}, createOptions)
	if err != nil {
		t.Fatal(err)
	}
	move := []byte(`{"metadata":{"labels":{"zone":"b"}}}`)
	eventually(t, "the policy is in force", func() bool {
		_, err := nodes.Patch(t.Context(), "n", types.MergePatchType, move, metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}})
		return err != nil && strings.Contains(err.Error(), "a node stays in its zone")
	})
	moved := node.DeepCopy()
	moved.Labels["zone"] = "b"
	moved.ResourceVersion = ""
	tries := map[string]func() error{
		"update": func() error { _, err := nodes.Update(t.Context(), moved, updateOptions); return err },
		"status": func() error { _, err := nodes.UpdateStatus(t.Context(), moved, updateOptions); return err },
		"patch of status": func() error {
			_, err := nodes.Patch(t.Context(), "n", types.StrategicMergePatchType, move, metav1.PatchOptions{}, "status")
			return err
		},
		"apply": func() error {
			_, err := nodes.Patch(t.Context(), "n", types.ApplyPatchType, []byte(`{"apiVersion":"v1","kind":"Node","metadata":{"name":"n","labels":{"zone":"b"}}}`),
				metav1.PatchOptions{FieldManager: "x", Force: ptr(true)})
			return err
		},
	}
	for name, try := range tries {
		if err := try(); err == nil || !strings.Contains(err.Error(), "a node stays in its zone") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := nodes.Patch(t.Context(), "n", types.MergePatchType, []byte(`{"spec":{"unschedulable":true}}`), metav1.PatchOptions{}); err != nil {
		t.Errorf("another change: %v", err)
	}
}

// TestHostile_AP24: a node does what is its own, and nothing else.
func TestHostile_AP24(t *testing.T) {
	r := start(t, "")
	for _, n := range []string{"a", "b"} {
		must(t)(r.client.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n}}, createOptions))
		must(t)(r.client.CoreV1().Secrets("default").Create(t.Context(), secret("of-"+n), createOptions))
		p := pod("on-" + n)
		p.Spec.NodeName = n
		p.Spec.Volumes = []corev1.Volume{{Name: "s", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "of-" + n}}}}
		must(t)(r.client.CoreV1().Pods("default").Create(t.Context(), p, createOptions))
	}
	a := r.as(t, r.with(t, "system:node:a", "system:nodes")).CoreV1()
	eventually(t, "the node reads its own pod's secret", func() bool {
		_, err := a.Secrets("default").Get(t.Context(), "of-a", getOptions)
		return err == nil
	})
	patch := func(node, body string, sub ...string) error {
		_, err := a.Nodes().Patch(t.Context(), node, types.StrategicMergePatchType, []byte(body), metav1.PatchOptions{}, sub...)
		return err
	}
	if err := patch("a", `{"metadata":{"labels":{"example.com/x":"y"}}}`); err != nil {
		t.Errorf("a label of its own: %v", err)
	}
	mirror := pod("mirror")
	mirror.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x", "kubernetes.io/config.hash": "x"}
	mirror.Spec.NodeName = "a"
	mirror.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "gpu", ResourceClaimName: ptr("others")}}
	tries := map[string]func() error{
		"another's secret": func() error { _, err := a.Secrets("default").Get(t.Context(), "of-b", getOptions); return err },
		"all secrets":      func() error { _, err := a.Secrets("default").List(t.Context(), metav1.ListOptions{}); return err },
		"another node":     func() error { return patch("b", `{"metadata":{"labels":{"example.com/x":"y"}}}`) },
		"another's status": func() error { return patch("b", `{"status":{"phase":"Running"}}`, "status") },
		"a reserved label": func() error { return patch("a", `{"metadata":{"labels":{"node-restriction.kubernetes.io/x":"y"}}}`) },
		"a role": func() error {
			return patch("a", `{"metadata":{"labels":{"node-role.kubernetes.io/control-plane":""}}}`)
		},
		"a taint off": func() error { return patch("a", `{"spec":{"taints":[{"key":"x","effect":"NoSchedule"}]}}`) },
		"an owner": func() error {
			return patch("a", `{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"Namespace","name":"none","uid":"none"}]}}`)
		},
		"delete itself":    func() error { return a.Nodes().Delete(t.Context(), "a", deleteOptions) },
		"delete another":   func() error { return a.Nodes().Delete(t.Context(), "b", deleteOptions) },
		"another's pod":    func() error { return a.Pods("default").Delete(t.Context(), "on-b", deleteOptions) },
		"an ordinary pod":  func() error { _, err := a.Pods("default").Create(t.Context(), pod("mine"), createOptions); return err },
		"a claim's mirror": func() error { _, err := a.Pods("default").Create(t.Context(), mirror, createOptions); return err },
	}
	for name, try := range tries {
		if err := try(); !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v; want forbidden", name, err)
		}
	}
}

// TestHostile_AP26: a pod's certificate is asked for in bounds, and by the pod's own node.
func TestHostile_AP26(t *testing.T) {
	r := start(t, "")
	must(t)(r.client.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, createOptions))
	p := pod("p")
	p.Spec.NodeName = "a"
	made, err := r.client.CoreV1().Pods("default").Create(t.Context(), p, createOptions)
	if err != nil {
		t.Fatal(err)
	}
	account, err := r.client.CoreV1().ServiceAccounts("default").Get(t.Context(), "default", getOptions)
	if err != nil {
		t.Fatal(err)
	}
	node, err := r.client.CoreV1().Nodes().Get(t.Context(), "a", getOptions)
	if err != nil {
		t.Fatal(err)
	}
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	stub, err := x509.CreateCertificateRequest(nil, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	request := func(seconds int32) *certificatesv1.PodCertificateRequest {
		return &certificatesv1.PodCertificateRequest{ObjectMeta: metav1.ObjectMeta{GenerateName: "r-"}, Spec: certificatesv1.PodCertificateRequestSpec{
			SignerName: "keelson.test/signer", PodName: "p", PodUID: made.UID, ServiceAccountName: "default", ServiceAccountUID: account.UID,
			NodeName: "a", NodeUID: node.UID, MaxExpirationSeconds: &seconds, StubPKCS10Request: stub}}
	}
	for name, seconds := range map[string]int32{"less than an hour": 3599, "more than 91 days": 91*86400 + 1} {
		if _, err := r.client.CertificatesV1().PodCertificateRequests("default").Create(t.Context(), request(seconds), createOptions); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "spec.maxExpirationSeconds") {
			t.Errorf("%s: %v", name, err)
		}
	}
	asNode := r.as(t, r.with(t, "system:node:a", "system:nodes")).CertificatesV1().PodCertificateRequests("default")
	if _, err := asNode.Create(t.Context(), request(7200), createOptions); !apierrors.IsForbidden(err) {
		t.Errorf("for a signer that the pod does not mount: %v", err)
	}
	other := r.as(t, r.with(t, "system:node:b", "system:nodes")).CertificatesV1().PodCertificateRequests("default")
	if _, err := other.Create(t.Context(), request(7200), createOptions); !apierrors.IsForbidden(err) {
		t.Errorf("by another node: %v", err)
	}
}
