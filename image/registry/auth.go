package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
)

// Auth is CRI's AuthConfig: credentials for one pull. The zero value is anonymous.
type Auth struct {
	Username, Password string
	Auth               string // base64 of "user:password", when Username is ""
	ServerAddress      string // registry that they are for; "" is whatever is pulled from
	IdentityToken      string // OAuth2 refresh token
	RegistryToken      string // bearer token, sent as it is
}

// normal decodes the Auth field and drops everything when the credentials are
// meant for another registry than host.
func (a Auth) normal(registry, host string) (Auth, error) {
	if a.ServerAddress != "" {
		at := serverHost(a.ServerAddress)
		if !isOrigin(registry, at) && at != registry && at != host {
			return Auth{}, nil
		}
	}
	if a.Username == "" && a.Password == "" && a.Auth != "" {
		b, err := base64.StdEncoding.DecodeString(a.Auth)
		if err != nil {
			return Auth{}, fmt.Errorf("%w: the auth field is not base64", ErrUnauthorized)
		}
		user, pass, ok := strings.Cut(string(b), ":")
		if !ok {
			return Auth{}, fmt.Errorf("%w: the auth field is not user:password in base64", ErrUnauthorized)
		}
		a.Username, a.Password = user, strings.Trim(pass, "\x00")
	}
	return a, nil
}

// serverHost reads a server address as Docker's files write it: a host or a URL.
func serverHost(s string) string {
	if i := strings.Index(s, "://"); i >= 0 {
		s = s[i+3:]
	}
	s, _, _ = strings.Cut(s, "/")
	if s == "index.docker.io" || s == "www.docker.io" || s == dockerHubAPI {
		return dockerHub
	}
	return s
}

// authorizer answers one host's challenges for one repository and keeps the
// resulting Authorization value.
type authorizer struct {
	ep     endpoint
	auth   Auth
	scope  string       // repository:<path>:pull
	client *http.Client // to token servers

	mu    sync.Mutex
	value string // what to send; "" until challenged
}

func (a *authorizer) current() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.value
}

// answer gets an Authorization value for the challenges in h. used is the value
// with which the request was refused; when another request has already got a
// newer one, that is enough. An error wraps ErrUnauthorized or is a transport's.
func (a *authorizer) answer(ctx context.Context, h http.Header, used string) error {
	if now := a.current(); now != used {
		return nil
	}
	var value string
	var err error
	cs := parseChallenges(h.Values("WWW-Authenticate"))
	switch c := pick(cs, "bearer", "basic"); {
	case c == nil:
		return fmt.Errorf("%w: no challenge that is understood", ErrUnauthorized)
	case a.auth.RegistryToken != "":
		value = "Bearer " + a.auth.RegistryToken
	case c.scheme == "bearer":
		if value, err = a.token(ctx, c); err != nil {
			return err
		}
	case a.auth.Username != "" || a.auth.Password != "":
		value = "Basic " + base64.StdEncoding.EncodeToString([]byte(a.auth.Username+":"+a.auth.Password))
	}
	if value == "" || value == used {
		return errNoNewAuthorization
	}
	a.mu.Lock()
	a.value = value
	a.mu.Unlock()
	return nil
}

// errNoNewAuthorization: the refusal stands; the registry's own answer is the error.
var errNoNewAuthorization = fmt.Errorf("%w: no other credentials", ErrUnauthorized)

func pick(cs []challenge, schemes ...string) *challenge {
	for _, s := range schemes {
		for i := range cs {
			if cs[i].scheme == s {
				return &cs[i]
			}
		}
	}
	return nil
}

const maxTokenBody = 1 << 20 // bytes

// token asks the realm for a bearer token: with the OAuth2 form when there is an
// identity token, else with GET and basic credentials, or anonymously.
func (a *authorizer) token(ctx context.Context, c *challenge) (string, error) {
	realm, err := url.Parse(c.params["realm"])
	if err != nil || realm.Host == "" || (realm.Scheme != "https" && realm.Scheme != "http") {
		return "", fmt.Errorf("%w: the registry names no usable token server", ErrUnauthorized)
	}
	with, withheld := a.auth, ""
	if with != (Auth{}) {
		if withheld = mayNotSend(a.ep, realm); withheld != "" {
			with = Auth{}
		}
	}
	scope := c.params["scope"]
	if scope == "" {
		scope = a.scope
	}
	tok, err := a.request(ctx, realm, c.params["service"], scope, with)
	if err != nil && withheld != "" {
		err = fmt.Errorf("%w (%s)", err, withheld)
	}
	if err != nil {
		return "", fmt.Errorf("failed to fetch token: %w", err)
	}
	return "Bearer " + tok, nil
}

// mayNotSend says why credentials for ep must not go to realm; "" when they may.
func mayNotSend(ep endpoint, realm *url.URL) string {
	switch {
	case realm.Scheme != "https" && ep.URL.Scheme == "https":
		return fmt.Sprintf("credentials were not sent to token server %s: plain HTTP", realm.Host)
	case sameSite(ep.URL.Host, realm.Host):
		return ""
	}
	for _, h := range ep.TokenHosts {
		if strings.EqualFold(h, realm.Host) && (realm.Scheme == "https" || ep.URL.Scheme == "http") {
			return ""
		}
	}
	return fmt.Sprintf("credentials were not sent to token server %s: it is of another site than registry %s; if that is right, "+
		"allow it in hosts.toml: token_hosts = [%q]", realm.Host, ep.URL.Host, realm.Host)
}

func (a *authorizer) request(ctx context.Context, realm *url.URL, service, scope string, with Auth) (string, error) {
	if with.IdentityToken != "" {
		form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {with.IdentityToken},
			"client_id": {"keelson"}, "scope": {scope}, "service": {service}}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, realm.String(), strings.NewReader(form.Encode()))
		if err != nil {
			return "", err
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		return a.fetch(req)
	}
	u := *realm
	q := u.Query()
	q.Set("scope", scope)
	if service != "" {
		q.Set("service", service)
	}
	u.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return "", err
	}
	if with.Username != "" || with.Password != "" {
		req.SetBasicAuth(with.Username, with.Password)
	}
	return a.fetch(req)
}

func (a *authorizer) fetch(req *http.Request) (string, error) {
	resp, err := a.client.Do(req)
	if err != nil {
		return "", unreachable(plainError(err))
	}
	if resp.StatusCode != http.StatusOK {
		return "", statusError(resp)
	}
	defer resp.Body.Close()
	var tok struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxTokenBody)).Decode(&tok); err != nil {
		return "", fmt.Errorf("%w: token server %s: unreadable answer", ErrUnauthorized, req.URL.Host)
	}
	if tok.Token == "" {
		tok.Token = tok.AccessToken
	}
	if tok.Token == "" || strings.ContainsAny(tok.Token, "\r\n") {
		return "", fmt.Errorf("%w: token server %s gave no token", ErrUnauthorized, req.URL.Host)
	}
	return tok.Token, nil
}

// pathOf is what follows the host in a server address, without slashes at its ends.
func pathOf(s string) string {
	if i := strings.Index(s, "://"); i >= 0 {
		s = s[i+3:]
	}
	_, p, _ := strings.Cut(s, "/")
	return strings.Trim(p, "/")
}
