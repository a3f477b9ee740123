package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"time"

	"keelson.dev/keelson/image/reference"
)

// session is one repository at one host, for the length of a pull.
type session struct {
	cfg    Config
	ep     endpoint
	path   string // repository
	ns     string // registry meant, for mirrors: ?ns=
	trans  *originTransport
	client *http.Client
	auth   *authorizer
}

func newSession(cfg Config, ep endpoint, ref reference.Reference, auth Auth) (*session, error) {
	auth, err := auth.normal(ref.Host, ep.URL.Host)
	if err != nil {
		return nil, err
	}
	t, err := newOriginTransport(ep, cfg)
	if err != nil {
		return nil, err
	}
	s := &session{cfg: cfg, ep: ep, path: ref.Path, trans: t}
	s.client = &http.Client{Transport: t, CheckRedirect: checkRedirect}
	// The token client sees no configured headers unless the realm is the registry
	// itself, and does not follow redirects across hosts with credentials: Go's
	// client drops Authorization and a POST body's resend is refused.
	s.auth = &authorizer{ep: ep, auth: auth, scope: "repository:" + ref.Path + ":pull",
		client: &http.Client{Transport: t, CheckRedirect: tokenRedirect, Timeout: headerTimeout}}
	if ep.Mirror {
		s.ns = ref.Host
	}
	return s, nil
}

// tokenRedirect lets a token request move within its origin only.
func tokenRedirect(req *http.Request, via []*http.Request) error {
	if !sameOrigin(req.URL, via[0].URL) {
		return fmt.Errorf("refused a redirect of the token request to %s", plainURL(req.URL))
	}
	return checkRedirect(req, via)
}

// do sends one request (kind is "manifests" or "blobs"), answering challenges of
// the host itself. Any status but 401 is the caller's to judge.
func (s *session) do(ctx context.Context, method, kind, target string, h http.Header) (*http.Response, error) {
	u := s.ep.URL
	u.Path = strings.TrimSuffix(u.Path, "/") + "/" + s.path + "/" + kind + "/" + target
	if s.ns != "" {
		u.RawQuery = "ns=" + s.ns
	}
	for try := 0; ; try++ {
		used := s.auth.current()
		req, err := http.NewRequestWithContext(withAuthorization(ctx, used), method, u.String(), nil)
		if err != nil {
			return nil, err
		}
		for k, v := range h {
			req.Header[k] = v
		}
		req.Header.Set("User-Agent", s.cfg.UserAgent)
		resp, err := s.client.Do(req)
		if err != nil {
			return nil, unreachable(fmt.Errorf("failed to do request: %w", plainError(err)))
		}
		if resp.StatusCode != http.StatusUnauthorized || try == 2 || !sameOrigin(resp.Request.URL, &s.ep.URL) {
			return resp, nil
		}
		if err := s.auth.answer(ctx, resp.Header, used); errors.Is(err, errNoNewAuthorization) {
			return resp, nil
		} else if err != nil {
			resp.Body.Close()
			return nil, fmt.Errorf("failed to authorize: %w", err)
		}
		io.Copy(io.Discard, io.LimitReader(resp.Body, maxErrorBody))
		resp.Body.Close()
	}
}

// unreachable marks a transport's error; what the caller did (cancel) stays that.
func unreachable(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return unreachableError{err}
}

type unreachableError struct{ error }

func (e unreachableError) Unwrap() error        { return e.error }
func (e unreachableError) Is(target error) bool { return target == ErrUnreachable }

// transient says whether the same request may do better in a moment: cut
// connections, time-outs, 429 and 5xx. A host that does not resolve, refuses the
// connection or shows a bad certificate will not.
func transient(err error) bool {
	var se *StatusError
	if errors.As(err, &se) {
		return se.Code == http.StatusTooManyRequests || se.Code == http.StatusRequestTimeout ||
			se.Code >= 500 && se.Code != http.StatusNotImplemented
	}
	if errors.Is(err, ErrStalled) {
		return true
	}
	if !errors.Is(err, ErrUnreachable) {
		return false
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return dns.IsTemporary && !dns.IsNotFound
	}
	var cert *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var record tls.RecordHeaderError
	var alert tls.AlertError
	if errors.As(err, &cert) || errors.As(err, &authority) || errors.As(err, &record) || errors.As(err, &alert) {
		return false
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return false
	}
	msg := err.Error()
	return !strings.Contains(msg, "redirect") && !strings.Contains(msg, "HTTP response to HTTPS client")
}

// retry runs fn until it succeeds, fails for good, or has failed Retries+1 times.
func (c Config) retry(ctx context.Context, fn func() error) error {
	for n := 0; ; n++ {
		err := fn()
		if err == nil || !transient(err) || n >= c.Retries {
			return err
		}
		if werr := c.wait(ctx, n, err); werr != nil {
			return werr
		}
	}
}

// wait sleeps before try n+1: doubling from Backoff, at most maxRetryAfter, with
// jitter so that nodes do not come back in step; longer if the registry says so.
func (c Config) wait(ctx context.Context, n int, why error) error {
	d := min(c.Backoff<<min(n, 16), maxRetryAfter)
	d = d/2 + rand.N(d/2+1)
	var se *StatusError
	if errors.As(why, &se) {
		d = max(d, se.RetryAfter)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w while waiting to try again after: %w", context.Cause(ctx), why)
	}
}
