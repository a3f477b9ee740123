package auth

import (
	"maps"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// TestHostile_AP38: a token that is wrong, expired, not for this, or asks for more groups than it may have opens nothing.
func TestHostile_AP38(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	good := map[string]string{"token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true",
		"expiration": "2026-01-01T01:00:00Z", "auth-extra-groups": "system:bootstrappers:workers"}
	for _, c := range []struct {
		name string
		set  map[string]string
		typ  corev1.SecretType
		want string // groups; empty: refused
	}{
		{"good", nil, bootstrapType, "system:bootstrappers system:bootstrappers:workers"},
		{"no end", map[string]string{"expiration": ""}, bootstrapType, "system:bootstrappers system:bootstrappers:workers"},
		{"expired", map[string]string{"expiration": "2026-01-01T00:00:00Z"}, bootstrapType, ""},
		{"end unreadable", map[string]string{"expiration": "tomorrow"}, bootstrapType, ""},
		{"other secret", map[string]string{"token-secret": "0123456789abcdeg"}, bootstrapType, ""},
		{"secret is a prefix", map[string]string{"token-secret": "0123456789abcde"}, bootstrapType, ""},
		{"no secret", map[string]string{"token-secret": ""}, bootstrapType, ""},
		{"other id", map[string]string{"token-id": "abcdeg"}, bootstrapType, ""},
		{"not for authentication", map[string]string{"usage-bootstrap-authentication": "false"}, bootstrapType, ""},
		{"masters", map[string]string{"auth-extra-groups": "system:masters"}, bootstrapType, ""},
		{"hidden masters", map[string]string{"auth-extra-groups": "system:bootstrappers:a,system:masters"}, bootstrapType, ""},
		{"other type", nil, corev1.SecretTypeOpaque, ""},
	} {
		data := maps.Clone(good)
		maps.Copy(data, c.set)
		s := &corev1.Secret{Type: c.typ, Data: map[string][]byte{}}
		for k, v := range data {
			s.Data[k] = []byte(v)
		}
		u, ok := bootstrapIdentity(s, "abcdef", "0123456789abcdef", now)
		got := ""
		if ok {
			got = strings.Join(u.GetGroups(), " ")
		}
		if got != c.want {
			t.Errorf("%s: groups %q, want %q", c.name, got, c.want)
		}
	}
}

func FuzzBootstrapToken(f *testing.F) {
	f.Add("abcdef.0123456789abcdef")
	f.Add("abcdef.0123456789abcdef\n")
	f.Add("../../.0123456789abcdef")
	f.Fuzz(func(t *testing.T, token string) {
		m := bootstrapToken.FindStringSubmatch(token)
		if m != nil && (len(token) != 23 || strings.ContainsAny(m[1], "/.\n")) {
			t.Errorf("%q is taken as token %q", token, m)
		}
	})
}
