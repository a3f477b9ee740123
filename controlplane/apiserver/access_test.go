package apiserver

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	auditapi "k8s.io/apiserver/pkg/apis/audit"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/authentication/user"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"keelson.dev/keelson/controlplane/auth"
)

// get asks for a path and returns the status code.
func get(t *testing.T, c *rest.Config, path string, header ...string) int {
	t.Helper()
	rt, err := rest.TransportFor(c)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.Host+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := rt.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

func refused(code int) bool { return code == http.StatusUnauthorized || code == http.StatusForbidden }

// Anonymous requests reach health and version, and nothing else.
func TestHostile_AP1(t *testing.T) {
	r := start(t, "")
	nobody := rest.AnonymousClientConfig(r.admin)
	for _, p := range []string{"/livez", "/readyz", "/healthz", "/version"} {
		if code := get(t, nobody, p); code != http.StatusOK {
			t.Errorf("GET %s: %d; want 200", p, code)
		}
	}
	for _, p := range []string{"/", "/api", "/apis", "/api/v1/pods", "/openapi/v2", "/openapi/v3", "/openid/v1/jwks", "/livez/etcd/../../api", "/readyz/", "/version/x"} {
		if code := get(t, nobody, p); !refused(code) {
			t.Errorf("GET %s: %d; want 401 or 403", p, code)
		}
	}
}

// The front proxy's headers count only with the front proxy's certificate.
func TestHostile_AP2(t *testing.T) {
	r := start(t, "")
	claim := []string{"X-Remote-User", "kubernetes-admin", "X-Remote-Group", user.SystemPrivilegedGroup}
	if code := get(t, rest.AnonymousClientConfig(r.admin), "/api/v1/pods", claim...); !refused(code) {
		t.Errorf("headers without a certificate: %d", code)
	}
	if code := get(t, r.with(t, "front-proxy-client"), "/api/v1/pods", claim...); !refused(code) {
		t.Errorf("headers with a certificate of that name but from the CA of clients: %d", code)
	}
	pair, err := r.PKI().FrontProxy.Issue(auth.Leaf{CommonName: "front-proxy-client", Client: true})
	if err != nil {
		t.Fatal(err)
	}
	proxy := rest.AnonymousClientConfig(r.admin)
	proxy.CertData, proxy.KeyData = pair.Cert, pair.Key
	if code := get(t, proxy, "/api/v1/pods", claim...); code != http.StatusOK {
		t.Errorf("the front proxy itself: %d; want 200", code)
	}
	if code := get(t, proxy, "/api/v1/pods"); !refused(code) {
		t.Errorf("the front proxy's certificate without headers: %d; it vouches, it is nobody", code)
	}
}

// token asks for a token of a new service account.
func (r *running) token(t *testing.T, name string, spec authenticationv1.TokenRequestSpec) string {
	t.Helper()
	accounts := r.client.CoreV1().ServiceAccounts("default")
	_, err := accounts.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, createOptions)
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	got, err := accounts.CreateToken(t.Context(), name, &authenticationv1.TokenRequest{Spec: spec}, createOptions)
	if err != nil {
		t.Fatal(err)
	}
	return got.Status.Token
}

// whoami returns the name under which a configuration's requests come; "" if they are refused.
func (r *running) whoami(t *testing.T, c *rest.Config) string {
	t.Helper()
	got, err := r.as(t, c).AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, createOptions)
	if apierrors.IsUnauthorized(err) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	return got.Status.UserInfo.Username
}

