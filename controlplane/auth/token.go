package auth

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"crypto/x509"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/warning"
)

const (
	// maxTokenBytes is far above any token of ours; longer ones are refused unparsed.
	maxTokenBytes = 16 << 10
	// clockLeeway allows for servers whose clocks differ a little.
	clockLeeway = 10 * time.Second
	// deletedLeeway is how long a token outlives the deletion of what it is bound to, so that a pod can say goodbye.
	deletedLeeway = time.Minute
)

var errToken = errors.New("invalid bearer token")

// Objects are what tokens are bound to. Each method may answer from a cache; fresh asks for the present state.
type Objects interface {
	ServiceAccount(ctx context.Context, namespace, name string, fresh bool) (*corev1.ServiceAccount, error)
	Pod(ctx context.Context, namespace, name string, fresh bool) (*corev1.Pod, error)
	Secret(ctx context.Context, namespace, name string, fresh bool) (*corev1.Secret, error)
	Node(ctx context.Context, name string, fresh bool) (*corev1.Node, error)
	// LabelSecret sets a label of a Secret.
	LabelSecret(ctx context.Context, s *corev1.Secret, key, value string) error
}

// Tokens issues and verifies ServiceAccount tokens (JWT, ES256).
type Tokens struct {
	issuer  string
	key     *ecdsa.PrivateKey
	keyID   string
	signer  jose.Signer
	objects Objects
}

// NewTokens returns an issuer under the URL issuer, which is also the API's audience.
func NewTokens(issuer string, key *ecdsa.PrivateKey, objects Objects) (*Tokens, error) {
	registerMetrics()
	id, err := keyID(key.Public())
	if err != nil {
		return nil, err
	}
	signer, err := jose.NewSigner(jose.SigningKey{
		Algorithm: jose.ES256, Key: jose.JSONWebKey{Algorithm: string(jose.ES256), Key: key, KeyID: id, Use: "sig"},
	}, nil)
	if err != nil {
		return nil, fmt.Errorf("signer of tokens: %w", err)
	}
	return &Tokens{issuer: issuer, key: key, keyID: id, signer: signer, objects: objects}, nil
}

// keyID names a key by its hash, as upstream does.
func keyID(pub crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", fmt.Errorf("name of token key: %w", err)
	}
	sum := sha256.Sum256(der)
	return base64.RawURLEncoding.EncodeToString(sum[:]), nil
}

// Audiences are those of the API itself.
func (t *Tokens) Audiences() authenticator.Audiences { return authenticator.Audiences{t.issuer} }

// Ref is an object in a token.
type Ref struct {
	Name string    `json:"name"`
	UID  types.UID `json:"uid"`
}

// Binding is whose a token is and what it dies with.
type Binding struct {
	Namespace      string           `json:"namespace"`
	ServiceAccount Ref              `json:"serviceaccount"`
	Pod            *Ref             `json:"pod,omitempty"`
	Secret         *Ref             `json:"secret,omitempty"`
	Node           *Ref             `json:"node,omitempty"`
	WarnAfter      *jwt.NumericDate `json:"warnafter,omitempty"`
}

type privateClaims struct {
	Kubernetes Binding `json:"kubernetes.io"`
}

// Issue signs a token for the binding that is valid for life, or as long as what it is bound to if life is 0; id names it
// in audits.
func (t *Tokens) Issue(b Binding, audiences []string, life time.Duration, now time.Time) (token, id string, err error) {
	id = uuid.NewString()
	public := jwt.Claims{
		Issuer: t.issuer, Subject: serviceaccount.MakeUsername(b.Namespace, b.ServiceAccount.Name), Audience: audiences,
		NotBefore: jwt.NewNumericDate(now), IssuedAt: jwt.NewNumericDate(now), ID: id,
	}
	if life > 0 {
		public.Expiry = jwt.NewNumericDate(now.Add(life))
	}
	token, err = jwt.Signed(t.signer).Claims(public).Claims(privateClaims{b}).Serialize()
	if err != nil {
		return "", "", fmt.Errorf("sign token: %w", err)
	}
	return token, id, nil
}

