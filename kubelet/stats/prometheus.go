package stats

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// scrapeTimeout bounds the questions to the runtime for one scrape.
const scrapeTimeout = 10 * time.Second

// collector turns one reading into metrics. It describes nothing in advance, since its series come and go with pods.
type collector struct {
	s    *Source
	emit func(s *Source, pods []pod, out *metrics)
}

// Resource collects the page /metrics/resource, which metrics-server reads.
func (s *Source) Resource() prometheus.Collector { return collector{s, resources} }

// CAdvisor collects the page /metrics/cadvisor.
func (s *Source) CAdvisor() prometheus.Collector { return collector{s, cadvisor} }

// Describe implements prometheus.Collector.
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	out := &metrics{ch: ch}
	pods, err := c.s.read(ctx)
	failed := 0.0
	if err != nil {
		failed = 1
	}
	out.gauge("scrape_error", "1 if there was an error while getting container metrics, 0 otherwise", failed, time.Time{}, nil)
	out.gauge("resource_scrape_error", "1 if there was an error while getting container metrics, 0 otherwise", failed, time.Time{}, nil)
	c.emit(c.s, pods, out)
}

type metrics struct{ ch chan<- prometheus.Metric }

type labels = prometheus.Labels

func (m *metrics) send(kind prometheus.ValueType, name, help string, v float64, at time.Time, l labels) {
	metric, err := prometheus.NewConstMetric(prometheus.NewDesc(name, help, nil, l), kind, v)
	if err != nil {
		return // a label that is not UTF-8 spoils one series, not the page
	}
	if !at.IsZero() {
		metric = prometheus.NewMetricWithTimestamp(at, metric)
	}
	m.ch <- metric
}

func (m *metrics) gauge(name, help string, v float64, at time.Time, l labels) {
	m.send(prometheus.GaugeValue, name, help, v, at, l)
}

func (m *metrics) counter(name, help string, v float64, at time.Time, l labels) {
	m.send(prometheus.CounterValue, name, help, v, at, l)
}

func seconds(nano uint64) float64 { return float64(nano) / 1e9 }

func resources(s *Source, pods []pod, out *metrics) {
	n := s.node()
	out.counter("node_cpu_usage_seconds_total", "Cumulative cpu time consumed by the node in core-seconds", seconds(n.cpuNano), n.at, nil)
	out.gauge("node_memory_working_set_bytes", "Current working set of the node in bytes", float64(n.working), n.at, nil)
	for _, p := range pods {
		l := labels{"namespace": p.namespace, "pod": p.name}
		out.counter("pod_cpu_usage_seconds_total", "Cumulative cpu time consumed by the pod in core-seconds", seconds(p.cpuNano), p.at, l)
		out.gauge("pod_memory_working_set_bytes", "Current working set of the pod in bytes", float64(p.working), p.at, l)
		for _, c := range p.containers {
			l := labels{"namespace": p.namespace, "pod": p.name, "container": c.name}
			out.counter("container_cpu_usage_seconds_total", "Cumulative cpu time consumed by the container in core-seconds", seconds(c.cpuNano), c.at, l)
			out.gauge("container_memory_working_set_bytes", "Current working set of the container in bytes", float64(c.working), c.at, l)
			if !c.started.IsZero() {
				out.gauge("container_start_time_seconds", "Start time of the container since unix epoch in seconds", float64(c.started.UnixNano())/1e9, time.Time{}, l)
			}
		}
	}
}

func cadvisor(s *Source, pods []pod, out *metrics) {
	n := s.node()
	one := func(u usage, l labels) {
		cpu := labels{"cpu": "total"}
		for k, v := range l {
			cpu[k] = v
		}
		out.counter("container_cpu_usage_seconds_total", "Cumulative cpu time consumed in seconds.", seconds(u.cpuNano), u.at, cpu)
		out.gauge("container_memory_working_set_bytes", "Current working set in bytes.", float64(u.working), u.at, l)
		out.gauge("container_memory_usage_bytes", "Current memory usage in bytes, including all memory regardless of when it was accessed", float64(u.memory), u.at, l)
		out.gauge("container_memory_rss", "Size of RSS in bytes.", float64(u.rss), u.at, l)
	}
	series := func(namespace, pod, container, image, id, name string) labels {
		return labels{"namespace": namespace, "pod": pod, "container": container, "image": image, "id": id, "name": name}
	}
	one(n, series("", "", "", "", "/", ""))
	for _, p := range pods {
		l := series(p.namespace, p.name, "", "", "/kubepods/pod"+p.uid, p.id)
		one(p.usage, l)
		if p.hasNet {
			net := labels{"interface": p.iface}
			for k, v := range l {
				net[k] = v
			}
			out.counter("container_network_receive_bytes_total", "Cumulative count of bytes received", float64(p.rx), p.at, net)
			out.counter("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", float64(p.tx), p.at, net)
			out.counter("container_network_receive_errors_total", "Cumulative count of errors encountered while receiving", float64(p.rxErrs), p.at, net)
			out.counter("container_network_transmit_errors_total", "Cumulative count of errors encountered while transmitting", float64(p.txErrs), p.at, net)
		}
		for _, c := range p.containers {
			l := series(p.namespace, p.name, c.name, c.image, "/kubepods/pod"+p.uid+"/"+c.id, c.id)
			one(c.usage, l)
			if c.hasDisk {
				out.gauge("container_fs_usage_bytes", "Number of bytes that are consumed by the container on this filesystem.", float64(c.disk), c.at, l)
			}
			if !c.started.IsZero() {
				out.gauge("container_start_time_seconds", "Start time of the container since unix epoch in seconds.", float64(c.started.UnixNano())/1e9, time.Time{}, l)
			}
		}
	}
}