func TestTokens(t *testing.T) {
	r := start(t, "")
	const bob = "system:serviceaccount:default:bob"
	plain := r.token(t, "bob", authenticationv1.TokenRequestSpec{})
	if got := r.whoami(t, r.bearer(plain)); got != bob {
		t.Errorf("token is %q's; want %q", got, bob)
	}
	elsewhere := r.token(t, "bob", authenticationv1.TokenRequestSpec{Audiences: []string{"vault"}})
	if got := r.whoami(t, r.bearer(elsewhere)); got != "" {
		t.Errorf("a token for another audience is %q's here; want nobody's", got)
	}
	review, err := r.client.AuthenticationV1().TokenReviews().Create(t.Context(), &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: elsewhere, Audiences: []string{"vault"}}}, createOptions)
	if err != nil || !review.Status.Authenticated || review.Status.User.Username != bob {
		t.Errorf("review by that audience: %v, %v", review, err)
	}
	if _, err := r.client.CoreV1().ServiceAccounts("default").CreateToken(t.Context(), "bob", &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr(int64(5))}}, createOptions); !apierrors.IsInvalid(err) {
		t.Errorf("five seconds: %v; want invalid", err)
	}
	for text, req := range map[string]*authenticationv1.TokenRequest{
		"must match the service account name":  {ObjectMeta: metav1.ObjectMeta{Name: "alice"}},
		"does not match the UID of":            {ObjectMeta: metav1.ObjectMeta{UID: "x"}},
		"attestations may only be specified":   {Spec: authenticationv1.TokenRequestSpec{Attestations: map[string]authenticationv1.AttestationValue{"a": {"b"}}}},
		"cannot bind token to object of type ": {Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Event"}}},
	} {
		if _, err := r.client.CoreV1().ServiceAccounts("default").CreateToken(t.Context(), "bob", req, createOptions); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("got %v; want an error with %q", err, text)
		}
	}
	testBoundToken(t, r)
}

// testBoundToken: a token dies with the pod that it is bound to.
func testBoundToken(t *testing.T, r *running) {
	p := pod("bound")
	p.Spec.ServiceAccountName = "bob"
	made, err := r.client.CoreV1().Pods("default").Create(t.Context(), p, createOptions)
	if err != nil {
		t.Fatal(err)
	}
	token := r.token(t, "bob", authenticationv1.TokenRequestSpec{
		BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: made.Name, UID: made.UID}})
	got, err := r.as(t, r.bearer(token)).AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, createOptions)
	if err != nil || got.Status.UserInfo.Extra["authentication.kubernetes.io/pod-name"][0] != "bound" {
		t.Fatalf("bound token: %v, %v", got, err)
	}
	if err := r.client.CoreV1().Pods("default").Delete(t.Context(), "bound", metav1.DeleteOptions{GracePeriodSeconds: ptr(int64(0))}); err != nil {
		t.Fatal(err)
	}
	// Not through HTTP, where a verified token is believed for some seconds more.
	eventually(t, "the token dies with its pod", func() bool {
		_, ok, _ := r.tokens.AuthenticateToken(context.Background(), token)
		return !ok
	})
}

// Forged and foreign tokens.
func TestHostile_AP3(t *testing.T) {
	r := start(t, "")
	good := r.token(t, "bob", authenticationv1.TokenRequestSpec{})
	part := strings.Split(good, ".")
	encode := func(v any) string {
		b, _ := json.Marshal(v)
		return base64.RawURLEncoding.EncodeToString(b)
	}
	forged := map[string]string{
		"no algorithm":          encode(map[string]string{"alg": "none", "typ": "JWT"}) + "." + part[1] + ".",
		"symmetric algorithm":   encode(map[string]string{"alg": "HS256", "typ": "JWT"}) + "." + part[1] + "." + part[2],
		"another signature":     part[0] + "." + part[1] + "." + base64.RawURLEncoding.EncodeToString(make([]byte, 64)),
		"another's claims":      part[0] + "." + encode(map[string]string{"sub": "system:serviceaccount:kube-system:default", "iss": "https://kubernetes.default.svc.cluster.local"}) + "." + part[2],
		"garbage":               "a.b.c",
		"long":                  strings.Repeat("a", 200<<10),
		"a static token's form": "system:admin",
	}
	for name, token := range forged {
		if code := get(t, r.bearer(token), "/api"); code != http.StatusUnauthorized {
			t.Errorf("%s: %d; want 401", name, code)
		}
	}
	stranger := start(t, "")
	if code := get(t, r.bearer(stranger.token(t, "bob", authenticationv1.TokenRequestSpec{})), "/api"); code != http.StatusUnauthorized {
		t.Errorf("another cluster's token: %d; want 401", code)
	}
	if err := r.client.CoreV1().ServiceAccounts("default").Delete(t.Context(), "bob", deleteOptions); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the token of a deleted service account is refused", func() bool {
		_, ok, _ := r.tokens.AuthenticateToken(context.Background(), good)
		return !ok
	})
}

