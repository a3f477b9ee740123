package kubelet

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"keelson.dev/keelson/kubelet/podworker"
)

// metrics are the kubelet's own, under the names that dashboards know.
type metrics struct {
	registry *prometheus.Registry
	calls    *prometheus.CounterVec
	errors   *prometheus.CounterVec
	took     *prometheus.HistogramVec
	syncs    *prometheus.HistogramVec
	starts   prometheus.Histogram
	startSLI prometheus.Histogram
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
	m.starts = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "kubelet_pod_start_total_duration_seconds", Help: "From first sight of a pod to all of its containers running, pulls included.",
		Buckets: prometheus.ExponentialBuckets(.01, 2, 16),
	})
	m.startSLI = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "kubelet_pod_start_sli_duration_seconds", Help: "From a pod's creation to all of its containers running, pulls and init containers not counted.",
		Buckets: []float64{0.5, 1, 2, 3, 4, 5, 6, 8, 10, 20, 30, 45, 60, 120, 180, 240, 300, 360, 480, 600, 900, 1200, 1800, 2700, 3600},
	})
	m.registry.MustRegister(m.starts, m.startSLI, m.calls, m.errors, m.took, m.syncs,
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

// gauges are counted when asked for. It implements prometheus.Collector.
type gauges struct{ k *Kubelet }

// Describe implements prometheus.Collector.
func (gauges) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (g gauges) Collect(ch chan<- prometheus.Metric) {
	send := func(name, help string, v float64, labels prometheus.Labels) {
		if m, err := prometheus.NewConstMetric(prometheus.NewDesc(name, help, nil, labels), prometheus.GaugeValue, v); err == nil {
			ch <- m
		}
	}
	pods, states := 0, map[string]int{"created": 0, "running": 0, "exited": 0, "unknown": 0}
	g.k.parts.workers.Each(func(_ podworker.Request, s podworker.State) {
		if s == podworker.Syncing || s == podworker.Terminating {
			pods++
		}
	})
	for _, c := range g.k.parts.cache.Known() {
		states[c.State.String()]++
	}
	send("kubelet_running_pods", "Number of pods that have a running pod sandbox", float64(pods), nil)
	for s, n := range states {
		send("kubelet_running_containers", "Number of containers by state", float64(n), prometheus.Labels{"container_state": s})
	}
	send("kubelet_node_name", "The node's name. The count is always 1.", 1, prometheus.Labels{"node": g.k.cfg.Node.Name})
}
