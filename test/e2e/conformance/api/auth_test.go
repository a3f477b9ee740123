package api

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/test/lab/labtest"
)

// start makes a pod of one container and waits until it runs.
func (a *admin) start(t *testing.T, ns string, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	pod.Spec.TerminationGracePeriodSeconds = ptr.To[int64](0)
	must(a.CoreV1().Pods(ns).Create(ctx, pod, metav1.CreateOptions{}))(t)
	labtest.Eventually(t, pod.Name+" runs", func() string {
		if pod = must(a.CoreV1().Pods(ns).Get(ctx, pod.Name, metav1.GetOptions{}))(t); pod.Status.Phase != corev1.PodRunning {
			return fmt.Sprint(pod.Status)
		}
		return ""
	})
	return pod
}

func sleeper(name, account string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{ServiceAccountName: account, RestartPolicy: corev1.RestartPolicyNever,
		Containers: []corev1.Container{{Name: "test", Image: busybox, Command: []string{"sleep", "100000"}}}}}
}

const mountPath = "/var/run/secrets/kubernetes.io/serviceaccount/"

// A pod finds a token of its account, the cluster's authority and its namespace; the token says which pod and node it is of.
//
// Upstream's titles: ServiceAccounts should mount an API token into pods; should guarantee kube-root-ca.crt exist in any namespace.
func TestTokenInPod(t *testing.T) {
	a := cluster(t)
	ns := a.namespace(t, "svcaccounts")
	must(a.CoreV1().ServiceAccounts(ns).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "mount-test"}}, metav1.CreateOptions{}))(t)
	pod := a.start(t, ns, sleeper("pod-service-account", "mount-test"))
	node := must(a.CoreV1().Nodes().Get(ctx, pod.Spec.NodeName, metav1.GetOptions{}))(t)
	read := func(file string) string {
		return a.kubectl(t, ns, "exec", pod.Name, "-c", "test", "--", "cat", mountPath+file)
	}
	if got := read("namespace"); got != ns {
		t.Errorf("namespace %q", got)
	}
	maps := a.CoreV1().ConfigMaps(ns)
	root := must(maps.Get(ctx, "kube-root-ca.crt", metav1.GetOptions{}))(t)
	if got := read("ca.crt"); got != root.Data["ca.crt"] || got == "" {
		t.Errorf("authority %q", got)
	}
	review := must(a.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: read("token")}}, metav1.CreateOptions{}))(t)
	user := review.Status.User
	if !review.Status.Authenticated || review.Status.Error != "" || user.Username != "system:serviceaccount:"+ns+":mount-test" {
		t.Errorf("%+v", review.Status)
	}
	for _, g := range []string{"system:authenticated", "system:serviceaccounts", "system:serviceaccounts:" + ns} {
		if !slices.Contains(user.Groups, g) {
			t.Errorf("groups %v, want %s", user.Groups, g)
		}
	}
	for key, want := range map[string]string{"pod-name": pod.Name, "pod-uid": string(pod.UID), "node-name": node.Name, "node-uid": string(node.UID)} {
		if got := user.Extra["authentication.kubernetes.io/"+key]; len(got) != 1 || got[0] != want {
			t.Errorf("%s %v, want %s", key, got, want)
		}
	}
	if got := user.Extra["authentication.kubernetes.io/credential-id"]; len(got) != 1 || !strings.HasPrefix(got[0], "JTI=") {
		t.Errorf("credential-id %v", got)
	}

	if err := maps.Delete(ctx, "kube-root-ca.crt", metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}); err != nil {
		t.Fatal(err)
	}
	again := func() string {
		m, err := maps.Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
		if err == nil && m.Data["ca.crt"] != root.Data["ca.crt"] {
			err = fmt.Errorf("authority %q", m.Data["ca.crt"])
		}
		return complaint(err)
	}
	labtest.Eventually(t, "made again", again)
	must(maps.Update(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "kube-root-ca.crt"}, Data: map[string]string{"ca.crt": ""}}, metav1.UpdateOptions{}))(t)
	labtest.Eventually(t, "put right", again)
}