// Impersonation needs the right to it.
func TestHostile_AP4(t *testing.T) {
	r := start(t, "")
	joe := r.with(t, "joe")
	for _, h := range [][]string{
		{"Impersonate-User", "kubernetes-admin"},
		{"Impersonate-User", "x", "Impersonate-Group", user.SystemPrivilegedGroup},
		{"Impersonate-User", "x", "Impersonate-Uid", "1"},
		{"Impersonate-User", "x", "Impersonate-Extra-Scopes", "all"},
		{"Impersonate-User", "system:serviceaccount:kube-system:generic-garbage-collector"},
	} {
		if code := get(t, joe, "/api", h...); code != http.StatusForbidden {
			t.Errorf("%v: %d; want 403", h, code)
		}
	}
	as := rest.CopyConfig(r.admin)
	as.Impersonate = rest.ImpersonationConfig{UserName: "joe"}
	if got := r.whoami(t, as); got != "joe" {
		t.Errorf("the administrator as joe is %q", got)
	}
}

// Nobody gives rights that they do not have.
func TestHostile_AP5(t *testing.T) {
	r := start(t, "")
	ctx := t.Context()
	role := func(name string, rules ...rbacv1.PolicyRule) *rbacv1.Role {
		return &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules}
	}
	must(t)(r.client.RbacV1().Roles("default").Create(ctx, role("roles", rbacv1.PolicyRule{
		APIGroups: []string{rbacv1.GroupName}, Resources: []string{"roles", "rolebindings"}, Verbs: []string{"get", "create", "update"}}), createOptions))
	must(t)(r.client.RbacV1().RoleBindings("default").Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "joe"}, Subjects: []rbacv1.Subject{{Kind: "User", APIGroup: rbacv1.GroupName, Name: "joe"}},
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "roles"}}, createOptions))
	joe := r.as(t, r.with(t, "joe"))
	more := rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"get"}}
	eventually(t, "joe may create roles", func() bool {
		_, err := joe.RbacV1().Roles("default").Create(ctx, role("none"), createOptions)
		return err == nil
	})
	if _, err := joe.RbacV1().Roles("default").Create(ctx, role("more", more), createOptions); !apierrors.IsForbidden(err) {
		t.Errorf("a role with more rights: %v; want forbidden", err)
	}
	if _, err := joe.RbacV1().Roles("default").Update(ctx, role("none", more), updateOptions); !apierrors.IsForbidden(err) {
		t.Errorf("more rights into a role: %v; want forbidden", err)
	}
	for _, ref := range []rbacv1.RoleRef{{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"}} {
		if _, err := joe.RbacV1().RoleBindings("default").Create(ctx, &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "self"}, Subjects: []rbacv1.Subject{{Kind: "User", APIGroup: rbacv1.GroupName, Name: "joe"}},
			RoleRef: ref}, createOptions); !apierrors.IsForbidden(err) {
			t.Errorf("binding %s to himself: %v; want forbidden", ref.Name, err)
		}
	}
	if _, err := joe.CoreV1().ServiceAccounts("kube-system").CreateToken(ctx, "default", &authenticationv1.TokenRequest{}, createOptions); !apierrors.IsForbidden(err) {
		t.Errorf("a token of another namespace's service account: %v; want forbidden", err)
	}
}

