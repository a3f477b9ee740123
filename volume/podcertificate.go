package volume

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"sync"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
)

const (
	// issueWait is how long a mount waits for the signer; issueLook is how often it looks, and issueAgain how often a refresh does.
	issueWait  = 5 * time.Second
	issueLook  = 100 * time.Millisecond
	issueAgain = 10 * time.Second
)

// certificates keeps the keys and certificates of the node's pods in memory (KEP-4317). After a restart each is asked for anew.
type certificates struct {
	now  func() time.Time
	deps *Deps

	mu sync.Mutex
	m  map[certificateKey]*certificate
}

type certificateKey struct {
	pod        types.UID
	projection string
}

// certificate is used in its pod's turn; only renew is read beside it, under certificates.mu.
type certificate struct {
	key, chain []byte // PEM; nil: none yet
	expires    time.Time
	renew      time.Time // when to look again

	name    string // of the request that is under way
	next    []byte // its key
	refused error  // what the signer said for good
}

// get returns a certificate that is valid, and its key. When no new one can be had, the old one serves as long as it is valid.
func (c *certificates) get(ctx context.Context, pod *corev1.Pod, p *corev1.PodCertificateProjection) (key, chain []byte, err error) {
	if c.deps.RequestCertificate == nil {
		return nil, nil, errors.New("this node has no way to ask for a certificate")
	}
	k := certificateKey{pod.UID, p.String()}
	c.mu.Lock()
	e := c.m[k]
	if e == nil {
		e = &certificate{}
		c.m[k] = e
	}
	c.mu.Unlock()
	if now := c.now(); e.refused == nil && !now.Before(e.renew) {
		for end := time.After(issueWait); ; {
			var done bool
			if done, err = c.step(ctx, pod, p, e); done || err != nil || e.valid(now) {
				break
			}
			select {
			case <-ctx.Done():
				return nil, nil, ctx.Err()
			case <-end:
				return nil, nil, fmt.Errorf("the signer %q has not answered the PodCertificateRequest %q yet", p.SignerName, e.name)
			case <-time.After(issueLook):
			}
		}
	}
	if e.valid(c.now()) {
		return e.key, e.chain, nil
	}
	if err = errors.Join(err, e.refused); err == nil {
		err = errors.New("it has expired")
	}
	return nil, nil, fmt.Errorf("certificate of signer %q: %w", p.SignerName, err)
}

func (e *certificate) valid(now time.Time) bool { return e.key != nil && now.Before(e.expires) }

// step asks, or looks whether what was asked for has been answered; done: there is nothing to wait for.
func (c *certificates) step(ctx context.Context, pod *corev1.Pod, p *corev1.PodCertificateProjection, e *certificate) (done bool, err error) {
	again := c.now().Add(issueAgain)
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if e.key != nil { // before the first, every try is made
			e.renew = again
		}
	}()
	var r *certificatesv1.PodCertificateRequest
	if e.name == "" {
		r, e.next, err = c.ask(ctx, pod, p)
	} else {
		r, err = c.deps.GetCertificateRequest(ctx, pod.Namespace, e.name)
		if apierrors.IsNotFound(err) { // those that nobody answers are removed
			e.name = ""
			return false, nil
		}
	}
	if err != nil {
		return false, err
	}
	e.name = r.Name
	for _, cond := range r.Status.Conditions {
		switch cond.Type {
		case certificatesv1.PodCertificateRequestConditionTypeIssued:
			if r.Status.NotAfter == nil || r.Status.BeginRefreshAt == nil {
				return false, fmt.Errorf("the PodCertificateRequest %q does not say how long it is valid", r.Name)
			}
			e.key, e.chain, e.expires = e.next, []byte(r.Status.CertificateChain), r.Status.NotAfter.Time
			e.name, e.next, again = "", nil, r.Status.BeginRefreshAt.Time
			return true, nil
		case certificatesv1.PodCertificateRequestConditionTypeDenied, certificatesv1.PodCertificateRequestConditionTypeFailed:
			e.refused = fmt.Errorf("the PodCertificateRequest %q is %s: %s: %s", r.Name, cond.Type, cond.Reason, cond.Message)
			again = e.expires
			return true, nil
		}
	}
	return false, nil
}

// ask makes a key and a request for its certificate.
func (c *certificates) ask(ctx context.Context, pod *corev1.Pod, p *corev1.PodCertificateProjection) (*certificatesv1.PodCertificateRequest, []byte, error) {
	key, err := newKey(p.KeyType)
	if err != nil {
		return nil, nil, err
	}
	stub, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	r, err := c.deps.RequestCertificate(ctx, pod, certificatesv1.PodCertificateRequestSpec{SignerName: p.SignerName, MaxExpirationSeconds: p.MaxExpirationSeconds,
		StubPKCS10Request: stub, UnverifiedUserAnnotations: p.UserAnnotations})
	return r, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
}

func newKey(kind string) (crypto.Signer, error) {
	switch kind {
	case "RSA3072":
		return rsa.GenerateKey(rand.Reader, 3072)
	case "RSA4096":
		return rsa.GenerateKey(rand.Reader, 4096)
	case "ECDSAP256":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ECDSAP384":
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ECDSAP521":
		return ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "ED25519":
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	return nil, fmt.Errorf("this node makes no keys of type %q", kind)
}

// next is when the first certificate of a pod wants another look; the zero time for never.
func (c *certificates) next(uid types.UID) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	var first time.Time
	for k, e := range c.m {
		if k.pod == uid && !e.renew.IsZero() && e.refused == nil && (first.IsZero() || e.renew.Before(first)) {
			first = e.renew
		}
	}
	return first
}

func (c *certificates) forget(uid types.UID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k := range c.m {
		if k.pod == uid {
			delete(c.m, k)
		}
	}
}
