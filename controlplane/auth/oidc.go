package auth

import (
	"context"
	"fmt"
	"os"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/apis/apiserver/install"
	"k8s.io/apiserver/pkg/apis/apiserver/validation"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	authenticationcel "k8s.io/apiserver/pkg/authentication/cel"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/apiserver/plugin/pkg/authenticator/token/oidc"
)

// Issuers reads a file of kind AuthenticationConfiguration (apiserver.config.k8s.io) and returns an authenticator of the
// tokens of each issuer in it. own is this cluster's issuer, which the file may not name. Tokens are refused until an
// issuer's keys are had, which is tried until ctx ends.
func Issuers(ctx context.Context, file, own string) ([]authenticator.Token, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("authentication configuration: %w", err)
	}
	c, err := parseIssuers(b, own)
	if err != nil {
		return nil, fmt.Errorf("authentication configuration %s: %w", file, err)
	}
	var out []authenticator.Token
	for _, j := range c.JWT {
		o := oidc.Options{JWTAuthenticator: j, DisallowedIssuers: []string{own}, SupportedSigningAlgs: oidc.AllValidSigningAlgorithms()}
		if ca := j.Issuer.CertificateAuthority; ca != "" {
			if o.CAContentProvider, err = dynamiccertificates.NewStaticCAContent("issuer-ca", []byte(ca)); err != nil {
				return nil, fmt.Errorf("authentication configuration %s: CA of issuer %s: %w", file, j.Issuer.URL, err)
			}
		}
		a, err := oidc.New(ctx, o)
		if err != nil {
			return nil, fmt.Errorf("authentication configuration %s: issuer %s: %w", file, j.Issuer.URL, err)
		}
		out = append(out, a)
	}
	return out, nil
}

func parseIssuers(b []byte, own string) (*apiserver.AuthenticationConfiguration, error) {
	scheme := runtime.NewScheme()
	if err := apiserver.AddToScheme(scheme); err != nil {
		return nil, err
	}
	install.Install(scheme)
	obj, err := runtime.Decode(serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDecoder(), b)
	if err != nil {
		return nil, err
	}
	c, ok := obj.(*apiserver.AuthenticationConfiguration)
	if !ok {
		return nil, fmt.Errorf("is of kind %T, not AuthenticationConfiguration", obj)
	}
	if c.Anonymous != nil {
		return nil, fmt.Errorf("anonymous: cannot be set: only /livez, /readyz, /healthz and /version are open to everybody")
	}
	return c, validation.ValidateAuthenticationConfiguration(authenticationcel.NewDefaultCompiler(), c, []string{own}).ToAggregate()
}
