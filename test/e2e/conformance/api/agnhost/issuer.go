package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"k8s.io/client-go/rest"
)

// issuerDiscovery verifies a token of the pod's own as a stranger would: the issuer that it names is asked for its document, the
// document for its keys, and a key must have signed the token. As the issuer is in the cluster, it is asked with the pod's account.
func issuerDiscovery(f *flag.FlagSet, args []string) error {
	path, audience := f.String("token-path", "", "of the token"), f.String("audience", "", "that it must be for")
	_ = f.Parse(args)
	raw, err := os.ReadFile(*path)
	if err != nil {
		return err
	}
	config, err := rest.InClusterConfig()
	if err != nil {
		return err
	}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return err
	}
	token, err := jwt.ParseSigned(string(raw), []jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.ES384, jose.ES512})
	if err != nil {
		return err
	}
	var claims jwt.Claims
	if err := token.UnsafeClaimsWithoutVerification(&claims); err != nil {
		return err
	}
	var document struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	if err := get(client, claims.Issuer+"/.well-known/openid-configuration", "application/json", &document); err != nil {
		return err
	}
	if document.Issuer != claims.Issuer {
		return fmt.Errorf("the token is of %s, the document of %s", claims.Issuer, document.Issuer)
	}
	var keys jose.JSONWebKeySet
	if err := get(client, document.Keys, "application/jwk-set+json", &keys); err != nil {
		return err
	}
	if err := token.Claims(keys, &claims); err != nil {
		return err
	}
	if err := claims.Validate(jwt.Expected{Issuer: document.Issuer, AnyAudience: jwt.Audience{*audience}}); err != nil {
		return err
	}
	fmt.Printf("ok: %s is of %s\n", claims.Subject, document.Issuer)
	return nil
}

func get(client *http.Client, url, mediaType string, into any) error {
	answer, err := client.Get(url)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if got := answer.Header.Get("Content-Type"); answer.StatusCode != http.StatusOK || got != mediaType {
		return fmt.Errorf("%s answers %s with %s, not %s", url, answer.Status, got, mediaType)
	}
	return json.NewDecoder(answer.Body).Decode(into)
}