// Whether a token is mounted is said by the pod, else by its account, else it is.
//
// Upstream's title: ServiceAccounts should allow opting out of API token automount.
func TestTokenOptOut(t *testing.T) {
	a := cluster(t)
	ns := a.namespace(t, "svcaccounts")
	for name, mount := range map[string]bool{"mount": true, "nomount": false} {
		must(a.CoreV1().ServiceAccounts(ns).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}, AutomountServiceAccountToken: &mount}, metav1.CreateOptions{}))(t)
	}
	for account, byAccount := range map[string]bool{"default": true, "mount": true, "nomount": false} {
		for said, byPod := range map[string]*bool{"unsaid": nil, "yes": ptr.To(true), "no": ptr.To(false)} {
			pod := sleeper(account+"-"+said, account)
			pod.Spec.AutomountServiceAccountToken = byPod
			pod = must(a.CoreV1().Pods(ns).Create(ctx, pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}))(t)
			mounted := slices.ContainsFunc(pod.Spec.Containers[0].VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == strings.TrimSuffix(mountPath, "/") })
			if want := ptr.Deref(byPod, byAccount); mounted != want {
				t.Errorf("account %s, pod %s: mounted %t", account, said, mounted)
			}
		}
	}
}

// A stranger in a pod verifies a token by its issuer's discovery alone: the document, its keys, the signature, the audience. And a token is
// projected where a pod wants it, owned so that its user can read it.
//
// Upstream's titles: ServiceAccountIssuerDiscovery should support OIDC discovery of service account issuer; should mount projected service account
// token; should set ownership and permission when RunAsUser or FsGroup is present.
func TestIssuerDiscovery(t *testing.T) {
	a := cluster(t)
	ns := a.namespace(t, "svcaccounts")
	must(a.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: ns}, Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: "default", Namespace: ns}},
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "system:service-account-issuer-discovery"}}, metav1.CreateOptions{}))(t)
	t.Cleanup(func() { _ = a.RbacV1().ClusterRoleBindings().Delete(ctx, ns, metav1.DeleteOptions{}) })
	volume := []corev1.Volume{{Name: "t", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{
		ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "sa-token", ExpirationSeconds: ptr.To[int64](600), Audience: "oidc-discovery-test"}}}}}}}
	mounts := []corev1.VolumeMount{{Name: "t", MountPath: "/var/run/secrets/tokens", ReadOnly: true}}
	run := func(name string, container corev1.Container, security *corev1.PodSecurityContext) string {
		t.Helper()
		container.Name, container.VolumeMounts = "c", mounts
		must(a.CoreV1().Pods(ns).Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{container}, Volumes: volume, SecurityContext: security}}, metav1.CreateOptions{}))(t)
		var pod *corev1.Pod
		labtest.Eventually(t, name+" ends", func() string {
			if pod = must(a.CoreV1().Pods(ns).Get(ctx, name, metav1.GetOptions{}))(t); pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed {
				return fmt.Sprint(pod.Status)
			}
			return ""
		})
		out := a.kubectl(t, ns, "logs", name)
		if pod.Status.Phase != corev1.PodSucceeded {
			t.Errorf("%s failed: %s", name, out)
		}
		return out
	}
	run("oidc-discovery-validator", corev1.Container{Image: agnhost, Args: []string{"test-service-account-issuer-discovery", "--token-path=/var/run/secrets/tokens/sa-token", "--audience=oidc-discovery-test"}}, nil)
	for name, c := range map[string]struct {
		security corev1.PodSecurityContext
		want     string
	}{
		"user":  {corev1.PodSecurityContext{RunAsUser: ptr.To[int64](1000)}, "600 1000 0"},
		"group": {corev1.PodSecurityContext{FSGroup: ptr.To[int64](10000)}, "640 0 10000"},
		"both":  {corev1.PodSecurityContext{RunAsUser: ptr.To[int64](1000), FSGroup: ptr.To[int64](10000)}, "640 1000 10000"},
		"none":  {corev1.PodSecurityContext{}, "644 0 0"},
	} {
		out := run("owner-"+name, corev1.Container{Image: busybox, Command: []string{"sh", "-c", "stat -L -c '%a %u %g' /var/run/secrets/tokens/sa-token && cat /var/run/secrets/tokens/sa-token"}}, &c.security)
		if lines := strings.Split(strings.TrimSpace(out), "\n"); lines[0] != c.want || len(lines) != 2 || strings.Count(lines[1], ".") != 2 {
			t.Errorf("%s: %s, want %s and a token", name, out, c.want)
		}
	}
}