// What a kubelet may do, and what not.
func TestNodeAuthorizer(t *testing.T) {
	r := start(t, "")
	ctx := t.Context()
	core := r.client.CoreV1()
	bound := map[string]*authenticationv1.TokenRequest{}
	for _, s := range []string{"mine", "other"} {
		must(t)(core.Secrets("default").Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: s}}, createOptions))
		must(t)(core.ServiceAccounts("default").Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: s}}, createOptions))
		must(t)(core.Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-" + s}}, createOptions))
		p := pod(s)
		p.Spec.NodeName, p.Spec.ServiceAccountName = "node-"+s, s
		p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: s}}}}
		made, err := core.Pods("default").Create(ctx, p, createOptions)
		if err != nil {
			t.Fatal(err)
		}
		bound[s] = &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
			BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: s, UID: made.UID}}}
	}
	kubelet := r.as(t, r.with(t, "system:node:node-mine", user.NodesGroup)).CoreV1()
	eventually(t, "the kubelet may read its pod's secret", func() bool {
		_, err := kubelet.Secrets("default").Get(ctx, "mine", getOptions)
		return err == nil
	})
	patch := []byte(`{"metadata":{"labels":{"a":"b"}}}`)
	for what, c := range map[string]struct {
		err  error
		want bool
	}{
		"its own node":         {one(kubelet.Nodes().Get(ctx, "node-mine", getOptions)), true},
		"its node's status":    {one(kubelet.Nodes().Patch(ctx, "node-mine", types.MergePatchType, patch, metav1.PatchOptions{}, "status")), true},
		"its pods":             {one(kubelet.Pods("").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=node-mine"})), true},
		"a token for its pod":  {one(kubelet.ServiceAccounts("default").CreateToken(ctx, "mine", bound["mine"], createOptions)), true},
		"services":             {one(kubelet.Services("").List(ctx, metav1.ListOptions{})), true},
		"another's secret":     {one(kubelet.Secrets("default").Get(ctx, "other", getOptions)), false},
		"all secrets":          {one(kubelet.Secrets("default").List(ctx, metav1.ListOptions{})), false},
		"all pods":             {one(kubelet.Pods("").List(ctx, metav1.ListOptions{})), false},
		"another's pods":       {one(kubelet.Pods("").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=node-other"})), false},
		"another node":         {one(kubelet.Nodes().Patch(ctx, "node-other", types.MergePatchType, patch, metav1.PatchOptions{})), false},
		"another's status":     {one(kubelet.Nodes().Patch(ctx, "node-other", types.MergePatchType, patch, metav1.PatchOptions{}, "status")), false},
		"its node's deletion":  {kubelet.Nodes().Delete(ctx, "node-mine", deleteOptions), false},
		"a token for another":  {one(kubelet.ServiceAccounts("default").CreateToken(ctx, "other", bound["other"], createOptions)), false},
		"writing a config map": {one(kubelet.ConfigMaps("default").Create(ctx, configMap("x"), createOptions)), false},
	} {
		if allowed := c.err == nil; allowed != c.want || !c.want && !apierrors.IsForbidden(c.err) {
			t.Errorf("kubelet and %s: %v; want allowed %v", what, c.err, c.want)
		}
	}
	impostor := r.as(t, r.with(t, "system:node:node-mine")).CoreV1()
	if _, err := impostor.Nodes().Get(ctx, "node-mine", getOptions); !apierrors.IsForbidden(err) {
		t.Errorf("the name of a node without the group of nodes: %v; want forbidden", err)
	}
}

func one[T any](_ T, err error) error { return err }

// Nothing of the process is shown to who is not known.
func TestHostile_AP31(t *testing.T) {
	r := start(t, "")
	for _, p := range []string{"/metrics", "/debug/pprof/", "/debug/pprof/heap", "/debug/flags/v", "/configz", "/logs/"} {
		if code := get(t, rest.AnonymousClientConfig(r.admin), p); !refused(code) {
			t.Errorf("anonymous GET %s: %d", p, code)
		}
		if code := get(t, r.with(t, "joe"), p); code != http.StatusForbidden {
			t.Errorf("joe's GET %s: %d; want 403", p, code)
		}
	}
	if code := get(t, r.admin, "/metrics"); code != http.StatusOK {
		t.Errorf("administrator's GET /metrics: %d", code)
	}
}

func TestReviews(t *testing.T) {
	r := start(t, "")
	must(t)(r.client.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "view-joe"}, Subjects: []rbacv1.Subject{{Kind: "User", APIGroup: rbacv1.GroupName, Name: "joe"}},
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "view"}}, createOptions))
	may := func(verb, resource string) bool {
		got, err := r.client.AuthorizationV1().SubjectAccessReviews().Create(t.Context(), &authorizationv1.SubjectAccessReview{
			Spec: authorizationv1.SubjectAccessReviewSpec{User: "joe", ResourceAttributes: &authorizationv1.ResourceAttributes{
				Namespace: "default", Verb: verb, Resource: resource}}}, createOptions)
		if err != nil {
			t.Fatal(err)
		}
		return got.Status.Allowed
	}
	eventually(t, "joe may view", func() bool { return may("list", "pods") })
	if may("create", "pods") || may("list", "secrets") {
		t.Error("a viewer may create pods or list secrets")
	}
	rules, err := r.as(t, r.with(t, "joe")).AuthorizationV1().SelfSubjectRulesReviews().Create(t.Context(), &authorizationv1.SelfSubjectRulesReview{
		Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: "default"}}, createOptions)
	if err != nil || len(rules.Status.ResourceRules) == 0 || len(rules.Status.NonResourceRules) == 0 {
		t.Errorf("joe's own rules: %v, %v", rules, err)
	}
	_, err = r.client.AuthorizationV1().SubjectAccessReviews().Create(t.Context(), &authorizationv1.SubjectAccessReview{}, createOptions)
	if !apierrors.IsInvalid(err) {
		t.Errorf("a question about nothing: %v; want invalid", err)
	}
}

