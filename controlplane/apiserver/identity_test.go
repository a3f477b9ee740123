package apiserver

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditapi "k8s.io/apiserver/pkg/apis/audit"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/authentication/user"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"
)

// issuer is an OpenID Connect provider.
type issuer struct {
	*httptest.Server
	key    *ecdsa.PrivateKey
	signer jose.Signer
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{key: key}
	if i.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: "k", Algorithm: "ES256"}}, nil); err != nil {
		t.Fatal(err)
	}
	i.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch req.URL.Path {
		case "/.well-known/openid-configuration":
			_ = json.NewEncoder(w).Encode(map[string]any{"issuer": i.URL, "jwks_uri": i.URL + "/keys", "id_token_signing_alg_values_supported": []string{"ES256"}})
		case "/keys":
			_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "k", Algorithm: "ES256", Use: "sig"}}})
		default:
			http.NotFound(w, req)
		}
	}))
	t.Cleanup(i.Close)
	return i
}

func (i *issuer) token(t *testing.T, audience string, life time.Duration) string {
	t.Helper()
	now := time.Now()
	s, err := jwt.Signed(i.signer).Claims(jwt.Claims{Issuer: i.URL, Subject: "1", Audience: jwt.Audience{audience},
		Expiry: jwt.NewNumericDate(now.Add(life)), IssuedAt: jwt.NewNumericDate(now)}).
		Claims(map[string]any{"email": "eve@example.com", "teams": []string{"crew"}}).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (r *running) user(t *testing.T, token string) (authenticationv1.UserInfo, error) {
	t.Helper()
	got, err := r.as(t, r.bearer(token)).AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, createOptions)
	if err != nil {
		return authenticationv1.UserInfo{}, err
	}
	return got.Status.UserInfo, nil
}

// TestIssuers: users of a configured OpenID Connect provider are who their tokens say, and nobody else is.
func TestIssuers(t *testing.T) {
	i := newIssuer(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "authentication.yaml")
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.Certificate().Raw})
	text := fmt.Sprintf(`apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
jwt:
- issuer:
    url: %s
    audiences: [keelson]
    certificateAuthority: |
      %s
  claimMappings:
    username: {claim: email, prefix: "oidc:"}
    groups: {claim: teams, prefix: "oidc:"}
  userValidationRules:
  - {expression: "!user.username.startsWith('system:')", message: reserved}
`, i.URL, strings.ReplaceAll(strings.TrimSpace(string(ca)), "\n", "\n      "))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(dir)
	cfg.AuthenticationConfig = file
	r := startWith(t, cfg)
	eventually(t, "the issuer's users are known", func() bool {
		u, err := r.user(t, i.token(t, "keelson", time.Hour))
		if err == nil && (u.Username != "oidc:eve@example.com" || !strings.Contains(fmt.Sprint(u.Groups), "oidc:crew")) {
			t.Fatalf("the token is of %+v", u)
		}
		return err == nil
	})
	for name, token := range map[string]string{
		"for others": i.token(t, "other", time.Hour), "expired": i.token(t, "keelson", -time.Hour), "forged": newIssuer(t).token(t, "keelson", time.Hour),
	} {
		if _, err := r.user(t, token); !apierrors.IsUnauthorized(err) {
			t.Errorf("a token %s: %v", name, err)
		}
	}
	// The file is followed; what cannot be used of it changes nothing.
	rewrite := func(text string) {
		if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	rewrite("nonsense")
	must(t)(r.user(t, i.token(t, "keelson", time.Minute)))
	rewrite(strings.Replace(text, `prefix: "oidc:"}`, `prefix: "new:"}`, 1))
	eventually(t, "the new prefix counts", func() bool {
		u, err := r.user(t, i.token(t, "keelson", time.Minute))
		return err == nil && u.Username == "new:eve@example.com"
	})
}