// An account is made, seen by a watch, patched, listed, updated and deleted as a collection.
//
// Upstream's titles: ServiceAccounts should run through the lifecycle of a ServiceAccount; should update a ServiceAccount.
func TestAccounts(t *testing.T) {
	a := cluster(t)
	ns := a.namespace(t, "svcaccounts")
	api := a.CoreV1().ServiceAccounts(ns)
	made := must(api.Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "testserviceaccount", Labels: map[string]string{"test-serviceaccount-static": "true"}}}, metav1.CreateOptions{}))(t)
	w := must(api.Watch(ctx, metav1.ListOptions{LabelSelector: "test-serviceaccount-static=true"}))(t)
	defer w.Stop()
	if e := next(t, w); e.Type != watch.Added {
		t.Errorf("%s", e.Type)
	}
	must(api.Patch(ctx, made.Name, types.StrategicMergePatchType, []byte(`{"metadata":{},"automountServiceAccountToken":false}`), metav1.PatchOptions{}))(t)
	if e := next(t, w); e.Type != watch.Modified {
		t.Errorf("%s", e.Type)
	}
	list := must(a.CoreV1().ServiceAccounts("").List(ctx, metav1.ListOptions{LabelSelector: "test-serviceaccount-static=true"}))(t)
	if len(list.Items) != 1 || ptr.Deref(list.Items[0].AutomountServiceAccountToken, true) {
		t.Errorf("%v", list.Items)
	}
	list.Items[0].AutomountServiceAccountToken = ptr.To(true)
	if o := must(api.Update(ctx, &list.Items[0], metav1.UpdateOptions{}))(t); !*o.AutomountServiceAccountToken {
		t.Error("not updated")
	}
	if e := next(t, w); e.Type != watch.Modified {
		t.Errorf("%s", e.Type)
	}
	if err := api.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	if e := next(t, w); e.Type != watch.Deleted {
		t.Errorf("%s", e.Type)
	}
}

// as is a client of somebody else.
func (a *admin) as(t *testing.T, who rest.ImpersonationConfig) *kubernetes.Clientset {
	t.Helper()
	config := rest.CopyConfig(a.Config)
	config.Impersonate = who
	return must(kubernetes.NewForConfig(config))(t)
}

// Who asks is told who they are, and what is reviewed for an account is what the account finds.
//
// Upstream's titles: SelfSubjectReview should support SelfSubjectReview API operations; SubjectReview should support SubjectReview API operations.
func TestReviews(t *testing.T) {
	a := cluster(t)
	ns := a.namespace(t, "reviews")
	jane := rest.ImpersonationConfig{UserName: "jane-doe", UID: "uniq-id", Groups: []string{"system:authenticated", "developers"}, Extra: map[string][]string{"known-languages": {"python", "javascript"}}}
	self := must(a.as(t, jane).AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{}))(t).Status.UserInfo
	if self.Username != jane.UserName || self.UID != jane.UID || !slices.Equal(self.Groups, jane.Groups) || !slices.Equal(self.Extra["known-languages"], jane.Extra["known-languages"]) {
		t.Errorf("%+v", self)
	}
	sa := must(a.CoreV1().ServiceAccounts(ns).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "e2e"}}, metav1.CreateOptions{}))(t)
	who := rest.ImpersonationConfig{UserName: "system:serviceaccount:" + ns + ":e2e", UID: string(sa.UID), Groups: []string{"system:authenticated", "system:serviceaccounts", "system:serviceaccounts:" + ns}}
	for _, granted := range []bool{false, true} {
		if granted {
			a.kubectl(t, ns, "create", "rolebinding", "view", "--clusterrole=view", "--serviceaccount="+ns+":e2e")
		}
		spec := authorizationv1.SubjectAccessReviewSpec{User: who.UserName, Groups: who.Groups, UID: who.UID, ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: "list", Resource: "configmaps", Namespace: ns, Version: "v1"}}
		labtest.Eventually(t, "review", func() string {
			all := must(a.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{Spec: spec}, metav1.CreateOptions{}))(t)
			local := must(a.AuthorizationV1().LocalSubjectAccessReviews(ns).Create(ctx, &authorizationv1.LocalSubjectAccessReview{ObjectMeta: metav1.ObjectMeta{Namespace: ns}, Spec: spec}, metav1.CreateOptions{}))(t)
			_, err := a.as(t, who).CoreV1().ConfigMaps(ns).List(ctx, metav1.ListOptions{})
			if all.Status.Allowed != granted || local.Status.Allowed != granted || (err == nil) != granted || err != nil && !apierrors.IsForbidden(err) {
				return fmt.Sprint(all.Status, local.Status, err)
			}
			return ""
		})
	}
}