// An in-process client passes authorization under its own name, streams, and lets go when it is done.
func TestLoopback(t *testing.T) {
	r := start(t, "")
	joe := r.as(t, r.ClientConfig(&user.DefaultInfo{Name: "joe", Groups: []string{user.AllAuthenticated}}))
	if _, err := joe.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("joe in process: %v; want forbidden", err)
	}
	admin := r.as(t, r.ClientConfig(systemUser))
	ctx, cancel := context.WithCancel(t.Context())
	w, err := admin.CoreV1().ConfigMaps("default").Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	must(t)(admin.CoreV1().ConfigMaps("default").Create(t.Context(), configMap("in"), createOptions))
	if e := <-w.ResultChan(); e.Object.(*corev1.ConfigMap).Name != "in" {
		t.Errorf("event %v", e)
	}
	cancel()
	for range w.ResultChan() { // ends, or the test hangs
	}
	// A watch that nobody reads must not hold the server up; start's cleanup fails if it does.
	if _, err := unread(t.Context(), admin); err != nil {
		t.Error(err)
	}
}

func unread(ctx context.Context, admin kubernetes.Interface) (any, error) {
	_, err := admin.CoreV1().ConfigMaps("default").Watch(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(startTimeout)
	for i := 0; i < 300 && time.Now().Before(deadline); i++ {
		if _, err := admin.CoreV1().ConfigMaps("default").Create(ctx, configMap(fmt.Sprintf("unread%d", i)), createOptions); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// TestRequestInRequest: an in-process request that serves another one has its own audit event and its own user.
func TestRequestInRequest(t *testing.T) {
	r := start(t, "")
	ctx := audit.WithAuditContext(apirequest.WithUser(t.Context(), &user.DefaultInfo{Name: "outer"}))
	if err := audit.AuditContextFrom(ctx).Init(audit.RequestAuditConfig{Level: auditapi.LevelMetadata}, nil); err != nil {
		t.Fatal(err)
	}
	client := r.as(t, r.ClientConfig(&user.DefaultInfo{Name: "inner", Groups: []string{user.SystemPrivilegedGroup}}))
	got, err := client.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, createOptions)
	if err != nil || got.Status.UserInfo.Username != "inner" {
		t.Errorf("the inner request is %q's: %v", got.Status.UserInfo.Username, err)
	}
	if _, err := client.CoreV1().Secrets("default").List(ctx, metav1.ListOptions{}); err != nil {
		t.Error(err)
	}
}

// TestEscalationAnswers: who may write roles may not grant what they do not hold, and reads the same words as from upstream.
func TestEscalationAnswers(t *testing.T) {
	r := start(t, "")
	ctx := t.Context()
	api := r.client.RbacV1()
	rule := func(resource string, verbs ...string) []rbacv1.PolicyRule {
		return []rbacv1.PolicyRule{{Verbs: verbs, APIGroups: []string{""}, Resources: []string{resource}}}
	}
	editor := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "editor"}, Rules: []rbacv1.PolicyRule{{
		Verbs: []string{"get", "create", "update", "patch"}, APIGroups: []string{rbacv1.GroupName}, Resources: []string{"roles", "rolebindings"}}}}
	must(t)(api.ClusterRoles().Create(ctx, editor, createOptions))
	bind := func(role string) *rbacv1.ClusterRoleBinding {
		return &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "bind-" + role}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
			Subjects: []rbacv1.Subject{{Kind: "User", APIGroup: rbacv1.GroupName, Name: "ed"}}}
	}
	must(t)(api.ClusterRoleBindings().Create(ctx, bind("editor"), createOptions))
	must(t)(api.ClusterRoleBindings().Create(ctx, bind("nosuch"), createOptions))
	wide := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "wide"}, Rules: rule("secrets", "get", "list")}
	must(t)(api.Roles("default").Create(ctx, wide, createOptions))
	ed := r.as(t, r.with(t, "ed")).RbacV1()
	eventually(t, "ed may read roles", func() bool {
		_, err := ed.Roles("default").Get(ctx, "wide", getOptions)
		return err == nil
	})
	binding := func(role string) *rbacv1.RoleBinding {
		return &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "b"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role}}
	}
	missing := func(resource string) string {
		return `user "ed" (groups=["system:authenticated"]) is attempting to grant RBAC permissions not currently held:` + "\n" +
			`{APIGroups:[""], Resources:["secrets"], Verbs:["get" "list"]}; resolution errors: [` + resource + `.rbac.authorization.k8s.io "nosuch" not found]`
	}
	stale := wide.DeepCopy()
	stale.Labels, stale.ResourceVersion = map[string]string{"a": "b"}, "1"
	generated := wide.DeepCopy()
	generated.Name, generated.GenerateName = "", "wide-"
	for _, c := range []struct {
		name string
		err  error
		want string
	}{
		{"a name of the server's own", one(ed.Roles("default").Create(ctx, generated, createOptions)), `roles.rbac.authorization.k8s.io is forbidden: ` + missing("roles")},
		{"an old version", one(ed.Roles("default").Update(ctx, stale, updateOptions)), `roles.rbac.authorization.k8s.io "wide" is forbidden: ` + missing("roles")},
		{"a binding", one(ed.RoleBindings("default").Create(ctx, binding("wide"), createOptions)), `rolebindings.rbac.authorization.k8s.io "b" is forbidden: ` + missing("rolebindings")},
		{"a binding of nothing", one(ed.RoleBindings("default").Create(ctx, binding("nosuch"), createOptions)), `rolebindings.rbac.authorization.k8s.io "nosuch" not found`},
	} {
		if c.err == nil || c.err.Error() != c.want {
			t.Errorf("%s:\n%v\nwant\n%s", c.name, c.err, c.want)
		}
	}
	// What is made a moment ago is there.
	for i := range 20 {
		empty := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("new-%d", i)}}
		must(t)(ed.Roles("default").Create(ctx, empty, createOptions))
		b := binding(empty.Name)
		b.Name = empty.Name
		must(t)(ed.RoleBindings("default").Create(ctx, b, createOptions))
	}
}
