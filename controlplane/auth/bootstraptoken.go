package auth

import (
	"context"
	"crypto/subtle"
	"regexp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
)

// Keys and names of bootstrap tokens
// (https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/).
const (
	bootstrapType       corev1.SecretType = "bootstrap.kubernetes.io/token"
	bootstrapNamespace                    = "kube-system"
	bootstrapSecretName                   = "bootstrap-token-"
	bootstrapUser                         = "system:bootstrap:"
	bootstrapGroup                        = "system:bootstrappers"
)

var (
	bootstrapToken  = regexp.MustCompile(`^([a-z0-9]{6})\.([a-z0-9]{16})$`)
	bootstrapGroups = regexp.MustCompile(`^system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]$`)
)

// BootstrapTokens authenticates the tokens by which new nodes introduce themselves. Each is a Secret in kube-system, and
// dies with it.
type BootstrapTokens struct {
	Objects Objects
}

// AuthenticateToken implements authenticator.Token.
func (b BootstrapTokens) AuthenticateToken(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	m := bootstrapToken.FindStringSubmatch(token)
	if m == nil {
		return nil, false, nil
	}
	// Of an unknown token as of a wrong one nothing is said: no error tells which identifiers exist.
	secret, err := b.Objects.Secret(ctx, bootstrapNamespace, bootstrapSecretName+m[1], false)
	if err != nil {
		return nil, false, nil
	}
	u, ok := bootstrapIdentity(secret, m[1], m[2], time.Now())
	if !ok {
		return nil, false, nil
	}
	return &authenticator.Response{User: u}, true, nil
}

// bootstrapIdentity says who a token is by its Secret.
func bootstrapIdentity(s *corev1.Secret, id, secret string, now time.Time) (user.Info, bool) {
	get := func(key string) string { return string(s.Data[key]) }
	if s.DeletionTimestamp != nil || s.Type != bootstrapType || get("token-id") != id ||
		subtle.ConstantTimeCompare(s.Data["token-secret"], []byte(secret)) != 1 || get("usage-bootstrap-authentication") != "true" {
		return nil, false
	}
	if end := get("expiration"); end != "" {
		t, err := time.Parse(time.RFC3339, end)
		if err != nil || !now.Before(t) {
			return nil, false
		}
	}
	groups := []string{bootstrapGroup}
	for g := range strings.SplitSeq(get("auth-extra-groups"), ",") {
		switch {
		case g == "" || slices.Contains(groups, g):
		case !bootstrapGroups.MatchString(g):
			return nil, false // a token must not make itself an administrator
		default:
			groups = append(groups, g)
		}
	}
	return &user.DefaultInfo{Name: bootstrapUser + id, Groups: groups}, true
}