// A request for a certificate has the life of every object, an approval and a status of their own, and what is signed is a client.
//
// Upstream's titles: Certificates API should support CSR API operations; should support building a client with a CSR.
func TestCertificateRequests(t *testing.T) {
	a := cluster(t)
	api := a.CertificatesV1().CertificateSigningRequests()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	der := must(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "e2e.example.com"}}, key))(t)
	request := func(signer string, expires *int32) *certificatesv1.CertificateSigningRequest {
		return must(api.Create(ctx, &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{GenerateName: "e2e-example-csr-", Labels: map[string]string{"csr": "life"}}, Spec: certificatesv1.CertificateSigningRequestSpec{
			Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), SignerName: signer, ExpirationSeconds: expires,
			Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth}}}, metav1.CreateOptions{}))(t)
	}
	selected := metav1.ListOptions{LabelSelector: "csr=life"}
	t.Cleanup(func() { _ = api.DeleteCollection(ctx, metav1.DeleteOptions{}, selected) })
	for range 2 {
		request("example.com/e2e-signer", nil)
	}
	one := request("example.com/e2e-signer", ptr.To[int32](3600))
	list := must(api.List(ctx, selected))(t)
	if len(list.Items) != 3 || *one.Spec.ExpirationSeconds != 3600 || one.Spec.Username == "" {
		t.Errorf("%d requests; %+v", len(list.Items), one.Spec)
	}
	w := must(api.Watch(ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion, LabelSelector: "csr=life"}))(t)
	defer w.Stop()
	approve := []byte(`{"metadata":{"annotations":{"patchedapproval":"true"}},"status":{"conditions":[{"type":"ApprovalPatch","status":"True","reason":"e2e"}]}}`)
	one = must(api.Patch(ctx, one.Name, types.MergePatchType, []byte(`{"metadata":{"annotations":{"patched":"true"}}}`), metav1.PatchOptions{}))(t)
	one = must(api.Patch(ctx, one.Name, types.MergePatchType, approve, metav1.PatchOptions{}, "approval"))(t)
	if len(one.Status.Conditions) != 1 || one.Status.Conditions[0].Type != "ApprovalPatch" || one.Annotations["patchedapproval"] != "true" {
		t.Errorf("approval patched: %v %v", one.Status, one.Annotations)
	}
	one.Status.Conditions = append(one.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "E2E", Message: "Set from an e2e test"})
	if one = must(api.UpdateApproval(ctx, one.Name, one, metav1.UpdateOptions{}))(t); len(one.Status.Conditions) != 2 {
		t.Errorf("approval updated: %v", one.Status)
	}
	one = must(api.Patch(ctx, one.Name, types.MergePatchType, []byte(fmt.Sprintf(`{"metadata":{"annotations":{"patchedstatus":"true"}},"status":{"certificate":%q}}`, "")), metav1.PatchOptions{}, "status"))(t)
	if one.Annotations["patchedstatus"] != "true" || len(one.Status.Conditions) != 2 {
		t.Errorf("status patched: %v %v", one.Annotations, one.Status)
	}
	one.Status.Conditions = append(one.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{Type: "StatusUpdate", Status: corev1.ConditionTrue, Reason: "E2E", Message: "Set from an e2e test"})
	if one = must(api.UpdateStatus(ctx, one, metav1.UpdateOptions{}))(t); len(one.Status.Conditions) != 3 {
		t.Errorf("status updated: %v", one.Status)
	}
	if e := next(t, w); e.Type != watch.Modified || e.Object.(*certificatesv1.CertificateSigningRequest).Annotations["patched"] != "true" {
		t.Errorf("%s %v", e.Type, e.Object)
	}
	if err := api.Delete(ctx, one.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if list := must(api.List(ctx, selected))(t); len(list.Items) != 2 {
		t.Errorf("%d requests", len(list.Items))
	}

	client := request(certificatesv1.KubeAPIServerClientSignerName, nil)
	client.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "E2E", Message: "Set from an e2e test"}}
	must(api.UpdateApproval(ctx, client.Name, client, metav1.UpdateOptions{}))(t)
	labtest.Eventually(t, "signed", func() string {
		if client = must(api.Get(ctx, client.Name, metav1.GetOptions{}))(t); len(client.Status.Certificate) == 0 {
			return fmt.Sprint(client.Status)
		}
		return ""
	})
	config := rest.AnonymousClientConfig(a.Config)
	private := must(x509.MarshalECPrivateKey(key))(t)
	config.TLSClientConfig.CertData, config.TLSClientConfig.KeyData = client.Status.Certificate, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private})
	self := must(must(kubernetes.NewForConfig(config))(t).AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{}))(t)
	if self.Status.UserInfo.Username != "e2e.example.com" {
		t.Errorf("%+v", self.Status)
	}
}

