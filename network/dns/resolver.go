package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// Resolver asks upstream servers. Safe for concurrent use.
type Resolver struct {
	conf  string // resolv.conf
	self  []netip.Addr
	cache *answers
	slots chan struct{} // questions under way
	rules atomic.Pointer[Settings]
	// looked is told of each look into the cache: what was found, and whether it is still good.
	looked func(m *dns.Msg, fresh bool)

	mu      sync.Mutex
	servers []string // host:port
	read    time.Time
	bad     map[string]time.Time // servers that failed -> until when they come last
	flights map[cacheKey]*flight
}

// flight is a question under way; whoever asks the same waits for it.
type flight struct {
	done chan struct{}
	m    *dns.Msg
	err  error
}

const (
	answerWithin = 1900 * time.Millisecond // what a client waits at most
	tryFor       = 600 * time.Millisecond  // what one server gets
	badFor       = 10 * time.Second
	rereadAfter  = 5 * time.Second
)

var errNoServer = errors.New("no upstream server: resolv.conf names none but ourselves")

func newResolver(conf string, self []netip.Addr, entries, underWay int, now func() time.Time) *Resolver {
	r := &Resolver{conf: conf, self: self, cache: newAnswers(entries, now), slots: make(chan struct{}, underWay), bad: map[string]time.Time{},
		flights: map[cacheKey]*flight{}, looked: func(*dns.Msg, bool) {}}
	r.rules.Store(&Settings{})
	return r
}

// use puts settings in force. What others answered before is forgotten. Servers that are ourselves are left out: the question would come back.
func (r *Resolver) use(settings Settings) {
	own := func(server string) bool {
		a, err := netip.ParseAddrPort(server)
		return err == nil && a.Port() == 53 && contains(r.self, a.Addr())
	}
	clean := Settings{forward: map[string][]string{}}
	for zone, servers := range settings.forward {
		if others := slices.DeleteFunc(slices.Clone(servers), own); len(others) > 0 {
			clean.forward[zone] = others
		}
	}
	r.rules.Store(&clean)
	r.cache.drop()
}

// Resolve answers from the cache or asks; within two seconds it returns an answer, an expired one, or an error.
func (r *Resolver) Resolve(ctx context.Context, q *dns.Msg) (*dns.Msg, error) {
	k := keyOf(q)
	m, fresh := r.cache.get(k)
	r.looked(m, fresh)
	if fresh {
		return m, nil
	}
	stale := m
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	m, err := r.shared(ctx, k, q)
	if err != nil && stale != nil {
		return stale, nil
	}
	return m, err
}

// shared lets one of those who ask the same go, and gives all its answer.
func (r *Resolver) shared(ctx context.Context, k cacheKey, q *dns.Msg) (*dns.Msg, error) {
	r.mu.Lock()
	f := r.flights[k]
	if f != nil {
		r.mu.Unlock()
		select {
		case <-f.done:
			if f.err != nil {
				return nil, f.err
			}
			return f.m.Copy(), nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	f = &flight{done: make(chan struct{})}
	r.flights[k] = f
	r.mu.Unlock()
	f.m, f.err = r.limited(ctx, q)
	if f.err == nil {
		r.cache.put(k, f.m)
	}
	r.mu.Lock()
	delete(r.flights, k)
	r.mu.Unlock()
	close(f.done)
	if f.err != nil {
		return nil, f.err
	}
	return f.m.Copy(), nil
}

func (r *Resolver) limited(ctx context.Context, q *dns.Msg) (*dns.Msg, error) {
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	default:
		return nil, errors.New("too many questions under way")
	}
	servers := r.rules.Load().servers(strings.ToLower(q.Question[0].Name))
	if len(servers) == 0 {
		servers = r.upstreams()
	}
	if len(servers) == 0 {
		return nil, errNoServer
	}
	var err error
	for ctx.Err() == nil { // around until the time is up: a lost packet is not an answer
		for _, s := range servers {
			var m *dns.Msg
			if m, err = exchange(ctx, q, s); err == nil {
				return m, nil
			}
			r.fail(s)
			if ctx.Err() != nil {
				break
			}
		}
		if !timeout(err) { // refused or unreachable: asking again at once changes nothing
			break
		}
	}
	return nil, err
}

func timeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

// exchange asks one server, by UDP from a port of its own and, when the answer is cut, by TCP.
func exchange(ctx context.Context, q *dns.Msg, server string) (*dns.Msg, error) {
	up := q.Copy()
	up.Id = dns.Id()
	up.RecursionDesired = true
	if o := up.IsEdns0(); o != nil {
		o.SetUDPSize(1232)
		o.Option = nil // cookies and the client's network are between client and us
	} else {
		up.SetEdns0(1232, false)
	}
	ctx, cancel := context.WithTimeout(ctx, tryFor)
	defer cancel()
	m, _, err := (&dns.Client{Net: "udp", UDPSize: 1232}).ExchangeContext(ctx, up, server)
	if err == nil && m.Truncated {
		m, _, err = (&dns.Client{Net: "tcp"}).ExchangeContext(ctx, up, server)
	}
	if err != nil {
		return nil, fmt.Errorf("upstream %s: %w", server, err)
	}
	if len(m.Question) != 1 || !strings.EqualFold(m.Question[0].Name, up.Question[0].Name) || m.Question[0].Qtype != up.Question[0].Qtype {
		return nil, fmt.Errorf("upstream %s: answer to another question", server)
	}
	if m.Rcode == dns.RcodeServerFailure || m.Rcode == dns.RcodeRefused {
		return nil, fmt.Errorf("upstream %s: %s", server, dns.RcodeToString[m.Rcode])
	}
	return m, nil
}

func (r *Resolver) fail(server string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bad[server] = time.Now().Add(badFor)
}

// upstreams lists the servers, those that failed lately last. The file is read again when it is older than a few seconds: it is
// small, and on a laptop it changes with the network.
func (r *Resolver) upstreams() []string {
	r.mu.Lock()
	due := time.Since(r.read) > rereadAfter
	if due {
		r.read = time.Now()
	}
	r.mu.Unlock()
	if due {
		servers, err := readConf(r.conf, r.self)
		r.mu.Lock()
		if err == nil || r.servers == nil {
			r.servers = servers
		}
		r.mu.Unlock()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var good, bad []string
	for _, s := range r.servers {
		if time.Now().Before(r.bad[s]) {
			bad = append(bad, s)
		} else {
			good = append(good, s)
		}
	}
	return append(good, bad...)
}

// readConf reads the nameservers of a resolv.conf, leaving out ourselves.
func readConf(path string, self []netip.Addr) ([]string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("dns: %w", err)
	}
	var out []string
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		host, port, err := net.SplitHostPort(f[1]) // also host:port, for tests and odd resolvers
		if err != nil {
			host, port = f[1], "53"
		}
		a, err := netip.ParseAddr(host)
		if err != nil || (port == "53" && contains(self, a)) {
			continue
		}
		out = append(out, net.JoinHostPort(host, port))
	}
	return out, nil
}

func contains(list []netip.Addr, a netip.Addr) bool {
	for _, s := range list {
		if s == a {
			return true
		}
	}
	return false
}
