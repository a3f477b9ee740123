package auth

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A file that cannot be used changes nothing, and one that says the same makes nothing anew.
func TestIssuersReload(t *testing.T) {
	file := filepath.Join(t.TempDir(), "authentication.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n"
	write(head)
	i, err := NewIssuers(file, "https://own", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { i.end() })
	before := i.now.Load()
	if _, ok, err := i.AuthenticateToken(t.Context(), "x"); ok || err != nil {
		t.Errorf("a token without issuers: %v, %v", ok, err)
	}
	for text, want := range map[string]string{"nonsense": "authentication.yaml", head + "jwt: [{issuer: {url: https://own, audiences: [a]}, claimMappings: {username: {claim: a, prefix: ''}}}]": "https://own"} {
		write(text)
		if err := i.reload(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	write(head)
	if err := i.reload(); err != nil || i.now.Load() != before {
		t.Errorf("the same again: %v, changed %v", err, i.now.Load() != before)
	}
	write(head + "# changed\n")
	if err := i.reload(); err != nil || i.now.Load() == before {
		t.Errorf("another: %v, changed %v", err, i.now.Load() != before)
	}
}

// FuzzIssuers: a file of issuers that is anything is a configuration or an error.
func FuzzIssuers(f *testing.F) {
	const head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n"
	f.Add([]byte(head))
	f.Add([]byte(head + "jwt: [{issuer: {url: https://a.example, audiences: [a], audienceMatchPolicy: MatchAny, certificateAuthority: x}, claimMappings: {username: {expression: 'claims.sub'}, groups: {expression: 'claims.g.split(\",\")'}, extra: [{key: a.b/c, valueExpression: 'claims.x'}]}, claimValidationRules: [{expression: 'claims.a == 1', message: m}], userValidationRules: [{expression: '!user.username.startsWith(\"system:\")'}]}]"))
	f.Add([]byte(head + "anonymous: {enabled: true}"))
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if c, err := parseIssuers(text, "https://own"); err == nil && (c == nil || c.Anonymous != nil) {
			t.Errorf("accepted: %+v", c)
		}
	})
}