// An account that may impersonate the node its pod is on lists that node's pods, and does nothing else.
//
// Upstream's title: [ConstrainedImpersonation] should impersonate the scheduled node.
func TestConstrainedImpersonation(t *testing.T) {
	a := cluster(t)
	ns := a.namespace(t, "impersonate")
	pod := a.start(t, ns, sleeper("sa-token", "default"))
	config := rest.AnonymousClientConfig(a.Config)
	config.BearerToken = a.kubectl(t, ns, "exec", pod.Name, "--", "cat", mountPath+"token")
	config.Impersonate = rest.ImpersonationConfig{UserName: "system:node:" + pod.Spec.NodeName} // its group follows
	client := must(kubernetes.NewForConfig(config))(t)
	mine := metav1.ListOptions{FieldSelector: "spec.nodeName=" + pod.Spec.NodeName}
	if _, err := client.CoreV1().Pods(ns).List(ctx, mine); !apierrors.IsForbidden(err) {
		t.Errorf("before it may: %v", err)
	}
	must(a.RbacV1().ClusterRoles().Create(ctx, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: ns}, Rules: []rbacv1.PolicyRule{
		{Verbs: []string{"impersonate:associated-node"}, APIGroups: []string{"authentication.k8s.io"}, Resources: []string{"nodes"}},
		{Verbs: []string{"impersonate-on:associated-node:list"}, APIGroups: []string{""}, Resources: []string{"pods"}}}}, metav1.CreateOptions{}))(t)
	t.Cleanup(func() { _ = a.RbacV1().ClusterRoles().Delete(ctx, ns, metav1.DeleteOptions{}) })
	must(a.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: ns}, Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: "default", Namespace: ns}},
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: ns}}, metav1.CreateOptions{}))(t)
	t.Cleanup(func() { _ = a.RbacV1().ClusterRoleBindings().Delete(ctx, ns, metav1.DeleteOptions{}) })
	soon(t, "it may", func() error { _, err := client.CoreV1().Pods(ns).List(ctx, mine); return err })
	if _, err := client.CoreV1().Pods(ns).Watch(ctx, mine); !apierrors.IsForbidden(err) {
		t.Errorf("watch: %v", err)
	}
}
