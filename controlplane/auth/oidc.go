package auth

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/apis/apiserver/install"
	"k8s.io/apiserver/pkg/apis/apiserver/validation"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	authenticationcel "k8s.io/apiserver/pkg/authentication/cel"
	"k8s.io/apiserver/pkg/authentication/token/union"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/apiserver/plugin/pkg/authenticator/token/oidc"
)

// issuersEvery is how often the file of issuers is looked at.
const issuersEvery = 10 * time.Second

// Issuers believes the tokens of the OpenID Connect issuers that a file names, and follows the file. Safe for concurrent use.
type Issuers struct {
	file, own string
	log       *slog.Logger
	read      []byte // the file as it was read last; of Run alone
	end       context.CancelFunc
	now       atomic.Pointer[authenticator.Token]
}

// NewIssuers reads a file of kind AuthenticationConfiguration (apiserver.config.k8s.io). own is this cluster's issuer, which the file
// may not name. Run must be called, and follows the file until its context ends.
func NewIssuers(file, own string, log *slog.Logger) (*Issuers, error) {
	i := &Issuers{file: file, own: own, log: log}
	return i, i.reload()
}

// AuthenticateToken implements authenticator.Token. Tokens are refused until an issuer's keys are had.
func (i *Issuers) AuthenticateToken(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	return (*i.now.Load()).AuthenticateToken(ctx, token)
}

// Run takes over what the file says when it changes. What cannot be used is logged, and what was said before stands.
func (i *Issuers) Run(ctx context.Context) {
	defer func() { i.end() }()
	tick := time.NewTicker(issuersEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		before := i.read
		if err := i.reload(); err != nil {
			i.log.Warn("the issuers stay as they were", "err", err)
		} else if !bytes.Equal(before, i.read) {
			i.log.Info("issuers read anew", "file", i.file)
		}
	}
}

// reload reads the file and, if it says something else than before, puts its issuers in the place of those that were.
func (i *Issuers) reload() error {
	b, err := os.ReadFile(i.file)
	if err != nil {
		return fmt.Errorf("authentication configuration: %w", err)
	}
	if i.read != nil && bytes.Equal(b, i.read) {
		return nil
	}
	c, err := parseIssuers(b, i.own)
	if err != nil {
		return fmt.Errorf("authentication configuration %s: %w", i.file, err)
	}
	ctx, end := context.WithCancel(context.Background())
	next, err := i.issuers(ctx, c)
	if err != nil {
		end()
		return err
	}
	all := union.New(next...)
	i.now.Store(&all)
	if i.end != nil {
		i.end() // nobody fetches the old ones' keys any more
	}
	i.read, i.end = b, end
	return nil
}

// issuers are authenticators of the tokens of each issuer; their keys are fetched until ctx ends.
func (i *Issuers) issuers(ctx context.Context, c *apiserver.AuthenticationConfiguration) ([]authenticator.Token, error) {
	var out []authenticator.Token
	for _, j := range c.JWT {
		o := oidc.Options{JWTAuthenticator: j, DisallowedIssuers: []string{i.own}, SupportedSigningAlgs: oidc.AllValidSigningAlgorithms()}
		var err error
		if ca := j.Issuer.CertificateAuthority; ca != "" {
			if o.CAContentProvider, err = dynamiccertificates.NewStaticCAContent("issuer-ca", []byte(ca)); err != nil {
				return nil, fmt.Errorf("authentication configuration %s: CA of issuer %s: %w", i.file, j.Issuer.URL, err)
			}
		}
		a, err := oidc.New(ctx, o)
		if err != nil {
			return nil, fmt.Errorf("authentication configuration %s: issuer %s: %w", i.file, j.Issuer.URL, err)
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
