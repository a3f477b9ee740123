package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"keelson.dev/keelson/image/manifest"
	"keelson.dev/keelson/image/reference"
)

// Config of a Client. The zero value of each field is its default.
type Config struct {
	CertsDirs       []string                              // folders of <host>/hosts.toml; the first that knows a host wins
	DockerConfigs   []string                              // config.json files with credentials, used when a pull brings none
	Proxy           func(*http.Request) (*url.URL, error) // http.ProxyFromEnvironment, typically; nil is no proxy
	ProgressTimeout time.Duration                         // longest wait for ProgressBytes; default 60 s
	ProgressBytes   int64                                 // default 64 KiB
	Retries         int                                   // tries after the first without progress between; default 5
	Backoff         time.Duration                         // before the first retry, then doubling; default 250 ms
	UserAgent       string                                // default "keelson"
	Log             *slog.Logger                          // default discards
}

func (c Config) withDefaults() Config {
	if c.ProgressTimeout <= 0 {
		c.ProgressTimeout = time.Minute
	}
	if c.ProgressBytes <= 0 {
		c.ProgressBytes = 64 << 10
	}
	if c.Retries <= 0 {
		c.Retries = 5
	}
	if c.Backoff <= 0 {
		c.Backoff = 250 * time.Millisecond
	}
	if c.UserAgent == "" {
		c.UserAgent = "keelson"
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Repository is one image repository, behind whatever mirrors hosts.toml puts
// before it. Safe for concurrent use until Close.
type Repository struct {
	cfg      Config
	ref      reference.Reference
	sessions []*session
}

// Open reads the host configuration anew (it may change while we run) and
// connects to nothing yet. auth nil takes credentials from DockerConfigs, if any.
func Open(cfg Config, ref reference.Reference, auth *Auth) (*Repository, error) {
	cfg = cfg.withDefaults()
	eps, err := endpoints(ref.Host, cfg.CertsDirs)
	if err != nil {
		return nil, err
	}
	if auth == nil {
		found, err := dockerAuth(cfg.DockerConfigs, ref)
		if err != nil {
			return nil, err
		}
		auth = &found
	}
	r := &Repository{cfg: cfg, ref: ref}
	for _, ep := range eps {
		s, err := newSession(cfg, ep, ref, *auth)
		if err != nil {
			r.Close()
			return nil, err
		}
		r.sessions = append(r.sessions, s)
	}
	return r, nil
}

// Close drops idle connections. Blob readers still open stay usable.
func (r *Repository) Close() {
	for _, s := range r.sessions {
		s.trans.closeIdle()
	}
}

// Head asks what the reference points at now, without reading it: for a tag that
// is known already this spares a manifest read, which registries ration.
// A registry that does not tell the digest gives ErrNotFound.
func (r *Repository) Head(ctx context.Context) (digest.Digest, error) {
	var found digest.Digest
	err := r.each(ctx, r.ref.Digest == "", func(s *session) error {
		resp, err := s.do(ctx, http.MethodHead, "manifests", r.ref.Target(), acceptManifests())
		if err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			return statusError(resp)
		}
		resp.Body.Close()
		found = digest.Digest(resp.Header.Get("Docker-Content-Digest"))
		if reference.CheckDigest(found) != nil {
			return ErrNotFound
		}
		return nil
	})
	return found, err
}

func acceptManifests() http.Header {
	return http.Header{"Accept": {strings.Join(append(manifest.Accept(), "*/*"), ", ")}}
}

// Resolve reads what the reference points at: an index or a manifest. The
// descriptor's media type is what the registry says it is, its digest that of
// the bytes (equal to the reference's if that has one).
func (r *Repository) Resolve(ctx context.Context) (v1.Descriptor, []byte, error) {
	return r.manifest(ctx, r.ref.Target(), r.ref.Digest)
}

// Manifest reads the document that an index lists.
func (r *Repository) Manifest(ctx context.Context, d v1.Descriptor) ([]byte, error) {
	got, b, err := r.manifest(ctx, string(d.Digest), d.Digest)
	if err != nil {
		return nil, err
	}
	if got.Size != d.Size {
		return nil, fmt.Errorf("%w: manifest %s has %d bytes, its index says %d", manifest.ErrInvalid, d.Digest, got.Size, d.Size)
	}
	return b, nil
}

func (r *Repository) manifest(ctx context.Context, target string, want digest.Digest) (desc v1.Descriptor, body []byte, err error) {
	err = r.each(ctx, want == "", func(s *session) error {
		resp, err := s.do(ctx, http.MethodGet, "manifests", target, acceptManifests())
		if err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			return statusError(resp)
		}
		defer resp.Body.Close()
		if body, err = s.readManifest(ctx, resp); err != nil {
			return err
		}
		expect := want
		if expect == "" {
			expect = digest.Digest(resp.Header.Get("Docker-Content-Digest"))
		}
		sum := digest.FromBytes(body)
		if expect != "" {
			if err := reference.CheckDigest(expect); err != nil {
				return err
			}
			if sum = expect.Algorithm().FromBytes(body); sum != expect {
				return fmt.Errorf("%w: manifest should have digest %s, the bytes have %s", manifest.ErrInvalid, expect, sum)
			}
		}
		desc = v1.Descriptor{MediaType: resp.Header.Get("Content-Type"), Digest: sum, Size: int64(len(body))}
		return nil
	})
	return desc, body, err
}

