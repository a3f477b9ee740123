package bootstraptoken

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"maps"
	"regexp"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Keys of cluster-info and of tokens (https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/).
const (
	configKey       = "kubeconfig"
	signaturePrefix = "jws-kubeconfig-"
	secretPrefix    = "bootstrap-token-"
)

var (
	idForm     = regexp.MustCompile(`^[a-z0-9]{6}$`)
	secretForm = regexp.MustCompile(`^[a-z0-9]{16}$`)
)

// expires is a token's end; false if it has none. One that cannot be read has ended.
func expires(s *corev1.Secret) (time.Time, bool) {
	text := string(s.Data["expiration"])
	if text == "" {
		return time.Time{}, false
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, true
	}
	return at, true
}

// signed is cluster-info's data with a detached JWS of its kubeconfig for every token that may sign, and no other.
func signed(data map[string]string, tokens []*corev1.Secret, now time.Time) map[string]string {
	out := maps.Clone(data)
	maps.DeleteFunc(out, func(key, _ string) bool { return strings.HasPrefix(key, signaturePrefix) })
	config := data[configKey]
	if config == "" {
		return out
	}
	for _, s := range tokens {
		if id, secret, ok := signing(s, now); ok {
			out[signaturePrefix+id] = detached(config, id, secret)
		}
	}
	return out
}

// signing returns a token's halves if it may sign.
func signing(s *corev1.Secret, now time.Time) (id, secret string, ok bool) {
	id, secret = string(s.Data["token-id"]), string(s.Data["token-secret"])
	end, ends := expires(s)
	ok = s.Type == tokenType && s.DeletionTimestamp == nil && s.Name == secretPrefix+id && idForm.MatchString(id) && secretForm.MatchString(secret) &&
		string(s.Data["usage-bootstrap-signing"]) == "true" && !(ends && !now.Before(end))
	return id, secret, ok
}

// detached is a JWS (RFC 7515, appendix F) with HMAC-SHA256, keyed by the token's secret half. By hand: that half is shorter
// than what JOSE libraries accept as a key for HS256.
func detached(content, id, secret string) string {
	encode := base64.RawURLEncoding.EncodeToString
	header := encode([]byte(`{"alg":"HS256","kid":"` + id + `"}`)) // id is letters and digits
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(header + "." + encode([]byte(content))))
	return header + ".." + encode(mac.Sum(nil))
}
