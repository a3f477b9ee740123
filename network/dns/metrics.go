package dns

import (
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the server's, under CoreDNS' names and labels, so that its dashboards and alerts work unchanged.
type metrics struct {
	requests  *prometheus.CounterVec
	responses *prometheus.CounterVec
	took      prometheus.Observer
	hits      *prometheus.CounterVec
	misses    prometheus.Counter
	all       []prometheus.Collector
}

func newMetrics(entries func() int) *metrics {
	server := prometheus.Labels{"server": "dns://:53", "zone": ".", "view": ""}
	cache := prometheus.Labels{"server": "dns://:53", "zones": ".", "view": ""}
	took := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "coredns_dns_request_duration_seconds", ConstLabels: server,
		Help: "Histogram of the time (in seconds) each request took per zone.", Buckets: prometheus.ExponentialBuckets(0.00025, 2, 16)})
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "coredns_dns_requests_total", ConstLabels: server,
			Help: "Counter of DNS requests made per zone, protocol and family."}, []string{"proto", "family", "type"}),
		responses: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "coredns_dns_responses_total", ConstLabels: server,
			Help: "Counter of response status codes."}, []string{"rcode", "plugin"}),
		took: took,
		hits: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "coredns_cache_hits_total", ConstLabels: cache,
			Help: "The count of cache hits."}, []string{"type"}),
		misses: prometheus.NewCounter(prometheus.CounterOpts{Name: "coredns_cache_misses_total", ConstLabels: cache,
			Help: "The count of cache misses."}),
	}
	size := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "coredns_cache_entries", ConstLabels: cache,
		Help: "The number of elements in the cache."}, func() float64 { return float64(entries()) })
	m.all = []prometheus.Collector{m.requests, m.responses, took, m.hits, m.misses, size}
	return m
}

// Collectors are the server's metrics, for whoever serves them.
func (s *Server) Collectors() []prometheus.Collector { return s.metrics.all }

// answered counts one message and its answer.
func (m *metrics) answered(network string, six bool, q, a *dns.Msg, took time.Duration) {
	family, plugin, kind := "1", "forward", "other"
	if six {
		family = "2"
	}
	if a.Authoritative {
		plugin = "kubernetes"
	}
	if len(q.Question) == 1 {
		if name, known := counted[q.Question[0].Qtype]; known { // a label of the client's choosing would be without bound
			kind = name
		}
	}
	m.requests.WithLabelValues(network, family, kind).Inc()
	rcode, known := dns.RcodeToString[a.Rcode]
	if !known {
		rcode = "other"
	}
	m.responses.WithLabelValues(rcode, plugin).Inc()
	m.took.Observe(took.Seconds())
}

// counted are the types of records that are counted by name.
var counted = map[uint16]string{
	dns.TypeA: "A", dns.TypeAAAA: "AAAA", dns.TypeCNAME: "CNAME", dns.TypeDS: "DS", dns.TypeDNSKEY: "DNSKEY", dns.TypeHTTPS: "HTTPS",
	dns.TypeMX: "MX", dns.TypeNS: "NS", dns.TypePTR: "PTR", dns.TypeSOA: "SOA", dns.TypeSRV: "SRV", dns.TypeSVCB: "SVCB", dns.TypeTXT: "TXT",
}

// cached counts a look into the cache; m is what it held, if that is still good.
func (m *metrics) cached(answer *dns.Msg, fresh bool) {
	switch {
	case !fresh:
		m.misses.Inc()
	case answer.Rcode == dns.RcodeSuccess && len(answer.Answer) > 0:
		m.hits.WithLabelValues("success").Inc()
	default:
		m.hits.WithLabelValues("denial").Inc()
	}
}
