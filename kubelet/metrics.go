package kubelet

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// metrics are the kubelet's own, under the names that dashboards know.
type metrics struct {
	registry *prometheus.Registry
	calls    *prometheus.CounterVec
	errors   *prometheus.CounterVec
	took     *prometheus.HistogramVec
	syncs    *prometheus.HistogramVec
}

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kubelet_runtime_operations_total", Help: "CRI calls by operation.",
		}, []string{"operation_type"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kubelet_runtime_operations_errors_total", Help: "Failed CRI calls by operation.",
		}, []string{"operation_type"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "kubelet_runtime_operations_duration_seconds", Help: "Duration of CRI calls.",
			Buckets: prometheus.ExponentialBuckets(.0005, 2.5, 14),
		}, []string{"operation_type"}),
		syncs: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "kubelet_pod_worker_duration_seconds", Help: "Duration of one look at a pod.",
			Buckets: prometheus.ExponentialBuckets(.0005, 2.5, 14),
		}, []string{"operation_type"}),
	}
	m.registry.MustRegister(m.calls, m.errors, m.took, m.syncs,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) criCall(method string, took time.Duration, err error) {
	m.calls.WithLabelValues(method).Inc()
	m.took.WithLabelValues(method).Observe(took.Seconds())
	if err != nil {
		m.errors.WithLabelValues(method).Inc()
	}
}

func (m *metrics) sync(what string, took time.Duration) {
	m.syncs.WithLabelValues(what).Observe(took.Seconds())
}