// readManifest bounds size and time: a manifest arrives within one progress window.
func (s *session) readManifest(ctx context.Context, resp *http.Response) ([]byte, error) {
	if resp.ContentLength > manifest.MaxBytes {
		return nil, fmt.Errorf("%w: manifest has %d bytes, at most %d are read", manifest.ErrInvalid, resp.ContentLength, manifest.MaxBytes)
	}
	stop := time.AfterFunc(s.cfg.ProgressTimeout, func() { resp.Body.Close() })
	b, err := io.ReadAll(io.LimitReader(resp.Body, manifest.MaxBytes+1))
	if !stop.Stop() {
		return nil, fmt.Errorf("%w: manifest did not arrive within %s", ErrStalled, s.cfg.ProgressTimeout)
	}
	if err != nil {
		return nil, unreachable(fmt.Errorf("read manifest: %w", err))
	}
	if len(b) > manifest.MaxBytes {
		return nil, fmt.Errorf("%w: manifest has more than %d bytes", manifest.ErrInvalid, manifest.MaxBytes)
	}
	return b, ctx.Err()
}

// each tries the hosts in order until one succeeds. When all fail, the text has
// every host's words and the kind (errors.Is) is the last one's: the registry
// itself knows best what exists.
func (r *Repository) each(ctx context.Context, resolve bool, fn func(s *session) error) error {
	var errs []error
	var hosts []string
	for _, s := range r.sessions {
		if resolve && !s.ep.Resolve || !resolve && !s.ep.Pull {
			continue
		}
		err := r.cfg.retry(ctx, func() error { return fn(s) })
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return err
		}
		r.cfg.Log.Debug("registry host failed", "image", r.ref.String(), "host", s.ep.URL.Host, "err", err)
		errs, hosts = append(errs, r.explain(err)), append(hosts, s.ep.URL.Host)
	}
	switch len(errs) {
	case 0:
		return fmt.Errorf("%w: hosts.toml gives no host for %s the capability needed", ErrNotFound, r.ref.Host)
	case 1:
		return errs[0]
	}
	return hostsError{hosts, errs}
}

// explain puts a refusal into the words that users of Kubernetes know.
func (r *Repository) explain(err error) error {
	var se *StatusError
	if !errors.As(err, &se) {
		return err
	}
	switch {
	case se.Code == http.StatusNotFound:
		return fmt.Errorf("%s: %w", r.ref, ErrNotFound)
	case errors.Is(se, ErrUnauthorized):
		msg := se.Message
		if msg == "" {
			msg = strconv.Itoa(se.Code) + " " + http.StatusText(se.Code)
		}
		return fmt.Errorf("pull access denied, repository does not exist or may require authorization: server message: %s: %w", msg, ErrUnauthorized)
	}
	return err
}

type hostsError struct {
	hosts []string
	errs  []error
}

func (e hostsError) Error() string {
	var b strings.Builder
	for i, err := range e.errs {
		if i > 0 {
			b.WriteString("; ")
		}
		fmt.Fprintf(&b, "%s: %s", e.hosts[i], err)
	}
	return b.String()
}

func (e hostsError) Unwrap() error { return e.errs[len(e.errs)-1] }