func TestAuthenticationConfigErrors(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a.yaml")
	for text, want := range map[string]string{
		"kind: Pod": "apiVersion",
		"apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\nanonymous: {enabled: true}":                                                                            "anonymous",
		"apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt: [{issuer: {url: 'http://a', audiences: [x]}, claimMappings: {username: {claim: a, prefix: ''}}}]": "https",
		"apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwtt: []":                                                                                              "jwtt",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg := testConfig(t.TempDir())
		cfg.AuthenticationConfig = file
		if s, err := New(cfg, Deps{Log: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\nerror %v, want one about %s", text, err, want)
			if s != nil {
				_ = s.Close()
			}
		}
	}
}

// TestBootstrapToken: a node that joins is known by a Secret's token, until the Secret is gone.
func TestBootstrapToken(t *testing.T) {
	r := start(t, "")
	secrets := r.client.CoreV1().Secrets("kube-system")
	_, err := secrets.Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "bootstrap-token-abcdef"}, Type: "bootstrap.kubernetes.io/token",
		StringData: map[string]string{"token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true",
			"auth-extra-groups": "system:bootstrappers:workers"}}, createOptions)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the token is believed", func() bool {
		u, err := r.user(t, "abcdef.0123456789abcdef")
		return err == nil && u.Username == "system:bootstrap:abcdef" && strings.Contains(fmt.Sprint(u.Groups), "system:bootstrappers:workers")
	})
	if _, err := r.user(t, "abcdef.0123456789abcdeX"); !apierrors.IsUnauthorized(err) {
		t.Errorf("a wrong token: %v", err)
	}
	if err := secrets.Delete(t.Context(), "bootstrap-token-abcdef", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the token is dead", func() bool {
		_, err := r.user(t, "abcdef.0123456789abcdef")
		return apierrors.IsUnauthorized(err)
	})
}

// TestHostile_AP32: no secret, token or password that goes through the API is in the audit log.
func TestHostile_AP32(t *testing.T) {
	r := start(t, "")
	const marker = "hunter2-9c1b"
	_, err := r.client.CoreV1().Secrets("default").Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}, StringData: map[string]string{"password": marker}}, createOptions)
	if err != nil {
		t.Fatal(err)
	}
	token, err := r.client.CoreV1().ServiceAccounts("default").CreateToken(t.Context(), "default", &authenticationv1.TokenRequest{}, createOptions)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.user(t, token.Status.Token); err != nil {
		t.Fatal(err)
	}
	if _, err := r.client.AuthenticationV1().TokenReviews().Create(t.Context(), &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token.Status.Token}}, createOptions); err != nil {
		t.Fatal(err)
	}
	if _, err := r.user(t, marker+token.Status.Token); !apierrors.IsUnauthorized(err) {
		t.Fatalf("a wrong token: %v", err)
	}
	if _, err := r.client.CoreV1().Secrets("default").Get(t.Context(), "s", metav1.GetOptions{}); err != nil {
		t.Fatal(err)
	}
	var log string
	eventually(t, "the audit log tells of it", func() bool {
		b, _ := os.ReadFile(filepath.Join(r.dir, "audit", "audit.log"))
		log = string(b)
		return strings.Contains(log, `"tokenreviews"`) && strings.Contains(log, `"verb":"get"`) && strings.Contains(log, `"subresource":"token"`)
	})
	signature := token.Status.Token[strings.LastIndex(token.Status.Token, ".")+1:]
	for _, s := range []string{marker, signature} {
		if strings.Contains(log, s) {
			t.Errorf("the audit log has %q in it", s)
		}
	}
	if strings.Contains(log, `"system:apiserver"`) {
		t.Error("the audit log has the server's own requests in it")
	}
}

// TestIssuedTokenAudit: the audit log tells which token was issued, so that its later use can be followed back.
func TestIssuedTokenAudit(t *testing.T) {
	r := start(t, "")
	ctx := audit.WithAuditContext(apirequest.WithNamespace(t.Context(), "default"))
	event := audit.AuditContextFrom(ctx)
	if err := event.Init(audit.RequestAuditConfig{Level: auditapi.LevelMetadata}, nil); err != nil {
		t.Fatal(err)
	}
	req := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr(int64(3600))}}
	out, err := tokenRequest{r.tokens, tokenObjects{r.stores}}.Create(ctx, "default", req, nil, &metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got, ok, err := r.tokens.AuthenticateToken(t.Context(), out.(*authenticationv1.TokenRequest).Status.Token)
	if err != nil || !ok {
		t.Fatalf("%v, %v", ok, err)
	}
	used := got.User.GetExtra()[user.CredentialIDKey]
	if issued, _ := event.GetEventAnnotation("authentication.kubernetes.io/issued-credential-id"); len(used) != 1 || issued != used[0] {
		t.Errorf("issued %q, used as %q", issued, used)
	}
}
