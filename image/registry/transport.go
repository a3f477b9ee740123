package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"
)

const (
	dialTimeout   = 15 * time.Second
	headerTimeout = 30 * time.Second
	maxRedirects  = 10
)

// originTransport sends requests. What belongs to the configured host (its
// headers, client certificates, and the Authorization that the session puts into
// the request's context) goes to exactly that scheme, host and port.
type originTransport struct {
	origin  url.URL
	header  http.Header
	own     *http.Transport // to the origin
	outside *http.Transport // to where it redirects, and to token servers
}

type authorizationKey struct{}

func withAuthorization(ctx context.Context, value string) context.Context {
	return context.WithValue(ctx, authorizationKey{}, value)
}

func newOriginTransport(ep endpoint, cfg Config) (*originTransport, error) {
	tc, err := tlsConfig(ep)
	if err != nil {
		return nil, err
	}
	outsideTLS := tc.Clone()
	outsideTLS.Certificates = nil
	t := &originTransport{origin: ep.URL, header: ep.Header}
	t.own = httpTransport(cfg, tc, nil)
	t.outside = httpTransport(cfg, outsideTLS, refuseLinkLocal)
	return t, nil
}

func httpTransport(cfg Config, tc *tls.Config, control func(network, address string, c syscall.RawConn) error) *http.Transport {
	d := &net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second, Control: control}
	return &http.Transport{
		Proxy:                  cfg.Proxy,
		DialContext:            d.DialContext,
		TLSClientConfig:        tc,
		TLSHandshakeTimeout:    dialTimeout,
		ResponseHeaderTimeout:  headerTimeout,
		MaxResponseHeaderBytes: 256 << 10,
		IdleConnTimeout:        30 * time.Second,
		MaxIdleConnsPerHost:    8,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // digests are of the bytes as stored
		ReadBufferSize:         64 << 10,
	}
}

func (t *originTransport) closeIdle() {
	t.own.CloseIdleConnections()
	t.outside.CloseIdleConnections()
}

// RoundTrip adds the origin's headers and authorization where they belong.
func (t *originTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if !sameOrigin(req.URL, &t.origin) {
		return t.outside.RoundTrip(req)
	}
	req = req.Clone(req.Context())
	for k, v := range t.header {
		req.Header[k] = v
	}
	if v, _ := req.Context().Value(authorizationKey{}).(string); v != "" {
		req.Header.Set("Authorization", v)
	}
	return t.own.RoundTrip(req)
}

// sameOrigin compares scheme, host name and port.
func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && strings.EqualFold(a.Hostname(), b.Hostname()) && port(a) == port(b)
}

func port(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	if u.Scheme == "http" {
		return "80"
	}
	return "443"
}

// checkRedirect bounds redirects and refuses those from TLS to plain HTTP.
func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= maxRedirects {
		return fmt.Errorf("stopped after %d redirects", maxRedirects)
	}
	if req.URL.Scheme != "https" && via[0].URL.Scheme == "https" {
		return fmt.Errorf("refused a redirect from https to %s", plainURL(req.URL))
	}
	if req.URL.Scheme != "https" && req.URL.Scheme != "http" {
		return fmt.Errorf("refused a redirect to scheme %.20q", req.URL.Scheme)
	}
	return nil
}

// refuseLinkLocal keeps redirects and token realms away from the cloud's metadata
// service, which answers to whoever is on the machine. It sees the address after
// name resolution.
func refuseLinkLocal(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil
	}
	if a := ap.Addr().Unmap().WithZone(""); a.IsLinkLocalUnicast() || a == awsMetadata6 {
		return fmt.Errorf("refused to follow the registry to link-local address %s", a)
	}
	return nil
}

var awsMetadata6 = netip.MustParseAddr("fd00:ec2::254")

func tlsConfig(ep endpoint) (*tls.Config, error) {
	tc := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: ep.SkipVerify}
	if len(ep.CA) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		for _, file := range ep.CA {
			pem, err := os.ReadFile(file)
			if err != nil {
				return nil, fmt.Errorf("registry %s: CA: %w", ep.URL.Host, err)
			}
			if !pool.AppendCertsFromPEM(pem) {
				return nil, fmt.Errorf("registry %s: CA: no certificate in %s", ep.URL.Host, file)
			}
		}
		tc.RootCAs = pool
	}
	for _, c := range ep.Client {
		cert, key := c[0], c[1]
		if key == "" {
			key = cert
		}
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("registry %s: client certificate: %w", ep.URL.Host, err)
		}
		tc.Certificates = append(tc.Certificates, pair)
	}
	return tc, nil
}
