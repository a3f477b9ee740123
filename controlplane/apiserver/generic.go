package apiserver

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/token/cache"
	"k8s.io/apiserver/pkg/authentication/token/union"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/discovery/aggregated"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"

	"keelson.dev/keelson/controlplane/apiserver/auditlog"
	"keelson.dev/keelson/controlplane/auth"
)

// tokenMemory is how long a verified token is believed without looking again; the deletion of what it is bound to takes
// that long to show.
const tokenMemory = 10 * time.Second

// systemUser is who the server itself is to the API: allowed everything.
var systemUser = &user.DefaultInfo{Name: user.APIServerUser, Groups: []string{user.SystemPrivilegedGroup, user.AllAuthenticated}}

func (s *Server) genericConfig() (*genericapiserver.Config, error) {
	c := genericapiserver.NewConfig(s.codecs.factory)
	c.EffectiveVersion = newVersion()
	c.ExternalAddress = net.JoinHostPort(s.cfg.AdvertiseAddress.String(), strconv.Itoa(s.cfg.Port))
	c.PublicAddress = s.cfg.AdvertiseAddress.AsSlice()
	c.LoopbackClientConfig = s.loopback.config(systemUser)
	c.LongRunningFunc = longRunning
	c.RequestInfoResolver = resolver{genericapiserver.NewRequestInfoResolver(c)}
	c.RequestTimeout = time.Minute
	c.MinRequestTimeout = int(minWatch / time.Second)
	// OpenAPI documents are served by us; see openapi.go.
	c.SkipOpenAPIInstallation = true
	c.EnableProfiling = false
	c.StorageObjectCountTracker = nil
	c.BuildHandlerChainFunc = s.chain
	// One for all servers in the chain of delegation, or clients would not see custom resources.
	c.AggregatedDiscoveryGroupManager = aggregated.NewResourceManager("apis")
	c.EquivalentResourceRegistry = runtime.NewEquivalentResourceRegistryWithIdentity(func(gr schema.GroupResource) string {
		return prefixOf(gr)
	})
	if err := s.secure(c); err != nil {
		return nil, err
	}
	if err := s.audit(c); err != nil {
		return nil, err
	}
	s.health(c)
	s.authorize(c)
	return c, s.admit(c)
}

// secure sets who may connect and with what certificate the server answers.
func (s *Server) secure(c *genericapiserver.Config) error {
	pair, err := s.pki.CA.Issue(s.servingLeaf())
	if err != nil {
		return fmt.Errorf("serving certificate: %w", err)
	}
	cert, err := dynamiccertificates.NewStaticCertKeyContent("serving", pair.Cert, pair.Key)
	if err != nil {
		return fmt.Errorf("serving certificate: %w", err)
	}
	ca, err := dynamiccertificates.NewStaticCAContent("client-ca", s.pki.CA.PEM)
	if err != nil {
		return fmt.Errorf("client CA: %w", err)
	}
	proxyCA, err := dynamiccertificates.NewStaticCAContent("front-proxy-ca", s.pki.FrontProxy.PEM)
	if err != nil {
		return fmt.Errorf("front proxy CA: %w", err)
	}
	c.SecureServing = &genericapiserver.SecureServingInfo{
		Listener: s.listener,
		Cert:     cert,
		ClientCA: dynamiccertificates.NewUnionCAContentProvider(ca, proxyCA),
	}
	tokens, err := s.tokenAuthenticator()
	if err != nil {
		return err
	}
	s.authn = auth.NewAuthenticator(auth.AuthenticatorConfig{
		ClientCA: ca, FrontProxyCA: proxyCA, Loopback: s.loopback.authenticate, Tokens: tokens,
	})
	c.Authentication.Authenticator = s.authn
	c.Authentication.APIAudiences = s.tokens.Audiences()
	return nil
}

// tokenAuthenticator knows the tokens of service accounts, of nodes that join, and of the issuers that are configured.
func (s *Server) tokenAuthenticator() (authenticator.Token, error) {
	own := s.tokens.Audiences()
	all := []authenticator.Token{s.tokens, authenticator.WrapAudienceAgnosticToken(own, auth.BootstrapTokens{Objects: tokenObjects{s.stores}})}
	if file := s.cfg.AuthenticationConfig; file != "" {
		issuers, err := auth.NewIssuers(file, own[0], s.log)
		if err != nil {
			return nil, err
		}
		ctx, cancel := context.WithCancel(context.Background())
		go func() { <-s.stopping; cancel() }()
		go issuers.Run(ctx) // ends when the server stops
		all = append(all, authenticator.WrapAudienceAgnosticToken(own, issuers))
	}
	return cache.New(union.New(all...), false, tokenMemory, tokenMemory), nil
}

// audit opens the log of who asks for what. The generic server runs it.
func (s *Server) audit(c *genericapiserver.Config) error {
	log, err := auditlog.Open(filepath.Join(s.cfg.DataDir, "audit"), s.cfg.AuditPolicy)
	if err != nil {
		return err
	}
	c.AuditBackend, c.AuditPolicyRuleEvaluator = log.Backend, log.Policy
	return nil
}

func (s *Server) servingLeaf() auth.Leaf {
	return auth.ServingLeaf(s.cfg.ClusterDomain, s.cfg.NodeName, s.cfg.ExtraSANs, s.cfg.serviceIP(), s.cfg.AdvertiseAddress)
}
