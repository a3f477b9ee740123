package auth

import (
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"

	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/group"
	"k8s.io/apiserver/pkg/authentication/request/anonymous"
	"k8s.io/apiserver/pkg/authentication/request/bearertoken"
	"k8s.io/apiserver/pkg/authentication/request/headerrequest"
	"k8s.io/apiserver/pkg/authentication/request/union"
	"k8s.io/apiserver/pkg/authentication/request/websocket"
	"k8s.io/apiserver/pkg/authentication/request/x509"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
)

// anonymousPaths are all that a request without credentials reaches (KEP-4633).
var anonymousPaths = []apiserver.AnonymousAuthCondition{{Path: "/livez"}, {Path: "/readyz"}, {Path: "/healthz"}, {Path: "/version"}}

// FrontProxyName is the only certificate name that may vouch for users by headers.
const FrontProxyName = "front-proxy-client"

// AuthenticatorConfig says whom to believe.
type AuthenticatorConfig struct {
	ClientCA     dynamiccertificates.CAContentProvider
	FrontProxyCA dynamiccertificates.CAContentProvider
	// Loopback authenticates requests of this process; they are believed as they are.
	Loopback authenticator.RequestFunc
	// Tokens authenticates ServiceAccount tokens; nil: none are.
	Tokens authenticator.Token
}

// NewAuthenticator tells who a request is from: this process, the front proxy's word, a client certificate, a token,
// and, for a few paths, nobody.
func NewAuthenticator(c AuthenticatorConfig) authenticator.Request {
	proxy := headerrequest.NewDynamicVerifyOptionsSecure(
		c.FrontProxyCA.VerifyOptions,
		headerrequest.StaticStringSlice{FrontProxyName},
		headerrequest.StaticStringSlice{"X-Remote-User"},
		headerrequest.StaticStringSlice{"X-Remote-Uid"},
		headerrequest.StaticStringSlice{"X-Remote-Group"},
		headerrequest.StaticStringSlice{"X-Remote-Extra-"},
	)
	cert := newCertCache(x509.NewDynamic(c.ClientCA.VerifyOptions, x509.CommonNameUserConversion))
	methods := []authenticator.Request{proxy, cert}
	if c.Tokens != nil {
		methods = append(methods, bearertoken.New(c.Tokens), websocket.NewProtocolAuthenticator(c.Tokens))
	}
	known := group.NewAuthenticatedGroupAdder(union.New(methods...))
	// A bad credential is refused even where none is needed, as upstream: a client must notice that it is wrong.
	all := union.NewFailOnError(known, anonymous.NewAuthenticator(anonymousPaths))
	return authenticator.RequestFunc(func(req *http.Request) (*authenticator.Response, bool, error) {
		if r, ok, err := c.Loopback(req); ok || err != nil {
			return r, ok, err
		}
		return all.AuthenticateRequest(req)
	})
}

// ServingLeaf describes the API server's serving certificate: every name and address by which clients on the node, in
// pods and elsewhere reach it. Nothing in it comes from a client (a certificate that grew with what clients ask for
// could be stuffed).
func ServingLeaf(domain, node string, extra []string, addrs ...netip.Addr) Leaf {
	l := Leaf{
		CommonName: "kube-apiserver", Server: true,
		DNSNames: []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + domain},
		IPs:      []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	if host, err := os.Hostname(); err == nil && host != "" {
		extra = append(slices.Clone(extra), host)
	}
	if node != "" {
		extra = append(extra, node)
	}
	for _, a := range addrs {
		l.IPs = append(l.IPs, a.AsSlice())
	}
	ifaces, _ := net.InterfaceAddrs()
	for _, a := range ifaces {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
			l.IPs = append(l.IPs, n.IP)
		}
	}
	for _, name := range extra {
		if ip := net.ParseIP(name); ip != nil {
			l.IPs = append(l.IPs, ip)
		} else if !slices.Contains(l.DNSNames, name) {
			l.DNSNames = append(l.DNSNames, name)
		}
	}
	return l
}
