package proxy

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics are the proxy's own, under kube-proxy's names.
type metrics struct {
	registry *prometheus.Registry
	took     prometheus.Histogram
	last     prometheus.Gauge
	failures prometheus.Counter
	changes  prometheus.Counter
}

func newMetrics() *metrics {
	family := prometheus.Labels{"ip_family": "IPv4"}
	m := &metrics{
		registry: prometheus.NewRegistry(),
		took: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "kubeproxy_sync_proxy_rules_duration_seconds", ConstLabels: family,
			Help: "SyncProxyRules latency in seconds", Buckets: prometheus.ExponentialBuckets(0.001, 2, 15)}),
		last: prometheus.NewGauge(prometheus.GaugeOpts{Name: "kubeproxy_sync_proxy_rules_last_timestamp_seconds", ConstLabels: family,
			Help: "The last time proxy rules were successfully synced"}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{Name: "kubeproxy_sync_proxy_rules_iptables_restore_failures_total", ConstLabels: family,
			Help: "Cumulative proxy iptables restore failures"}),
		changes: prometheus.NewCounter(prometheus.CounterOpts{Name: "kubeproxy_sync_proxy_rules_service_changes_total",
			Help: "Cumulative proxy rules Service changes"}),
	}
	m.registry.MustRegister(m.took, m.last, m.failures, m.changes,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) synced(began time.Time, err error) {
	m.took.Observe(time.Since(began).Seconds())
	if err != nil {
		m.failures.Inc()
		return
	}
	m.last.SetToCurrentTime()
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}
