package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// Config says where the server listens and whom it asks.
type Config struct {
	Listen     []netip.AddrPort // UDP and TCP; the kube-dns address with port 53, which must be on a link of the node
	Domain     string           // default cluster.local
	Ranges     []netip.Prefix   // pods and Services: names of their addresses are asked of nobody else
	ResolvConf string           // the node's upstream servers; default /etc/resolv.conf
	TTL        uint32           // of the cluster's records, seconds; default 5
	CacheSize  int              // answers kept; default 10000
	UnderWay   int              // questions to upstream servers at a time; default 1000
	PerClient  int              // of those, for one client; default 200
	Log        *slog.Logger     // optional
	Now        func() time.Time // default time.Now; the cache's clock
}

// Server is the cluster's DNS server. Run it once.
type Server struct {
	cfg      Config
	domain   string // with the dot at its end
	zone     *Zone
	resolver *Resolver
	metrics  *metrics
	settings atomic.Pointer[Settings]

	mu      sync.Mutex
	clients map[netip.Addr]int // upstream questions under way
}

// New returns a server for the zone.
func New(cfg Config, zone *Zone) (*Server, error) {
	if cfg.Domain == "" {
		cfg.Domain = "cluster.local"
	}
	if _, ok := dns.IsDomainName(cfg.Domain); !ok {
		return nil, fmt.Errorf("dns: %q is no domain name", cfg.Domain)
	}
	if len(cfg.Listen) == 0 {
		return nil, errors.New("dns: no address to listen on")
	}
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	def(&cfg.CacheSize, 10000)
	def(&cfg.UnderWay, 1000)
	def(&cfg.PerClient, 200)
	if cfg.TTL == 0 {
		cfg.TTL = 5
	}
	if cfg.ResolvConf == "" {
		cfg.ResolvConf = "/etc/resolv.conf"
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	var self []netip.Addr
	for _, l := range cfg.Listen {
		self = append(self, l.Addr())
	}
	s := &Server{cfg: cfg, domain: strings.ToLower(dns.Fqdn(cfg.Domain)), zone: zone, clients: map[netip.Addr]int{},
		resolver: newResolver(cfg.ResolvConf, self, cfg.CacheSize, cfg.UnderWay, cfg.Now)}
	s.metrics = newMetrics(s.resolver.cache.size)
	s.resolver.looked = s.metrics.cached
	s.Use(Settings{})
	return s, nil
}

// Use puts settings in force, from the next question on. Safe for concurrent use.
func (s *Server) Use(settings Settings) {
	s.settings.Store(&settings)
	s.resolver.use(settings)
}

// Run answers until ctx ends. It fails at once when an address cannot be had.
func (s *Server) Run(ctx context.Context) error {
	var servers []*dns.Server
	lc := net.ListenConfig{Control: reuse}
	for _, at := range s.cfg.Listen {
		pc, err := lc.ListenPacket(ctx, "udp", at.String())
		if err != nil {
			return s.refused(servers, at, err)
		}
		servers = append(servers, &dns.Server{PacketConn: pc, Handler: s.handler(ctx), UDPSize: 4096})
		l, err := lc.Listen(ctx, "tcp", at.String())
		if err != nil {
			return s.refused(servers, at, err)
		}
		servers = append(servers, &dns.Server{Listener: l, Handler: s.handler(ctx), ReadTimeout: 5 * time.Second,
			IdleTimeout: func() time.Duration { return 10 * time.Second }, MaxTCPQueries: 1000})
	}
	failed := make(chan error, len(servers))
	var wg sync.WaitGroup
	for _, srv := range servers {
		wg.Go(func() { failed <- srv.ActivateAndServe() })
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
		err = fmt.Errorf("dns: %w", err)
	}
	for _, srv := range servers {
		stop(srv)
	}
	wg.Wait()
	return err
}

// stop closes a server's socket, whether or not it got round to serving.
func stop(srv *dns.Server) {
	end, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = srv.ShutdownContext(end)
	if srv.PacketConn != nil {
		srv.PacketConn.Close()
	}
	if srv.Listener != nil {
		srv.Listener.Close()
	}
}

func (s *Server) refused(servers []*dns.Server, at netip.AddrPort, err error) error {
	for _, srv := range servers {
		stop(srv)
	}
	return fmt.Errorf("dns: listen on %s: %w (is another DNS server bound to every address of the node?)", at, err)
}

// reuse lets us have our own address beside a server that is bound to all addresses and allows it.
func reuse(_, _ string, c syscall.RawConn) error {
	var err error
	if cerr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) }); cerr != nil {
		return cerr
	}
	return err
}

