package dns

import (
	"container/list"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// cacheKey is a question as a resolver sees it.
type cacheKey struct {
	name   string // lower case
	typ    uint16
	class  uint16
	dnssec bool // DO: the answer has signatures
	check  bool // CD: the answer was not validated
}

func keyOf(m *dns.Msg) cacheKey {
	q := m.Question[0]
	k := cacheKey{name: strings.ToLower(q.Name), typ: q.Qtype, class: q.Qclass, check: m.CheckingDisabled}
	if o := m.IsEdns0(); o != nil {
		k.dnssec = o.Do()
	}
	return k
}

type cached struct {
	key     cacheKey
	msg     *dns.Msg // never changed; copied out
	at      time.Time
	expires time.Time
}

// answers keeps the answers of upstream servers, the least recently used leaving first. Safe for concurrent use.
type answers struct {
	limit int
	now   func() time.Time

	mu    sync.Mutex
	m     map[cacheKey]*list.Element
	order *list.List // of *cached, front = used last
}

// The bounds of what a TTL may say, and how long an expired answer may still serve when nobody answers (RFC 8767).
const (
	maxTTL      = time.Hour
	maxNegative = 30 * time.Second
	staleFor    = 24 * time.Hour
	staleTTL    = 5 // seconds
)

func newAnswers(limit int, now func() time.Time) *answers {
	return &answers{limit: limit, now: now, m: map[cacheKey]*list.Element{}, order: list.New()}
}

// size is how many answers there are.
func (c *answers) size() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.order.Len()
}

// get returns a copy of an answer with its remaining TTL; fresh is false for one that has expired but may serve in need.
func (c *answers) get(k cacheKey) (m *dns.Msg, fresh bool) {
	c.mu.Lock()
	e := c.m[k]
	if e == nil {
		c.mu.Unlock()
		return nil, false
	}
	c.order.MoveToFront(e)
	it := e.Value.(*cached)
	c.mu.Unlock()
	now := c.now()
	if now.Sub(it.expires) > staleFor {
		return nil, false
	}
	m, fresh = it.msg.Copy(), now.Before(it.expires)
	age := uint32(now.Sub(it.at) / time.Second)
	for _, rr := range append(append(m.Answer[:len(m.Answer):len(m.Answer)], m.Ns...), m.Extra...) {
		h := rr.Header()
		switch {
		case h.Rrtype == dns.TypeOPT:
		case !fresh:
			h.Ttl = staleTTL
		default:
			h.Ttl = max(min(h.Ttl, uint32(maxTTL/time.Second)), age+1) - age
		}
	}
	return m, fresh
}

// drop forgets everything.
func (c *answers) drop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.m)
	c.order.Init()
}

// put keeps an answer for as long as its records allow.
func (c *answers) put(k cacheKey, m *dns.Msg) {
	ttl := lifetime(m)
	if ttl <= 0 {
		return
	}
	now := c.now()
	it := &cached{key: k, msg: m.Copy(), at: now, expires: now.Add(ttl)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.m[k]; e != nil {
		e.Value = it
		c.order.MoveToFront(e)
		return
	}
	c.m[k] = c.order.PushFront(it)
	for c.order.Len() > c.limit {
		last := c.order.Back()
		delete(c.m, last.Value.(*cached).key)
		c.order.Remove(last)
	}
}

func lifetime(m *dns.Msg) time.Duration {
	if m.Truncated || (m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError) {
		return 0
	}
	ttl := maxTTL
	if len(m.Answer) == 0 {
		ttl = maxNegative
		for _, rr := range m.Ns {
			if soa, ok := rr.(*dns.SOA); ok {
				ttl = min(ttl, time.Duration(min(soa.Minttl, soa.Hdr.Ttl))*time.Second)
			}
		}
		return ttl
	}
	for _, rr := range m.Answer {
		ttl = min(ttl, time.Duration(rr.Header().Ttl)*time.Second)
	}
	return ttl
}