// AuthenticateToken implements authenticator.Token. A token that is not ours at all is not an error: another
// authenticator may know it.
func (t *Tokens) AuthenticateToken(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	if len(token) > maxTokenBytes {
		return nil, false, nil
	}
	// Only the algorithm of our key: a token that names another (none, HS256 with the public key) does not parse.
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return nil, false, nil
	}
	var public jwt.Claims
	var private privateClaims
	if err := parsed.Claims(t.key.Public(), &public, &private); err != nil || public.Issuer != t.issuer {
		return nil, false, nil
	}
	if err := public.ValidateWithLeeway(jwt.Expected{Issuer: t.issuer, Time: time.Now()}, clockLeeway); err != nil {
		return nil, false, fmt.Errorf("%w: %w", errToken, err)
	}
	audiences, ok := acceptable(ctx, t.Audiences(), public.Audience)
	if !ok {
		return nil, false, fmt.Errorf("%w: its audiences %q are not accepted here", errToken, public.Audience)
	}
	b := private.Kubernetes
	if public.Subject != serviceaccount.MakeUsername(b.Namespace, b.ServiceAccount.Name) {
		return nil, false, fmt.Errorf("%w: subject %q is not its service account", errToken, public.Subject)
	}
	info, err := t.check(ctx, b)
	if err != nil {
		return nil, false, fmt.Errorf("%w: %w", errToken, err)
	}
	aged(ctx, public.Subject, b, time.Now())
	if public.ID != "" {
		info.CredentialID = "JTI=" + public.ID
	}
	return &authenticator.Response{User: info.UserInfo(), Audiences: audiences}, true, nil
}

// acceptable returns the token's audiences that the request is for.
func acceptable(ctx context.Context, own authenticator.Audiences, have jwt.Audience) (authenticator.Audiences, bool) {
	want, ok := authenticator.AudiencesFrom(ctx)
	if !ok {
		want = own
	}
	both := authenticator.Audiences(have).Intersect(want)
	return both, len(both) > 0
}

// check makes sure that all that the token is bound to still exists.
func (t *Tokens) check(ctx context.Context, b Binding) (serviceaccount.ServiceAccountInfo, error) {
	info := serviceaccount.ServiceAccountInfo{Namespace: b.Namespace, Name: b.ServiceAccount.Name, UID: string(b.ServiceAccount.UID)}
	var account *corev1.ServiceAccount
	err := alive("service account", b.ServiceAccount, func(fresh bool) (metav1.Object, error) {
		a, err := t.objects.ServiceAccount(ctx, b.Namespace, b.ServiceAccount.Name, fresh)
		account = a
		return a, err
	})
	if err == nil && b.Secret != nil {
		var secret *corev1.Secret
		err = alive("secret", *b.Secret, func(fresh bool) (metav1.Object, error) {
			s, err := t.objects.Secret(ctx, b.Namespace, b.Secret.Name, fresh)
			secret = s
			return s, err
		})
		if err == nil {
			err = t.used(ctx, secret, account, time.Now())
		}
	}
	if err == nil && b.Pod != nil {
		err = alive("pod", *b.Pod, func(fresh bool) (metav1.Object, error) {
			return t.objects.Pod(ctx, b.Namespace, b.Pod.Name, fresh)
		})
		info.PodName, info.PodUID = b.Pod.Name, string(b.Pod.UID)
	}
	if b.Node != nil {
		// A node named beside a pod is only information: the token lives with the pod.
		if err == nil && b.Pod == nil {
			err = alive("node", *b.Node, func(fresh bool) (metav1.Object, error) { return t.objects.Node(ctx, b.Node.Name, fresh) })
		}
		info.NodeName, info.NodeUID = b.Node.Name, string(b.Node.UID)
	}
	return info, err
}

// The labels of tokens in Secrets (KEP-2799): by them those that nobody uses are found, and refused for a year before they go.
const (
	LastUsedLabel     = "kubernetes.io/legacy-token-last-used"
	InvalidSinceLabel = "kubernetes.io/legacy-token-invalid-since"
)