func (s *Server) handler(ctx context.Context) dns.Handler {
	return dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		if q.Response {
			return
		}
		began, client := time.Now(), clientOf(w.RemoteAddr())
		m := s.Answer(ctx, client, q)
		s.metrics.answered(w.RemoteAddr().Network(), client.Is6(), q, m, time.Since(began))
		fit(m, q, w.RemoteAddr().Network())
		if err := w.WriteMsg(m); err != nil {
			s.cfg.Log.Debug("an answer was not sent", "to", w.RemoteAddr(), "error", err)
		}
	})
}

func clientOf(a net.Addr) netip.Addr {
	ap, _ := netip.ParseAddrPort(a.String())
	return ap.Addr().Unmap()
}

// Answer answers one message. It always returns an answer, within two seconds.
func (s *Server) Answer(ctx context.Context, client netip.Addr, q *dns.Msg) *dns.Msg {
	switch {
	case q.Opcode != dns.OpcodeQuery:
		return failure(q, dns.RcodeNotImplemented)
	case len(q.Question) != 1:
		return failure(q, dns.RcodeFormatError)
	case q.Question[0].Qclass != dns.ClassINET || q.Question[0].Qtype == dns.TypeAXFR || q.Question[0].Qtype == dns.TypeIXFR:
		return failure(q, dns.RcodeRefused)
	}
	m, chase, handled := s.local(q.Question[0])
	if !handled {
		up, err := s.ask(ctx, client, q)
		if err != nil {
			s.cfg.Log.Debug("no answer from upstream", "name", q.Question[0].Name, "error", err)
			return failure(q, dns.RcodeServerFailure)
		}
		m = up
		m.Authoritative = false
	} else if chase != "" {
		s.chase(ctx, client, q, m, chase)
	}
	return reply(q, m)
}

// chase adds what an ExternalName leads to.
func (s *Server) chase(ctx context.Context, client netip.Addr, q, m *dns.Msg, target string) {
	next := q.Copy()
	next.Question[0].Name = target
	found, again, handled := s.local(next.Question[0])
	if !handled {
		var err error
		if found, err = s.ask(ctx, client, next); err != nil {
			m.Rcode = dns.RcodeServerFailure
			return
		}
	}
	if again == "" { // one step inside the cluster is enough: an ExternalName that leads to another is left to the client
		m.Answer = append(m.Answer, found.Answer...)
		m.Rcode = found.Rcode
	}
}

// ask asks upstream, within the client's share.
func (s *Server) ask(ctx context.Context, client netip.Addr, q *dns.Msg) (*dns.Msg, error) {
	s.mu.Lock()
	if s.clients[client] >= s.cfg.PerClient {
		s.mu.Unlock()
		return nil, errors.New("this client has too many questions under way")
	}
	s.clients[client]++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.clients[client]--; s.clients[client] == 0 {
			delete(s.clients, client)
		}
	}()
	return s.resolver.Resolve(ctx, q)
}

// reply makes m the answer to q: its ID, and the question exactly as it was written (0x20).
func reply(q, m *dns.Msg) *dns.Msg {
	rcode, aa := m.Rcode, m.Authoritative
	m.SetReply(q)
	m.Rcode, m.Authoritative, m.RecursionAvailable, m.Compress = rcode, aa, true, true
	for _, rr := range m.Answer {
		if h := rr.Header(); strings.EqualFold(h.Name, q.Question[0].Name) {
			h.Name = q.Question[0].Name
		}
	}
	return m
}

func failure(q *dns.Msg, rcode int) *dns.Msg {
	m := &dns.Msg{}
	m.SetRcode(q, rcode)
	m.RecursionAvailable = true
	return m
}

// fit cuts the answer to what the client can take and answers EDNS with EDNS.
func fit(m, q *dns.Msg, network string) {
	m.Extra = withoutOPT(m.Extra)
	size := dns.MinMsgSize
	if o := q.IsEdns0(); o != nil {
		size = min(max(int(o.UDPSize()), dns.MinMsgSize), 1232)
		m.SetEdns0(1232, o.Do())
	}
	if network == "tcp" {
		size = dns.MaxMsgSize
	}
	m.Truncate(size)
}

func withoutOPT(rrs []dns.RR) []dns.RR {
	out := rrs[:0]
	for _, rr := range rrs {
		if rr.Header().Rrtype != dns.TypeOPT {
			out = append(out, rr)
		}
	}
	return out
}
