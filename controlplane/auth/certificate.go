package auth

import (
	"container/list"
	"crypto/sha256"
	"net/http"
	"sync"
	"time"

	"k8s.io/apiserver/pkg/authentication/authenticator"
)

// certCacheSize bounds the verified client certificates that are remembered; 4 kB each at most.
const certCacheSize = 1024

// certCache remembers who a client certificate stands for, so that a chain is verified once and not per request.
// An entry lives until the certificate ends; the least recently used goes first. The cache belongs to one set of
// CAs: whoever changes those makes a new one.
type certCache struct {
	next authenticator.Request

	mu    sync.Mutex
	byKey map[[sha256.Size]byte]*list.Element
	order *list.List // of *certEntry, the most recently used first
}

type certEntry struct {
	key      [sha256.Size]byte
	response *authenticator.Response
	end      time.Time
}

func newCertCache(next authenticator.Request) *certCache {
	return &certCache{next: next, byKey: map[[sha256.Size]byte]*list.Element{}, order: list.New()}
}

// AuthenticateRequest implements authenticator.Request. Failures are not remembered.
func (c *certCache) AuthenticateRequest(req *http.Request) (*authenticator.Response, bool, error) {
	if req.TLS == nil || len(req.TLS.PeerCertificates) == 0 {
		return nil, false, nil
	}
	leaf := req.TLS.PeerCertificates[0]
	key := sha256.Sum256(leaf.Raw)
	if r := c.get(key, time.Now()); r != nil {
		return r, true, nil
	}
	r, ok, err := c.next.AuthenticateRequest(req)
	if ok && err == nil {
		end := leaf.NotAfter
		for _, via := range req.TLS.PeerCertificates[1:] {
			if via.NotAfter.Before(end) {
				end = via.NotAfter
			}
		}
		c.put(&certEntry{key: key, response: r, end: end})
	}
	return r, ok, err
}

func (c *certCache) get(key [sha256.Size]byte, now time.Time) *authenticator.Response {
	c.mu.Lock()
	defer c.mu.Unlock()
	el, ok := c.byKey[key]
	if !ok {
		return nil
	}
	e := el.Value.(*certEntry)
	if now.After(e.end) {
		c.drop(el)
		return nil
	}
	c.order.MoveToFront(el)
	return e.response
}

func (c *certCache) put(e *certEntry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.byKey[e.key]; ok {
		return
	}
	c.byKey[e.key] = c.order.PushFront(e)
	if c.order.Len() > certCacheSize {
		c.drop(c.order.Back())
	}
}

// drop. Precondition: c.mu is held.
func (c *certCache) drop(el *list.Element) {
	delete(c.byKey, c.order.Remove(el).(*certEntry).key)
}