// used tells of the use of a token that is kept in a Secret, and refuses one that was found to be of no use.
func (t *Tokens) used(ctx context.Context, s *corev1.Secret, account *corev1.ServiceAccount, now time.Time) error {
	if s.Type != corev1.SecretTypeServiceAccountToken {
		return nil
	}
	legacyTokens.Inc()
	audit.AddAuditAnnotation(ctx, "authentication.k8s.io/legacy-token", serviceaccount.MakeUsername(account.Namespace, account.Name))
	defer t.noteUse(ctx, s, now)
	if s.Labels[InvalidSinceLabel] != "" {
		audit.AddAuditAnnotation(ctx, "authentication.k8s.io/legacy-token-invalidated", s.Name+"/"+s.Namespace)
		invalidatedTokens.Inc()
		return fmt.Errorf("the token in secret %s/%s for service account %s/%s has been marked invalid. Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the '%s' label from the secret to temporarily allow use of this token",
			s.Namespace, s.Name, s.Namespace, s.Annotations[corev1.ServiceAccountNameKey], InvalidSinceLabel)
	}
	// Only who made a Secret for every account, as old clusters did, wrote it on the account.
	if slices.ContainsFunc(account.Secrets, func(r corev1.ObjectReference) bool { return r.Name == s.Name }) {
		warning.AddWarning(ctx, "", "Use tokens from the TokenRequest API or manually created secret-based tokens instead of auto-generated secret-based tokens.")
		audit.AddAuditAnnotation(ctx, "authentication.k8s.io/legacy-token-autogenerated-secret", s.Name)
		autoTokens.Inc()
		return nil
	}
	audit.AddAuditAnnotation(ctx, "authentication.k8s.io/legacy-token-manual-secret", s.Name)
	manualTokens.Inc()
	return nil
}

// noteUse writes on a Secret that its token was used today.
func (t *Tokens) noteUse(ctx context.Context, s *corev1.Secret, now time.Time) {
	today := now.UTC().Format(time.DateOnly)
	// Tomorrow's is what a server wrote whose clock is a little ahead.
	if last := s.Labels[LastUsedLabel]; last == today || last == now.UTC().AddDate(0, 0, 1).Format(time.DateOnly) {
		return
	}
	if err := t.objects.LabelSecret(ctx, s, LastUsedLabel, today); err != nil {
		utilruntime.HandleError(fmt.Errorf("note the use of the token in secret %s/%s: %w", s.Namespace, s.Name, err)) // the next use is noted
	}
}

// aged counts tokens that their clients do not renew: they are longer valid than their clients have asked for.
func aged(ctx context.Context, subject string, b Binding, now time.Time) {
	if b.WarnAfter == nil || *b.WarnAfter == 0 {
		return
	}
	if now.After(b.WarnAfter.Time()) {
		audit.AddAuditAnnotation(ctx, "authentication.k8s.io/stale-token",
			fmt.Sprintf("subject: %s, seconds after warning threshold: %d", subject, now.Unix()-b.WarnAfter.Time().Unix()))
		staleTokens.Inc()
		return
	}
	validTokens.Inc()
}

// alive looks in the cache, and only if the object is not there as it should be, at the store.
func alive(kind string, want Ref, get func(fresh bool) (metav1.Object, error)) error {
	var err error
	for _, fresh := range []bool{false, true} {
		var obj metav1.Object
		if obj, err = get(fresh); err != nil {
			continue
		}
		switch {
		case obj.GetUID() != want.UID:
			err = fmt.Errorf("%s %q was replaced by another of the same name", kind, want.Name)
		case obj.GetDeletionTimestamp() != nil && time.Since(obj.GetDeletionTimestamp().Time) > deletedLeeway:
			err = fmt.Errorf("%s %q is deleted", kind, want.Name)
		default:
			return nil
		}
	}
	return fmt.Errorf("%s: %w", kind, err)
}

// Discovery returns the OpenID configuration and the key set by which others verify tokens; jwksURI is where the
// latter is served.
func (t *Tokens) Discovery(jwksURI string) (config, keys []byte, err error) {
	config, err = json.Marshal(map[string]any{
		"issuer": t.issuer, "jwks_uri": jwksURI, "response_types_supported": []string{"id_token"},
		"subject_types_supported": []string{"public"}, "id_token_signing_alg_values_supported": []string{string(jose.ES256)},
	})
	if err != nil {
		return nil, nil, err
	}
	keys, err = json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{
		{Key: t.key.Public(), KeyID: t.keyID, Algorithm: string(jose.ES256), Use: "sig"}}})
	return config, keys, err
}
